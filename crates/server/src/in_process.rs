//! Calls inside the process: what a generated client needs instead of a connection.
//!
//! What this is not: a way around anything. A call goes through the interceptor, the limits and the
//! permission checks of one that came over the wire; only the wire is missing.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tower::Service;
use transport::{PeerInfo, RemoteAddr};

use crate::EtcdServer;
use crate::v3rpc::GrpcServices;

/// A member's services, called directly. Cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    grpc: GrpcServices,
    peer: Arc<PeerInfo>,
}

impl InProcess {
    /// Calls this member.
    #[must_use]
    pub fn new(server: EtcdServer) -> Self {
        let peer = PeerInfo {
            remote: RemoteAddr::Unix,
            tls: false,
            certificate: None,
        };
        Self {
            grpc: GrpcServices::new(server),
            peer: Arc::new(peer),
        }
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for InProcess {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.peer));
        let grpc = self.grpc.clone();
        Box::pin(async move { Ok(grpc.call(request).await) })
    }
}

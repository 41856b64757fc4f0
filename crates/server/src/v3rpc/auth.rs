//! The Auth service. Only the question whether authentication is on is built yet: it is not.

use api::encoded::etcdserverpb::auth_server::Auth;
use api::etcdserverpb::{AuthStatusRequest, AuthStatusResponse};
use tonic::{Request, Response, Status, async_trait};

use crate::EtcdServer;

/// The revision of an auth store that was never changed.
const AUTH_REVISION: u64 = 1;

/// Serves authentication.
pub(crate) struct AuthService {
    server: EtcdServer,
}

impl AuthService {
    /// Serves the member's authentication.
    pub(crate) fn new(server: EtcdServer) -> Self {
        Self { server }
    }
}

#[async_trait]
impl Auth for AuthService {
    async fn auth_status(
        &self,
        _request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        Ok(Response::new(AuthStatusResponse {
            header: Some(self.server.header()),
            enabled: false,
            auth_revision: AUTH_REVISION,
        }))
    }
}

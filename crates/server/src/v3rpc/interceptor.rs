//! Every gRPC call passes here: it finds its service, is checked against what its metadata asks for,
//! is counted, and is ended when it has to (`server/etcdserver/api/v3rpc/interceptor.go`).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::encoded::etcdserverpb::auth_server::AuthServer;
use api::encoded::etcdserverpb::cluster_server::ClusterServer;
use api::encoded::etcdserverpb::lease_server::LeaseServer;
use api::encoded::etcdserverpb::maintenance_server::MaintenanceServer;
use api::encoded::v3electionpb::election_server::ElectionServer;
use api::encoded::v3lockpb::lock_server::LockServer;
use api::rpctypes::ErrorCode;
use apply::Access;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{self, Either};
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Full};
use http2::Reply;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::StdError;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::Service;
use transport::PeerInfo;

use super::auth::{AuthService, Credentials};
use super::cluster::ClusterService;
use super::deadline;
use super::election::ElectionService;
use super::health::HealthService;
use super::kv::{Keys, KvService};
use super::lease::LeaseService;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::metadata::CallMetadata;
use super::methods::{self, Admits, Learner, METHODS, Method, MethodKind};
use super::v3client::V3Client;
use super::watch::{WatchService, Watches};
use super::{reflection, unary};
use crate::body::{RequestBody, ResponseBody, StreamEnd, ToldCall, observe_message, status_code};
use crate::call::Call;
use crate::corrupt::is_fenced;
use crate::framing;
use crate::metrics::CallMetrics;
use crate::{EtcdServer, SlowRequests};

/// What a gRPC message may be larger than the request in it.
const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;
/// What a client may compress its messages with. Answers are not compressed, which it has to be ready for.
pub(super) const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
/// What grpc-go says of a request whose client waits no longer.
const DEADLINE_EXCEEDED: ErrorCode = ErrorCode::NotProposed;

/// All services of a member. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GrpcServices {
    services: Arc<Services>,
}

struct Services {
    server: EtcdServer,
    message_bytes_max: usize,
    /// KV, for the calls that are answered without tonic ...
    keys: Arc<KvService>,
    /// ... and for the others.
    kv: Keys,
    watch: Watches,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    health: HealthServer<HealthService>,
    /// `None` if it is not asked for.
    reflection: Option<Routes>,
}

impl GrpcServices {
    /// The services of this member.
    pub(crate) fn new(server: EtcdServer) -> Self {
        let max = server
            .config()
            .request_bytes_max
            .saturating_add(MESSAGE_OVERHEAD_BYTES);
        // Sizes are checked on the way in (`crate::body`), in grpc-go's words; tonic's own check
        // stands behind it for what a compressed message grows to.
        let keys = KvService::new(server.clone());
        let kv = Arc::clone(&keys).serve(max);
        let watch = WatchService::new(server.clone()).serve(max);
        let lease = LeaseServer::new(LeaseService::new(server.clone())).accept_compressed(GZIP);
        let client = V3Client::new(kv.clone(), lease.clone(), watch.clone());
        let services = Services {
            keys,
            kv,
            watch,
            lease,
            lock: LockServer::new(LockService::new(server.clone(), client.clone()))
                .accept_compressed(GZIP),
            election: ElectionServer::new(ElectionService::new(server.clone(), client))
                .accept_compressed(GZIP),
            cluster: ClusterServer::new(ClusterService::new(server.clone()))
                .accept_compressed(GZIP),
            maintenance: MaintenanceServer::new(MaintenanceService::new(server.clone()))
                .accept_compressed(GZIP),
            auth: AuthServer::new(AuthService::new(server.clone())).accept_compressed(GZIP),
            health: HealthServer::new(HealthService::new(server.clone())),
            reflection: server.config().reflection.then(reflection::routes),
            message_bytes_max: max,
            server,
        };
        Self {
            services: Arc::new(services),
        }
    }

    /// Bytes that a message of a request may have.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.services.message_bytes_max
    }

    /// Answers one call of somebody in this process, or of one whose connection is beside the request.
    pub(crate) async fn call<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + Unpin + 'static,
    {
        let peer = request.extensions().get::<Arc<PeerInfo>>().cloned();
        match self.answer(request, peer.as_ref()).await {
            Reply::Response(response) => response,
            Reply::Message(message) => {
                let trailers = std::future::ready(Some(Ok(framing::ok_trailers())));
                framing::response(Body::new(Full::new(message).with_trailers(trailers)))
            }
        }
    }

    /// Answers one call of this peer.
    pub(crate) fn answer<B>(
        &self,
        request: Request<B>,
        peer: Option<&Arc<PeerInfo>>,
    ) -> impl Future<Output = Reply<Body>>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + Unpin + 'static,
    {
        let path = request.uri().path();
        if let Some(reflection) = &self.services.reflection
            && reflection::is_path(path)
        {
            let reflected = reflection.clone().call(request);
            // Larger, and for few.
            let reflected = Box::pin(reflected.map(|response| match response {
                Ok(response) => response.into(),
            }));
            return Either::Left(Either::Left(reflected));
        }
        match methods::find(path) {
            Some(index) => Either::Right(self.answer_method(index, request, peer)),
            None => {
                let unknown = Status::unimplemented(methods::unknown(path));
                let unknown = future::ready(unknown.into_http().into());
                Either::Left(Either::Right(unknown))
            }
        }
    }

    /// Answers one call of a method of the table.
    fn answer_method<B>(
        &self,
        index: usize,
        request: Request<B>,
        peer: Option<&Arc<PeerInfo>>,
    ) -> impl Future<Output = Reply<Body>>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + Unpin + 'static,
    {
        let method = &METHODS[index];
        let server = &self.services.server;
        let traces = server.config().traces.as_ref();
        let info = peer.map(|peer| &**peer);
        let span = traces.and_then(|traces| traces.begin(method, request.headers(), info));
        let metrics = server.metrics().call(index, span);
        // What is asked for stays where it is: as an argument of an async function it would be there twice.
        async move {
            let metadata = CallMetadata::of(request.headers());
            let with_certificates = server.config().client_cert_auth;
            let credentials = Credentials::of(&metadata, info, with_certificates);
            let refused = self.refused(method, &metadata, &credentials).await;
            let timeout = match refused.map_or_else(|| deadline::timeout(&metadata), Err) {
                Ok(timeout) => timeout,
                Err(refused) => {
                    metrics.finished(refused.code());
                    return refused.into_http().into();
                }
            };
            let is_unary = method.kind == MethodKind::Unary;
            let is_compressed = metadata.grpc_encoding.is_some();
            let end = (!is_unary).then(|| stream_end(server, &metadata, timeout));
            // A stream is as long as it is; a single answer is not to be.
            let clock = &server.config().clock;
            let call = is_unary.then(|| Call::begin(method.path, peer.cloned(), Arc::clone(clock)));
            let counted = |body| {
                let max = self.services.message_bytes_max;
                RequestBody::new(body, max, metrics.clone(), is_unary)
            };
            let answer = pin!(self.dispatch(
                Admitted {
                    method,
                    credentials,
                    is_compressed,
                    peer: peer.cloned(),
                },
                request.map(counted),
            ));
            let answer = pin!(within(timeout, answer));
            let (reply, told) = match call {
                Some(call) => told(call, answer, &server.config().slow).await,
                None => (answer.await, None),
            };
            observed(reply, metrics, end, told)
        }
    }

    /// Why a call is not answered.
    async fn refused(
        &self,
        method: &Method,
        metadata: &CallMetadata<'_>,
        credentials: &Credentials,
    ) -> Option<Status> {
        let server = &self.services.server;
        let sound = match is_fenced(method.path) {
            true => server.wait_sound().await,
            false => Ok(()),
        };
        let admitted = match sound.and_then(|()| admit(server, method, metadata)) {
            Ok(()) => admit_caller(server, method, credentials).await,
            Err(error) => Err(error),
        };
        admitted.err().map(Status::from)
    }

    fn dispatch<B>(
        &self,
        admitted: Admitted,
        request: Request<RequestBody<B>>,
    ) -> impl Future<Output = Reply<Body>>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + Unpin + 'static,
    {
        let Admitted {
            method,
            credentials,
            is_compressed,
            peer,
        } = admitted;
        let (mut parts, mut body) = request.into_parts();
        async move {
            if unary::is_one(method) && !is_compressed {
                let keys = &self.services.keys;
                if let Some(reply) = unary::answer(keys, method, &credentials, &mut body).await {
                    return reply;
                }
            }
            parts.extensions.insert(credentials);
            if let Some(peer) = peer {
                parts.extensions.insert(peer);
            }
            let request = Request::from_parts(parts, Body::new(body));
            // Larger, and for few.
            Box::pin(self.dispatch_to_service(method, request))
                .await
                .into()
        }
    }

    /// Every body has the same type here: of another one, every service would be compiled once more.
    async fn dispatch_to_service(&self, method: &Method, request: Request<Body>) -> Response<Body> {
        let Services {
            kv,
            watch,
            lease,
            cluster,
            maintenance,
            auth,
            lock,
            election,
            health,
            ..
        } = &*self.services;
        let response: Result<Response<Body>, Infallible> = match method.names().0 {
            "etcdserverpb.KV" => kv.clone().call(request).await,
            "etcdserverpb.Watch" => watch.clone().call(request).await,
            "etcdserverpb.Lease" => lease.clone().call(request).await,
            "etcdserverpb.Cluster" => cluster.clone().call(request).await,
            "etcdserverpb.Maintenance" => maintenance.clone().call(request).await,
            "etcdserverpb.Auth" => auth.clone().call(request).await,
            "v3lockpb.Lock" => lock.clone().call(request).await,
            "v3electionpb.Election" => election.clone().call(request).await,
            "grpc.health.v1.Health" => health.clone().call(request).await,
            other => unreachable!("the table of methods has no service {other}"),
        };
        match response {
            Ok(response) => response,
        }
    }
}

/// A call that is answered.
struct Admitted {
    method: &'static Method,
    credentials: Credentials,
    /// Its messages may be.
    is_compressed: bool,
    peer: Option<Arc<PeerInfo>>,
}

/// The reply to a call, counted when it is sent.
fn observed(
    reply: Reply<Body>,
    metrics: CallMetrics,
    end: Option<StreamEnd>,
    told: Option<ToldCall>,
) -> Reply<Body> {
    let response = match reply {
        Reply::Message(message) => {
            observe_message(&message, &metrics, told);
            return Reply::Message(message);
        }
        Reply::Response(response) => response,
    };
    if let Some(code) = status_code(response.headers()) {
        metrics.finished(code);
        return response.into();
    }
    let observed = |body| Body::new(ResponseBody::new(body, metrics, end, told));
    response.map(observed).into()
}

/// Answers a call, and says whether something is to be told about it.
async fn told(
    call: Arc<Call>,
    answer: impl Future<Output = Reply<Body>>,
    limits: &SlowRequests,
) -> (Reply<Body>, Option<ToldCall>) {
    let response = Arc::clone(&call).work(answer).await;
    let is_to_be_told = call.is_to_be_told(limits);
    let told = is_to_be_told.then(|| ToldCall::new(call, limits.clone()));
    (response, told)
}

/// Waits for a response for as long as its client does; nobody works on it after that.
async fn within(
    timeout: Option<Duration>,
    response: impl Future<Output = Reply<Body>>,
) -> Reply<Body> {
    let Some(timeout) = timeout else {
        return response.await;
    };
    match tokio::time::timeout(timeout, response).await {
        Ok(response) => response,
        Err(_elapsed) => Status::from(DEADLINE_EXCEEDED).into_http().into(),
    }
}

/// Refuses what this member cannot answer now.
fn admit(
    server: &EtcdServer,
    method: &Method,
    metadata: &CallMetadata<'_>,
) -> Result<(), ErrorCode> {
    if server.is_learner() && method.learner == Learner::Refuses {
        return Err(ErrorCode::NotSupportedForLearner);
    }
    let version = metadata.client_api_version;
    let version = version.map_or(Ok("unknown"), |version| {
        std::str::from_utf8(version.as_bytes())
            .map_err(|_not_utf8| ErrorCode::InvalidClientAPIVersion)
    })?;
    server.metrics().client_request(method.kind, version);
    if metadata.requires_leader() && server.node().status().leader.is_none() {
        return Err(ErrorCode::NoLeader);
    }
    Ok(())
}

/// Refuses who may not call this method, whatever the request.
async fn admit_caller(
    server: &EtcdServer,
    method: &Method,
    credentials: &Credentials,
) -> Result<(), ErrorCode> {
    let access = match method.admits {
        Admits::Everybody | Admits::ByRequest => return Ok(()),
        Admits::Somebody => Access::Somebody,
        Admits::Root => Access::Admin,
    };
    // Larger, and for few.
    let allowed = Box::pin(server.allow(access, credentials)).await;
    allowed.map_err(|error| error.code())
}

/// Ends a stream when the member stops, when its client waits no longer, and, if the client asked for a
/// leader, when there has been none for too long.
fn stream_end(
    server: &EtcdServer,
    metadata: &CallMetadata<'_>,
    timeout: Option<Duration>,
) -> StreamEnd {
    let end = stream_end_of_server(server, metadata);
    match timeout {
        None => end,
        Some(timeout) => Box::pin(async move {
            let end = tokio::time::timeout(timeout, end).await;
            end.unwrap_or(DEADLINE_EXCEEDED)
        }),
    }
}

fn stream_end_of_server(server: &EtcdServer, metadata: &CallMetadata<'_>) -> StreamEnd {
    let stopping = server.stopping().clone();
    if !metadata.requires_leader() {
        return Box::pin(async move {
            stopping.cancelled_owned().await;
            ErrorCode::Stopped
        });
    }
    let mut losses = server.leader_losses();
    Box::pin(async move {
        tokio::select! {
            () = stopping.cancelled_owned() => ErrorCode::Stopped,
            lost = losses.changed() => match lost {
                Ok(()) => ErrorCode::NoLeader,
                Err(_) => ErrorCode::Stopped,
            },
        }
    })
}

//! One port for gRPC and HTTP: connections are accepted, their HTTP version is found out, and each
//! request goes where its content type says.
//!
//! What this is not: TLS; `transport` hands over streams whose handshake is done.

mod gather;
mod linger;
mod pings;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use transport::{Greeted, Greeting, PeerInfo};

use self::gather::Gather;
use self::linger::Lingering;
use self::pings::PingGuard;
use crate::gateway::{self, Gateway, Session};
use crate::http::access::{self, HttpOptions};
use crate::http::{Endpoints, paths};
use crate::v3rpc::GrpcServices;
use crate::{EtcdServer, GrpcLimits};

/// A connection has to have said what it speaks within this time (grpc-go's default).
const GREETING_TIMEOUT: Duration = Duration::from_secs(120);
/// The same, once the member stops.
const LAST_GREETING_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections that the system has taken for us when the member stops are looked for during this time; what
/// is left in its queue when the listener closes is reset. Short, so that clients that come again are
/// refused, which tells them that nothing became of their request.
const LAST_ARRIVALS: Duration = Duration::from_millis(5);
/// A connection is not told to end before it could make its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(100);
/// The headers of an HTTP/1 request have to be complete within this time.
const HTTP1_HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that are being answered when the member stops get this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// What a client may send on one stream before it has to wait for us.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// What a client may send on one connection before it has to wait for us.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What we hold for one stream that its client does not read.
const SEND_BUFFER_BYTES: usize = 400 * 1024;
/// Streams that a client gave up before we looked at them; more end the connection.
const RESET_STREAMS_MAX: usize = 1024;
/// The headers of one request.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

/// Everything that a listener serves. Cheap to clone.
#[derive(Clone)]
pub struct ClientService {
    server: EtcdServer,
    endpoints: Endpoints,
    options: Arc<HttpOptions>,
    /// `None` where there is no gRPC.
    grpc: Option<GrpcServices>,
    /// `None` where there is no JSON gateway.
    gateway: Option<Gateway>,
}

impl ClientService {
    /// gRPC and every HTTP endpoint, for `--listen-client-urls`.
    #[must_use]
    pub fn new(server: EtcdServer, options: HttpOptions) -> Self {
        let grpc = GrpcServices::new(server.clone());
        Self {
            gateway: options.gateway.then(|| Gateway::new(grpc.clone())),
            grpc: Some(grpc),
            ..Self::with_endpoints(server, Endpoints::Client, options)
        }
    }

    /// gRPC only, for `--listen-client-urls` beside `--listen-client-http-urls`.
    #[must_use]
    pub fn grpc_only(server: EtcdServer) -> Self {
        Self {
            grpc: Some(GrpcServices::new(server.clone())),
            ..Self::with_endpoints(server, Endpoints::None, HttpOptions::default())
        }
    }

    /// HTTP only, for `--listen-client-http-urls`.
    #[must_use]
    pub fn http_only(server: EtcdServer, options: HttpOptions) -> Self {
        Self {
            grpc: None,
            ..Self::new(server, options)
        }
    }

    /// Metrics and health only, for `--listen-metrics-urls`.
    #[must_use]
    pub fn metrics_only(server: EtcdServer) -> Self {
        Self::with_endpoints(server, Endpoints::Metrics, HttpOptions::default())
    }

    fn with_endpoints(server: EtcdServer, endpoints: Endpoints, options: HttpOptions) -> Self {
        Self {
            server,
            endpoints,
            options: Arc::new(options),
            grpc: None,
            gateway: None,
        }
    }

    /// Answers one request. An error ends its connection.
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &PeerInfo,
        upgraded: &Upgraded,
    ) -> Result<Response<Body>, NotSpoken> {
        if let Some(grpc) = &self.grpc
            && request.version() == Version::HTTP_2
        {
            let content_type = request.headers().get(CONTENT_TYPE);
            if is_grpc(content_type) {
                return Ok(grpc.call(request).await);
            }
            // With TLS other requests can come over HTTP/2; without, etcd has gRPC only there.
            let others_welcome = self.endpoints != Endpoints::None && peer.tls;
            if !others_welcome {
                return Ok(not_grpc(content_type));
            }
        }
        match self.endpoints {
            Endpoints::None => Err(NotSpoken),
            Endpoints::Metrics => Ok(Box::pin(self.endpoint(&request)).await),
            Endpoints::Client => Ok(Box::pin(self.http(request, peer, upgraded)).await),
        }
    }

    /// Answers a client's HTTP request.
    async fn http(
        &self,
        mut request: Request<Incoming>,
        peer: &PeerInfo,
        upgraded: &Upgraded,
    ) -> Response<Body> {
        paths::rewrite(&mut request);
        if let Some(refusal) = self.options.refuse(&self.server, peer, &request) {
            return refusal.map(Body::new);
        }
        let origin = access::origin(request.headers());
        let mut response = match &self.gateway {
            // What a browser asks before it asks (CORS).
            _ if request.method() == Method::OPTIONS => Response::new(Body::empty()),
            Some(gateway) if is_gateways(&request) && gateway::is_upgrade(request.headers()) => {
                let (response, session) = gateway::upgrade(gateway, request);
                if session.is_some() {
                    *upgraded.lock() = session;
                    return response;
                }
                response
            }
            Some(gateway) if is_gateways(&request) => gateway.answer(request).await,
            _ => self.endpoint(&request).await,
        };
        self.options.allow_origin(origin.as_ref(), &mut response);
        response
    }

    async fn endpoint(&self, request: &Request<Incoming>) -> Response<Body> {
        let listener = (self.endpoints, &*self.options);
        let response = crate::http::answer(&self.server, listener, request).await;
        response.map(Body::new)
    }
}

/// What the requests of one connection have in common.
struct Connected {
    service: ClientService,
    peer: Arc<PeerInfo>,
    upgraded: Upgraded,
    /// A token for each request of it that is there and not answered.
    answering: TaskTracker,
}

impl Connected {
    /// Answers one request. An error ends the connection.
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Body>, NotSpoken> {
        request.extensions_mut().insert(Arc::clone(&self.peer));
        self.service
            .answer(request, &self.peer, &self.upgraded)
            .await
    }
}

/// The session of a connection that has become a websocket.
type Upgraded = Mutex<Option<Session>>;

/// What came is not spoken on this listener.
#[derive(Debug, thiserror::Error)]
#[error("not spoken on this listener")]
struct NotSpoken;

/// Whether the path is one of the gateway's; those that are not clean are sent to the clean one first.
fn is_gateways<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with(paths::GATEWAY) && paths::is_clean(request.uri().path())
}

/// As grpc-go decides it.
fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    let content_type = content_type.map(HeaderValue::as_bytes).unwrap_or_default();
    match content_type
        .to_ascii_lowercase()
        .strip_prefix(b"application/grpc")
    {
        Some([]) => true,
        Some([next, ..]) => matches!(next, b'+' | b';'),
        None => false,
    }
}

/// What grpc-go says to a request that is none of its own.
fn not_grpc(content_type: Option<&HeaderValue>) -> Response<Body> {
    let shown = content_type.map(HeaderValue::as_bytes).unwrap_or_default();
    let shown = String::from_utf8_lossy(shown);
    let words = format!("invalid gRPC request content-type {shown:?}");
    let mut response = tonic::Status::invalid_argument(words).into_http();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// Serves the listener's connections until `stopping`, then lets them end.
///
/// # Errors
///
/// When the listener is of no use any more.
pub async fn serve(
    mut listener: transport::Listener,
    service: ClientService,
    stopping: CancellationToken,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    let abandon = CancellationToken::new();
    let builder = Arc::new(connection_builder(&service.server.config().grpc));
    let begin = |(stream, peer): (transport::Stream, PeerInfo)| {
        let (builder, service) = (builder.clone(), service.clone());
        let (stopping, abandon) = (stopping.clone(), abandon.clone());
        connections.spawn(async move {
            tokio::select! {
                () = serve_connection(&builder, (stream, Arc::new(peer)), service, stopping) => {}
                () = abandon.cancelled() => {}
            }
        });
    };
    let outcome = loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => begin(connection),
            Err(error) => break Err(error),
        }
    };
    let last = Instant::now() + LAST_ARRIVALS;
    while let Ok(Ok(connection)) = tokio::time::timeout_at(last, listener.accept()).await {
        begin(connection);
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "gave up requests that took too long"
        );
        abandon.cancel();
        connections.wait().await;
    }
    outcome
}

fn connection_builder(limits: &GrpcLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP1_HEADER_TIMEOUT)
        // As Go writes them, for those who look for them with grep.
        .title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX);
    builder
}

/// Serves one connection until it ends, its client never begins to speak, or the member stops and
/// its requests are answered. Requests carry who asks in their extensions.
async fn serve_connection(
    builder: &auto::Builder<TokioExecutor>,
    (stream, peer): (transport::Stream, Arc<PeerInfo>),
    service: ClientService,
    stopping: CancellationToken,
) {
    let (stream, greeting) = Greeted::new(Lingering::new(stream));
    let config = service.server.config();
    let min_time = config.grpc.keepalive_min_time;
    let stream = PingGuard::new(stream, min_time, Arc::clone(&config.clock));
    let connected = Arc::new(Connected {
        service,
        peer,
        upgraded: Upgraded::default(),
        answering: TaskTracker::new(),
    });
    let answer = {
        let connected = Arc::clone(&connected);
        service_fn(move |request| {
            let connected = Arc::clone(&connected);
            let answering = connected.answering.token();
            // Boxed, because hyper makes a task of it, and a task is moved several times on its way.
            Box::pin(async move {
                let _answering = answering;
                connected.answer(request).await
            })
        })
    };
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let mut silent = Some(Box::pin(stays_silent(&greeting, &stopping)));
    let since = Instant::now();
    let mut told = false;
    let mut gather = Gather::default();
    loop {
        let next = std::future::poll_fn(|context| {
            let is_answering = !connected.answering.is_empty();
            gather.poll(context, connection.as_mut(), is_answering)
        });
        tokio::select! {
            outcome = next => {
                if let Err(error) = outcome {
                    // A client that breaks off or talks nonsense is no trouble of ours.
                    tracing::debug!(error, "connection ended");
                }
                break;
            }
            is_silent = unless_done(silent.as_mut()) => {
                if is_silent {
                    return;
                }
                silent = None;
            }
            () = may_be_told(&stopping, &greeting, since), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    drop(silent);
    let session = connected.upgraded.lock().take();
    if let Some(session) = session {
        // Large, and only for those few that become one.
        Box::pin(session.run(stopping)).await;
    }
}

/// Whether a connection does not begin to speak in time.
async fn stays_silent(greeting: &Greeting, stopping: &CancellationToken) -> bool {
    let stopped = async {
        stopping.cancelled().await;
        tokio::time::sleep(LAST_GREETING_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        () = greeting.completed() => false,
        _either = tokio::time::timeout(GREETING_TIMEOUT, stopped) => true,
    }
}

/// Waits until the member stops, and its client can be told so without breaking off what it has begun: a
/// connection that has not said yet what it speaks would be, and one that has made no request would have to
/// guess what became of it.
async fn may_be_told(stopping: &CancellationToken, greeting: &Greeting, since: Instant) {
    stopping.cancelled().await;
    greeting.completed().await;
    tokio::time::sleep_until(since + FIRST_REQUEST).await;
}

/// Waits for the future; for ever if there is none.
async fn unless_done<F: Future>(future: Option<&mut Pin<Box<F>>>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

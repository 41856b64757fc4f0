//! One port for gRPC and HTTP: connections are accepted, their HTTP version is found out, and each
//! request goes where its content type says.
//!
//! What this is not: TLS; `transport` hands over streams whose handshake is done.

mod greeting;
mod linger;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http2::Reply;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::StdError;
use transport::PeerInfo;

use self::greeting::{Greeting, Spoken, rewound};
use self::linger::Lingering;
use crate::EtcdServer;
use crate::framing::CONTENT_TYPE_GRPC;
use crate::gateway::{self, Gateway, Session};
use crate::http::access::{self, HttpOptions};
use crate::http::{Endpoints, paths};
use crate::v3rpc::GrpcServices;

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

    /// Answers one request. An error ends its connection, over HTTP/2 its stream.
    ///
    /// Nothing here waits with the request in its hands: each function that did would have room for it once more.
    fn answer<B: AnyBody>(
        &self,
        request: Request<B>,
        peer: &Arc<PeerInfo>,
        upgraded: &Upgraded,
    ) -> impl Future<Output = Result<Reply<Body>, NotSpoken>> {
        if let Some(grpc) = &self.grpc
            && request.version() == Version::HTTP_2
            && is_grpc(request.headers().get(CONTENT_TYPE))
        {
            return Either::Left(grpc.answer(request, Some(peer)).map(Ok));
        }
        // Larger, and for few.
        Either::Right(Box::pin(self.answer_others(request, peer, upgraded)))
    }

    /// Answers what is not gRPC.
    async fn answer_others<B: AnyBody>(
        &self,
        mut request: Request<B>,
        peer: &Arc<PeerInfo>,
        upgraded: &Upgraded,
    ) -> Result<Reply<Body>, NotSpoken> {
        if self.grpc.is_some() && request.version() == Version::HTTP_2 {
            // With TLS other requests can come over HTTP/2; without, etcd has gRPC only there.
            let others_welcome = self.endpoints != Endpoints::None && peer.tls;
            if !others_welcome {
                return Ok(not_grpc(request.headers().get(CONTENT_TYPE)).into());
            }
        }
        let is_http2 = request.version() == Version::HTTP_2;
        request.extensions_mut().insert(Arc::clone(peer));
        let mut response = match self.endpoints {
            Endpoints::None => return Err(NotSpoken),
            Endpoints::Metrics => self.endpoint(&request).await,
            Endpoints::Client => self.http(request, peer, upgraded).await,
        };
        if is_http2 {
            complete(&mut response, self.server.config().clock.wall());
        }
        Ok(response.into())
    }

    /// Answers a client's HTTP request.
    async fn http<B: AnyBody>(
        &self,
        mut request: Request<B>,
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

    async fn endpoint<B>(&self, request: &Request<B>) -> Response<Body> {
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
}

impl Connected {
    /// Answers one request.
    fn answer<B: AnyBody>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Reply<Body>, NotSpoken>> {
        self.service.answer(request, &self.peer, &self.upgraded)
    }
}

/// The body of a request of either version of HTTP.
trait AnyBody:
    http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + Sync + Unpin + 'static
{
}

impl<B> AnyBody for B where
    B: http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + Sync + Unpin + 'static
{
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

/// Adds to an answer over HTTP/2 what hyper adds over HTTP/1, and Go over both.
fn complete(response: &mut Response<Body>, now: SystemTime) {
    let length = response.body().size_hint().exact();
    let headers = response.headers_mut();
    if let (Some(length), false) = (length, headers.contains_key(CONTENT_LENGTH)) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
        headers.entry(DATE).or_insert(date);
    }
}

/// As grpc-go decides it.
fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    if content_type == Some(&CONTENT_TYPE_GRPC) {
        return true;
    }
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
    let protocols = Protocols::new(service.server.config());
    let begin = |connection: (transport::Stream, PeerInfo)| {
        let (protocols, service) = (protocols.clone(), service.clone());
        let (stopping, abandon) = (stopping.clone(), abandon.clone());
        connections.spawn(async move {
            tokio::select! {
                () = serve_connection(protocols, connection, service, stopping) => {}
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

/// How connections are served.
#[derive(Clone)]
struct Protocols {
    http1: Arc<http1::Builder>,
    http2: Arc<http2::Options>,
}

impl Protocols {
    fn new(config: &crate::Config) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP1_HEADER_TIMEOUT)
            // As Go writes them, for those who look for them with grep.
            .title_case_headers(true);
        let limits = &config.grpc;
        let http2 = http2::Options {
            max_concurrent_streams: limits.max_concurrent_streams,
            keepalive_interval: limits.keepalive_interval,
            keepalive_timeout: limits.keepalive_timeout,
            ping_min_time: limits.keepalive_min_time,
            clock: Arc::clone(&config.clock),
        };
        Self {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
        }
    }
}

/// Serves one connection until it ends, its client never begins to speak, or the member stops and
/// its requests are answered. Requests carry who asks in their extensions.
async fn serve_connection(
    protocols: Protocols,
    (stream, peer): (transport::Stream, PeerInfo),
    service: ClientService,
    stopping: CancellationToken,
) {
    let since = Instant::now();
    let mut stream = Lingering::new(stream);
    let Some(greeting) = greeted(&mut stream, &stopping).await else {
        return;
    };
    let connected = Arc::new(Connected {
        service,
        peer: Arc::new(peer),
        upgraded: Upgraded::default(),
    });
    let leave = may_be_told(&stopping, since);
    let ended = match greeting.spoken {
        Spoken::Http2 => {
            serve_http2(&protocols.http2, greeting.rest, stream, &connected, leave).await
        }
        // Larger, and for few.
        Spoken::Http1 => {
            let stream = rewound(greeting.rest, stream);
            Box::pin(serve_http1(&protocols.http1, stream, &connected, leave)).await
        }
    };
    if let Err(error) = ended {
        // A client that breaks off or talks nonsense is no trouble of ours.
        tracing::debug!(error, "connection ended");
    }
    let session = connected.upgraded.lock().take();
    if let Some(session) = session {
        // Large, and only for those few that become one.
        Box::pin(session.run(stopping)).await;
    }
}

/// Serves a connection; it begins to end when `leave` does.
async fn serve_http2(
    options: &http2::Options,
    read: BytesMut,
    stream: Lingering<transport::Stream>,
    connected: &Arc<Connected>,
    leave: impl Future<Output = ()>,
) -> Result<(), StdError> {
    let answer = |request| {
        let connected = Arc::clone(connected);
        Box::pin(async move { connected.answer(request).await })
    };
    let mut connection = Box::pin(http2::Connection::new(stream, read, options, answer));
    tokio::select! {
        ended = &mut connection => return Ok(ended?),
        () = leave => connection.graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Serves a connection; it begins to end when `leave` does.
async fn serve_http1(
    http1: &http1::Builder,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connected: &Arc<Connected>,
    leave: impl Future<Output = ()>,
) -> Result<(), StdError> {
    let answer = service_fn(|request| {
        let connected = Arc::clone(connected);
        Box::pin(async move {
            match connected.answer(request).await? {
                Reply::Response(response) => Ok(response),
                // gRPC is spoken over HTTP/2 only.
                Reply::Message(_) => Err(NotSpoken),
            }
        })
    });
    let connection = http1.serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection.with_upgrades());
    tokio::select! {
        ended = &mut connection => return Ok(ended?),
        () = leave => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// What a connection speaks; `None` if it does not say so in time.
async fn greeted(
    stream: &mut Lingering<transport::Stream>,
    stopping: &CancellationToken,
) -> Option<Greeting> {
    let stopped = async {
        stopping.cancelled().await;
        tokio::time::sleep(LAST_GREETING_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        greeting = greeting::read(stream) => greeting.ok().flatten(),
        _either = tokio::time::timeout(GREETING_TIMEOUT, stopped) => None,
    }
}

/// Waits until the member stops, and its client can be told so without breaking off what it has begun: one that
/// has made no request would have to guess what became of it.
async fn may_be_told(stopping: &CancellationToken, since: Instant) {
    stopping.cancelled().await;
    tokio::time::sleep_until(since + FIRST_REQUEST).await;
}

//! One port for gRPC and HTTP: connections are accepted, their HTTP version is found out, and each
//! request goes where its content type says.
//!
//! What this is not: TLS; `transport` hands over streams whose handshake is done.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use transport::{Greeted, PeerInfo};

use crate::EtcdServer;
use crate::http::Endpoints;
use crate::v3rpc::GrpcServices;

/// A connection has to have said what it speaks within this time (grpc-go's default).
const GREETING_TIMEOUT: Duration = Duration::from_secs(120);
/// The headers of an HTTP/1 request have to be complete within this time.
const HTTP1_HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that are being answered when the member stops get this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// etcd's `--grpc-keepalive-interval`: how long a connection is silent before it is asked.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
/// etcd's `--grpc-keepalive-timeout`: how long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
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
    /// `None` where there is no gRPC.
    grpc: Option<GrpcServices>,
}

impl ClientService {
    /// gRPC and every HTTP endpoint, for `--listen-client-urls`.
    #[must_use]
    pub fn new(server: EtcdServer) -> Self {
        let grpc = Some(GrpcServices::new(server.clone()));
        Self {
            server,
            endpoints: Endpoints::Client,
            grpc,
        }
    }

    /// gRPC only, for `--listen-client-urls` beside `--listen-client-http-urls`.
    #[must_use]
    pub fn grpc_only(server: EtcdServer) -> Self {
        Self {
            endpoints: Endpoints::None,
            ..Self::new(server)
        }
    }

    /// HTTP only, for `--listen-client-http-urls`.
    #[must_use]
    pub fn http_only(server: EtcdServer) -> Self {
        Self {
            server,
            endpoints: Endpoints::Client,
            grpc: None,
        }
    }

    /// Metrics and health only, for `--listen-metrics-urls`.
    #[must_use]
    pub fn metrics_only(server: EtcdServer) -> Self {
        Self {
            server,
            endpoints: Endpoints::Metrics,
            grpc: None,
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match &self.grpc {
            Some(grpc) if is_grpc(request.headers()) => grpc.call(request).await,
            _ => crate::http::answer(&self.server, self.endpoints, &request)
                .await
                .map(Body::new),
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
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
    let builder = Arc::new(connection_builder());
    let outcome = loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, Arc::new(peer)),
            Err(error) => break Err(error),
        };
        let (builder, service) = (builder.clone(), service.clone());
        let (stopping, abandon) = (stopping.clone(), abandon.clone());
        connections.spawn(async move {
            tokio::select! {
                () = serve_connection(&builder, (stream, peer), service, stopping) => {}
                () = abandon.cancelled() => {}
            }
        });
    };
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

fn connection_builder() -> auto::Builder<TokioExecutor> {
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
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(u32::MAX)
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
    let (stream, greeting) = Greeted::new(stream);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&peer));
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let mut greeting_due = Some(Box::pin(tokio::time::sleep(GREETING_TIMEOUT)));
    let mut told = false;
    loop {
        tokio::select! {
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    // A client that breaks off or talks nonsense is no trouble of ours.
                    tracing::debug!(error, "connection ended");
                }
                return;
            }
            () = due(greeting_due.as_mut()) => {
                if !greeting.is_complete() {
                    return;
                }
                greeting_due = None;
            }
            () = stopping.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits for the timer; for ever if there is none.
async fn due(timer: Option<&mut Pin<Box<tokio::time::Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

//! Streams over websockets (`github.com/tmc/grpc-websocket-proxy`): a message is a request, a line of the
//! answer is a message. A page in a browser has no other way to send and to receive at once.
//!
//! What this is not: a task. The connection that was upgraded runs the session to its end.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use futures_util::{SinkExt, future};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, ORIGIN, REFERER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use transport::PeerInfo;

use super::Gateway;

/// Requests that wait to be taken. When it is full, nothing more is read from the client.
const REQUESTS_MAX: usize = 16;
/// Bytes of a key of a handshake, decoded.
const KEY_BYTES: usize = 16;

/// Whether the client wants to go on with a websocket.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|it| it.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    tokens.any(|it| it.trim().eq_ignore_ascii_case(token))
}

/// A websocket's life after its handshake.
pub(crate) struct Session {
    gateway: Gateway,
    upgraded: OnUpgrade,
    request: Request<()>,
}

/// Answers a handshake. With it comes the session, to be run when the answer has been sent.
pub(crate) fn upgrade<B>(
    gateway: &Gateway,
    mut request: Request<B>,
) -> (Response<Body>, Option<Session>) {
    let key = match key(&request) {
        Ok(key) => key,
        Err(status) => return (refusal(status), None),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    let protocol = request.headers().get(SEC_WEBSOCKET_PROTOCOL);
    if protocol.is_some_and(|it| it.as_bytes().starts_with(b"Bearer")) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    let session = Session {
        gateway: gateway.clone(),
        upgraded: hyper::upgrade::on(&mut request),
        request: streaming_request(&request),
    };
    (response, Some(session))
}

/// What is to be answered to the client's key.
fn key<B>(request: &Request<B>) -> Result<HeaderValue, StatusCode> {
    if request.method() != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let headers = request.headers();
    let speaks_13 = has_token(headers, &SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    match key {
        Some(key) if speaks_13 && request.version() == Version::HTTP_11 && is_key(key) => {
            HeaderValue::try_from(derive_accept_key(key)).map_err(|_never| StatusCode::BAD_REQUEST)
        }
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

fn is_key(key: &[u8]) -> bool {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(key);
    decoded.is_ok_and(|key| key.len() == KEY_BYTES)
}

fn refusal(status: StatusCode) -> Response<Body> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Body::new(Full::<Bytes>::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// The request that the client's messages are the body of. A token is where a browser can put one: in
/// the protocol it asks for, or in a cookie.
fn streaming_request<B>(handshake: &Request<B>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = handshake.uri().clone();
    if let Some(peer) = handshake.extensions().get::<Arc<PeerInfo>>() {
        request.extensions_mut().insert(Arc::clone(peer));
    }
    let from = handshake.headers();
    let headers = request.headers_mut();
    for name in [ORIGIN, REFERER] {
        if let Some(value) = from.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let protocol = from
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|it| it.to_str().ok());
    let asked = protocol.and_then(|protocol| protocol.split_once("Bearer,"));
    let token = cookie(from, "token").or(asked.map(|(_, token)| token.trim_matches(' ')));
    if let Some(token) = token
        && let Ok(authorization) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        headers.insert(AUTHORIZATION, authorization);
    }
    request
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|it| it.to_str().ok());
    let mut cookies = values.flat_map(|value| value.split(';'));
    cookies.find_map(|cookie| match cookie.trim().split_once('=') {
        Some((it, value)) if it == name => Some(value.trim_matches('"')),
        _ => None,
    })
}

impl Session {
    /// Runs until the client goes, the call ends, or the member stops.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let upgraded = match self.upgraded.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => {
                tracing::debug!(%error, "no websocket came of it");
                return;
            }
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.gateway.json_bytes_max))
            .max_frame_size(Some(self.gateway.json_bytes_max));
        let mut socket =
            WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
        let (requests, body) = mpsc::channel(REQUESTS_MAX);
        let request = self.request.map(|()| request_body(body));
        let lines = lines(&self.gateway, request);
        let relay = Box::pin(relay(&mut socket, requests, lines, &stopping));
        if let Err(error) = relay.await {
            // A client that breaks off or talks nonsense is no trouble of ours.
            tracing::debug!(%error, "websocket ended");
            return;
        }
        // Differs from etcd, which drops the connection: a browser would call that an error.
        if let Err(error) = socket.close(None).await {
            tracing::debug!(%error, "websocket ended");
        }
    }
}

fn request_body(
    messages: mpsc::Receiver<Bytes>,
) -> impl http_body::Body<Data = Bytes, Error = Status> + Send + Unpin + 'static {
    let frames = stream::unfold(messages, async |mut messages| {
        let message = messages.recv().await?;
        Some((Ok::<_, Status>(Frame::data(message)), messages))
    });
    StreamBody::new(Box::pin(frames))
}

/// The answer, line by line.
fn lines<B>(gateway: &Gateway, request: Request<B>) -> impl Stream<Item = String> + use<'_, B>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + Unpin + 'static,
{
    let bodies = stream::once(async { gateway.answer(request).await.into_body() });
    let chunks = bodies.flat_map(BodyExt::into_data_stream);
    chunks.filter_map(|chunk| {
        let line = chunk
            .ok()
            .map(|chunk| String::from_utf8_lossy(&chunk).trim_end().to_owned());
        future::ready(line.filter(|line| !line.is_empty()))
    })
}

type Io = TokioIo<hyper::upgrade::Upgraded>;
type WebSocketError = tokio_tungstenite::tungstenite::Error;

async fn relay(
    socket: &mut WebSocketStream<Io>,
    requests: mpsc::Sender<Bytes>,
    lines: impl Stream<Item = String>,
    stopping: &CancellationToken,
) -> Result<(), WebSocketError> {
    tokio::pin!(lines);
    // Read already, and to be handed on before more is read.
    let mut waiting: Option<Bytes> = None;
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(()),
            permit = requests.reserve(), if waiting.is_some() => {
                let (Ok(permit), Some(message)) = (permit, waiting.take()) else {
                    // The call takes no more requests; it may go on without.
                    continue;
                };
                permit.send(message);
            }
            message = socket.next(), if waiting.is_none() => match message.transpose()? {
                Some(Message::Text(text)) => waiting = Some(request_line(text.as_bytes())),
                Some(Message::Binary(bytes)) => waiting = Some(request_line(&bytes)),
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
            line = lines.next() => match line {
                Some(line) => socket.send(Message::text(line)).await?,
                None => return Ok(()),
            },
        }
    }
}

fn request_line(message: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(message.len() + 1);
    line.put_slice(message);
    line.put_u8(b'\n');
    line.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, value: &str) -> Option<String> {
        let handshake = Request::builder()
            .uri("/v3/watch")
            .header(name, value)
            .body(())
            .unwrap();
        let request = streaming_request(&handshake);
        let token = request.headers().get(AUTHORIZATION)?;
        Some(token.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_token_comes_in_the_protocol_or_in_a_cookie() {
        let bearer = Some("Bearer secret.1".to_owned());
        assert_eq!(token("Sec-WebSocket-Protocol", "Bearer, secret.1"), bearer);
        assert_eq!(token("Sec-WebSocket-Protocol", "Bearer,secret.1"), bearer);
        assert_eq!(token("Cookie", "a=b; token=secret.1"), bearer);
        assert_eq!(token("Cookie", "a=b"), None);
    }
}

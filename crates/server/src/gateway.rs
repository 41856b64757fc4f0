//! The JSON gateway: every RPC as a POST of JSON under `/v3/`, with the manners of grpc-gateway v2 as
//! etcd 3.6 sets it up (`server/embed/serve.go`).
//!
//! A request becomes a gRPC call of this process: it goes through the same interceptor, the same limits
//! and the same services as one that came over the wire (`v3rpc::GrpcServices`), only that nothing is
//! sent. Messages are built and shown by their descriptors; there is no code for a single message here.
//!
//! What this is not: a service, or a way around one. The certificate of who asks is not handed on, as in
//! etcd: who wants to be somebody sends a token.

mod call;
mod error;
mod json;
mod metadata;
mod requests;
mod routes;
mod websocket;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::{Code, Status};

use self::call::{Replies, frame};
use self::error::{JSON, Trailers};
use self::metadata::Call;
use self::routes::Route;
use crate::framing::CONTENT_TYPE_GRPC;
use crate::v3rpc::GrpcServices;

pub(crate) use self::websocket::{Session, is_upgrade, upgrade};

/// JSON takes more room than what it says: base64, escapes, names.
const JSON_PER_MESSAGE: usize = 8;

const GRPC_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// Answers JSON requests with calls of the member's services. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    grpc: GrpcServices,
    /// Made for the first request: most members never get one, and the descriptors take 3 MB.
    routes: Arc<LazyLock<HashMap<&'static str, Route>>>,
    /// Bytes that one message may have as JSON.
    json_bytes_max: usize,
}

impl Gateway {
    /// A gateway to these services.
    pub(crate) fn new(grpc: GrpcServices) -> Self {
        let json_bytes_max = grpc.message_bytes_max().saturating_mul(JSON_PER_MESSAGE);
        Self {
            grpc,
            routes: Arc::new(LazyLock::new(routes::all)),
            json_bytes_max,
        }
    }

    /// Answers one request.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let Some(route) = self.routes.get(request.uri().path()) else {
            return error::response(&Status::not_found("Not Found"));
        };
        if request.method() != Method::POST {
            return error::response(&Status::unimplemented("Method Not Allowed"));
        }
        let (parts, body) = request.into_parts();
        let call = match Call::of(&parts) {
            Ok(call) => call,
            Err(status) => return error::response(&status),
        };
        if route.method.is_client_streaming() {
            return self.stream(route, call, body).await;
        }
        let message = match self.one_message(route, body).await {
            Ok(message) => message,
            Err(status) => return error::response_with(&status, call.trailers(Trailers::Empty)),
        };
        // Larger than the rest of what is done for a request over HTTP.
        let replies = Box::pin(self.call(route, &call, Full::new(frame(&message))));
        if route.method.is_server_streaming() {
            let replies = replies.await.until(call.deadline);
            return streamed(route.clone(), replies).await;
        }
        let reply = async { replies.await.only().await };
        match call.within_deadline(reply).await {
            Ok(reply) => unary_response(route, &call, &reply),
            Err(status) => error::response_with(&status, call.trailers(Trailers::OfCall)),
        }
    }

    async fn call<B>(&self, route: &Route, call: &Call, body: B) -> Replies
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError> + Send,
    {
        Replies::of(self.grpc.call(call.request(&route.path, body)).await)
    }

    /// The message of a request that has one; no body at all is an empty message.
    async fn one_message<B>(&self, route: &Route, body: B) -> Result<Vec<u8>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<StdError>,
    {
        let text = match Limited::new(body, self.json_bytes_max).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(too_large(self.json_bytes_max));
            }
            Err(_broken_off) => return Err(Status::invalid_argument("unexpected EOF")),
        };
        let mut values = json::Values::new();
        values.feed(&text);
        let value = values.next(json::Input::Ended);
        match value.map_err(Status::invalid_argument)? {
            Some(value) => {
                json::decode(&route.method.input(), &value).map_err(Status::invalid_argument)
            }
            None => Ok(Vec::new()),
        }
    }

    /// A call whose requests are the JSON values of the body as they come.
    async fn stream<B>(&self, route: &Route, call: Call, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let (refuse, refused) = oneshot::channel();
        let requests =
            requests::Requests::new(body, route.method.input(), refuse, self.json_bytes_max);
        let requests = StreamBody::new(Box::pin(requests.into_frames()));
        let replies = self.call(route, &call, requests).await;
        streamed(route.clone(), replies.until(call.deadline).unless(refused)).await
    }
}

fn unary_response(route: &Route, call: &Call, reply: &Bytes) -> Response<Body> {
    let body = match json::encode(&route.method.output(), reply) {
        Ok(body) => Bytes::from(body),
        Err(status) => return error::response(&status),
    };
    // Of unknown length, and so in chunks: there could be trailers behind it.
    let body = if call.wants_trailers {
        let body =
            futures_util::stream::once(async { Ok::<_, Status>(http_body::Frame::data(body)) });
        Body::new(StreamBody::new(Box::pin(body)))
    } else {
        Body::new(Full::new(body))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(GRPC_CONTENT_TYPE, CONTENT_TYPE_GRPC);
    response
}

/// Replies as lines of JSON. The status waits for the first, because it may be an error.
async fn streamed(route: Route, mut replies: Replies) -> Response<Body> {
    let first = match replies.next().await {
        Some(Ok(first)) => Some(line(&route, &first)),
        Some(Err(status)) => return error::stream_response(&status),
        None => None,
    };
    let has_content = first.is_some();
    let rest = futures_util::stream::unfold((route, replies), async |(route, mut replies)| {
        let line = match replies.next().await? {
            Ok(reply) => line(&route, &reply),
            Err(status) => error::line(&status),
        };
        Some((line, (route, replies)))
    });
    let lines = futures_util::StreamExt::chain(futures_util::stream::iter(first), rest);
    let frames =
        futures_util::StreamExt::map(lines, |line| Ok::<_, Status>(http_body::Frame::data(line)));
    let mut response = Response::new(Body::new(StreamBody::new(Box::pin(frames))));
    if has_content {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(GRPC_CONTENT_TYPE, CONTENT_TYPE_GRPC);
    }
    response
}

fn line(route: &Route, reply: &Bytes) -> Bytes {
    match json::encode(&route.method.output(), reply) {
        Ok(result) => {
            let mut line = b"{\"result\":".to_vec();
            line.extend_from_slice(&result);
            line.extend_from_slice(b"}\n");
            line.into()
        }
        Err(status) => error::line(&status),
    }
}

fn too_large(json_bytes_max: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!(
            "grpc: received message larger than max (more than {json_bytes_max} bytes of JSON)"
        ),
    )
}

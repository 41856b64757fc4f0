//! What a failure looks like in JSON (grpc-gateway's `runtime/errors.go`).

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HeaderName, TRAILER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Map, Value};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::framing::CONTENT_TYPE_GRPC;

const GRPC_TRAILER_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-trailer-content-type");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// nginx's number for a client that went away; grpc-gateway uses it for `Cancelled`.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Whether an answer comes in chunks, so that something could come behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trailers {
    /// The client wants none.
    None,
    /// It would take some, but there was no call that could have any.
    Empty,
    /// It takes those of the call.
    OfCall,
}

/// The answer to a request that failed as a whole.
pub(super) fn response(status: &Status) -> Response<Body> {
    response_with(status, Trailers::None)
}

/// The same for a client that may want trailers.
pub(super) fn response_with(status: &Status, trailers: Trailers) -> Response<Body> {
    let mut response = respond(status, body(status).to_string().into());
    if trailers != Trailers::None {
        response = response.map(|body| chunked(body, trailers));
    }
    if trailers == Trailers::OfCall {
        let name = HeaderValue::from_static("Grpc-Trailer-Content-Type");
        response.headers_mut().insert(TRAILER, name);
    }
    if status.code() == Code::Unauthenticated
        && let Ok(text) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, text);
    }
    response
}

/// The answer to a request for a stream that failed before its first message.
pub(super) fn stream_response(status: &Status) -> Response<Body> {
    respond(status, line(status))
}

/// The end of a stream that failed.
pub(super) fn line(status: &Status) -> Bytes {
    format!("{{\"error\":{}}}\n", body(status)).into()
}

/// The same body, of a length that is not known before.
fn chunked(body: Body, trailers: Trailers) -> Body {
    let data = body.into_data_stream().map_ok(Frame::data);
    let trailers = (trailers == Trailers::OfCall).then(|| {
        let content_type = (GRPC_TRAILER_CONTENT_TYPE, CONTENT_TYPE_GRPC);
        Ok(Frame::trailers(HeaderMap::from_iter([content_type])))
    });
    let frames = data.chain(stream::iter(trailers));
    Body::new(StreamBody::new(Box::pin(frames)))
}

fn respond(status: &Status, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = http_status(status.code());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A `google.rpc.Status` as JSON, without what is empty.
fn body(status: &Status) -> Value {
    let mut body = Map::new();
    body.insert("code".to_owned(), i32::from(status.code()).into());
    if !status.message().is_empty() {
        body.insert("message".to_owned(), status.message().into());
    }
    Value::Object(body)
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("three digits make a status")
        }
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

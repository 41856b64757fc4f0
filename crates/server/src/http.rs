//! The HTTP endpoints: health, version, metrics (`server/etcdserver/api/etcdhttp`).
//!
//! What this is not: the JSON gateway. The paths are few and their answers are etcd's to the byte,
//! so that they are matched here and not by a framework with manners of its own.

mod health;
mod metrics;
mod version;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::EtcdServer;

/// A body that is there as a whole.
pub(crate) type Body = Full<Bytes>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Which endpoints a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// All of them (`--listen-client-urls`).
    Client,
    /// Metrics and health only (`--listen-metrics-urls`).
    Metrics,
    /// None: the listener is for gRPC.
    None,
}

/// What an endpoint is asked.
struct Query<'a> {
    pairs: Vec<(std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    fn of<B>(request: &'a Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        Self {
            pairs: url::form_urlencoded::parse(query.as_bytes()).collect(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key == name)
    }

    /// Every value of `name` that is not empty.
    fn all(&self, name: &str) -> Vec<&str> {
        let named = self
            .pairs
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty());
        named.map(|(_, value)| value.as_ref()).collect()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
    }
}

/// Answers one request.
pub(crate) async fn answer<B>(
    server: &EtcdServer,
    endpoints: Endpoints,
    request: &Request<B>,
) -> Response<Body> {
    let mut response = match (request.method(), endpoints) {
        // What a browser asks before it asks (CORS); only the client port has that.
        (&Method::OPTIONS, Endpoints::Client) => Response::new(Body::default()),
        _ => route(server, endpoints, request).await,
    };
    if endpoints == Endpoints::Client {
        allow_every_origin(&mut response);
    }
    response
}

async fn route<B>(
    server: &EtcdServer,
    endpoints: Endpoints,
    request: &Request<B>,
) -> Response<Body> {
    let (path, query) = (request.uri().path(), Query::of(request));
    match path {
        _ if endpoints == Endpoints::None => error(StatusCode::NOT_FOUND, "404 page not found"),
        "/metrics" => metrics::metrics(server).await,
        "/version" if endpoints == Endpoints::Client => {
            get_only(request, async || version::version()).await
        }
        "/health" => get_only(request, async || health::health(server, &query).await).await,
        _ => match health::checks_at(path) {
            Some(checks) => {
                get_only(request, async || health::run(server, &checks, &query).await).await
            }
            None => error(StatusCode::NOT_FOUND, "404 page not found"),
        },
    }
}

/// Answers a GET, and refuses every other method.
async fn get_only<B>(
    request: &Request<B>,
    answer: impl AsyncFnOnce() -> Response<Body>,
) -> Response<Body> {
    if request.method() == Method::GET {
        return answer().await;
    }
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

/// An error as Go's `http.Error` writes it: text, one line.
fn error(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = respond(status, TEXT, format!("{text}\n"));
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
}

fn respond(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// etcd's default for `--cors`.
fn allow_every_origin(response: &mut Response<Body>) {
    const HEADERS: [(HeaderName, &str); 3] = [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "POST, GET, OPTIONS, PUT, DELETE",
        ),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "accept, content-type, authorization",
        ),
    ];
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

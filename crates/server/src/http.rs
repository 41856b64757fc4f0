//! The HTTP endpoints: health, version, metrics (`server/etcdserver/api/etcdhttp`), and a status page of ours.
//!
//! What this is not: the JSON gateway (`crate::gateway`). The paths are few and their answers are etcd's to the byte,
//! so that they are matched here and not by a framework with manners of its own.

pub(crate) mod access;
mod debug;
mod health;
mod metrics;
pub(crate) mod paths;
mod status;
mod version;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

use self::access::HttpOptions;
use crate::EtcdServer;

/// A body that is there as a whole.
pub(crate) type Body = Full<Bytes>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Which endpoints a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// All of them (`--listen-client-urls`).
    Client,
    /// Metrics, health and status only (`--listen-metrics-urls`).
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
    (endpoints, options): (Endpoints, &HttpOptions),
    request: &Request<B>,
) -> Response<Body> {
    if let Some(elsewhere) = paths::redirect(request, has_gateway(endpoints, options)) {
        return elsewhere;
    }
    let (path, query) = (request.uri().path(), Query::of(request));
    let for_clients = endpoints == Endpoints::Client;
    match path {
        "/metrics" => metrics::metrics(server).await,
        "/status" => get_only(request, async || status::page(server, endpoints)).await,
        "/status.json" => {
            get_only(request, async || status::json(server, endpoints, request)).await
        }
        "/version" if for_clients => get_only(request, async || version::version(server)).await,
        "/health" => get_only(request, async || health::health(server, &query).await).await,
        "/debug/vars" if for_clients => {
            let (status, member) = (server.node().status(), server.config().member);
            get_only(request, async || debug::vars(&status, member)).await
        }
        _ => {
            if let Some(checks) = health::checks_at(path) {
                return get_only(request, async || health::run(server, &checks, &query).await)
                    .await;
            }
            let profile = (for_clients && options.pprof).then(|| debug::pprof(path));
            let profile = profile.flatten();
            profile.unwrap_or_else(|| error(StatusCode::NOT_FOUND, "404 page not found"))
        }
    }
}

/// Whether the listener has the JSON gateway.
pub(crate) fn has_gateway(endpoints: Endpoints, options: &HttpOptions) -> bool {
    endpoints == Endpoints::Client && options.gateway
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

/// Plain text that is no error.
fn text(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = respond(StatusCode::OK, TEXT, text);
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

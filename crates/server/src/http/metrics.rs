//! `/metrics`.

use http::{HeaderValue, Response, StatusCode};

use super::{Body, error, respond};
use crate::EtcdServer;

/// Prometheus' text format.
const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");

/// All metrics, whatever the method, as in etcd.
pub(super) async fn metrics(server: &EtcdServer) -> Response<Body> {
    let server = server.clone();
    let rendering = tokio::task::spawn_blocking(move || server.metrics().render(&server));
    match rendering.await {
        Ok(Ok(text)) => respond(StatusCode::OK, CONTENT_TYPE, text),
        Ok(Err(failure)) => error(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
        Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
    }
}

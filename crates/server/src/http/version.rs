//! `/version`.

use http::{Response, StatusCode};

use super::{Body, JSON, respond};
use crate::EtcdServer;

/// The versions of this member, its cluster and what is stored.
pub(super) fn version(server: &EtcdServer) -> Response<Body> {
    respond(StatusCode::OK, JSON, server.shown_versions().to_string())
}

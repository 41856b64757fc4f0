//! `/version`.

use api::version::{CLUSTER_VERSION, ETCD_VERSION, STORAGE_VERSION};
use http::{Response, StatusCode};

use super::{Body, JSON, respond};

/// The versions that this member announces.
pub(super) fn version() -> Response<Body> {
    respond(StatusCode::OK, JSON, body())
}

fn body() -> String {
    format!(
        r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{CLUSTER_VERSION}","storage":"{STORAGE_VERSION}"}}"#
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_body_is_etcds() {
        assert_eq!(
            super::body(),
            r#"{"etcdserver":"3.6.14","etcdcluster":"3.6.0","storage":"3.6.0"}"#
        );
    }
}

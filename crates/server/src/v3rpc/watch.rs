//! The Watch service.

use api::encoded::etcdserverpb::watch_server::Watch;

use crate::EtcdServer;

/// Serves watch streams.
pub(crate) struct WatchService {
    _server: EtcdServer,
}

impl WatchService {
    /// Serves the member's watchers.
    pub(crate) fn new(server: EtcdServer) -> Self {
        Self { _server: server }
    }
}

impl Watch for WatchService {}

//! Whether the member says that it serves (`grpc.health.v1`); it does, except while its store is defragmented if
//! that is asked for (feature `StopGRPCServiceOnDefrag`), and while it is repaired.
//!
//! What this is not: a lock. Whoever asks goes elsewhere or not.

use tokio::sync::watch;

use crate::EtcdServer;

/// Until it is dropped, the store is being defragmented.
pub(crate) struct Defragmenting {
    server: EtcdServer,
}

impl Defragmenting {
    pub(crate) fn begin(server: &EtcdServer) -> Self {
        server.metrics().upkeep().defragmentation_began();
        if server.config().stop_serving_on_defrag {
            tracing::warn!(
                service = "",
                status = "NOT_SERVING",
                reason = "defrag is active",
                "grpc service status changed"
            );
            set(server.serving_state(), false);
        }
        Self {
            server: server.clone(),
        }
    }
}

impl Drop for Defragmenting {
    fn drop(&mut self) {
        self.server.metrics().upkeep().defragmentation_ended();
        tracing::info!(
            service = "",
            status = "SERVING",
            "grpc service status changed"
        );
        set(self.server.serving_state(), true);
    }
}

/// Until it is dropped, the member does not serve.
pub(crate) struct NotServing {
    server: EtcdServer,
}

impl NotServing {
    pub(crate) fn begin(server: &EtcdServer, reason: &'static str) -> Self {
        tracing::warn!(
            service = "",
            status = "NOT_SERVING",
            reason,
            "grpc service status changed"
        );
        set(server.serving_state(), false);
        Self {
            server: server.clone(),
        }
    }
}

impl Drop for NotServing {
    fn drop(&mut self) {
        tracing::info!(
            service = "",
            status = "SERVING",
            "grpc service status changed"
        );
        set(self.server.serving_state(), true);
    }
}

fn set(state: &watch::Sender<bool>, is_serving: bool) {
    state.send_if_modified(|state| std::mem::replace(state, is_serving) != is_serving);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_change_is_not_told() {
        let (state, mut seen) = watch::channel(true);
        set(&state, true);
        assert!(!seen.has_changed().expect("the sender is there"));
        set(&state, false);
        assert!(!*seen.borrow_and_update());
        set(&state, false);
        assert!(!seen.has_changed().expect("the sender is there"));
    }
}

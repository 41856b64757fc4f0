//! A member that is known to be corrupt answers nobody until it has been repaired: who asks it waits, and is told
//! to go elsewhere when that takes long.
//!
//! What was asked before the alarm was applied here is answered as it was begun.

use std::time::Duration;

use api::rpctypes::ErrorCode;

use crate::EtcdServer;

/// How long a request waits besides two elections, as other requests do.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl EtcdServer {
    /// Whether this member is known to be corrupt, and is going to be repaired.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.views().alarms.is_quarantined(self.config().member)
    }

    /// Waits while this member must not be read.
    pub(crate) async fn wait_sound(&self) -> Result<(), ErrorCode> {
        if !self.is_quarantined() {
            return Ok(());
        }
        let timeout = WAIT_MAX + 2 * self.config().election_timeout;
        // Larger, and for few.
        let waited = Box::pin(tokio::time::timeout(timeout, self.wait_repaired())).await;
        waited.map_err(|_elapsed| ErrorCode::Timeout)
    }

    /// Waits, however long it takes, until this member is not known to be corrupt.
    pub(super) async fn wait_repaired(&self) {
        while self.is_quarantined() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Whether a method's answer comes from what may be corrupt. An operator can always see how the member is.
pub(crate) fn is_fenced(path: &str) -> bool {
    let is_operators = path.starts_with("/etcdserverpb.Maintenance/")
        && path != "/etcdserverpb.Maintenance/Snapshot";
    !is_operators && !path.starts_with("/grpc.health.v1.")
}

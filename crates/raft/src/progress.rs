//! How far this member is: the last entry committed and the last one applied, for everybody who
//! asks often.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::type_config::LogId;

/// The last entry committed and the last one applied. Both count from 1, as etcd does: 0 is none.
#[derive(Debug)]
pub(crate) struct Progress {
    committed: AtomicU64,
    applied: watch::Sender<u64>,
    applied_now: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            committed: AtomicU64::new(0),
            applied: watch::Sender::new(0),
            applied_now: AtomicU64::new(0),
        }
    }
}

/// An entry's index, counted from 1.
pub(crate) fn from_one(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl Progress {
    pub(crate) fn commit(&self, id: Option<LogId>) {
        self.committed.fetch_max(from_one(id), Ordering::Release);
    }

    /// Says that the state up to `id` can be read.
    pub(crate) fn apply(&self, id: Option<LogId>) {
        let index = from_one(id);
        self.applied_now.fetch_max(index, Ordering::Release);
        self.applied.send_if_modified(|applied| {
            let newer = index > *applied;
            *applied = index.max(*applied);
            newer
        });
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire).max(self.applied())
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied_now.load(Ordering::Acquire)
    }

    /// Entries that are committed and not applied.
    pub(crate) fn behind(&self) -> u64 {
        self.committed
            .load(Ordering::Acquire)
            .saturating_sub(self.applied())
    }

    /// Waits until the entry at `index` (from 1) can be read, but not longer than `patience`: for those who look from
    /// time to time for what only entries bring.
    pub(crate) async fn wait_applied_within(&self, index: u64, patience: Duration) {
        tokio::select! {
            biased;
            () = self.wait_applied(index) => {}
            () = tokio::time::sleep(patience) => {}
        }
    }

    /// Waits until the entry at `index` (from 1) can be read.
    pub(crate) async fn wait_applied(&self, index: u64) {
        if self.applied() >= index {
            return;
        }
        let mut applied = self.applied.subscribe();
        let waited = applied.wait_for(|applied| *applied >= index).await;
        debug_assert!(waited.is_ok(), "the sender is in self");
    }
}

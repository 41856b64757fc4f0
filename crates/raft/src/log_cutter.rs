//! Cuts the log: has the state made durable from time to time, and purges what is then not needed.
//!
//! openraft could do this by counting entries, but one of ours holds between one and a thousand
//! commands, so this also counts bytes: the log is in memory, and is what a restart replays.
//! Nothing is purged that the state does not hold durably; openraft checks that once more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::log_store::LogHandle;
use crate::node::Raft;
use crate::progress::Progress;

/// How often the log's length is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of commands after which the log is cut, however few entries they are.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Entries left for members that are a little behind; as many as etcd leaves.
const CATCH_UP_ENTRIES: u64 = 5000;

/// Bytes of commands left for them.
const CATCH_UP_BYTES: u64 = 2 * 1024 * 1024;

pub(crate) struct LogCutter {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<LogHandle>,
    pub(crate) progress: Arc<Progress>,
    /// `--snapshot-count`.
    pub(crate) snapshot_count: u64,
}

impl LogCutter {
    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What an earlier run left counts, or a member that is often killed would never cut.
        let mut durable = self.log.purged();
        loop {
            let step = async {
                look.tick().await;
                if self.is_due(durable) {
                    durable = self.cut().await?;
                }
                Some(())
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                going = step => if going.is_none() { return },
            }
        }
    }

    fn is_due(&self, durable: Option<u64>) -> bool {
        let entries = self
            .progress
            .applied()
            .saturating_sub(durable.map_or(0, |index| index + 1));
        entries > 0
            && (entries >= self.snapshot_count || self.log.bytes_after(durable) >= LOG_BYTES_MAX)
    }

    /// Makes the state durable, then purges. `None`: raft has stopped.
    async fn cut(&self) -> Option<Option<u64>> {
        let mut durable = self.raft.watch_snapshot_progress();
        let target = self.progress.applied().checked_sub(1);
        self.raft.trigger().snapshot().await.ok()?;
        let reached = durable
            .wait_until(|at| at.as_ref().map(|id| id.index) >= target)
            .await
            .ok()?
            .map(|id| id.index);
        let keep = self.snapshot_count.min(CATCH_UP_ENTRIES);
        if let Some(upto) = reached.and_then(|index| self.log.cut(index, keep, CATCH_UP_BYTES)) {
            self.raft.trigger().purge_log(upto).await.ok()?;
        }
        Some(reached)
    }
}

//! Cuts the log: has the state made durable from time to time, and purges what is then not needed.
//!
//! openraft could do this by counting entries, but one of ours holds between one and a thousand
//! commands, so this also counts bytes: the log is in memory, and is what a restart replays.
//! Nothing is purged that the state does not hold durably; openraft checks that once more.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::leadership::matching;
use crate::log_store::LogHandle;
use crate::membership;
use crate::node::Raft;
use crate::peer::channels::Peers;
use crate::progress::Progress;
use crate::snapshot::Transfers;
use crate::snapshot::receive::Receiver;

/// How often the log's length is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The same while nothing is applied.
const REST_MAX: Duration = Duration::from_secs(1);

/// Bytes of commands after which the log is cut, however few entries they are.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of commands left for members that are a little behind, and when there are none.
const CATCH_UP_BYTES: u64 = 32 * 1024 * 1024;
const CATCH_UP_BYTES_ALONE: u64 = 2 * 1024 * 1024;

/// Bytes of commands left for a member that is being sent a state. When there are more, it needs another
/// state afterwards.
const TRANSFER_BYTES: u64 = 128 * 1024 * 1024;

/// Bytes of commands in the log above which no member is waited for that gets entries and is slow to
/// take them. openraft purges nothing that it is sending: without a bound such a member, alive as it
/// is, would let the log grow for ever. It loses its stream of entries, and gets a state instead.
const HELD_BYTES_MAX: u64 = if cfg!(test) { 4 } else { 256 } * 1024 * 1024;

pub(crate) struct LogCutter {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<LogHandle>,
    pub(crate) progress: Arc<Progress>,
    /// `--snapshot-count`.
    pub(crate) snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub(crate) catch_up_entries: u64,
    /// The states that are on their way to peers, which go on with the log then.
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) receiver: Receiver,
    pub(crate) peers: Arc<Peers>,
}

/// How far the log has been cut, or is to be.
#[derive(Clone, Copy, Default)]
struct Cut {
    /// The state is durable up to here.
    durable: Option<u64>,
    /// openraft was asked to purge up to here.
    upto: Option<u64>,
}

impl LogCutter {
    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What an earlier run left counts, or a member that is often killed would never cut.
        let mut cut = Cut {
            durable: self.log.purged(),
            upto: None,
        };
        loop {
            let applied = self.progress.applied();
            let step = async {
                look.tick().await;
                self.transfers.tidy();
                self.receiver.tidy().await;
                if self.is_due(cut.durable) {
                    cut = self.cut().await?;
                }
                self.leave_behind(cut.upto);
                // Only what is applied is cut.
                self.progress
                    .wait_applied_within(applied + 1, REST_MAX)
                    .await;
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
    async fn cut(&self) -> Option<Cut> {
        let mut durable = self.raft.watch_snapshot_progress();
        let target = self.progress.applied().checked_sub(1);
        self.raft.trigger().snapshot().await.ok()?;
        let reached = durable
            .wait_until(|at| at.as_ref().map(|id| id.index) >= target)
            .await
            .ok()?
            .map(|id| id.index);
        let upto = reached.and_then(|index| self.upto(index));
        if let Some(upto) = upto {
            self.raft.trigger().purge_log(upto).await.ok()?;
        }
        Some(Cut {
            durable: reached,
            upto,
        })
    }

    /// Ends the streams that keep the log from being purged up to `upto` when it has grown too long. Until it
    /// is purged this comes again with every look: a stream may just have been opened anew.
    fn leave_behind(&self, upto: Option<u64>) {
        let purged = self.log.purged();
        let Some(upto) = upto.filter(|upto| purged < Some(*upto)) else {
            return;
        };
        if self.log.bytes_after(purged) <= HELD_BYTES_MAX {
            return;
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        for id in metrics.replication.iter().flat_map(|peers| peers.keys()) {
            if matching(&metrics, *id) <= upto
                && let Some(peer) = self.peers.known(MemberId(*id))
            {
                peer.left_behind.notify_waiters();
            }
        }
    }

    /// Up to where the log may be purged when the state is durable up to `durable`.
    fn upto(&self, durable: u64) -> Option<u64> {
        let is_alone = {
            let server = self.raft.server_metrics();
            let server = server.borrow_watched();
            membership::is_alone(server.id, server.membership_config.membership())
        };
        let bytes = if is_alone {
            CATCH_UP_BYTES_ALONE
        } else {
            CATCH_UP_BYTES
        };
        let keep = self.snapshot_count.min(self.catch_up_entries);
        let upto = self.log.cut(durable, keep, bytes)?;
        let Some(needed) = self.transfers.needed().filter(|needed| *needed < upto) else {
            return Some(upto);
        };
        if self.log.bytes_after(Some(needed)) <= TRANSFER_BYTES {
            return Some(needed);
        }
        self.transfers.cut(upto);
        Some(upto)
    }
}

//! Where Raft stands, as `server` shows it.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::error::{Fatal, FatalCell};
use crate::node::Raft;
use crate::progress::Progress;
use crate::type_config::{Membership, TypeConfig};

/// How often the indexes are looked at for those who follow the status.
const INDEX_INTERVAL: Duration = Duration::from_millis(200);

/// How long a member that was removed goes on, as in etcd (`server.go`, `stopWithDelay`).
const REMOVED_PAUSE: Duration = Duration::from_secs(1);

/// Where Raft stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: u64,
    /// The last committed entry, counted from 1 as etcd does.
    pub committed_index: u64,
    /// The last applied entry, counted from 1 as etcd does.
    pub applied_index: u64,
    /// Whether this member is a learner for clients.
    pub is_learner: bool,
}

/// What the member has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Commands that wait to be proposed (`etcd_server_proposals_pending`).
    pub proposals_pending: u64,
    /// Durable flushes of the log (`etcd_disk_wal_fsync_duration_seconds_count`).
    pub log_flushes: u64,
    /// Bytes of commands they held (`etcd_disk_wal_write_bytes_total`).
    pub log_bytes: u64,
}

pub(crate) fn status(
    member: MemberId,
    server: &RaftServerMetrics<TypeConfig>,
    progress: &Progress,
) -> Status {
    let membership = server.membership_config.membership();
    // The applied index first: it must not pass the committed one in what is shown.
    let applied_index = progress.applied();
    Status {
        leader: server.current_leader.map(MemberId),
        term: server.vote.leader_id.term,
        committed_index: progress.committed(),
        applied_index,
        is_learner: membership
            .get_node(&member.0)
            .is_some_and(|node| node.is_learner),
    }
}

/// Notices that this member was removed.
pub(crate) struct Removal {
    pub(crate) cluster: apply::Cluster,
    pub(crate) fatal: FatalCell,
}

impl Removal {
    /// A member that has applied its own removal stops, a moment later as in etcd: whoever asked it
    /// for the removal gets an answer.
    async fn of(&self, member: MemberId, membership: &Membership) {
        // One that is in a membership to come was made the only member by force.
        if self.cluster.is_removed(member) && membership.get_node(&member.0).is_none() {
            tokio::time::sleep(REMOVED_PAUSE).await;
            self.fatal.set(Fatal::Removed);
        }
    }
}

/// Follows the status, and whether this member still is one.
pub(crate) struct StatusTask {
    member: MemberId,
    raft: Raft,
    progress: Arc<Progress>,
    removal: Removal,
    status: watch::Sender<Status>,
}

impl StatusTask {
    pub(crate) fn new(
        member: MemberId,
        raft: Raft,
        progress: Arc<Progress>,
        removal: Removal,
    ) -> Self {
        let now = status(member, &raft.server_metrics().borrow_watched(), &progress);
        Self {
            member,
            raft,
            progress,
            removal,
            status: watch::Sender::new(now),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut server = self.raft.server_metrics();
        let mut look = tokio::time::interval(INDEX_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = status(self.member, &server.borrow_watched(), &self.progress);
            self.status.send_if_modified(|last| {
                let news = *last != now;
                *last = now;
                news
            });
            let membership = Arc::clone(&server.borrow_watched().membership_config);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.removal.of(self.member, membership.membership()) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = server.changed() => if changed.is_err() { return },
                _at = look.tick() => {}
            }
        }
    }
}

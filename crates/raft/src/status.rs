//! Where Raft stands, as `server` shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::ask::ask;
use crate::error::{Fatal, FatalCell};
use crate::membership;
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
    /// Heartbeats that were not sent in time (`etcd_server_heartbeat_send_failures_total`).
    pub late_heartbeats: u64,
    /// States that are being put in the place of the member's own
    /// (`etcd_server_snapshot_apply_in_progress_total`).
    pub installing: u64,
}

/// Whether the leader that Raft knows is one that this member hears from, or, if it is itself, one
/// that a quorum answers. Raft keeps it in mind until it knows another; etcd forgets it after an
/// election timeout, and clients and requests rely on that. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaderSeen {
    is_seen: Arc<AtomicBool>,
    /// Something was heard from a leader that was not seen.
    heard: Arc<Notify>,
}

impl LeaderSeen {
    /// This member has just believed a leader. That need be no news to Raft: a member that was away knows
    /// from its disk whom it voted for.
    pub(crate) fn hears(&self) {
        if !self.is_seen() {
            self.heard.notify_one();
        }
    }

    fn is_seen(&self) -> bool {
        self.is_seen.load(Ordering::Acquire)
    }
}

pub(crate) fn status(
    member: MemberId,
    server: &RaftServerMetrics<TypeConfig>,
    progress: &Progress,
    seen: &LeaderSeen,
) -> Status {
    let membership = server.membership_config.membership();
    // The applied index first: it must not pass the committed one in what is shown.
    let applied_index = progress.applied();
    Status {
        leader: server
            .current_leader
            .filter(|_| seen.is_seen())
            .map(MemberId),
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
    pub(crate) member: MemberId,
    pub(crate) raft: Raft,
    pub(crate) progress: Arc<Progress>,
    pub(crate) removal: Removal,
    pub(crate) seen: LeaderSeen,
    /// Without a word from the leader for so long there is none.
    pub(crate) election_timeout: Duration,
    /// What was heard before is from an earlier run.
    pub(crate) started: Instant,
    pub(crate) status: watch::Sender<Status>,
}

impl StatusTask {
    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut server = self.raft.server_metrics();
        let mut look = tokio::time::interval(INDEX_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_seen = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                is_seen = self.sees_leader() => is_seen,
            };
            self.seen.is_seen.store(is_seen, Ordering::Release);
            let looked_at = self.progress.applied();
            let now = status(
                self.member,
                &server.borrow_watched(),
                &self.progress,
                &self.seen,
            );
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
                () = self.seen.heard.notified() => {}
                () = self.next_look(membership.membership(), looked_at, &mut look) => {}
            }
        }
    }

    /// Only time tells whether another member that leads is still heard; nothing else changes but by entries.
    async fn next_look(&self, membership: &Membership, looked_at: u64, look: &mut Interval) {
        if membership::is_alone(self.member.0, membership) {
            self.progress.wait_applied(looked_at + 1).await;
        }
        look.tick().await;
    }

    async fn sees_leader(&self) -> bool {
        let server = self.raft.server_metrics().borrow_watched().clone();
        match server.current_leader {
            None => false,
            Some(leader) if leader == self.member.0 => {
                let members = server.membership_config.membership();
                if membership::has_only_vote(self.member.0, members) {
                    return true;
                }
                let acked = self.raft.data_metrics().borrow_watched().last_quorum_acked;
                match acked {
                    Some(at) => at.elapsed() < self.election_timeout,
                    // Just elected.
                    None => self.heard().await.is_some(),
                }
            }
            // What was heard before the start is the vote on the disk.
            Some(_) => self
                .heard()
                .await
                .is_some_and(|ago| ago < self.started.elapsed()),
        }
    }

    /// How long ago Raft has confirmed its vote, if it is not longer than an election timeout.
    async fn heard(&self) -> Option<Duration> {
        let heard = ask(&self.raft, |state| {
            let at = state.vote_last_modified();
            at.map(|at| at.elapsed())
        });
        // A Raft that does not answer does not hear either.
        let heard = tokio::time::timeout(self.election_timeout, heard).await;
        let ago = heard.ok()?.ok()??;
        (ago < self.election_timeout).then_some(ago)
    }
}

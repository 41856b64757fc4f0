//! Who leads, when somebody wants another leader: before a stop, before a removal, or because a
//! client asks.
//!
//! A leader that has handed over writes nothing more and sends no heartbeats, whether the other one
//! takes over or not; when it does not, there is no leader until an election has timed out. So
//! nothing is handed to a member that does not answer or is not close behind, and whoever asks waits
//! until it is, or gets an error while the leader goes on leading.
//!
//! What it is not: an election. Those are openraft's.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::{Instant as _, ServerState};
use tokio::time::Instant;
use types::MemberId;

use crate::member_change::MoveLeaderError;
use crate::membership;
use crate::node::Raft;
use crate::type_config::TypeConfig;

/// Entries that the next leader may be behind: it has to have all of them before it stands, and the
/// group is without a leader meanwhile.
const ENTRIES_BEHIND_MAX: u64 = 256;

/// How often a member that is not close enough is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

type Metrics = RaftMetrics<TypeConfig>;

/// Hands the leadership over. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leadership {
    pub(crate) member: MemberId,
    pub(crate) raft: Raft,
    pub(crate) election_timeout: Duration,
}

impl Leadership {
    /// Lets `to` lead: returns when it does.
    pub(crate) async fn move_to(
        &self,
        to: MemberId,
        timeout: Duration,
    ) -> Result<(), MoveLeaderError> {
        let asked = self.ask_all().await;
        let deadline = asked + timeout;
        loop {
            let metrics = self.raft.metrics().borrow_watched().clone();
            if !leads(&metrics) {
                return Err(MoveLeaderError::NotLeader);
            }
            if !membership::voters(metrics.membership_config.membership()).contains(&to.0) {
                return Err(MoveLeaderError::BadTransferee);
            }
            // etcd has nothing to do either.
            if to == self.member {
                return Ok(());
            }
            if Self::is_close(&metrics, to.0, asked) {
                return self.hand_to(to, deadline).await;
            }
            if Instant::now() >= deadline {
                return Err(MoveLeaderError::Timeout);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Lets the voter lead that is closest behind. Says whether another one leads now.
    pub(crate) async fn hand_over(&self, timeout: Duration) -> bool {
        let asked = self.ask_all().await;
        let deadline = asked + timeout;
        loop {
            let metrics = self.raft.metrics().borrow_watched().clone();
            if !leads(&metrics) {
                return true;
            }
            let voters = membership::voters(metrics.membership_config.membership());
            let others = voters.into_iter().filter(|id| *id != self.member.0);
            let close = others.filter(|id| Self::is_close(&metrics, *id, asked));
            if let Some(best) = close.max_by_key(|id| matching(&metrics, *id)) {
                return self.hand_to(MemberId(best), deadline).await.is_ok();
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether this member leads, and another one could.
    pub(crate) fn has_heir(&self) -> bool {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let voters = membership::voters(server.membership_config.membership());
        server.state == ServerState::Leader && voters.iter().any(|id| *id != self.member.0)
    }

    /// The point of no return.
    async fn hand_to(&self, to: MemberId, deadline: Instant) -> Result<(), MoveLeaderError> {
        let mut server = self.raft.server_metrics();
        tracing::info!(from = %self.member, %to, "leadership transfer starting");
        if self.raft.trigger().transfer_leader(to.0).await.is_err() {
            return Err(MoveLeaderError::NotLeader);
        }
        let began = Instant::now();
        loop {
            let leader = server.borrow_watched().current_leader;
            if let Some(leader) = leader.filter(|leader| *leader != self.member.0) {
                if leader == to.0 {
                    let took = began.elapsed();
                    tracing::info!(from = %self.member, %to, ?took, "leadership transfer finished");
                    return Ok(());
                }
                tracing::warn!(%to, leader = %MemberId(leader), "another member leads now");
                return Err(MoveLeaderError::Timeout);
            }
            match tokio::time::timeout_at(deadline, server.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_stopped)) => return Err(MoveLeaderError::NotLeader),
                Err(_elapsed) => {
                    tracing::warn!(%to, "the leadership was not taken over in time");
                    return Err(MoveLeaderError::Timeout);
                }
            }
        }
    }

    /// Asks the peers for a sign of life, and says when.
    async fn ask_all(&self) -> Instant {
        let asked = Instant::now();
        if self.raft.trigger().heartbeat().await.is_err() {
            // Raft has stopped, so it does not lead; that is found out next.
        }
        asked
    }

    /// Whether a member has answered since it was asked, and has nearly all of the leader's log. A
    /// peer that is only known to have answered a moment ago may have died since.
    fn is_close(metrics: &Metrics, id: u64, asked: Instant) -> bool {
        let last = metrics.last_log_index.map_or(0, |last| last + 1);
        let silent = Self::silent_for(metrics, id);
        silent.is_some_and(|silent| silent < asked.elapsed())
            && matching(metrics, id) + ENTRIES_BEHIND_MAX >= last
    }

    /// Whether a member has answered the leader within half an election timeout.
    pub(crate) fn answers(&self, metrics: &Metrics, id: u64) -> bool {
        let silent = Self::silent_for(metrics, id);
        silent.is_some_and(|silent| silent < self.election_timeout / 2)
    }

    /// How long ago the last request was sent to a member that it has answered.
    fn silent_for(metrics: &Metrics, id: u64) -> Option<Duration> {
        let heartbeats = metrics.heartbeat.as_ref();
        let answered = heartbeats.and_then(|answered| answered.get(&id).copied().flatten());
        answered.map(|at| at.elapsed())
    }
}

pub(crate) fn leads(metrics: &Metrics) -> bool {
    metrics.state == ServerState::Leader && metrics.vote.committed
}

/// The entries that a peer is known to have, counted from 1.
pub(crate) fn matching(metrics: &Metrics, id: u64) -> u64 {
    let replication = metrics.replication.as_ref();
    let matching = replication.and_then(|matching| matching.get(&id).copied().flatten());
    matching.map_or(0, |id| id.index + 1)
}

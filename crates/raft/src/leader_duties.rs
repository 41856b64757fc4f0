//! What only the leader does for leases: it knows when they expire, and proposes to revoke them.
//!
//! The renewer is promoted as soon as this member leads and demoted as soon as it does not. Expired
//! leases are looked for twice a second and revoked through the log, many with one entry and one entry
//! after the other: a pile of them is gone soon, and what clients ask for meanwhile does not wait behind
//! all of it. In the same way the log is told what long leases have left.
// Differs from etcd: it revokes 1,000 leases in a second at most, each with an entry of its own
// (`server/etcdserver/server.go`, `revokeExpiredLeases`).

use std::sync::Arc;
use std::time::Duration;

use apply::{Command, Views};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::lease_entries::{LeaseEntries, NotApplied};
use crate::membership;
use crate::node::Raft;
use crate::state_machine::MachineHandle;
use crate::type_config::TypeConfig;

/// How often expired leases are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// Leases revoked by one entry: as many commands as are applied between two publications.
const REVOKES_MAX: usize = 512;

/// Leases checkpointed by one entry, as in etcd (`maxLeaseCheckpointBatchSize`).
const CHECKPOINTS_MAX: usize = 1000;

pub(crate) struct LeaderDuties {
    pub(crate) raft: Raft,
    pub(crate) views: Views,
    pub(crate) entries: LeaseEntries,
    pub(crate) machine: Arc<MachineHandle>,
    pub(crate) election_timeout: Duration,
    /// Whether this member leads and its renewer knows.
    pub(crate) promoted: watch::Sender<bool>,
}

impl LeaderDuties {
    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut server = self.raft.server_metrics();
        let mut look = tokio::time::interval(EXPIRY_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut led = None;
        loop {
            // In a statement of its own: `has_quorum` reads the same metrics again, and a second read
            // waits for ever when Raft wants to write in between.
            let leads = leading_term(&server.borrow_watched());
            let leads = leads.filter(|_term| self.has_quorum());
            if leads != led {
                self.change(leads);
                led = leads;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = server.changed() => if changed.is_err() { break },
                _at = look.tick() => {
                    let Some(term) = led else { continue };
                    let look_after = async {
                        self.revoke_expired(term).await | self.checkpoint(term).await
                    };
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        more = look_after => if more {
                            look.reset_immediately();
                        }
                    }
                }
            }
        }
        self.change(None);
    }

    /// Whether a quorum has answered lately. A leader without one confirms no keep-alive, so no lease may
    /// expire meanwhile; when it is back they get their full TTLs, as after an election.
    fn has_quorum(&self) -> bool {
        let server = self.raft.server_metrics();
        let membership = Arc::clone(&server.borrow_watched().membership_config);
        if membership::has_only_vote(*self.raft.node_id(), membership.membership()) {
            return true;
        }
        let acked = self.raft.data_metrics().borrow_watched().last_quorum_acked;
        // None: just elected.
        acked.is_none_or(|at| at.elapsed() < self.election_timeout)
    }

    fn change(&self, leads: Option<u64>) {
        match leads {
            // Not less than an election may have taken: keep-alives had nowhere to go meanwhile.
            Some(term) => {
                self.views.renewer.promote(self.election_timeout);
                // etcd's words, ids included: tools wait for them.
                let member = MemberId(*self.raft.node_id());
                tracing::info!("{member} became leader at term {term}");
            }
            None => self.views.renewer.demote(),
        }
        self.promoted.send_replace(leads.is_some());
    }

    /// Revokes leases that have expired; says whether there may be more. Whatever comes of it, the
    /// renewer brings a lease up again while it is there.
    async fn revoke_expired(&self, term: u64) -> bool {
        let expired = self.views.renewer.expired(REVOKES_MAX);
        if expired.is_empty() {
            return false;
        }
        let leases = expired.len();
        let revoke = |id| Command::LeaseRevoke { id };
        let commands = expired.into_iter().map(revoke).collect();
        match self.entries.apply(commands, term).await {
            Ok(()) => {
                tracing::debug!(leases, "revoked expired leases");
                self.machine.leases_expired(leases);
                leases == REVOKES_MAX
            }
            Err(NotApplied::Stopped) => false,
            Err(error) => {
                tracing::warn!(leases, %error, "cannot revoke expired leases");
                false
            }
        }
    }

    /// Notes in the log what long leases have left; says whether there may be more.
    async fn checkpoint(&self, term: u64) -> bool {
        let due = self.views.renewer.checkpoints(CHECKPOINTS_MAX);
        if due.is_empty() {
            return false;
        }
        let leases = due.len();
        let checkpoint = Command::LeaseCheckpoint { leases: due };
        match self.entries.apply(vec![checkpoint], term).await {
            Ok(()) => leases == CHECKPOINTS_MAX,
            Err(NotApplied::Stopped) => false,
            Err(error) => {
                tracing::warn!(leases, %error, "cannot checkpoint leases");
                false
            }
        }
    }
}

/// The term this member leads in, if it does.
fn leading_term(server: &openraft::metrics::RaftServerMetrics<TypeConfig>) -> Option<u64> {
    (server.state == ServerState::Leader && server.vote.committed)
        .then_some(server.vote.leader_id.term)
}

#[cfg(test)]
mod tests;

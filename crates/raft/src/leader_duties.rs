//! What only the leader does for leases: it knows when they expire, and proposes to revoke them.
//!
//! The renewer is promoted as soon as this member leads and demoted as soon as it does not. Expired
//! leases are looked for twice a second and revoked through the log, at most as many at a time as
//! etcd does (`server/etcdserver/server.go`, `revokeExpiredLeases`).

use std::sync::Arc;
use std::time::Duration;

use apply::{Command, Views};
use futures_util::StreamExt;
use futures_util::stream;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::ClientWriteResult;
use openraft::{Instant as _, ServerState};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::{LeaseId, MemberId};

use crate::membership;
use crate::node::Raft;
use crate::proposal_id::ProposalIds;
use crate::proposer::leader_id;
use crate::type_config::{OnComplete, Proposal, Proposed, TypeConfig};

/// How often expired leases are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// Leases revoked in one look.
const REVOKES_MAX: usize = 500;

/// Leases revoked by one entry.
const REVOKES_TOGETHER_MAX: usize = 64;

pub(crate) struct LeaderDuties {
    pub(crate) raft: Raft,
    pub(crate) views: Views,
    pub(crate) ids: Arc<ProposalIds>,
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
            let leads = leading_term(&server.borrow_watched()).filter(|_term| self.has_quorum());
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
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = self.revoke_expired(term) => {}
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
        let voters = membership::voters(server.borrow_watched().membership_config.membership());
        if voters.iter().all(|voter| voter == self.raft.node_id()) {
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

    /// Whatever comes of it, the renewer brings a lease up again while it is there.
    async fn revoke_expired(&self, term: u64) {
        let expired = self.views.renewer.expired(REVOKES_MAX);
        stream::iter(expired.chunks(REVOKES_TOGETHER_MAX))
            .for_each_concurrent(None, |ids| self.revoke(ids, term))
            .await;
    }

    /// Proposes revocations for the term in which the leases expired, and never again: the leader of
    /// another one may have renewed them.
    async fn revoke(&self, leases: &[LeaseId], term: u64) {
        let commands = leases.iter().map(|id| {
            let command = Command::LeaseRevoke { id: *id };
            let encoded = command.encode();
            Proposed { command, encoded }
        });
        let Some(id) = self.ids.next().await else {
            return;
        };
        let proposal = Proposal::new(id, commands.collect());
        let (done, outcome) = oneshot::channel();
        let responder = OnComplete::new(move |result: ClientWriteResult<TypeConfig>| {
            if done.send(result.map(|_written| ())).is_err() {
                // receiver gone: it took too long
            }
        });
        let written = self
            .raft
            .write(proposal)
            .with_leader(leader_id(term))
            .responder(responder)
            .await;
        if written.is_err() {
            return;
        }
        let leases = leases.len();
        match tokio::time::timeout(EXPIRY_INTERVAL * 10, outcome).await {
            Ok(Ok(Ok(()))) => tracing::debug!(leases, "revoked expired leases"),
            Ok(Ok(Err(error))) => tracing::warn!(leases, %error, "cannot revoke expired leases"),
            Ok(Err(_stopping)) => {}
            Err(_elapsed) => tracing::warn!(leases, "revoking expired leases takes long"),
        }
    }
}

/// The term this member leads in, if it does.
fn leading_term(server: &openraft::metrics::RaftServerMetrics<TypeConfig>) -> Option<u64> {
    (server.state == ServerState::Leader && server.vote.committed)
        .then_some(server.vote.leader_id.term)
}

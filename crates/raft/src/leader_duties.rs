//! What only the leader does for leases: it knows when they expire, and proposes to revoke them.
//!
//! The renewer is promoted as soon as this member leads and demoted as soon as it does not. Expired
//! leases are looked for twice a second and revoked through the log, at most as many at a time as
//! etcd does (`server/etcdserver/server.go`, `revokeExpiredLeases`).

use std::time::Duration;

use apply::{Command, Views};
use futures_util::StreamExt;
use futures_util::stream;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::{LeaseId, MemberId};

use crate::node::Raft;
use crate::proposer::ProposeQueue;

/// How often expired leases are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// Leases revoked in one look.
const REVOKES_MAX: usize = 500;

/// Revocations on their way at a time.
const REVOKES_IN_FLIGHT_MAX: usize = 128;

pub(crate) struct LeaderDuties {
    pub(crate) raft: Raft,
    pub(crate) views: Views,
    pub(crate) queue: ProposeQueue,
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
            let leads = leading_term(&server.borrow_watched());
            if leads != led {
                self.change(leads);
                led = leads;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = server.changed() => if changed.is_err() { break },
                _at = look.tick(), if led.is_some() => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = self.revoke_expired() => {}
                    }
                }
            }
        }
        self.change(None);
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

    async fn revoke_expired(&self) {
        let expired = self.views.renewer.expired(REVOKES_MAX);
        stream::iter(expired)
            .for_each_concurrent(REVOKES_IN_FLIGHT_MAX, |id| self.revoke(id))
            .await;
    }

    /// Proposes one revocation. Whatever comes of it, the renewer brings the lease up again while
    /// it is there.
    async fn revoke(&self, id: LeaseId) {
        let command = Command::LeaseRevoke { id };
        let encoded = command.encode();
        let outcome = match self.queue.push(command, encoded) {
            Ok(outcome) => tokio::time::timeout(EXPIRY_INTERVAL * 10, outcome).await,
            Err(error) => {
                tracing::warn!(lease = %id, %error, "cannot revoke an expired lease");
                return;
            }
        };
        match outcome {
            Ok(Ok(Ok(_applied))) => tracing::debug!(lease = %id, "revoked an expired lease"),
            Ok(Ok(Err(error))) => {
                tracing::warn!(lease = %id, %error, "cannot revoke an expired lease");
            }
            Ok(Err(_stopping)) => {}
            Err(_elapsed) => tracing::warn!(lease = %id, "revoking an expired lease takes long"),
        }
    }
}

/// The term this member leads in, if it does.
fn leading_term(
    server: &openraft::metrics::RaftServerMetrics<crate::type_config::TypeConfig>,
) -> Option<u64> {
    (server.state == ServerState::Leader && server.vote.committed)
        .then_some(server.vote.leader_id.term)
}

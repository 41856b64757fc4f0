//! A member whose state is known to be corrupt takes the leader's in its place, and goes on.
//!
//! Its log is sound, so it stays what it is in Raft: it has its vote, takes entries, and confirms them. Only
//! its state machine stands still meanwhile:
//!
//! ```text
//!  corrupt member                                    leader
//!    what was asked for here is answered
//!    applies nothing more; stands at entry a
//!      ────────────────────────── Repair(a) ────────>  has applied a
//!      <──────────── state of an entry p >= a ───────  as to a member that is behind (`snapshot`)
//!    waits until p is committed here
//!    puts it in the place of its own
//!    goes on after p: entries up to there are passed over
//! ```
//!
//! So nothing is lost when it breaks off at any point: either the old state is there or the new one, whole, and
//! the log goes on from there. A member that stops in the middle begins anew, because the alarm still stands.
//!
//! What it is not: it does not find out who is corrupt, and does not keep clients from reading; `server/corrupt`
//! does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::peerpb;
use apply::Received;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::Status;
use types::MemberId;

use crate::ask::ask;
use crate::error::vital;
use crate::node::{Node, Running};
use crate::peer::leader_service::LeaderService;
use crate::peer::service::stopped;
use crate::peer::wire;
use crate::progress::from_one;
use crate::proposer::{is_replaced, leader};
use crate::state_machine::Installer;
use crate::type_config::{LogId, SnapshotMeta};

/// How long it is waited for the answers of what was asked for here.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked whether something has come so far.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How long it may take until the entry of the received state is committed here: it is, on the leader.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the leader waits until it has applied what the other member has.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// A member did not get another state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// There is no leader to have it from.
    #[error("no leader")]
    NoLeader,
    /// This member leads: nobody has a state that it could have.
    #[error("this member leads")]
    Leads,
    /// The leader does not lead any more, or is corrupt itself.
    #[error("the leader has nothing to give")]
    NotLeader,
    /// The state did not come, or is of no use.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// Another repair is going on.
    #[error("another repair is going on")]
    Busy,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
}

impl RepairError {
    fn failed(reason: impl ToString) -> Self {
        Self::Failed {
            reason: reason.to_string(),
        }
    }
}

/// A state on its way to the worker that stands still for it.
struct Delivery {
    meta: SnapshotMeta,
    received: Received,
    installed: oneshot::Sender<io::Result<()>>,
}

/// Where a received state is handed to the worker that waits for it; one at a time.
#[derive(Default)]
pub(crate) struct Repairs {
    waiting: Mutex<Option<oneshot::Sender<Delivery>>>,
}

impl Repairs {
    /// Whether a state is waited for.
    pub(crate) fn is_awaited(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.as_ref().is_some_and(|waiting| !waiting.is_closed())
    }

    /// Hands the state over; returns when it is installed.
    pub(crate) async fn deliver(&self, meta: SnapshotMeta, received: Received) -> io::Result<()> {
        let gone = || io::Error::other("nobody waits for the state any more");
        let waiting = self.waiting.lock().take().ok_or_else(gone)?;
        let (installed, done) = oneshot::channel();
        let delivery = Delivery {
            meta,
            received,
            installed,
        };
        waiting.send(delivery).map_err(|_delivery| gone())?;
        done.await.map_err(|_gone| gone())?
    }

    fn wait(self: &Arc<Self>) -> Result<(Waiting, oneshot::Receiver<Delivery>), RepairError> {
        let mut waiting = self.waiting.lock();
        if waiting.as_ref().is_some_and(|waiting| !waiting.is_closed()) {
            return Err(RepairError::Busy);
        }
        let (sender, delivery) = oneshot::channel();
        *waiting = Some(sender);
        Ok((Waiting(Arc::clone(self)), delivery))
    }
}

/// Until it is dropped a state is waited for; then the worker goes on without one.
struct Waiting(Arc<Repairs>);

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.waiting.lock().take());
    }
}

impl Node {
    /// Puts the leader's state in the place of this member's. Nothing is applied here meanwhile. Safe to drop at any
    /// await: the member goes on with what it has.
    pub async fn repair(&self) -> Result<(), RepairError> {
        let running = self.running();
        let repaired = tokio::select! {
            biased;
            () = running.stop.cancelled() => Err(RepairError::Stopped),
            repaired = running.repair() => repaired,
        };
        repaired
    }
}

impl Running {
    async fn repair(&self) -> Result<(), RepairError> {
        let from = leader(&self.server).ok_or(RepairError::NoLeader)?.member;
        if from == self.config.member {
            return Err(RepairError::Leads);
        }
        self.drain().await;
        let (_waiting, delivery) = self.repairs.wait()?;
        let applied = self.stand_still(delivery).await?;
        tokio::select! {
            biased;
            answered = self.ask_for_state(from, applied) => answered,
            () = is_replaced(&self.server, from) => Err(RepairError::NotLeader),
        }
    }

    /// Waits for the answers of what was asked for here; it is asked for nothing more. What has none in time gets
    /// it late, or is told that nobody knows.
    async fn drain(&self) {
        let idle = async {
            while self.is_proposing() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, idle).await.is_err() {
            tracing::debug!("some proposals have no answer yet");
        }
    }

    /// Has nothing applied until the state comes, or cannot come any more. Says what was applied last.
    async fn stand_still(
        &self,
        delivery: oneshot::Receiver<Delivery>,
    ) -> Result<Option<LogId>, RepairError> {
        let (stands, standing) = oneshot::channel();
        let fatal = self.fatal.clone();
        let asked = self.raft.external_state_machine_request(move |adapter| {
            let standing = take_state(adapter.installer(), stands, delivery);
            Box::pin(vital("the repair", fatal, standing))
        });
        asked.await.map_err(|_stopped| RepairError::Stopped)?;
        standing.await.map_err(|_gone| RepairError::Stopped)
    }

    async fn ask_for_state(
        &self,
        from: MemberId,
        applied: Option<LogId>,
    ) -> Result<(), RepairError> {
        let peer = self.peers.known(from).ok_or(RepairError::NoLeader)?;
        let applied = applied.map(wire::id_to);
        let request = peerpb::RepairRequest { applied };
        match peer.leader().repair(request).await {
            Ok(answer) if answer.get_ref().not_leader => Err(RepairError::NotLeader),
            Ok(_installed) => Ok(()),
            Err(status) => {
                peer.failed(&status);
                Err(RepairError::failed(status.message()))
            }
        }
    }
}

/// Runs on openraft's worker, which applies nothing until this returns.
async fn take_state(
    installer: Installer,
    stands: oneshot::Sender<Option<LogId>>,
    delivery: oneshot::Receiver<Delivery>,
) {
    if stands.send(installer.applied()).is_err() {
        // it is not wanted any more
        return;
    }
    let Ok(delivery) = delivery.await else {
        return;
    };
    let Delivery {
        meta,
        received,
        installed,
    } = delivery;
    let done = install(&installer, &meta, received).await;
    if installed.send(done).is_err() {
        // whoever sent it has gone; it is installed all the same
    }
}

async fn install(installer: &Installer, meta: &SnapshotMeta, received: Received) -> io::Result<()> {
    let (index, progress) = (from_one(meta.last_log_id), installer.progress());
    let committed = async {
        while progress.committed() < index {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    // The log must hold what the state holds: it goes on from there.
    if tokio::time::timeout(COMMIT_TIMEOUT, committed)
        .await
        .is_err()
    {
        return Err(io::Error::other("its entry is not committed here"));
    }
    if from_one(installer.applied()) > index {
        return Err(io::Error::other("it is older than what is here"));
    }
    installer.install(meta, received).await?;
    tracing::info!(index, "the state was replaced with the leader's");
    Ok(())
}

impl LeaderService {
    /// Sends this member's state to one that has asked for it.
    pub(crate) async fn send_state(
        &self,
        to: MemberId,
        applied: Option<peerpb::LogId>,
    ) -> Result<peerpb::RepairResponse, Status> {
        let refused = Ok(peerpb::RepairResponse { not_leader: true });
        let me = self.peers.me().member;
        let server = self.raft.server_metrics();
        if leader(&server).map(|leader| leader.member) != Some(me)
            || self.leases.views.alarms.is_quarantined(me)
        {
            return refused;
        }
        let applied = applied.map(wire::id_from);
        let applied = applied.ok_or_else(|| Status::invalid_argument("nothing is applied"))?;
        let caught_up = self.progress.wait_applied(applied.index + 1);
        let caught_up = tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await;
        caught_up.map_err(|_elapsed| Status::unavailable("the leader is behind"))?;
        let vote = ask(&self.raft, |state| *state.vote_ref()).await;
        let vote = vote.map_err(|error| stopped(&error))?;
        let peer = self.peers.known(to);
        let peer = peer.ok_or_else(|| Status::unavailable("nobody knows where the member is"))?;
        self.states.repair(&peer, vote, applied).await?;
        Ok(peerpb::RepairResponse { not_leader: false })
    }
}

#[cfg(test)]
mod tests;

//! Brings commands into the log: what has queued becomes one proposal, which becomes one entry.
//!
//! One task takes commands from a bounded queue and proposes them: to openraft where this member
//! leads, or else to the leader ([`forward`](crate::forward)). The more proposals are on their way,
//! the longer the queue gets and the fuller the next one: entries grow with the load, and no timer
//! delays a lone command. What ends an overload has a queue of its own, and goes first. Outcomes come through [`waiters`](crate::waiters).
//!
//! A proposal that was turned away (no leader, or a leader whose lease ran out while a flush took
//! too long) was not appended; it is tried again until those who wait for it have given up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apply::{Rejection, Reply, Request};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use openraft::vote::RaftLeaderId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::error::ProposeError;
use crate::forward::Forwarder;
use crate::node::{Raft, ServerMetrics};
use crate::proposal_id::ProposalIds;
use crate::type_config::{CommittedLeaderId, LeaderId, OnComplete, Proposal, Proposed, TypeConfig};
use crate::waiters::{Awaited, Caller, Outcome, Waiters};

/// Commands that wait to be proposed. When it is full, callers are refused: etcd's "too many
/// requests".
pub(crate) const QUEUE_LEN_MAX: usize = 16 * 1024;

/// What ends an overload ([`Command::is_urgent`]) and waits to be proposed; it overtakes the others. When it is
/// full, callers are refused.
const URGENT_LEN_MAX: usize = 1024;

/// Commands in one entry.
const PROPOSAL_COMMANDS_MAX: usize = 1024;

/// Turns for which a proposal waits for others to join it.
const GATHER_TURNS_MAX: usize = 16;

/// Bytes of commands in one entry, a single larger command aside: what the log packs well.
const PROPOSAL_BYTES_MAX: usize = 48 * 1024;

/// Proposals on their way. The rest waits in the queue and shares an entry. Too few would leave
/// commands out of the next flush that came in time for it.
pub(crate) const PROPOSALS_IN_FLIGHT_MAX: usize = 64;

/// Pause before a proposal that was turned away is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How often it is looked whether anybody still waits for what is on its way.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A command that was carried out or refused.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What came of it.
    pub outcome: Result<Reply, Rejection>,
    /// The term in which it was applied.
    pub term: u64,
}

/// A command, and who waits for its outcome.
#[derive(Debug)]
struct Waiting {
    proposed: Proposed,
    caller: Caller,
}

/// Takes commands. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ProposeQueue {
    queue: mpsc::Sender<Waiting>,
    urgent: mpsc::Sender<Waiting>,
}

/// The task that proposes them.
pub(crate) struct Proposer {
    queue: mpsc::Receiver<Waiting>,
    urgent: mpsc::Receiver<Waiting>,
    in_flight: Arc<Semaphore>,
    waiters: Arc<Waiters>,
    ids: Arc<ProposalIds>,
    raft: Raft,
    server: ServerMetrics,
    forwarder: Forwarder,
    /// Something waits for a leader.
    needs_leader: bool,
}

/// The leader as this member knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) member: MemberId,
    pub(crate) term: u64,
}

/// The leader, if one is known.
pub(crate) fn leader(server: &ServerMetrics) -> Option<Leader> {
    let vote = server.borrow_watched().vote;
    vote.committed.then_some(Leader {
        member: MemberId(vote.leader_id.voted_for),
        term: vote.leader_id.term,
    })
}

/// Waits until there is another leader than this one, or none.
pub(crate) async fn is_replaced(server: &ServerMetrics, known: MemberId) {
    let mut server = server.clone();
    while leader(&server).is_some_and(|leader| leader.member == known) {
        if server.changed().await.is_err() {
            // Raft has stopped.
            return;
        }
    }
}

/// How openraft names the leader of a term.
pub(crate) fn leader_id(term: u64) -> CommittedLeaderId {
    LeaderId::new(term, 0).to_committed()
}

pub(crate) fn proposer(
    raft: Raft,
    waiters: Arc<Waiters>,
    ids: Arc<ProposalIds>,
    forwarder: Forwarder,
) -> (ProposeQueue, Proposer) {
    let (sender, queue) = mpsc::channel(QUEUE_LEN_MAX);
    let (urgent_sender, urgent) = mpsc::channel(URGENT_LEN_MAX);
    let proposer = Proposer {
        queue,
        urgent,
        in_flight: Arc::new(Semaphore::new(PROPOSALS_IN_FLIGHT_MAX)),
        waiters,
        ids,
        server: raft.server_metrics(),
        raft,
        forwarder,
        needs_leader: false,
    };
    let queue = ProposeQueue {
        queue: sender,
        urgent: urgent_sender,
    };
    (queue, proposer)
}

impl ProposeQueue {
    /// Queues a command. Its outcome comes through the receiver; a receiver whose sender has gone
    /// belongs to a member that is stopping.
    pub(crate) fn push(&self, request: Request, encoded: Bytes) -> Result<Outcome, ProposeError> {
        let (caller, outcome) = oneshot::channel();
        let queue = if request.command.is_urgent() {
            &self.urgent
        } else {
            &self.queue
        };
        let waiting = Waiting {
            proposed: Proposed { request, encoded },
            caller,
        };
        queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })?;
        Ok(outcome)
    }

    /// Commands that wait to be proposed.
    pub(crate) fn len(&self) -> usize {
        let urgent = URGENT_LEN_MAX - self.urgent.capacity();
        QUEUE_LEN_MAX - self.queue.capacity() + urgent
    }
}

/// Raft has stopped.
struct Gone;

impl Proposer {
    /// Runs until the member stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut next = VecDeque::new();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Gone),
                changed = self.server.changed() => match changed {
                    Ok(()) if self.needs_leader => self.retry().await,
                    Ok(()) => Ok(()),
                    Err(_gone) => Err(Gone),
                },
                () = self.waiters.wait_returned() => self.retry().await,
                Some(waiting) = self.urgent.recv(), if next.is_empty() => {
                    next.push_back(waiting);
                    Ok(())
                }
                waiting = self.queue.recv(), if next.is_empty() => {
                    waiting.map(|waiting| next.push_back(waiting)).ok_or(Gone)
                }
                permit = Arc::clone(&self.in_flight).acquire_owned(), if !next.is_empty() => {
                    match permit {
                        Ok(permit) => self.propose(&mut next, permit).await,
                        Err(_closed) => Err(Gone),
                    }
                }
                _at = sweep.tick() => {
                    self.waiters.sweep();
                    Ok(())
                }
            };
            if step.is_err() {
                break;
            }
        }
        self.waiters.close();
    }

    /// Sends what was returned once more, unless nobody waits for it any more.
    async fn retry(&mut self) -> Result<(), Gone> {
        let (returned, was_refused) = self.waiters.take_returned();
        if was_refused {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.needs_leader = false;
        for awaited in returned {
            if !awaited.is_given_up() {
                self.send(awaited).await?;
            }
        }
        Ok(())
    }

    async fn propose(
        &mut self,
        next: &mut VecDeque<Waiting>,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), Gone> {
        // The flusher is busy with another proposal: this one loses nothing by letting everybody
        // else who is ready bring a command along.
        if self.in_flight.available_permits() + 1 < PROPOSALS_IN_FLIGHT_MAX {
            self.let_gather(next).await;
        }
        // While this waited for its turn, more may have come.
        while next.len() < PROPOSAL_COMMANDS_MAX / 2 {
            let Ok(waiting) = self.urgent.try_recv() else {
                break;
            };
            next.push_front(waiting);
        }
        while next.len() < PROPOSAL_COMMANDS_MAX {
            let Ok(waiting) = self.queue.try_recv() else {
                break;
            };
            next.push_back(waiting);
        }
        let taken = take_proposal(next);
        let mut commands = Vec::with_capacity(taken.len());
        let mut callers = Vec::with_capacity(taken.len());
        for Waiting { proposed, caller } in taken {
            if !caller.is_closed() {
                commands.push(proposed);
                callers.push(caller);
            }
        }
        if commands.is_empty() {
            return Ok(());
        }
        let id = self.ids.next().await.ok_or(Gone)?;
        self.send(Awaited {
            proposal: Proposal::new(id, commands),
            callers,
            turn: permit,
        })
        .await
    }

    /// Lets those who are ready queue their commands, for as long as there are any and the proposal is not full
    /// without them.
    async fn let_gather(&self, next: &VecDeque<Waiting>) {
        let bytes: usize = next
            .iter()
            .map(|waiting| waiting.proposed.encoded.len())
            .sum();
        if bytes >= PROPOSAL_BYTES_MAX {
            return;
        }
        let mut queued = self.queue.len();
        for _ in 0..GATHER_TURNS_MAX {
            if next.len() + queued >= PROPOSAL_COMMANDS_MAX {
                break;
            }
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut queued, self.queue.len());
            if queued == before {
                break;
            }
        }
    }

    /// Sends a proposal to the leader.
    async fn send(&mut self, awaited: Awaited) -> Result<(), Gone> {
        let Some(leader) = leader(&self.server) else {
            self.needs_leader = true;
            self.waiters.keep(awaited);
            return Ok(());
        };
        let Some(proposal) = self.waiters.send(awaited, leader.term) else {
            return Ok(());
        };
        if leader.member.0 != *self.raft.node_id() {
            self.forwarder.send(leader, proposal.id()).await;
            return Ok(());
        }
        let (waiters, id) = (Arc::clone(&self.waiters), proposal.id());
        let responder = OnComplete::new(move |result: ClientWriteResult<TypeConfig>| {
            if let Err(error) = result
                && was_not_appended(&error)
            {
                waiters.refused(id, leader.term);
            }
        });
        self.raft
            .write(proposal)
            .with_leader(leader_id(leader.term))
            .responder(responder)
            .await
            .map_err(|_fatal| Gone)
    }
}

/// Whether a write that failed left nothing in the log. What was in it and was lost to another
/// leader may come back: entries of a higher term decide.
pub(crate) const fn was_not_appended(error: &ClientWriteError<TypeConfig>) -> bool {
    match error {
        ClientWriteError::ForwardToLeader(_) | ClientWriteError::PreconditionFailed(_) => true,
        ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::ChangeMembershipError(_) => {
            false
        }
    }
}

/// The first commands of the queue, as many as go into one entry.
fn take_proposal(queue: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let mut bytes = 0;
    let fits = |waiting: &&Waiting| {
        bytes += waiting.proposed.encoded.len();
        bytes <= PROPOSAL_BYTES_MAX
    };
    let count = queue
        .iter()
        .take(PROPOSAL_COMMANDS_MAX)
        .take_while(fits)
        .count();
    queue.drain(..count.max(1).min(queue.len())).collect()
}

#[cfg(test)]
mod tests {
    use apply::Command;
    use types::LeaseId;

    use super::*;

    #[test]
    fn what_ends_an_overload_finds_room_when_others_are_refused() {
        let ((sender, mut waiting), (urgent_sender, mut urgent)) =
            (mpsc::channel(1), mpsc::channel(1));
        let queue = ProposeQueue {
            queue: sender,
            urgent: urgent_sender,
        };
        let push = |command: Command| queue.push(command.into(), Bytes::new()).err();
        let grant = Command::LeaseGrant {
            id: LeaseId(1),
            ttl_s: 60,
        };
        assert_eq!(push(grant.clone()), None);
        assert_eq!(push(grant), Some(ProposeError::TooManyRequests));
        let revoke = Command::LeaseRevoke { id: LeaseId(1) };
        assert_eq!(push(revoke), None);
        let compact = Command::Compact { revision: 1 };
        assert_eq!(push(compact), Some(ProposeError::TooManyRequests));
        assert!(waiting.try_recv().is_ok() && urgent.try_recv().is_ok());
    }
}

//! Brings commands into the log: what has queued becomes one entry.
//!
//! One task takes commands from a bounded queue and proposes them. The more proposals are on their
//! way, the longer the queue gets and the fuller the next one: entries grow with the load, and no
//! timer delays a lone command. Each command's outcome goes straight from the state machine to the
//! one who waits for it.
//!
//! A proposal that openraft turns away (no leader, or a leader whose lease ran out while a flush
//! took too long) was not appended; it comes back to the queue's head and is tried again until
//! those who wait for it have given up. One that was appended and then lost to another leader is
//! never tried again: nobody knows whether it counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apply::{Command, Rejection, Reply};
use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::ProposeError;
use crate::node::Raft;
use crate::type_config::{OnComplete, Outcomes, Proposal, Proposed, TypeConfig};

/// Commands that wait to be proposed. When it is full, callers are refused: etcd's "too many
/// requests".
pub(crate) const QUEUE_LEN_MAX: usize = 16 * 1024;

/// Commands in one entry.
const PROPOSAL_COMMANDS_MAX: usize = 1024;

/// Bytes of commands in one entry, a single larger command aside: what the log packs well.
const PROPOSAL_BYTES_MAX: usize = 48 * 1024;

/// Proposals on their way. The rest waits in the queue and shares an entry. Too few would leave
/// commands out of the next flush that came in time for it.
const PROPOSALS_IN_FLIGHT_MAX: usize = 64;

/// Pause before a proposal that was turned away is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

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

type Caller = oneshot::Sender<Result<Applied, ProposeError>>;

/// Takes commands. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ProposeQueue {
    queue: mpsc::Sender<Waiting>,
}

/// The task that proposes them.
pub(crate) struct Proposer {
    queue: mpsc::Receiver<Waiting>,
    turned_away: Arc<TurnedAway>,
    in_flight: Arc<Semaphore>,
    raft: Raft,
}

/// Proposals that were turned away. They count as on their way, so there are never more than
/// [`PROPOSALS_IN_FLIGHT_MAX`].
#[derive(Default)]
struct TurnedAway {
    proposals: Mutex<Option<Vec<Sent>>>,
    notify: Notify,
}

pub(crate) fn proposer(raft: Raft) -> (ProposeQueue, Proposer) {
    let (sender, queue) = mpsc::channel(QUEUE_LEN_MAX);
    let in_flight = Arc::new(Semaphore::new(PROPOSALS_IN_FLIGHT_MAX));
    let turned_away = TurnedAway {
        proposals: Mutex::new(Some(Vec::new())),
        notify: Notify::new(),
    };
    let proposer = Proposer {
        queue,
        turned_away: Arc::new(turned_away),
        in_flight,
        raft,
    };
    (ProposeQueue { queue: sender }, proposer)
}

impl ProposeQueue {
    /// Queues a command. Its outcome comes through the receiver; a receiver whose sender has gone
    /// belongs to a member that is stopping.
    pub(crate) fn push(
        &self,
        command: Command,
        encoded: Bytes,
    ) -> Result<oneshot::Receiver<Result<Applied, ProposeError>>, ProposeError> {
        let (caller, outcome) = oneshot::channel();
        let waiting = Waiting {
            proposed: Proposed { command, encoded },
            caller,
        };
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })?;
        Ok(outcome)
    }

    /// Commands that wait to be proposed.
    pub(crate) fn len(&self) -> usize {
        QUEUE_LEN_MAX - self.queue.capacity()
    }
}

impl Proposer {
    /// Runs until the member stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut next = VecDeque::new();
        loop {
            let going = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                () = self.turned_away.notify.notified() => self.retry().await,
                waiting = self.queue.recv(), if next.is_empty() => {
                    waiting.map(|waiting| next.push_back(waiting))
                }
                permit = Arc::clone(&self.in_flight).acquire_owned(), if !next.is_empty() => {
                    match permit {
                        Ok(permit) => self.propose(&mut next, permit).await,
                        Err(_closed) => None,
                    }
                }
            };
            if going.is_none() {
                break;
            }
        }
        // Nothing is tried again from now on, and those who wait learn that the member stops.
        self.turned_away.proposals.lock().take();
    }

    /// Tries what was turned away once more, unless nobody waits for it any more.
    async fn retry(&mut self) -> Option<()> {
        tokio::time::sleep(RETRY_PAUSE).await;
        let proposals = std::mem::take(self.turned_away.proposals.lock().as_mut()?);
        for sent in proposals {
            if !sent.callers.iter().all(oneshot::Sender::is_closed) {
                self.send(sent).await?;
            }
        }
        Some(())
    }

    async fn propose(
        &mut self,
        next: &mut VecDeque<Waiting>,
        permit: OwnedSemaphorePermit,
    ) -> Option<()> {
        // The flusher is busy with another proposal: this one loses nothing by letting everybody
        // else who is ready bring a command along.
        if self.in_flight.available_permits() + 1 < PROPOSALS_IN_FLIGHT_MAX {
            tokio::task::yield_now().await;
        }
        // While this waited for its turn, more may have come.
        while next.len() < PROPOSAL_COMMANDS_MAX {
            let Ok(waiting) = self.queue.try_recv() else {
                break;
            };
            next.push_back(waiting);
        }
        let (commands, callers): (Vec<Proposed>, Vec<Caller>) = take_proposal(next)
            .into_iter()
            .filter(|waiting| !waiting.caller.is_closed())
            .map(|waiting| (waiting.proposed, waiting.caller))
            .unzip();
        if commands.is_empty() {
            return Some(());
        }
        let turned_away = Arc::clone(&self.turned_away);
        let proposal = Proposal::new(commands);
        self.send(Sent {
            proposal,
            callers,
            turned_away,
            permit,
        })
        .await
    }

    /// `None`: raft has stopped.
    async fn send(&self, sent: Sent) -> Option<()> {
        let proposal = sent.proposal.clone();
        let responder = OnComplete::new(move |result| sent.complete(result));
        self.raft
            .client_write_ff(proposal, Some(responder))
            .await
            .ok()
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

/// A proposal on its way.
struct Sent {
    proposal: Proposal,
    callers: Vec<Caller>,
    turned_away: Arc<TurnedAway>,
    permit: OwnedSemaphorePermit,
}

impl Sent {
    fn complete(self, result: ClientWriteResult<TypeConfig>) {
        match result {
            Ok(written) => self.answer(written.log_id.leader_id.term, written.data),
            Err(ClientWriteError::ForwardToLeader(_)) => self.retry(),
            Err(
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => self.refuse(ProposeError::LeaderChanged),
        }
    }

    fn answer(self, term: u64, outcomes: Outcomes) {
        // Its turn is over before its callers bring their next commands.
        drop(self.permit);
        assert_eq!(
            outcomes.len(),
            self.callers.len(),
            "every command has an outcome"
        );
        for (caller, outcome) in self.callers.into_iter().zip(outcomes) {
            if caller.send(Ok(Applied { outcome, term })).is_err() {
                // receiver gone: the caller has given up waiting
            }
        }
    }

    fn refuse(self, error: ProposeError) {
        for caller in self.callers {
            if caller.send(Err(error)).is_err() {
                // receiver gone: the caller has given up waiting
            }
        }
    }

    fn retry(self) {
        let turned_away = Arc::clone(&self.turned_away);
        if let Some(proposals) = turned_away.proposals.lock().as_mut() {
            proposals.push(self);
        }
        turned_away.notify.notify_one();
    }
}

//! Who waits for what is on its way through the log.
//!
//! A proposal is answered on the member where it was asked for, when that member applies it: whoever
//! leads and however the entry came there. A proposal is sent for one term only: the leader of another
//! one refuses it. Entries are applied in the order of their terms, so when an entry of a higher term
//! is applied here and the proposal was not, it never will be: it is sent again, in the new term. That
//! is how a command is carried out once however often leaders die on the way.
//!
//! ```text
//!            send(term)                      answer
//!  proposer ───────────> sent ────────────────────────────> callers
//!     ^                   │ refused, or a higher term is applied
//!     └──── returned <────┘
//! ```
//! What it is not: it sends nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use crate::error::ProposeError;
use crate::proposal_id::ProposalIds;
use crate::proposer::Applied;
use crate::type_config::{Outcomes, Proposal};

/// Who waits for one command.
pub(crate) type Caller = oneshot::Sender<Result<Applied, ProposeError>>;

/// What became of a command, once it is known.
pub(crate) type Outcome = oneshot::Receiver<Result<Applied, ProposeError>>;

/// A proposal and those who wait for its commands.
#[derive(Debug)]
pub(crate) struct Awaited {
    pub(crate) proposal: Proposal,
    /// One for each command.
    pub(crate) callers: Vec<Caller>,
    /// Its right to be on the way.
    pub(crate) turn: OwnedSemaphorePermit,
}

impl Awaited {
    pub(crate) fn is_given_up(&self) -> bool {
        self.callers.iter().all(oneshot::Sender::is_closed)
    }

    fn answer(self, term: u64, outcomes: Outcomes) {
        // Its turn is over before its callers bring their next commands.
        drop(self.turn);
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

    pub(crate) fn refuse(self, error: ProposeError) {
        drop(self.turn);
        for caller in self.callers {
            if caller.send(Err(error)).is_err() {
                // receiver gone: the caller has given up waiting
            }
        }
    }
}

/// A proposal that was applied here.
#[derive(Debug)]
pub(crate) struct AppliedProposal {
    pub(crate) id: u64,
    pub(crate) term: u64,
    pub(crate) outcomes: Outcomes,
}

#[derive(Debug)]
struct Sent {
    awaited: Awaited,
    term: u64,
    /// It may be in a state that was installed: then it is not sent again.
    may_be_applied: bool,
}

#[derive(Debug, Default)]
struct State {
    sent: BTreeMap<u64, Sent>,
    returned: Vec<Awaited>,
    /// Something was refused: it needs a pause before it is sent again.
    was_refused: bool,
    /// The term of the last entry that was applied here.
    term: u64,
    is_closed: bool,
}

/// Who waits. The proposer's bound on proposals that are on their way is the bound on what is here.
#[derive(Debug)]
pub(crate) struct Waiters {
    ids: Arc<ProposalIds>,
    state: Mutex<State>,
    returned: Notify,
}

impl Waiters {
    pub(crate) fn new(ids: Arc<ProposalIds>) -> Self {
        Self {
            ids,
            state: Mutex::default(),
            returned: Notify::new(),
        }
    }

    /// Whether somebody here may wait for a proposal.
    pub(crate) fn may_await(&self, id: u64) -> bool {
        self.ids.may_be_ours(id)
    }

    /// Notes that a proposal is sent in a term. `None`: it must not be, and was returned or dropped.
    pub(crate) fn send(&self, awaited: Awaited, term: u64) -> Option<Proposal> {
        let mut state = self.state.lock();
        if state.is_closed {
            return None;
        }
        if state.term > term {
            // That term is over.
            state.returned.push(awaited);
            state.was_refused = true;
            self.returned.notify_one();
            return None;
        }
        let proposal = awaited.proposal.clone();
        let sent = Sent {
            awaited,
            term,
            may_be_applied: false,
        };
        let before = state.sent.insert(proposal.id(), sent);
        debug_assert!(before.is_none(), "a proposal is on its way once");
        Some(proposal)
    }

    /// A proposal that was sent in this term and is not applied yet.
    pub(crate) fn sent(&self, id: u64, term: u64) -> Option<Proposal> {
        let state = self.state.lock();
        let sent = state.sent.get(&id).filter(|sent| sent.term == term)?;
        Some(sent.awaited.proposal.clone())
    }

    /// Who was asked in this term has refused, and appended nothing.
    pub(crate) fn refused(&self, id: u64, term: u64) {
        let mut state = self.state.lock();
        if let Some(awaited) = state.take(id, term) {
            state.returned.push(awaited);
            state.was_refused = true;
            self.returned.notify_one();
        }
    }

    /// Nothing was appended, and it is not tried again.
    pub(crate) fn fail(&self, id: u64, term: u64, error: ProposeError) {
        let awaited = self.state.lock().take(id, term);
        if let Some(awaited) = awaited {
            awaited.refuse(error);
        }
    }

    /// Answers what was applied, then returns what never will be. `term` is that of the last entry
    /// applied.
    pub(crate) fn applied(&self, proposals: &mut Vec<AppliedProposal>, term: u64) {
        let mut answered = Vec::with_capacity(proposals.len());
        {
            let mut state = self.state.lock();
            for applied in proposals.drain(..) {
                if let Some(sent) = state.sent.remove(&applied.id) {
                    answered.push((sent.awaited, applied));
                }
            }
            if term > state.term {
                state.term = term;
                self.return_older(&mut state, term);
            }
        }
        for (awaited, applied) in answered {
            awaited.answer(applied.term, applied.outcomes);
        }
    }

    /// A state was installed whose last entry is of this term: nobody knows what of the entries
    /// before was applied in it.
    pub(crate) fn skipped(&self, term: u64) {
        let mut unknown = Vec::new();
        let mut state = self.state.lock();
        state.term = state.term.max(term);
        let over: Vec<u64> = state.older_than(term);
        for id in over {
            unknown.extend(state.sent.remove(&id));
        }
        for sent in state.sent.values_mut().filter(|sent| sent.term == term) {
            sent.may_be_applied = true;
        }
        drop(state);
        for sent in unknown {
            sent.awaited.refuse(ProposeError::Timeout);
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.sent.is_empty() && state.returned.is_empty()
    }

    /// What is to be sent again, and whether it has to pause before that.
    pub(crate) fn take_returned(&self) -> (Vec<Awaited>, bool) {
        let mut state = self.state.lock();
        let pause = std::mem::take(&mut state.was_refused);
        (std::mem::take(&mut state.returned), pause)
    }

    /// Gives back what could not be sent, without a word to the proposer, which gave it.
    pub(crate) fn keep(&self, awaited: Awaited) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.returned.push(awaited);
        }
    }

    /// Waits until there is something to be sent again.
    pub(crate) async fn wait_returned(&self) {
        self.returned.notified().await;
    }

    /// Lets go of what nobody waits for any more.
    pub(crate) fn sweep(&self) {
        let mut state = self.state.lock();
        state.sent.retain(|_, sent| !sent.awaited.is_given_up());
        state.returned.retain(|awaited| !awaited.is_given_up());
    }

    /// Nothing is sent any more; those who wait learn it by their channels.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let (sent, returned) = (
            std::mem::take(&mut state.sent),
            std::mem::take(&mut state.returned),
        );
        drop(state);
        drop((sent, returned));
    }

    fn return_older(&self, state: &mut State, term: u64) {
        let mut lost = state.older_than(term);
        // In the order in which they were asked for.
        lost.sort_unstable();
        for id in lost {
            let Some(sent) = state.sent.remove(&id) else {
                continue;
            };
            if sent.may_be_applied {
                sent.awaited.refuse(ProposeError::Timeout);
            } else {
                state.returned.push(sent.awaited);
            }
        }
        if !state.returned.is_empty() {
            self.returned.notify_one();
        }
    }
}

impl State {
    fn take(&mut self, id: u64, term: u64) -> Option<Awaited> {
        match self.sent.entry(id) {
            Entry::Occupied(sent) if sent.get().term == term => Some(sent.remove().awaited),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    fn older_than(&self, term: u64) -> Vec<u64> {
        let older = self.sent.iter().filter(|(_, sent)| sent.term < term);
        older.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use apply::Rejection;
    use tokio::sync::Semaphore;
    use types::MemberId;

    use super::*;
    use crate::testing::put;

    type Outcome = oneshot::Receiver<Result<Applied, ProposeError>>;

    struct Asked {
        waiters: Waiters,
        turns: Arc<Semaphore>,
    }

    impl Asked {
        fn new() -> Self {
            let ids = ProposalIds::unbounded(MemberId(1), SystemTime::UNIX_EPOCH);
            Self {
                waiters: Waiters::new(Arc::new(ids)),
                turns: Arc::new(Semaphore::new(8)),
            }
        }

        fn awaited(&self, id: u64) -> (Awaited, Outcome) {
            let (caller, outcome) = oneshot::channel();
            let awaited = Awaited {
                proposal: Proposal::new(id, vec![put(b"k", b"v")]),
                callers: vec![caller],
                turn: Arc::clone(&self.turns).try_acquire_owned().unwrap(),
            };
            (awaited, outcome)
        }

        fn send(&self, id: u64, term: u64) -> Outcome {
            let (awaited, outcome) = self.awaited(id);
            assert!(self.waiters.send(awaited, term).is_some());
            outcome
        }

        fn apply(&self, ids: &[u64], term: u64) {
            let applied = |id: &u64| AppliedProposal {
                id: *id,
                term,
                outcomes: vec![Err(Rejection::LeaseNotFound)],
            };
            let mut applied: Vec<_> = ids.iter().map(applied).collect();
            self.waiters.applied(&mut applied, term);
        }

        fn returned(&self) -> Vec<u64> {
            let (returned, _pause) = self.waiters.take_returned();
            returned
                .iter()
                .map(|awaited| awaited.proposal.id())
                .collect()
        }
    }

    #[test]
    fn what_is_not_applied_when_a_higher_term_is_comes_back_to_be_sent_again() {
        let asked = Asked::new();
        let (mut applied, mut lost) = (asked.send(1, 5), asked.send(2, 5));
        let mut next = asked.send(3, 6);
        // The last of the old term and the first of the new one, in one batch.
        let mut both = vec![AppliedProposal {
            id: 1,
            term: 5,
            outcomes: vec![Err(Rejection::LeaseNotFound)],
        }];
        asked.waiters.applied(&mut both, 6);
        assert_eq!(applied.try_recv().unwrap().unwrap().term, 5);
        assert!(lost.try_recv().is_err() && next.try_recv().is_err());
        assert_eq!(asked.waiters.take_returned().0.len(), 1);
        // A refusal that comes late is of a sending that is over.
        asked.waiters.refused(2, 5);
        assert!(asked.returned().is_empty());
        asked.apply(&[3], 6);
        assert_eq!(next.try_recv().unwrap().unwrap().term, 6);
        assert_eq!(asked.turns.available_permits(), 8);
    }

    #[test]
    fn nothing_is_sent_in_a_term_that_is_over() {
        let asked = Asked::new();
        asked.apply(&[], 6);
        let (awaited, _outcome) = asked.awaited(1);
        assert!(asked.waiters.send(awaited, 5).is_none());
        let (returned, pause) = asked.waiters.take_returned();
        assert_eq!((returned.len(), pause), (1, true));
    }

    #[test]
    fn what_may_be_in_a_state_that_was_installed_is_never_sent_again() {
        let asked = Asked::new();
        let mut older = asked.send(1, 5);
        let (mut later, mut lost) = (asked.send(2, 6), asked.send(3, 6));
        asked.waiters.skipped(6);
        assert_eq!(
            older.try_recv().unwrap().unwrap_err(),
            ProposeError::Timeout
        );
        asked.apply(&[2], 6);
        assert_eq!(later.try_recv().unwrap().unwrap().term, 6);
        asked.apply(&[], 7);
        assert_eq!(lost.try_recv().unwrap().unwrap_err(), ProposeError::Timeout);
        assert!(asked.returned().is_empty());
    }

    #[test]
    fn what_nobody_waits_for_is_let_go_of_and_closing_tells_everybody() {
        let asked = Asked::new();
        drop(asked.send(1, 5));
        let mut waiting = asked.send(2, 5);
        asked.waiters.sweep();
        assert_eq!(asked.turns.available_permits(), 7);
        asked.waiters.close();
        assert_eq!(asked.turns.available_permits(), 8);
        let closed = oneshot::error::TryRecvError::Closed;
        assert_eq!(waiting.try_recv().unwrap_err(), closed);
        let (awaited, _outcome) = asked.awaited(3);
        assert!(asked.waiters.send(awaited, 5).is_none());
    }
}

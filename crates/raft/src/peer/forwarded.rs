//! Proposals that other members have sent to this one, which leads: each is taken once.
//!
//! A member whose stream broke sends again what has no answer, on a new stream. This remembers, for
//! each member, what it has taken in the term: what is on its way gets its answer on the new
//! stream, and what was applied is answered again. Of what was applied only the last few are remembered;
//! a member has fewer without an answer. Numbers of streams grow, so what comes late on an older one
//! is not taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use api::peerpb::ProposeResponse;
use api::peerpb::propose_response::Outcome;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use types::MemberId;

/// Applied proposals of one member that are remembered: more than it can have without an answer.
const APPLIED_MAX: usize = 4096;

pub(crate) type Answers = mpsc::Sender<Result<ProposeResponse, tonic::Status>>;

/// A proposal that came from another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) from: MemberId,
    pub(crate) term: u64,
    pub(crate) id: u64,
}

/// What to do with a proposal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Propose it; [`Forwarded::finish`] brings the answer on its way.
    Propose,
    /// Nothing: it was proposed before.
    Nothing,
    /// End the stream: its member has a newer one.
    EndStream,
}

#[derive(Debug)]
struct Sender {
    term: u64,
    stream: u64,
    answers: Answers,
    proposed: BTreeSet<u64>,
    applied: VecDeque<u64>,
    /// The highest id that was applied and is forgotten.
    forgotten: u64,
}

/// What members have sent.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    senders: Mutex<BTreeMap<MemberId, Sender>>,
}

impl Forwarded {
    /// Takes a proposal of a member that came on a stream whose answers go to `answers`. Who has
    /// become none is forgotten: its calls are refused, and it never comes back in this term.
    pub(crate) fn take(
        &self,
        came: Came,
        stream: u64,
        answers: &Answers,
        is_member: impl Fn(MemberId) -> bool,
    ) -> Take {
        let mut senders = self.senders.lock();
        if !senders.contains_key(&came.from) {
            senders.retain(|id, _| is_member(*id));
        }
        let sender = senders
            .entry(came.from)
            .or_insert_with(|| Sender::new(came.term, stream, answers));
        if (came.term, stream) < (sender.term, sender.stream) {
            return Take::EndStream;
        }
        if came.term > sender.term {
            *sender = Sender::new(came.term, stream, answers);
        } else if stream > sender.stream {
            sender.stream = stream;
            sender.answers = answers.clone();
        }
        if sender.proposed.contains(&came.id) {
            return Take::Nothing;
        }
        if sender.applied.contains(&came.id) {
            answer(answers, came.id, Outcome::Applied);
            return Take::Nothing;
        }
        if came.id <= sender.forgotten {
            answer(answers, came.id, Outcome::Unknown);
            return Take::Nothing;
        }
        sender.proposed.insert(came.id);
        Take::Propose
    }

    /// Something came of a proposal: tells the member, on its newest stream.
    pub(crate) fn finish(&self, came: Came, outcome: Outcome) {
        let mut senders = self.senders.lock();
        let Some(sender) = senders.get_mut(&came.from) else {
            return;
        };
        if sender.term != came.term || !sender.proposed.remove(&came.id) {
            return;
        }
        if outcome == Outcome::Applied {
            sender.applied.push_back(came.id);
            if sender.applied.len() > APPLIED_MAX {
                let forgotten = sender.applied.pop_front().unwrap_or_default();
                sender.forgotten = sender.forgotten.max(forgotten);
            }
        }
        answer(&sender.answers, came.id, outcome);
    }
}

impl Sender {
    fn new(term: u64, stream: u64, answers: &Answers) -> Self {
        Self {
            term,
            stream,
            answers: answers.clone(),
            proposed: BTreeSet::new(),
            applied: VecDeque::new(),
            forgotten: 0,
        }
    }
}

/// Sends an answer. One that finds no room is lost like one on a stream that breaks: its member
/// asks again on its next stream.
pub(crate) fn answer(answers: &Answers, id: u64, outcome: Outcome) {
    let mut response = ProposeResponse {
        id,
        ..ProposeResponse::default()
    };
    response.set_outcome(outcome);
    if answers.try_send(Ok(response)).is_err() {
        tracing::debug!(id, "an answer to a forwarded proposal was lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Received = mpsc::Receiver<Result<ProposeResponse, tonic::Status>>;

    const FROM: MemberId = MemberId(7);

    fn take(forwarded: &Forwarded, came: Came, stream: u64, answers: &Answers) -> Take {
        forwarded.take(came, stream, answers, |_| true)
    }

    fn came(term: u64, id: u64) -> Came {
        Came {
            from: FROM,
            term,
            id,
        }
    }

    fn received(answers: &mut Received) -> Vec<(u64, Outcome)> {
        std::iter::from_fn(|| answers.try_recv().ok())
            .map(|answer| answer.unwrap())
            .map(|answer| (answer.id, answer.outcome()))
            .collect()
    }

    #[test]
    fn a_proposal_that_comes_again_is_taken_once_and_answered_on_the_new_stream() {
        let forwarded = Forwarded::default();
        let (old, mut on_old) = mpsc::channel(16);
        let (new, mut on_new) = mpsc::channel(16);
        assert_eq!(take(&forwarded, came(1, 10), 1, &old), Take::Propose);
        assert_eq!(take(&forwarded, came(1, 11), 1, &old), Take::Propose);
        forwarded.finish(came(1, 10), Outcome::Applied);
        assert_eq!(received(&mut on_old), [(10, Outcome::Applied)]);
        // The answer was lost, and the stream with it.
        assert_eq!(take(&forwarded, came(1, 10), 2, &new), Take::Nothing);
        assert_eq!(take(&forwarded, came(1, 11), 2, &new), Take::Nothing);
        assert_eq!(take(&forwarded, came(1, 12), 1, &old), Take::EndStream);
        forwarded.finish(came(1, 11), Outcome::Applied);
        let answers = [(10, Outcome::Applied), (11, Outcome::Applied)];
        assert_eq!(received(&mut on_new), answers);
        assert!(received(&mut on_old).is_empty());
    }

    #[test]
    fn what_was_refused_may_come_again_and_a_new_term_begins_anew() {
        let forwarded = Forwarded::default();
        let (answers, mut received_answers) = mpsc::channel(16);
        assert_eq!(take(&forwarded, came(1, 10), 1, &answers), Take::Propose);
        forwarded.finish(came(1, 10), Outcome::NotLeader);
        assert_eq!(take(&forwarded, came(1, 10), 1, &answers), Take::Propose);
        assert_eq!(take(&forwarded, came(2, 10), 1, &answers), Take::Propose);
        // Of the term before.
        forwarded.finish(came(1, 10), Outcome::Applied);
        let all = received(&mut received_answers);
        assert_eq!(all, [(10, Outcome::NotLeader)]);
        assert_eq!(take(&forwarded, came(1, 11), 9, &answers), Take::EndStream);
    }

    #[test]
    fn what_was_forgotten_is_not_taken_again() {
        let forwarded = Forwarded::default();
        let (answers, mut received_answers) = mpsc::channel(1);
        let last = 5 + APPLIED_MAX as u64;
        for id in 5..=last {
            assert_eq!(take(&forwarded, came(1, id), 1, &answers), Take::Propose);
            forwarded.finish(came(1, id), Outcome::Applied);
            received(&mut received_answers);
        }
        assert_eq!(take(&forwarded, came(1, 5), 1, &answers), Take::Nothing);
        assert_eq!(received(&mut received_answers), [(5, Outcome::Unknown)]);
    }
    #[test]
    fn who_is_no_member_any_more_is_forgotten_when_another_one_comes() {
        let forwarded = Forwarded::default();
        let (answers, _received) = mpsc::channel(16);
        for number in 0..100 {
            let came = Came {
                from: MemberId(number),
                ..came(1, 10)
            };
            let is_member = |id: MemberId| id.0 + 3 > number;
            let taken = forwarded.take(came, 1, &answers, is_member);
            assert_eq!(taken, Take::Propose);
        }
        assert_eq!(forwarded.senders.lock().len(), 3);
    }
}

//! Entries on their way to a peer: requests go out ahead of their answers, within bounds, and each answer is for the
//! request that it answers ([`Asked`]).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use api::peerpb;
use futures_util::{Stream, StreamExt, stream};
use openraft::base::BoxStream;
use openraft::errors::Unreachable;
use openraft::raft::{AppendEntriesRequest, StreamAppendError};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Failure, failed, lost, unreachable};
use crate::peer::channels::{Connections, Purpose};
use crate::peer::wire::{self, Appended};
use crate::type_config::{LogId, TypeConfig};

/// Appends on their way to one peer, counted in pieces of [`PIECE_BYTES`], a part of one being
/// one. When so much is unanswered the next append waits.
const PIECES_IN_FLIGHT_MAX: u32 = 256;
const PIECE_BYTES: usize = 16 * 1024;

/// What is on its way, and may go on it.
#[derive(Debug)]
struct Window {
    room: Arc<Semaphore>,
    taken: Mutex<VecDeque<OwnedSemaphorePermit>>,
}

impl Window {
    fn new() -> Self {
        let pieces = usize::try_from(PIECES_IN_FLIGHT_MAX).expect("a small number");
        Self {
            room: Arc::new(Semaphore::new(pieces)),
            taken: Mutex::default(),
        }
    }

    async fn enter(&self, bytes: usize) {
        let pieces = u32::try_from(bytes / PIECE_BYTES + 1).unwrap_or(u32::MAX);
        let pieces = pieces.min(PIECES_IN_FLIGHT_MAX);
        let taken = Arc::clone(&self.room).acquire_many_owned(pieces).await;
        let taken = taken.expect("the window is never closed");
        self.taken.lock().push_back(taken);
    }

    /// Answers come in order.
    fn leave(&self) {
        self.taken.lock().pop_front();
    }
}

/// Which request is answered.
///
/// openraft 0.10.0-alpha.37 takes an answer for one to every request of the stream that it could be an answer to
/// (`replication/inflight_append_queue.rs`), also to those that went out long after the peer gave it: a commit index that
/// goes out alone has the last entry of the request before. From when the last of them went out the leader counts that
/// the peer follows it, and reads are confirmed by that. A leader that had stood still for a while read from its sockets
/// what it had been answered before, and confirmed reads that way, when another one had long been elected.
///
/// So an answer that would be one to the next request as well is kept back: the next one's own answer says as much. And
/// where there is no next one, none is asked while openraft has an answer that it may not have looked at.
#[derive(Debug, Default)]
struct Asked(Mutex<Asking>);

#[derive(Debug, Default)]
struct Asking {
    /// Requests without an answer, in order: the entry before theirs, and their last.
    unanswered: VecDeque<(Option<LogId>, Option<LogId>)>,
    /// openraft was given the answer to the last request, and has not asked for another answer.
    is_handed_out: bool,
    /// openraft wants no more answers.
    is_closed: bool,
    /// Who waits to ask.
    waiting: Option<Waker>,
}

impl Asked {
    /// The next request. It is noted before any answer is given away.
    fn poll_next<S>(
        &self,
        input: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Option<AppendEntriesRequest<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    {
        let mut asking = self.0.lock();
        if asking.is_closed {
            return Poll::Ready(None);
        }
        if asking.is_handed_out {
            asking.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let request = ready!(input.poll_next_unpin(cx));
        if let Some(request) = &request {
            let last = request.entries.last().map(|entry| entry.log_id);
            let range = (request.prev_log_id, last.or(request.prev_log_id));
            asking.unanswered.push_back(range);
        }
        Poll::Ready(request)
    }

    /// Answers come in order. `false`: this one is kept back.
    fn answered(&self, appended: &Appended) -> bool {
        let mut asking = self.0.lock();
        asking.unanswered.pop_front();
        match (appended, asking.unanswered.front()) {
            // What comes after the next request comes after its last entry.
            (Ok(matching), Some((before, last))) => matching < last && matching <= before,
            (Ok(_), None) => {
                asking.is_handed_out = true;
                true
            }
            (Err(_), _) => true,
        }
    }

    /// openraft asks for an answer: it has looked at the one before.
    fn looked_at(&self) {
        self.go_on(|asking| asking.is_handed_out = false);
    }

    fn go_on(&self, change: impl FnOnce(&mut Asking)) {
        let mut asking = self.0.lock();
        change(&mut asking);
        let waiting = asking.waiting.take();
        drop(asking);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// Ends the requests when nobody asks for answers any more: who waits for requests has what openraft's next stream to
/// the peer needs.
#[derive(Debug)]
struct Answers(Arc<Asked>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.go_on(|asking| asking.is_closed = true);
    }
}

/// What a peer has confirmed to this member as the leader of a term.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    /// The term, and the last entry.
    last: Mutex<(u64, Option<LogId>)>,
}

impl Confirmed {
    /// In another term the peer may have taken entries back for another leader.
    fn lead(&self, term: u64) {
        let mut last = self.last.lock();
        if last.0 != term {
            *last = (term, None);
        }
    }

    /// Whether an answer can be true.
    fn believes(&self, appended: &Appended) -> bool {
        let mut last = self.last.lock();
        match appended {
            Ok(matching) => {
                last.1 = last.1.max(*matching);
                true
            }
            Err(StreamAppendError::Conflict(at)) => Some(*at) > last.1,
            Err(StreamAppendError::HigherVote(_)) => true,
        }
    }
}

/// Sends what `input` brings. The answers end when `input` has ended, or with a failure.
pub(super) async fn stream<'s, S>(
    connections: &'s Connections,
    input: S,
) -> Result<BoxStream<'s, Result<Appended, Failure>>, Failure>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let mut input = input.peekable();
    // openraft waits out its pause where the first request is asked for. A call asks only when it is
    // connected: a peer that is not there would be tried again without any pause.
    if Pin::new(&mut input).peek().await.is_none() {
        return Ok(Box::pin(stream::empty()));
    }
    let window = Arc::new(Window::new());
    let entering = Arc::clone(&window);
    let confirming = Arc::clone(&connections.confirmed);
    let asked = Arc::new(Asked::default());
    let asking = Arc::clone(&asked);
    let input = stream::poll_fn(move |cx| asking.poll_next(&mut input, cx));
    let requests = input.then(move |request| {
        let window = Arc::clone(&entering);
        // All requests of a stream are of one leader: it ends with the leadership.
        confirming.lead(request.vote.leader_id.term);
        let request: peerpb::AppendRequest = wire::append_to(&request);
        async move {
            window.enter(request.entries.len()).await;
            request
        }
    });
    let mut client = connections.raft(Purpose::Entries);
    let answers = tokio::select! {
        biased;
        () = connections.left_behind.notified() => return Err(left_behind(connections)),
        answers = client.append(requests) => answers,
    };
    let answers = answers.map_err(|status| failed(connections, &status))?;
    let mut answers = answers.into_inner().map(move |answer| {
        window.leave();
        let answer = answer.map_err(|status| failed(connections, &status))?;
        let appended =
            wire::appended_from(answer).map_err(|error| unreachable(connections, &error))?;
        if connections.confirmed.believes(&appended) {
            Ok(appended)
        } else {
            Err(lost(connections))
        }
    });
    let asked = Answers(asked);
    let answers = stream::poll_fn(move |cx| {
        asked.0.looked_at();
        loop {
            match ready!(answers.poll_next_unpin(cx)) {
                Some(Ok(appended)) if !asked.0.answered(&appended) => {}
                answer => return Poll::Ready(answer),
            }
        }
    });
    // The failure that ends it is what lets openraft purge, and send a state then.
    let is_left_behind = Arc::new(AtomicBool::new(false));
    let leave = {
        let (told, is_left_behind) = (
            Arc::clone(&connections.left_behind),
            Arc::clone(&is_left_behind),
        );
        async move {
            told.notified().await;
            is_left_behind.store(true, Ordering::Release);
        }
    };
    let end = stream::once(async move { is_left_behind.load(Ordering::Acquire) });
    let end =
        end.filter_map(move |left| async move { left.then(|| Err(left_behind(connections))) });
    Ok(Box::pin(answers.take_until(Box::pin(leave)).chain(end)))
}

/// The log is not kept any longer for a peer that is slow.
fn left_behind(connections: &Connections) -> Failure {
    tracing::warn!(peer = %connections.id, "a member is too slow for the log: it gets a state");
    let text = format!("member {} is too far behind", connections.id);
    Unreachable::from_string(text).into()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use openraft::entry::RaftEntry as _;

    use super::*;
    use crate::testing::group::PATIENCE;
    use crate::type_config::{Entry, Vote, log_id};

    /// The entries behind `before` up to `last`; none, if they are the same.
    fn request(before: u64, last: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: Some(log_id(3, before)),
            leader_commit: None,
            entries: (before + 1..=last)
                .map(|index| Entry::new_blank(log_id(3, index)))
                .collect(),
        }
    }

    /// Whether it can be asked now.
    fn ask(asked: &Asked, before: u64, last: u64) -> bool {
        let mut input = stream::iter([request(before, last)]);
        let asking = poll_fn(|cx| asked.poll_next(&mut input, cx));
        asking.now_or_never().is_some()
    }

    fn upto(index: u64) -> Appended {
        Ok(Some(log_id(3, index)))
    }

    #[test]
    fn an_answer_that_would_answer_the_next_request_as_well_is_kept_back() {
        let asked = Asked::default();
        for (before, last) in [(4, 6), (6, 6), (6, 6), (6, 9), (9, 9)] {
            assert!(ask(&asked, before, last));
        }
        let handed_out = [6, 6, 6, 9, 9].map(|index| {
            let is_handed_out = asked.answered(&upto(index));
            asked.looked_at();
            is_handed_out
        });
        assert_eq!(handed_out, [false, false, true, false, true]);
    }

    #[test]
    fn nothing_is_asked_while_the_last_answer_is_looked_at() {
        let asked = Asked::default();
        assert!(ask(&asked, 4, 6));
        assert!(asked.answered(&upto(6)));
        assert!(!ask(&asked, 6, 6));
        asked.looked_at();
        assert!(ask(&asked, 6, 8) && ask(&asked, 8, 9));
        // It can be taken for no answer to what comes after entry 9.
        assert!(asked.answered(&upto(8)));
        assert!(ask(&asked, 9, 9));
    }

    #[tokio::test]
    async fn nothing_waits_for_who_wants_no_more_answers() {
        let asked = Arc::new(Asked::default());
        let answers = Answers(Arc::clone(&asked));
        assert!(ask(&asked, 4, 6));
        assert!(asked.answered(&upto(6)));
        let mut input = stream::pending();
        let asking = tokio::spawn(poll_fn(move |cx| asked.poll_next(&mut input, cx)));
        tokio::task::yield_now().await;
        assert!(!asking.is_finished());
        drop(answers);
        let next = tokio::time::timeout(PATIENCE, asking).await;
        assert!(next.unwrap().unwrap().is_none());
    }

    #[test]
    fn a_refusal_is_never_kept_back() {
        let asked = Asked::default();
        assert!(ask(&asked, 4, 6) && ask(&asked, 6, 6));
        assert!(asked.answered(&Err(StreamAppendError::Conflict(log_id(3, 4)))));
    }
}

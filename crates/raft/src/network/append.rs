//! Entries on their way to a peer: requests go out ahead of their answers, within bounds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let answers = answers.into_inner().map(move |answer| {
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

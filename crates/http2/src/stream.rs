//! One stream: what has come on it and was not read yet, and what is to be sent and was not yet.
//!
//! The connection's task, the answer's future and whoever reads the request's body have it in common.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::frame::Reason;
use crate::shared::{STREAM_WINDOW_BYTES, Shared};

/// What is held of an answer that its client does not read, in bytes; it goes on when there is less.
const ROOM_BYTES: usize = 400 * 1024;
/// So much is worth a WINDOW_UPDATE of the stream.
const RELEASED_BYTES: usize = STREAM_WINDOW_BYTES / 2;

/// A stream that is open, seen from all its sides.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Mutex<State>,
}

/// What is guarded.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) received: Received,
    pub(crate) outgoing: VecDeque<Outgoing>,
    /// What `outgoing` holds of bodies.
    outgoing_bytes: usize,
    /// The connection has been told that there is something to do.
    pub(crate) is_ready: bool,
    /// It has ended before its time, by either side or with its connection.
    is_reset: bool,
    /// The answer's future.
    answer: Option<Waker>,
}

/// What has come.
#[derive(Debug, Default)]
pub(crate) struct Received {
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    is_complete: bool,
    /// Nobody reads it any more.
    is_abandoned: bool,
    /// Bytes that were read, and for which there was no WINDOW_UPDATE.
    released: usize,
    reader: Option<Waker>,
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Head(StatusCode, Box<HeaderMap>, IsLast),
    Data(Bytes, IsLast),
    Trailers(Box<HeaderMap>),
    Reset(Reason),
}

/// Whether nothing comes after it.
pub(crate) type IsLast = bool;

/// What a reader finds.
pub(crate) enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    Reset,
}

impl Stream {
    pub(crate) fn new(id: u32, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            id,
            shared,
            state: Mutex::default(),
        })
    }

    /// Takes what has come next.
    pub(crate) fn poll_received(&self, cx: &Context<'_>) -> Poll<Next> {
        let mut state = self.state.lock();
        let is_reset = state.is_reset;
        let received = &mut state.received;
        let next = if let Some(data) = received.data.pop_front() {
            received.released += data.len();
            Next::Data(data)
        } else if let Some(trailers) = received.trailers.take() {
            Next::Trailers(trailers)
        } else if received.is_complete {
            Next::End
        } else if is_reset {
            Next::Reset
        } else {
            note(&mut received.reader, cx);
            return Poll::Pending;
        };
        let is_worth_a_frame = received.released >= RELEASED_BYTES && !received.is_complete;
        let is_ready = is_worth_a_frame && !std::mem::replace(&mut state.is_ready, true);
        drop(state);
        if let Next::Data(data) = &next {
            self.shared.release(data.len());
        }
        if is_ready {
            self.shared.ready(self.id);
        }
        Poll::Ready(next)
    }

    /// Whether everything was read.
    pub(crate) fn is_read(&self) -> bool {
        let received = &self.state.lock().received;
        received.is_complete && received.data.is_empty() && received.trailers.is_none()
    }

    /// Nobody will read what comes.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.received.is_abandoned = true;
        let unread = state.received.data.drain(..).map(|data| data.len()).sum();
        drop(state);
        self.shared.release(unread);
    }

    /// Takes what came from the client, without so many bytes of padding.
    pub(crate) fn receive(&self, data: Bytes, padding: usize, is_last: IsLast) {
        let mut state = self.state.lock();
        let received = &mut state.received;
        received.is_complete |= is_last;
        received.released += padding;
        let length = data.len();
        let is_thrown_away = received.is_abandoned;
        if length > 0 && !is_thrown_away {
            received.data.push_back(data);
        }
        let reader = received.reader.take();
        drop(state);
        if is_thrown_away {
            self.shared.release(length);
        }
        wake(reader);
    }

    /// Takes the client's trailers.
    pub(crate) fn receive_trailers(&self, trailers: HeaderMap) {
        let mut state = self.state.lock();
        state.received.is_complete = true;
        state.received.trailers = Some(trailers);
        let reader = state.received.reader.take();
        drop(state);
        wake(reader);
    }

    /// Queues what is to be sent.
    pub(crate) fn send(&self, outgoing: Outgoing) {
        let mut state = self.state.lock();
        if state.is_reset {
            return;
        }
        if let Outgoing::Data(data, _) = &outgoing {
            state.outgoing_bytes += data.len();
        }
        state.outgoing.push_back(outgoing);
        let was_ready = std::mem::replace(&mut state.is_ready, true);
        drop(state);
        if !was_ready {
            self.shared.ready(self.id);
        }
    }

    /// Whether the answer has to go on: not if the stream has ended. If it may not queue more, it is woken
    /// when it may.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock();
        if state.is_reset {
            return Poll::Ready(false);
        }
        note(&mut state.answer, cx);
        match state.outgoing_bytes < ROOM_BYTES {
            true => Poll::Ready(true),
            false => Poll::Pending,
        }
    }

    /// The stream has ended before its time: who reads and who answers is told.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.is_reset = true;
        state.outgoing.clear();
        let (reader, answer) = (state.received.reader.take(), state.answer.take());
        drop(state);
        wake(reader);
        wake(answer);
    }
}

impl State {
    /// What was read and not said yet, if it is worth a frame.
    pub(crate) fn take_released(&mut self) -> Option<usize> {
        let received = &mut self.received;
        let is_due = received.released >= RELEASED_BYTES && !received.is_complete;
        is_due.then(|| std::mem::take(&mut received.released))
    }

    /// So much of the bodies' bytes has left. Returns the answer, if it waits for that.
    pub(crate) fn sent(&mut self, bytes: usize) -> Option<Waker> {
        let was_full = self.outgoing_bytes >= ROOM_BYTES;
        self.outgoing_bytes = self.outgoing_bytes.saturating_sub(bytes);
        let has_room = was_full && self.outgoing_bytes < ROOM_BYTES;
        has_room.then(|| self.answer.take()).flatten()
    }
}

fn note(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

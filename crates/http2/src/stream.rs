//! One stream: what has come on it and was not read yet, and what is to be sent and was not yet.
//!
//! The connection's task, the answer's future and whoever reads the request's body have it in common.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::fifo::Fifo;
use crate::frame::Reason;
use crate::shared::{STREAM_WINDOW_BYTES, Shared};

/// Small pieces of a body are put together up to this size: each by itself would take more than it has.
const PIECE_BYTES: usize = 16 * 1024;
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
    pub(crate) outgoing: Fifo<Outgoing>,
    /// What `outgoing` holds of bodies.
    outgoing_bytes: usize,
    /// The connection has been told that there is something to do.
    pub(crate) is_ready: bool,
    /// Nothing is sent or comes any more: all is said, or one side or the connection has ended it.
    has_ended: bool,
    /// The answer's future.
    answer: Option<Waker>,
}

/// What has come.
#[derive(Debug, Default)]
pub(crate) struct Received {
    data: Fifo<BytesMut>,
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
    /// All of a gRPC call's answer: the usual head, this, and that it went well.
    Message(Bytes),
    /// That it went well: the usual trailers.
    Ok,
    Reset(Reason),
}

/// Whether nothing comes after it.
pub(crate) type IsLast = bool;

/// What a reader finds.
pub(crate) enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// The stream has ended before the body was complete.
    Ended,
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
        let has_ended = state.has_ended;
        let received = &mut state.received;
        let next = if let Some(data) = received.data.pop_front() {
            received.released += data.len();
            Next::Data(data.freeze())
        } else if let Some(trailers) = received.trailers.take() {
            Next::Trailers(trailers)
        } else if received.is_complete {
            Next::End
        } else if has_ended {
            Next::Ended
        } else {
            note(&mut received.reader, cx);
            return Poll::Pending;
        };
        let is_ready = state.gets_ready();
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
        let data = std::mem::take(&mut state.received.data);
        drop(state);
        let unread = data.iter().map(BytesMut::len).sum();
        self.shared.release(unread);
    }

    /// Takes what came from the client, without so many bytes of padding.
    pub(crate) fn receive(&self, data: &[u8], padding: usize, is_last: IsLast) {
        let mut state = self.state.lock();
        let received = &mut state.received;
        received.is_complete |= is_last;
        received.released += padding;
        let is_thrown_away = received.is_abandoned;
        if !is_thrown_away {
            received.keep(data);
        }
        let reader = received.reader.take();
        let is_ready = state.gets_ready();
        drop(state);
        if is_thrown_away {
            self.shared.release(data.len());
        }
        if is_ready {
            self.shared.ready(self.id);
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
        if state.has_ended {
            return;
        }
        if let Outgoing::Data(data, _) | Outgoing::Message(data) = &outgoing {
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
        if state.has_ended {
            return Poll::Ready(false);
        }
        note(&mut state.answer, cx);
        match state.outgoing_bytes < ROOM_BYTES {
            true => Poll::Ready(true),
            false => Poll::Pending,
        }
    }

    /// The stream has ended: who still reads or answers is told.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        state.outgoing.clear();
        let (reader, answer) = (state.received.reader.take(), state.answer.take());
        drop(state);
        wake(reader);
        wake(answer);
    }
}

impl Received {
    fn keep(&mut self, data: &[u8]) {
        match self.data.back_mut() {
            Some(last) if last.len() + data.len() <= PIECE_BYTES => last.extend_from_slice(data),
            _ if data.is_empty() => {}
            _ => self.data.push_back(BytesMut::from(data)),
        }
    }

    /// Whether the client has to be told that it may send more.
    fn is_release_due(&self) -> bool {
        self.released >= RELEASED_BYTES && !self.is_complete
    }
}

impl State {
    /// Whether the connection has to be told that there is something to do, for the client's window.
    fn gets_ready(&mut self) -> bool {
        self.received.is_release_due() && !std::mem::replace(&mut self.is_ready, true)
    }

    /// What was read and not said yet, if it is worth a frame.
    pub(crate) fn take_released(&mut self) -> Option<usize> {
        let received = &mut self.received;
        let is_due = received.is_release_due();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_put_together() {
        let stream = Stream::new(1, Arc::default());
        for at in 0..100_000_u32 {
            stream.receive(&at.to_le_bytes()[..1], 0, false);
        }
        let state = stream.state.lock();
        let pieces = &state.received.data;
        assert_eq!(pieces.iter().map(BytesMut::len).sum::<usize>(), 100_000);
        let count = pieces.iter().count();
        assert!(count <= 100_000 / PIECE_BYTES + 1, "{count}");
    }
}

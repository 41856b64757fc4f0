//! What is sent: stream by stream in turns, as far as the client's windows let it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Wire, drop_ended, i64_of, u32_of};
use crate::frame::{self, Head, Reason};
use crate::outbox::Outbox;
use crate::stream::{IsLast, Outgoing, State};

/// What is written to the socket at a time.
pub(super) const WRITTEN_BYTES: usize = 256 * 1024;

/// What a stream may send before it is the others' turn.
const TURN_BYTES: usize = 64 * 1024;

/// How a stream's turn ends.
enum Turn {
    /// It has nothing more for now.
    Empty,
    /// It has more, after others.
    More,
    /// The window that it would need is shut.
    Shut(Window),
    /// It has sent its last.
    Over,
    /// It ends without that.
    Reset(Reason),
}

enum Window {
    Connection,
    Stream,
}

impl Wire {
    /// Moves what streams have to the outbox, until it has enough. Says whether there may be more.
    pub(crate) fn send(&mut self) -> bool {
        let mut ready = Vec::new();
        self.shared.take_ready(&mut ready);
        for id in ready {
            self.give_turn(id);
        }
        let window = usize::try_from(self.receive_window).unwrap_or(0);
        if let Some(released) = self.shared.take_released(window) {
            self.receive_window += i64_of(released);
            frame::put_window_update(0, u32_of(released), self.outbox.tail());
        }
        while self.outbox.len() < WRITTEN_BYTES {
            let Some(id) = self.next_turn() else {
                return false;
            };
            match self.turn(id) {
                Turn::Empty | Turn::Shut(Window::Stream) => {}
                Turn::More => self.give_turn(id),
                Turn::Shut(Window::Connection) => self.shut_out(id),
                Turn::Over => self.over(id),
                Turn::Reset(reason) => self.reset(id, reason),
            }
        }
        !self.turns.is_empty() || self.may_let_in()
    }

    /// Those that were shut out have waited for longest.
    fn next_turn(&mut self) -> Option<u32> {
        if !self.may_let_in() {
            return self.turns.pop_front();
        }
        let id = self.shut_out.pop_front()?;
        if let Some(open) = self.streams.get_mut(&id) {
            open.is_shut_out = false;
        }
        Some(id)
    }

    fn may_let_in(&self) -> bool {
        self.send_window > 0 && !self.shut_out.is_empty()
    }

    fn shut_out(&mut self, id: u32) {
        let open = self.streams.get_mut(&id);
        let is_new = open.is_some_and(|open| !std::mem::replace(&mut open.is_shut_out, true));
        if is_new {
            drop_ended(&mut self.shut_out, &self.streams);
            self.shut_out.push_back(id);
        }
    }

    /// Everything is sent on a stream.
    fn over(&mut self, id: u32) {
        let Some(open) = self.streams.get(&id) else {
            return;
        };
        if !open.is_complete {
            // The answer did not need all of the request.
            return self.reset(id, Reason::NoError);
        }
        open.stream.end();
        self.streams.remove(&id);
    }

    fn turn(&mut self, id: u32) -> Turn {
        let Some(open) = self.streams.get_mut(&id) else {
            return Turn::Empty;
        };
        open.has_turn = false;
        let mut sender = Sender {
            id,
            out: &mut self.outbox,
            frame_bytes_max: self.frame_bytes_max,
            connection_window: &mut self.send_window,
            stream_window: &mut open.send_window,
            sent: 0,
        };
        let stream = Arc::clone(&open.stream);
        let mut state = stream.state.lock();
        state.is_ready = false;
        if let Some(released) = state.take_released() {
            open.receive_window += i64_of(released);
            frame::put_window_update(id, u32_of(released), sender.out.tail());
        }
        let encoder = &mut self.encoder;
        loop {
            let turn = match state.outgoing.pop_front() {
                None => return Turn::Empty,
                Some(Outgoing::Head(status, headers, is_last)) => {
                    sender.block(is_last, |out| encoder.head(status, &headers, out));
                    is_last.then_some(Turn::Over)
                }
                Some(Outgoing::Trailers(trailers)) => {
                    sender.block(true, |out| encoder.trailers(&trailers, out));
                    Some(Turn::Over)
                }
                Some(Outgoing::Data(data, is_last)) => sender.data(data, is_last, &mut state),
                Some(Outgoing::Message(message)) => {
                    sender.block(false, |out| encoder.grpc_head(out));
                    state.outgoing.push_back(Outgoing::Ok);
                    sender.data(message, false, &mut state)
                }
                Some(Outgoing::Ok) => {
                    sender.block(true, |out| encoder.grpc_ok(out));
                    Some(Turn::Over)
                }
                Some(Outgoing::Reset(reason)) => Some(Turn::Reset(reason)),
            };
            self.pings.sent();
            match turn {
                Some(turn) => return turn,
                None if sender.sent >= TURN_BYTES => return Turn::More,
                None => {}
            }
        }
    }
}

/// What one stream writes with.
struct Sender<'a> {
    id: u32,
    out: &'a mut Outbox,
    frame_bytes_max: usize,
    connection_window: &'a mut i64,
    stream_window: &'a mut i64,
    /// Bytes of bodies in this turn.
    sent: usize,
}

impl Sender<'_> {
    /// A frame of data. What does not fit into it is put back, for the next.
    fn data(&mut self, mut data: Bytes, is_last: IsLast, state: &mut State) -> Option<Turn> {
        let window = (*self.stream_window).min(*self.connection_window);
        let allowed = usize::try_from(window)
            .unwrap_or(0)
            .min(self.frame_bytes_max);
        if allowed == 0 && !data.is_empty() {
            let shut = match *self.connection_window <= 0 {
                true => Window::Connection,
                false => Window::Stream,
            };
            state.outgoing.push_front(Outgoing::Data(data, is_last));
            return Some(Turn::Shut(shut));
        }
        let now = data.split_to(allowed.min(data.len()));
        let is_all = data.is_empty();
        let flags = if is_last && is_all {
            frame::END_STREAM
        } else {
            0
        };
        *self.stream_window -= i64_of(now.len());
        *self.connection_window -= i64_of(now.len());
        if let Some(answer) = state.sent(now.len()) {
            answer.wake();
        }
        self.sent += now.len();
        Head::new(frame::DATA, flags, self.id).put(now.len(), self.out.tail());
        self.out.put(now);
        match (is_all, is_last) {
            (true, true) => Some(Turn::Over),
            (true, false) => None,
            (false, _) => {
                state.outgoing.push_front(Outgoing::Data(data, is_last));
                None
            }
        }
    }

    /// A header block, in as many frames as it takes.
    fn block(&mut self, is_last: bool, encode: impl FnOnce(&mut BytesMut)) {
        let flags = if is_last { frame::END_STREAM } else { 0 };
        let head = Head::new(frame::HEADERS, flags | frame::END_HEADERS, self.id);
        let (max, out) = (self.frame_bytes_max, self.out.tail());
        let Some(block) = head.put_before(max, out, encode) else {
            return;
        };
        let mut pieces = block.chunks(max).peekable();
        let (mut kind, mut flags) = (frame::HEADERS, flags);
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= frame::END_HEADERS;
            }
            Head::new(kind, flags, self.id).put(piece.len(), out);
            out.extend_from_slice(piece);
            (kind, flags) = (frame::CONTINUATION, 0);
        }
    }
}

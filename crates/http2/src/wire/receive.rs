//! What a client sends, frame by frame (RFC 9113, 6).

use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};

use super::heads::RequestHead;
use super::send::WRITTEN_BYTES;
use super::{
    Asked, Block, ENABLE_PUSH, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, LAST_CALL, Leaving,
    MAX_FRAME_SIZE, Open, SETTING_BYTES, Violation, Wire, i64_of,
};
use crate::frame::{self, FRAME_BYTES_MAX, HEAD_BYTES, Head, Reason};
use crate::request::{Fields, HEADER_LIST_BYTES_MAX, Unusable};
use crate::shared::STREAM_WINDOW_BYTES;
use crate::stream::{Outgoing, Stream};

const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;
/// Pieces that a header block may come in: more are not sent by anybody who means well.
const BLOCK_FRAMES_MAX: usize = 32;
/// Bytes of a header block. One that is larger than headers may be is read to its end all the same: its request is
/// refused, and others on the connection go on.
const BLOCK_BYTES_MAX: usize = 4 * HEADER_LIST_BYTES_MAX;
/// Larger frames would keep others waiting, also of a client that takes them.
const FRAME_BYTES_SENT_MAX: usize = 256 * 1024;
/// What the connection may hold of small things, such as answers to settings and pings; more is not read until they are
/// written. Large pieces of bodies are not what a client can make us collect by talking.
const SMALL_BYTES_MAX: usize = 2 * WRITTEN_BYTES;
/// Streams that may have something to send while the client takes nothing; what is asked on others is not read.
const WAITING_MAX: usize = 128;

const fn violation(reason: Reason, words: &'static str) -> Violation {
    Violation { reason, words }
}

const fn nonsense(words: &'static str) -> Violation {
    violation(Reason::ProtocolError, words)
}

impl Wire {
    /// Whether more may be read: not while the client does not take what it caused, which is in the outbox or, once
    /// that is full, with streams that wait for their turn.
    pub(crate) fn may_receive(&self) -> bool {
        let is_full = self.outbox.len() >= WRITTEN_BYTES;
        let waits = is_full && self.turns.len() >= WAITING_MAX;
        !waits && self.outbox.small_len() < SMALL_BYTES_MAX
    }

    /// Whether it is no fault to say something on a stream that has ended: its client had not heard of that yet.
    fn is_excused(&self, stream: u32) -> bool {
        stream > self.newest_taken || self.reset.contains(&stream)
    }

    /// Takes all frames that are complete, and returns how many bytes those were.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut taken = 0;
        while let Some((head, length)) = Head::parse(&bytes[taken..]) {
            if length > FRAME_BYTES_MAX {
                return Err(violation(Reason::FrameSizeError, "a frame is too large"));
            }
            let begin = taken + HEAD_BYTES;
            let Some(payload) = bytes.get(begin..begin + length) else {
                break;
            };
            self.frame(head, payload)?;
            taken = begin + length;
        }
        self.apply_initial_window()?;
        Ok(taken)
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if !self.has_settings && head.kind != frame::SETTINGS {
            return Err(nonsense("the first frame is not SETTINGS"));
        }
        if self.block.is_some() && head.kind != frame::CONTINUATION {
            return Err(nonsense("a header block is interrupted"));
        }
        match head.kind {
            frame::DATA => self.data(head, payload),
            frame::HEADERS => self.headers(head, payload),
            frame::PRIORITY => priority(head, payload),
            frame::RST_STREAM => self.reset_came(head, payload),
            frame::SETTINGS => self.settings(head, payload),
            frame::PUSH_PROMISE => Err(nonsense("a client pushes")),
            frame::PING => self.ping_came(head, payload),
            frame::GOAWAY => goaway(head, payload),
            frame::WINDOW_UPDATE => self.window_update(head, payload),
            frame::CONTINUATION => self.continuation(head, payload),
            // Others may be known to others.
            _ => Ok(()),
        }
    }

    fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream == 0 || head.stream > self.newest {
            return Err(nonsense("DATA on a stream that was not opened"));
        }
        let charged = i64_of(payload.len());
        self.receive_window -= charged;
        if self.receive_window < 0 {
            return Err(violation(
                Reason::FlowControlError,
                "more than the connection's window",
            ));
        }
        let data = unpadded(head, payload)?;
        // Padding, and what comes for a stream that has ended, is given back at once.
        let Some(open) = self.streams.get_mut(&head.stream) else {
            self.shared.release(payload.len());
            if !self.is_excused(head.stream) {
                self.reset(head.stream, Reason::StreamClosed);
            }
            return Ok(());
        };
        self.shared.release(payload.len() - data.len());
        let is_last = head.has(frame::END_STREAM);
        open.receive_window -= charged;
        let refused = if open.is_complete {
            Some(Reason::StreamClosed)
        } else if open.receive_window < 0 {
            Some(Reason::FlowControlError)
        } else if !open.is_of_length(data.len(), is_last) {
            Some(Reason::ProtocolError)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.shared.release(data.len());
            self.reset(head.stream, reason);
            return Ok(());
        }
        open.is_complete = is_last;
        let padding = payload.len() - data.len();
        open.stream.receive(data, padding, is_last);
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream.is_multiple_of(2) {
            return Err(nonsense("HEADERS on a stream that is not a client's"));
        }
        let mut fragment = unpadded(head, payload)?;
        if head.has(frame::WITH_PRIORITY) {
            let (priority, rest) = fragment.split_first_chunk::<5>().ok_or(violation(
                Reason::FrameSizeError,
                "HEADERS without room for its priority",
            ))?;
            check_dependency(head.stream, priority)?;
            fragment = rest;
        }
        let is_last = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.block(head.stream, is_last, fragment);
        }
        self.block = Some(Block {
            stream: head.stream,
            is_last,
            bytes: BytesMut::from(fragment),
            frames: 1,
        });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        let Some(mut block) = self
            .block
            .take()
            .filter(|block| block.stream == head.stream)
        else {
            return Err(nonsense("CONTINUATION of nothing"));
        };
        block.frames += 1;
        if block.bytes.len() + payload.len() > BLOCK_BYTES_MAX || block.frames > BLOCK_FRAMES_MAX {
            return Err(violation(
                Reason::EnhanceYourCalm,
                "a header block is too large",
            ));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.block(block.stream, block.is_last, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A header block is complete. It is read in any case: what comes after it depends on it.
    fn block(&mut self, stream: u32, is_last: bool, block: &[u8]) -> Result<(), Violation> {
        let changes = self.decoder.changes();
        if stream > self.newest
            && let Some(head) = self.heads.find(block, changes)
        {
            self.newest = stream;
            self.opened(stream, is_last, Ok(head));
            return Ok(());
        }
        let mut fields = Fields::default();
        self.decoder
            .decode(block, |field| fields.add(field))
            .map_err(|_unreadable| {
                violation(Reason::CompressionError, "a header block cannot be read")
            })?;
        if self.streams.contains_key(&stream) {
            self.trailers(stream, is_last, fields);
        } else if stream > self.newest {
            self.newest = stream;
            let head = fields.into_request();
            if let Ok(head) = &head
                && self.decoder.changes() == changes
            {
                self.heads.keep(block, changes, head);
            }
            self.opened(stream, is_last, head);
        } else if !self.is_excused(stream) {
            return Err(violation(
                Reason::StreamClosed,
                "HEADERS on a stream that has ended",
            ));
        }
        Ok(())
    }

    fn trailers(&mut self, stream: u32, is_last: bool, fields: Fields) {
        let Some(open) = self.streams.get_mut(&stream) else {
            return;
        };
        let reason = match fields.into_trailers() {
            _ if open.is_complete => Reason::StreamClosed,
            Ok(trailers) if is_last && open.is_of_length(0, true) => {
                open.is_complete = true;
                return receive_trailers(&open.stream, trailers);
            }
            Ok(_) | Err(_) => Reason::ProtocolError,
        };
        self.reset(stream, reason);
    }

    fn opened(&mut self, id: u32, is_last: bool, head: Result<RequestHead, Unusable>) {
        if self.leaving == Leaving::Final {
            // GOAWAY has told it to ask elsewhere.
            return;
        }
        self.newest_taken = id;
        if self.streams.len() >= self.max_concurrent_streams as usize {
            return self.reset(id, Reason::RefusedStream);
        }
        let stream = Stream::new(id, Arc::clone(&self.shared));
        let mut open = Open {
            stream: Arc::clone(&stream),
            send_window: self.initial_window,
            receive_window: i64_of(STREAM_WINDOW_BYTES),
            length_left: None,
            is_complete: is_last,
            has_turn: false,
            is_shut_out: false,
        };
        match head {
            Ok((request, length)) => {
                open.length_left = length;
                if is_last && !open.is_of_length(0, true) {
                    return self.reset(id, Reason::ProtocolError);
                }
                self.asked.push(Asked {
                    stream: Arc::clone(&stream),
                    request,
                });
            }
            Err(Unusable::Malformed) => return self.reset(id, Reason::ProtocolError),
            Err(Unusable::TooLarge) => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                stream.abandon();
                stream.send(Outgoing::Head(status, Box::default(), true));
            }
        }
        if is_last {
            stream.receive(&[], 0, true);
        }
        self.streams.insert(id, open);
    }

    /// RST_STREAM. However many there are: an answer is dropped where it stands, so that nothing is left of them.
    fn reset_came(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if payload.len() != 4 {
            return Err(violation(
                Reason::FrameSizeError,
                "RST_STREAM of another size",
            ));
        }
        if head.stream == 0 || head.stream > self.newest {
            return Err(nonsense("RST_STREAM of a stream that was not opened"));
        }
        if let Some(open) = self.streams.remove(&head.stream) {
            open.stream.end();
        }
        Ok(())
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        self.has_settings = true;
        if head.stream != 0 {
            return Err(nonsense("SETTINGS of a stream"));
        }
        let is_ack = head.has(frame::ACK);
        if !payload.len().is_multiple_of(SETTING_BYTES) || is_ack && !payload.is_empty() {
            return Err(violation(
                Reason::FrameSizeError,
                "SETTINGS of another size",
            ));
        }
        if is_ack {
            return Ok(());
        }
        for setting in payload.chunks_exact(SETTING_BYTES) {
            let (id, value) = setting.split_at(2);
            let id = id.iter().fold(0, |id, &byte| id << 8 | u16::from(byte));
            let value = value
                .iter()
                .fold(0, |value, &byte| value << 8 | u32::from(byte));
            match id {
                HEADER_TABLE_SIZE => self.encoder.set_table_size(value as usize),
                ENABLE_PUSH if value > 1 => {
                    return Err(nonsense("pushes are neither allowed nor not"));
                }
                INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_BYTES_MAX => {
                    return Err(violation(Reason::FlowControlError, "a window is too large"));
                }
                INITIAL_WINDOW_SIZE => self.said_window = i64::from(value),
                MAX_FRAME_SIZE => self.set_frame_size(value as usize)?,
                // Pushes, which there are none of; and what nobody knows.
                _ => {}
            }
        }
        Head::new(frame::SETTINGS, frame::ACK, 0).put(0, self.outbox.tail());
        Ok(())
    }

    fn set_frame_size(&mut self, bytes: usize) -> Result<(), Violation> {
        if !(FRAME_BYTES_MAX..1 << 24).contains(&bytes) {
            return Err(nonsense("a maximum frame size that cannot be"));
        }
        self.frame_bytes_max = bytes.min(FRAME_BYTES_SENT_MAX);
        Ok(())
    }

    /// Once for all frames that have come, however often they say it: it is about all streams. Those that were opened
    /// meanwhile began with the window before.
    fn apply_initial_window(&mut self) -> Result<(), Violation> {
        let more = self.said_window - std::mem::replace(&mut self.initial_window, self.said_window);
        if more == 0 {
            return Ok(());
        }
        let mut opened = Vec::new();
        for (&id, open) in &mut self.streams {
            let was_shut = open.send_window <= 0;
            open.send_window += more;
            if open.send_window > WINDOW_BYTES_MAX {
                return Err(violation(Reason::FlowControlError, "a window is too large"));
            }
            if was_shut && open.send_window > 0 {
                opened.push(id);
            }
        }
        for id in opened {
            self.give_turn(id);
        }
        Ok(())
    }

    fn ping_came(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(nonsense("PING of a stream"));
        }
        let payload: [u8; 8] = payload
            .try_into()
            .map_err(|_size| violation(Reason::FrameSizeError, "PING of another size"))?;
        if !head.has(frame::ACK) {
            if self.pings.is_too_much(!self.streams.is_empty()) {
                // grpc-go's words, which its clients look for.
                return Err(violation(Reason::EnhanceYourCalm, "too_many_pings"));
            }
            frame::put_ping(frame::ACK, payload, self.outbox.tail());
        } else if payload == LAST_CALL && self.leaving == Leaving::Told {
            self.leaving = Leaving::Final;
            frame::put_goaway(self.newest_taken, Reason::NoError, "", self.outbox.tail());
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        let bytes: [u8; 4] = payload
            .try_into()
            .map_err(|_size| violation(Reason::FrameSizeError, "WINDOW_UPDATE of another size"))?;
        let more = i64::from(u32::from_be_bytes(bytes) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += more;
            if more == 0 || self.send_window > WINDOW_BYTES_MAX {
                return Err(match more {
                    0 => nonsense("a window is opened by nothing"),
                    _ => violation(Reason::FlowControlError, "a window is too large"),
                });
            }
            return Ok(());
        }
        if head.stream > self.newest {
            return Err(nonsense("WINDOW_UPDATE of a stream that was not opened"));
        }
        let Some(open) = self.streams.get_mut(&head.stream) else {
            return Ok(());
        };
        open.send_window += more;
        if more == 0 {
            self.reset(head.stream, Reason::ProtocolError);
        } else if open.send_window > WINDOW_BYTES_MAX {
            self.reset(head.stream, Reason::FlowControlError);
        } else {
            self.give_turn(head.stream);
        }
        Ok(())
    }
}

impl Open {
    /// Takes note of data; says whether the request's content-length can still be right.
    fn is_of_length(&mut self, bytes: usize, is_last: bool) -> bool {
        let Some(left) = &mut self.length_left else {
            return true;
        };
        match left.checked_sub(bytes as u64) {
            Some(rest) => {
                *left = rest;
                !is_last || rest == 0
            }
            None => false,
        }
    }
}

/// A client's GOAWAY is about streams that we might open, which we do not. It may still ask, and closes when it has
/// everything: Node's does both.
fn goaway(head: Head, payload: &[u8]) -> Result<(), Violation> {
    if head.stream != 0 {
        return Err(nonsense("GOAWAY of a stream"));
    }
    if payload.len() < 8 {
        return Err(violation(Reason::FrameSizeError, "GOAWAY of another size"));
    }
    Ok(())
}

fn receive_trailers(stream: &Stream, trailers: HeaderMap) {
    match trailers.is_empty() {
        true => stream.receive(&[], 0, true),
        false => stream.receive_trailers(trailers),
    }
}

/// A payload without its padding.
fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Violation> {
    if !head.has(frame::PADDED) {
        return Ok(payload);
    }
    let unpadded = payload.split_first().and_then(|(&padding, rest)| {
        let length = rest.len().checked_sub(usize::from(padding))?;
        rest.get(..length)
    });
    unpadded.ok_or(nonsense("more padding than there is room for"))
}

fn priority(head: Head, payload: &[u8]) -> Result<(), Violation> {
    let priority = payload
        .first_chunk::<5>()
        .filter(|_| payload.len() == 5)
        .ok_or(violation(
            Reason::FrameSizeError,
            "PRIORITY of another size",
        ))?;
    if head.stream == 0 {
        return Err(nonsense("PRIORITY of the connection"));
    }
    check_dependency(head.stream, priority)
}

/// Priorities are obsolete; but no stream depends on itself.
fn check_dependency(stream: u32, &[s0, s1, s2, s3, _weight]: &[u8; 5]) -> Result<(), Violation> {
    match u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) == stream {
        true => Err(nonsense("a stream depends on itself")),
        false => Ok(()),
    }
}

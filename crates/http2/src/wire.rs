//! The state of one connection: its streams, its tables, its windows, and what is to be written.
//!
//! What this is not: a socket. Bytes come in by [`Wire::receive`] and go out by the [`Outbox`].

mod heads;
mod receive;
mod send;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use http::Request;

use crate::Options;
use crate::frame::{self, FRAME_BYTES_MAX, Head, Reason, STREAM_ID_MAX};
use crate::hpack::{Decoder, Encoder};
use crate::outbox::Outbox;
use crate::pings::PingEnforcer;
use crate::request::HEADER_LIST_BYTES_MAX;
use crate::shared::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Shared};
use crate::stream::Stream;
use heads::Heads;

/// Every window before anybody says something else (RFC 9113, 6.9.2).
const WINDOW_BYTES: i64 = 65_535;
/// What is in the ping that tells when a client has read that we are about to end.
const LAST_CALL: [u8; 8] = *b"lastcall";
/// What is in the ping that tells whether a client is there.
const KEEPALIVE: [u8; 8] = *b"keepaliv";

/// What a client did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) reason: Reason,
    pub(crate) words: &'static str,
}

/// A request that has come, without its body.
pub(crate) struct Asked {
    pub(crate) stream: Arc<Stream>,
    pub(crate) request: Request<()>,
}

pub(crate) struct Wire {
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Outbox,
    /// Requests that have come and were not taken yet.
    pub(crate) asked: Vec<Asked>,
    /// Streams that have not ended.
    streams: BTreeMap<u32, Open>,
    /// The newest stream that the client has opened.
    newest: u32,
    /// The newest that was not ignored: what GOAWAY names.
    newest_taken: u32,
    max_concurrent_streams: u32,
    decoder: Decoder,
    heads: Heads,
    encoder: Encoder,
    /// A header block whose rest has not come.
    block: Option<Block>,
    has_settings: bool,
    /// What a stream's window is at its beginning.
    initial_window: i64,
    /// What the client has said last that it is to be.
    said_window: i64,
    frame_bytes_max: usize,
    /// What may be sent.
    send_window: i64,
    /// What the client may send.
    receive_window: i64,
    /// Streams that have something to send, in the order of their turns.
    turns: VecDeque<u32>,
    /// Streams that had their turn when the connection's window was shut.
    shut_out: VecDeque<u32>,
    /// The streams that we have reset last.
    reset: VecDeque<u32>,
    pings: PingEnforcer,
    leaving: Leaving,
}

/// A stream as its connection sees it.
struct Open {
    stream: Arc<Stream>,
    send_window: i64,
    receive_window: i64,
    /// What the request says will still come.
    length_left: Option<u64>,
    /// The client will send no more.
    is_complete: bool,
    /// It is among the `turns`.
    has_turn: bool,
    /// It is among the `shut_out`.
    is_shut_out: bool,
}

/// A header block that has not ended.
struct Block {
    stream: u32,
    is_last: bool,
    bytes: BytesMut,
    frames: usize,
}

/// Whether the connection is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Not,
    /// The client was told; what it sent before it heard that is answered.
    Told,
    /// Nothing new is answered.
    Final,
}

impl Wire {
    /// A connection whose client has said the preface; the first words to it are written.
    pub(crate) fn new(options: &Options) -> Self {
        let mut outbox = Outbox::default();
        put_settings(options, outbox.tail());
        Self {
            shared: Arc::default(),
            outbox,
            asked: Vec::new(),
            streams: BTreeMap::new(),
            newest: 0,
            newest_taken: 0,
            max_concurrent_streams: options.max_concurrent_streams,
            decoder: Decoder::default(),
            heads: Heads::default(),
            encoder: Encoder::default(),
            block: None,
            has_settings: false,
            initial_window: WINDOW_BYTES,
            said_window: WINDOW_BYTES,
            frame_bytes_max: FRAME_BYTES_MAX,
            send_window: WINDOW_BYTES,
            receive_window: i64_of(CONNECTION_WINDOW_BYTES),
            turns: VecDeque::new(),
            shut_out: VecDeque::new(),
            reset: VecDeque::new(),
            pings: PingEnforcer::new(options.ping_min_time, Arc::clone(&options.clock)),
            leaving: Leaving::Not,
        }
    }

    /// Tells the client that the connection is about to end: what is on its way is answered.
    pub(crate) fn leave(&mut self) {
        if self.leaving == Leaving::Not {
            self.leaving = Leaving::Told;
            let out = self.outbox.tail();
            frame::put_goaway(STREAM_ID_MAX, Reason::NoError, "", out);
            frame::put_ping(0, LAST_CALL, out);
        }
    }

    /// Whether it was about to end, and has nothing more to do.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving == Leaving::Final && self.streams.is_empty()
    }

    /// Asks the client whether it is there.
    pub(crate) fn ping(&mut self) {
        frame::put_ping(0, KEEPALIVE, self.outbox.tail());
    }

    /// Tells the client why the connection ends.
    pub(crate) fn condemn(&mut self, violation: Violation) {
        let Violation { reason, words } = violation;
        frame::put_goaway(self.newest_taken, reason, words, self.outbox.tail());
    }

    /// Ends all streams.
    pub(crate) fn end(&mut self) {
        for open in std::mem::take(&mut self.streams).into_values() {
            open.stream.end();
        }
    }

    /// A stream has something to do.
    fn give_turn(&mut self, id: u32) {
        let Some(open) = self.streams.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut open.has_turn, true) {
            drop_ended(&mut self.turns, &self.streams);
            self.turns.push_back(id);
        }
    }

    /// Ends a stream; its client is told why.
    fn reset(&mut self, stream: u32, reason: Reason) {
        frame::put_reset(stream, reason, self.outbox.tail());
        self.reset.truncate(RESET_MAX - 1);
        self.reset.push_front(stream);
        if let Some(open) = self.streams.remove(&stream) {
            open.stream.end();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.end();
    }
}

/// Streams that have ended stay in a list until it is their turn; or until they are most of it.
fn drop_ended(list: &mut VecDeque<u32>, streams: &BTreeMap<u32, Open>) {
    if list.len() > 2 * streams.len() + ENDED_MAX {
        list.retain(|id| streams.contains_key(id));
    }
}

/// Streams that have ended and may be in a list beside the others.
const ENDED_MAX: usize = 64;
/// Streams of which it is known that we have reset them.
const RESET_MAX: usize = 128;

fn put_settings(options: &Options, out: &mut BytesMut) {
    let settings = [
        (INITIAL_WINDOW_SIZE, u32_of(STREAM_WINDOW_BYTES)),
        (MAX_HEADER_LIST_SIZE, u32_of(HEADER_LIST_BYTES_MAX)),
        (MAX_CONCURRENT_STREAMS, options.max_concurrent_streams),
    ];
    // As grpc-go: no limit is not said to be one.
    let settings = match options.max_concurrent_streams {
        u32::MAX => &settings[..2],
        _limit => &settings[..],
    };
    Head::new(frame::SETTINGS, 0, 0).put(settings.len() * SETTING_BYTES, out);
    for &(setting, value) in settings {
        out.put_u16(setting);
        out.put_u32(value);
    }
    let more = CONNECTION_WINDOW_BYTES - usize::try_from(WINDOW_BYTES).unwrap_or(0);
    frame::put_window_update(0, u32_of(more), out);
}

const SETTING_BYTES: usize = 6;
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// Lengths of frames and windows: none comes near to the limit.
fn i64_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::stream::Outgoing;

    const STREAMS: u32 = 100;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let is_headers = kind == frame::HEADERS;
        let flags = if is_headers { frame::END_HEADERS } else { 0 };
        crate::tests::frame(kind, flags, stream, payload)
    }

    /// A connection on which a hundred streams have data to send.
    fn wire() -> Wire {
        let mut wire = Wire::new(&crate::tests::options());
        receive(&mut wire, &frame(frame::SETTINGS, 0, b""));
        for at in 0..STREAMS {
            receive(
                &mut wire,
                &frame(frame::HEADERS, 2 * at + 1, b"\x82\x86\x84"),
            );
        }
        for asked in wire.asked.drain(..) {
            asked
                .stream
                .send(Outgoing::Data(Bytes::from(vec![0; 100_000]), false));
        }
        wire
    }

    fn receive(wire: &mut Wire, bytes: &[u8]) {
        assert_eq!(wire.receive(bytes), Ok(bytes.len()));
    }

    /// Neither while the connection's window is shut, nor while nothing can be written.
    #[test]
    fn lists_of_streams_are_as_long_as_there_are_streams() {
        let settings = frame(frame::SETTINGS, 0, b"\0\x04\0\0\xff\xff");
        let most = 2 * (STREAMS as usize + 1) + ENDED_MAX + 1;
        let mut wire = wire();
        for round in 0..1000_u32 {
            receive(&mut wire, &settings);
            let stream = 2 * (round % STREAMS) + 1;
            receive(
                &mut wire,
                &frame(frame::WINDOW_UPDATE, stream, &[0, 0, 0, 1]),
            );
            wire.send();
            assert!(wire.shut_out.len() <= most && wire.turns.len() <= most);
        }
        assert!(!wire.shut_out.is_empty());
        // Streams that come and go.
        for at in STREAMS..STREAMS + 10_000 {
            let id = 2 * at + 1;
            receive(&mut wire, &frame(frame::HEADERS, id, b"\x82\x86\x84"));
            receive(&mut wire, &frame(frame::WINDOW_UPDATE, id, &[0, 0, 0, 1]));
            receive(&mut wire, &frame(frame::RST_STREAM, id, &[0; 4]));
            wire.asked.clear();
            assert!(wire.turns.len() <= most, "{}", wire.turns.len());
        }
        // All go on when the window is open.
        receive(&mut wire, &frame(frame::WINDOW_UPDATE, 0, &[0, 0xff, 0, 0]));
        while wire.send() {
            wire.outbox = Outbox::default();
        }
        assert!(wire.shut_out.is_empty() && wire.send_window > 0);
    }

    /// They come by thousands in one packet, and streams are many.
    #[test]
    fn settings_concern_only_the_streams_that_wait_for_them() {
        let window = |bytes: u8| frame(frame::SETTINGS, 0, &[0, 4, 0, 0, 0, bytes]);
        let ask = |id| frame(frame::HEADERS, id, b"\x82\x86\x84");
        let mut wire = Wire::new(&crate::tests::options());
        receive(
            &mut wire,
            &[window(5), ask(1), window(0), ask(3), window(9)].concat(),
        );
        let windows: Vec<i64> = wire.streams.values().map(|open| open.send_window).collect();
        assert_eq!(windows, [9, 9]);
        for asked in wire.asked.drain(..) {
            let data = Bytes::from_static(&[0; 100]);
            asked.stream.send(Outgoing::Data(data, false));
        }
        wire.send();
        receive(&mut wire, &ask(5));
        receive(&mut wire, &window(20));
        assert_eq!(
            wire.turns,
            [1, 3],
            "not the one that has something to send yet"
        );
    }

    #[test]
    fn a_little_window_lets_in_one_stream() {
        let mut wire = wire();
        while wire.send() {
            wire.outbox = Outbox::default();
        }
        let all: Vec<u32> = wire.shut_out.iter().copied().collect();
        assert_eq!(all.len(), STREAMS as usize);
        receive(&mut wire, &frame(frame::WINDOW_UPDATE, 0, &[0, 0, 0, 1]));
        assert!(!wire.send());
        assert_eq!((wire.send_window, wire.turns.len()), (0, 0));
        // The first has used its own window up; the second was let in, and is the last now.
        let now: Vec<u32> = wire.shut_out.iter().copied().collect();
        assert_eq!(now, [&all[2..], &all[1..2]].concat());
    }
}

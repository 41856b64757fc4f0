//! The state of one connection: its streams, its tables, its windows, and what is to be written.
//!
//! What this is not: a socket. Bytes come in by [`Wire::receive`] and go out by the [`Outbox`].

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
    max_concurrent_streams: u32,
    decoder: Decoder,
    encoder: Encoder,
    /// A header block whose rest has not come.
    block: Option<Block>,
    has_settings: bool,
    /// What the client says of its streams' windows, at their beginning.
    initial_window: i64,
    frame_bytes_max: usize,
    /// What may be sent.
    send_window: i64,
    /// What the client may send.
    receive_window: i64,
    /// Streams that have something to send, in the order of their turns.
    turns: VecDeque<u32>,
    /// Streams that had their turn when the connection's window was shut.
    shut_out: Vec<u32>,
    pings: PingEnforcer,
    leaving: Leaving,
    /// Streams that the client gave up before they were answered, one after the other.
    given_up: usize,
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
    is_answered: bool,
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
            max_concurrent_streams: options.max_concurrent_streams,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            block: None,
            has_settings: false,
            initial_window: WINDOW_BYTES,
            frame_bytes_max: FRAME_BYTES_MAX,
            send_window: WINDOW_BYTES,
            receive_window: i64_of(CONNECTION_WINDOW_BYTES),
            turns: VecDeque::new(),
            shut_out: Vec::new(),
            pings: PingEnforcer::new(options.ping_min_time, Arc::clone(&options.clock)),
            leaving: Leaving::Not,
            given_up: 0,
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
        frame::put_goaway(self.newest, reason, words, self.outbox.tail());
    }

    /// Ends a stream; its client is told why.
    fn reset(&mut self, stream: u32, reason: Reason) {
        frame::put_reset(stream, reason, self.outbox.tail());
        if let Some(open) = self.streams.remove(&stream) {
            open.stream.reset();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for open in self.streams.values() {
            open.stream.reset();
        }
    }
}

fn put_settings(options: &Options, out: &mut BytesMut) {
    let settings = [
        (MAX_CONCURRENT_STREAMS, options.max_concurrent_streams),
        (INITIAL_WINDOW_SIZE, u32_of(STREAM_WINDOW_BYTES)),
        (MAX_HEADER_LIST_SIZE, u32_of(HEADER_LIST_BYTES_MAX)),
    ];
    Head::new(frame::SETTINGS, 0, 0).put(settings.len() * SETTING_BYTES, out);
    for (setting, value) in settings {
        out.put_u16(setting);
        out.put_u32(value);
    }
    let more = CONNECTION_WINDOW_BYTES - usize::try_from(WINDOW_BYTES).unwrap_or(0);
    frame::put_window_update(0, u32_of(more), out);
}

const SETTING_BYTES: usize = 6;
const HEADER_TABLE_SIZE: u16 = 1;
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

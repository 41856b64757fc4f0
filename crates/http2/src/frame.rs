//! HTTP/2's frames (RFC 9113, 4 and 6): the nine bytes before each, their kinds and flags, and the reasons for an end.

use bytes::{BufMut as _, BytesMut};

/// What a client says first, of every connection.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const HEAD_BYTES: usize = 9;
/// What a frame may carry if nobody asks for more; we do not.
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;
pub(crate) const STREAM_ID_MAX: u32 = (1 << 31) - 1;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

/// What comes before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) const fn new(kind: u8, flags: u8, stream: u32) -> Self {
        Self {
            kind,
            flags,
            stream,
        }
    }

    /// A frame's head and the length of its payload, if so much has come.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEAD_BYTES>()?;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Some((Self::new(kind, flags, stream), length))
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Writes it for a payload of this length.
    pub(crate) fn put(self, length: usize, out: &mut BytesMut) {
        let [.., l0, l1, l2] = length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let head: [u8; HEAD_BYTES] = [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3];
        out.extend_from_slice(&head);
    }

    /// Writes it, and a payload that fits into one frame by `payload`. Gives it back where it was written if it does not.
    pub(crate) fn put_before(
        self,
        bytes_max: usize,
        out: &mut BytesMut,
        payload: impl FnOnce(&mut BytesMut),
    ) -> Option<BytesMut> {
        let begin = out.len();
        self.put(0, out);
        payload(out);
        let length = out.len() - begin - HEAD_BYTES;
        if length > bytes_max {
            let too_large = out.split_off(begin + HEAD_BYTES);
            out.truncate(begin);
            return Some(too_large);
        }
        let [.., l0, l1, l2] = length.to_be_bytes();
        out[begin..begin + 3].copy_from_slice(&[l0, l1, l2]);
        None
    }
}

/// Why a stream or a connection ends (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reason {
    NoError = 0x0,
    ProtocolError = 0x1,
    InternalError = 0x2,
    FlowControlError = 0x3,
    StreamClosed = 0x5,
    FrameSizeError = 0x6,
    RefusedStream = 0x7,
    CompressionError = 0x9,
    EnhanceYourCalm = 0xb,
}

/// RST_STREAM.
pub(crate) fn put_reset(stream: u32, reason: Reason, out: &mut BytesMut) {
    Head::new(RST_STREAM, 0, stream).put(4, out);
    out.put_u32(reason as u32);
}

/// WINDOW_UPDATE; of the connection if the stream is 0.
pub(crate) fn put_window_update(stream: u32, bytes: u32, out: &mut BytesMut) {
    Head::new(WINDOW_UPDATE, 0, stream).put(4, out);
    out.put_u32(bytes);
}

/// GOAWAY, with words for people.
pub(crate) fn put_goaway(last_stream: u32, reason: Reason, words: &str, out: &mut BytesMut) {
    Head::new(GOAWAY, 0, 0).put(8 + words.len(), out);
    out.put_u32(last_stream);
    out.put_u32(reason as u32);
    out.put_slice(words.as_bytes());
}

/// PING, or the answer to one.
pub(crate) fn put_ping(flags: u8, payload: [u8; 8], out: &mut BytesMut) {
    Head::new(PING, flags, 0).put(payload.len(), out);
    out.put_slice(&payload);
}

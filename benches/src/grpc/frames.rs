//! HTTP/2's frames (RFC 9113, 4 and 6), as far as a client of gRPC sees them.

use bytes::{BufMut as _, BytesMut};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const HEAD_BYTES: usize = 9;
/// What every server takes in one frame.
pub(super) const FRAME_BYTES_MAX: usize = 16_384;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

pub(super) const SETTING_HEADER_TABLE_SIZE: u16 = 1;
pub(super) const SETTING_ENABLE_PUSH: u16 = 2;
pub(super) const SETTING_INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const SETTING_MAX_FRAME_SIZE: u16 = 5;

/// RST_STREAM's reason when the answer is not wanted any more.
const CANCEL: u32 = 8;

/// What comes before a frame's payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// Of the next frame, and the length of its payload, if so much has come.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEAD_BYTES>()?;
        let head = Self {
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        };
        Some((head, u32::from_be_bytes([0, l0, l1, l2]) as usize))
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// One frame.
pub(super) fn put(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut BytesMut) {
    let [.., l0, l1, l2] = payload.len().to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.reserve(HEAD_BYTES + payload.len());
    out.put_slice(&[l0, l1, l2, kind, flags, s0, s1, s2, s3]);
    out.put_slice(payload);
}

pub(super) fn put_settings(settings: &[(u16, u32)], out: &mut BytesMut) {
    let mut payload = Vec::with_capacity(settings.len() * 6);
    for (name, value) in settings {
        payload.put_u16(*name);
        payload.put_u32(*value);
    }
    put(SETTINGS, 0, 0, &payload, out);
}

/// WINDOW_UPDATE; of the connection if the stream is 0.
pub(super) fn put_window_update(stream: u32, bytes: u32, out: &mut BytesMut) {
    put(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes(), out);
}

pub(super) fn put_cancel(stream: u32, out: &mut BytesMut) {
    put(RST_STREAM, 0, stream, &CANCEL.to_be_bytes(), out);
}

/// The number at the beginning of a payload.
pub(super) fn number(payload: &[u8]) -> anyhow::Result<u32> {
    match payload.first_chunk::<4>() {
        Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
        None => anyhow::bail!("a frame is too short"),
    }
}

/// The names and values of SETTINGS.
pub(super) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    let (settings, _) = payload.as_chunks::<6>();
    settings.iter().map(|&[n0, n1, v0, v1, v2, v3]| {
        let name = u16::from_be_bytes([n0, n1]);
        (name, u32::from_be_bytes([v0, v1, v2, v3]))
    })
}

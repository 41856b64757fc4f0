//! What a watch response is on the wire: framed, its events as they were encoded once for everybody, and in parts
//! where the client allows it. It knows sizes and nothing else.
//!
//! What this is not: the codec of other answers. A stream with a thousand responses a second has no time for a
//! buffer, a list of events and a copy for each.

use api::encoded::etcdserverpb::WatchResponse;
use bytes::BufMut as _;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;

use crate::framing;

/// The number of the field `events` of a `WatchResponse`, its last.
const EVENTS: u32 = 11;

/// Where a response that is sent in parts is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Events in it.
    pub(super) events: usize,
    /// No other part comes after it.
    pub(super) is_last: bool,
}

/// What of a response is sent first. It reaches `bytes_max` only if it is a single event.
pub(super) fn first_part<'a>(
    response: &WatchResponse,
    events: impl Iterator<Item = &'a [u8]>,
    bytes_max: usize,
) -> Part {
    let mut bytes = response.encoded_len();
    let mut part = Part {
        events: 0,
        is_last: true,
    };
    for event in events {
        bytes += field_bytes(event);
        if part.events > 0 && bytes >= bytes_max {
            part.is_last = false;
            break;
        }
        part.events += 1;
    }
    part
}

/// Appends the response that has these events besides what is in `response`.
///
/// # Errors
///
/// When it is larger than gRPC knows a length for.
pub(super) fn put<'a>(
    out: &mut Vec<u8>,
    response: &WatchResponse,
    events: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<(), Status> {
    let bytes = response.encoded_len() + events.clone().map(field_bytes).sum::<usize>();
    let length = framing::length(bytes)?;
    out.reserve(framing::PREFIX_BYTES + bytes);
    framing::put_prefix(length, out);
    response.encode_raw(out);
    for event in events {
        encode_key(EVENTS, WireType::LengthDelimited, out);
        encode_varint(event.len() as u64, out);
        out.put_slice(event);
    }
    Ok(())
}

fn field_bytes(event: &[u8]) -> usize {
    key_len(EVENTS) + encoded_len_varint(event.len() as u64) + event.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn response() -> WatchResponse {
        WatchResponse {
            watch_id: 7,
            ..WatchResponse::default()
        }
    }

    fn events(lens: &[usize]) -> Vec<Bytes> {
        lens.iter()
            .map(|len| Bytes::from(vec![b'e'; *len]))
            .collect()
    }

    /// What a client receives of a response in parts, if it is not sent as a whole.
    fn received(events: &[Bytes], bytes_max: usize) -> Vec<WatchResponse> {
        let all = || events.iter().map(|event| &**event);
        let mut response = response();
        if first_part(&response, all(), bytes_max).is_last {
            return vec![read(&response, all())];
        }
        let (mut parts, mut sent) = (Vec::new(), 0);
        loop {
            response.fragment = true;
            let part = first_part(&response, all().skip(sent), bytes_max);
            response.fragment = !part.is_last;
            parts.push(read(&response, all().skip(sent).take(part.events)));
            sent += part.events;
            if part.is_last {
                return parts;
            }
        }
    }

    /// What a client reads.
    fn read<'a>(
        response: &WatchResponse,
        events: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> WatchResponse {
        let mut out = Vec::new();
        put(&mut out, response, events).unwrap();
        let (prefix, message) = out.split_at(framing::PREFIX_BYTES);
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
        assert_eq!(length as usize, message.len());
        let read = WatchResponse::decode(message).unwrap();
        assert_eq!(read.encode_to_vec(), message, "not canonical");
        read
    }

    /// Events and the fragment flag of each part.
    fn split(lens: &[usize], bytes_max: usize) -> Vec<(usize, bool)> {
        let whole = events(lens);
        let parts = received(&whole, bytes_max);
        let events: Vec<Bytes> = parts.iter().flat_map(|part| part.events.clone()).collect();
        assert_eq!(events, whole, "nothing is lost and the order stays");
        for part in &parts {
            assert_eq!(part.watch_id, 7);
            assert!(part.events.len() < 2 || part.encoded_len() < bytes_max);
        }
        parts.iter().map(|p| (p.events.len(), p.fragment)).collect()
    }

    #[test]
    fn small_responses_and_single_events_stay_whole() {
        assert_eq!(split(&[10, 10], 100), [(2, false)]);
        assert_eq!(split(&[1000], 100), [(1, false)]);
        assert_eq!(split(&[], 1), [(0, false)]);
    }

    #[test]
    fn large_responses_are_split_and_all_but_the_last_part_say_so() {
        assert_eq!(split(&[40, 40, 40], 100), [(2, true), (1, false)]);
        assert_eq!(
            split(&[500, 10, 10, 500], 100),
            [(1, true), (2, true), (1, false)]
        );
        assert_eq!(split(&[99, 99], 100), [(1, true), (1, false)]);
    }

    #[test]
    fn a_part_that_would_reach_the_limit_exactly_is_split() {
        let exact = WatchResponse {
            events: events(&[20, 20]),
            ..response()
        }
        .encoded_len();
        assert_eq!(split(&[20, 20], exact), [(1, true), (1, false)]);
        assert_eq!(split(&[20, 20], exact + 1), [(2, false)]);
    }
}

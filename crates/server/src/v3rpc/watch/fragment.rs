//! Splits responses for clients that allow it. It knows sizes and nothing else.

use std::collections::VecDeque;

use api::encoded::etcdserverpb::WatchResponse;
use prost::Message;
use prost::encoding::encoded_len_varint;

/// The response, or, when it reaches `bytes_max` and has several events, parts of it that do not,
/// unless a single event does.
pub(super) fn fragments(mut response: WatchResponse, bytes_max: usize) -> VecDeque<WatchResponse> {
    if response.events.len() < 2 || response.encoded_len() < bytes_max {
        return VecDeque::from([response]);
    }
    let events = std::mem::take(&mut response.events);
    response.fragment = true;
    let bytes_without_events = response.encoded_len();
    let mut parts: VecDeque<WatchResponse> = VecDeque::new();
    let mut bytes = usize::MAX;
    for event in events {
        let event_bytes = 1 + encoded_len_varint(event.len() as u64) + event.len();
        bytes = bytes.saturating_add(event_bytes);
        match parts.back_mut() {
            Some(part) if bytes < bytes_max => part.events.push(event),
            _ => {
                bytes = bytes_without_events + event_bytes;
                parts.push_back(WatchResponse {
                    events: vec![event],
                    ..response.clone()
                });
            }
        }
    }
    if let Some(last) = parts.back_mut() {
        last.fragment = false;
    }
    parts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn response(event_lens: &[usize]) -> WatchResponse {
        WatchResponse {
            watch_id: 7,
            events: event_lens
                .iter()
                .map(|len| Bytes::from(vec![b'e'; *len]))
                .collect(),
            ..WatchResponse::default()
        }
    }

    /// Events and the fragment flag of each part.
    fn split(event_lens: &[usize], bytes_max: usize) -> Vec<(usize, bool)> {
        let whole = response(event_lens);
        let parts = fragments(whole.clone(), bytes_max);
        let events: Vec<Bytes> = parts.iter().flat_map(|part| part.events.clone()).collect();
        assert_eq!(events, whole.events, "nothing is lost and the order stays");
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
        let exact = response(&[20, 20]).encoded_len();
        assert_eq!(split(&[20, 20], exact), [(1, true), (1, false)]);
        assert_eq!(split(&[20, 20], exact + 1), [(2, false)]);
    }
}

//! Ids of proposals: no two proposals of a cluster have the same, over restarts too.
//!
//! ```text
//! | member, its low 16 bits | milliseconds since 1970, low 40 bits | counter, 8 bits |
//! ```
//! As etcd makes its request ids (`pkg/idutil`): the time is that of the start, and the counter runs
//! over into it. Also who counts up only, and is seen by others, counts with these: streams.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use types::MemberId;

const SUFFIX_BITS: u32 = 48;
const COUNTER_BITS: u32 = 8;

#[derive(Debug)]
pub(crate) struct ProposalIds {
    prefix: u64,
    suffix: AtomicU64,
}

impl ProposalIds {
    pub(crate) fn new(member: MemberId, started_at: SystemTime) -> Self {
        let since = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = since.as_secs() * 1000 + u64::from(since.subsec_millis());
        Self {
            prefix: member.0 << SUFFIX_BITS,
            suffix: AtomicU64::new(millis << COUNTER_BITS),
        }
    }

    pub(crate) fn next(&self) -> u64 {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed) + 1;
        self.prefix | (suffix & ((1 << SUFFIX_BITS) - 1))
    }

    /// Whether a proposal may be this member's.
    pub(crate) const fn may_be_ours(&self, id: u64) -> bool {
        id >> SUFFIX_BITS == self.prefix >> SUFFIX_BITS
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_differ_between_members_and_after_a_restart() {
        let start = UNIX_EPOCH + Duration::from_millis(1_763_690_000_123);
        let ids = ProposalIds::new(MemberId(0xabcd_0001), start);
        let (first, second) = (ids.next(), ids.next());
        assert_eq!(second, first + 1);
        assert!(ids.may_be_ours(first));
        let other = ProposalIds::new(MemberId(0xabcd_0002), start);
        assert!(!ids.may_be_ours(other.next()));
        let later = ProposalIds::new(MemberId(0xabcd_0001), start + Duration::from_millis(2));
        assert!(later.next() > second);
    }
}

//! Ids that differ between members and restarts (`pkg/idutil/id.go`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use types::{LeaseId, MemberId};

/// Bits of the millisecond and the counter together: one counter that starts at the time.
const SUFFIX_BITS: u32 = 48;
/// Bits of the counter alone.
const COUNTER_BITS: u32 = 8;

/// Gives out ids: the member's low 16 bits, then a counter that began at the wall time.
#[derive(Debug)]
pub(crate) struct IdGenerator {
    prefix: u64,
    suffix: AtomicU64,
}

impl IdGenerator {
    pub(crate) fn new(member: MemberId, now: SystemTime) -> Self {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Self {
            prefix: member.0 << SUFFIX_BITS,
            suffix: AtomicU64::new((millis << COUNTER_BITS) & suffix_mask()),
        }
    }

    fn next(&self) -> u64 {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.prefix | (suffix & suffix_mask())
    }

    /// An id for a lease: positive and not zero.
    pub(crate) fn next_lease(&self) -> LeaseId {
        loop {
            let id = i64::try_from(self.next() & (u64::MAX >> 1))
                .expect("the sign bit has just been cleared");
            if id != 0 {
                return LeaseId(id);
            }
        }
    }
}

const fn suffix_mask() -> u64 {
    (1 << SUFFIX_BITS) - 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lease_ids_are_positive_and_carry_member_and_time() {
        let now = UNIX_EPOCH + Duration::from_millis(0x12_3456_789a);
        let ids = IdGenerator::new(MemberId(0x8e9e_05c5_2164_694d), now);
        let first = ids.next_lease();
        assert_eq!(first, LeaseId(0x694d_1234_5678_9a01));
        assert_eq!(ids.next_lease().0, first.0 + 1);
        let high = IdGenerator::new(MemberId(0xffff), now);
        assert!(high.next_lease().0 > 0);
    }
}

//! Bucket `Lease`: the leases that have been granted and not revoked.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the lease's id, big endian |
//!
//! Ids that clients and members choose are positive, and sort by number; a negative one, which etcd
//! also takes, sorts behind them. The value is `leasepb.Lease` (id, TTL), which `lease` owns; the
//! attached keys are not in it.

use types::LeaseId;

use super::{Bucket, KeyError};

/// The key of a lease.
#[must_use]
pub const fn encode(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// Which lease is at `key`.
pub fn decode(key: &[u8]) -> Result<LeaseId, KeyError> {
    let id = key.try_into().or(Err(KeyError::new(Bucket::Lease, key)))?;
    Ok(LeaseId(i64::from_be_bytes(id)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_says_which_lease_it_is(id: i64) {
            prop_assert_eq!(decode(&encode(LeaseId(id))), Ok(LeaseId(id)));
        }

        #[test]
        fn positive_ids_sort_by_number(a in 1..=i64::MAX, b in 1..=i64::MAX) {
            prop_assert_eq!(encode(LeaseId(a)).cmp(&encode(LeaseId(b))), a.cmp(&b));
        }

        #[test]
        fn only_eight_bytes_are_a_key(key: Vec<u8>) {
            prop_assert_eq!(decode(&key).is_ok(), key.len() == 8);
        }
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        assert_eq!(encode(LeaseId(0x0102)), [0, 0, 0, 0, 0, 0, 1, 2]);
    }
}

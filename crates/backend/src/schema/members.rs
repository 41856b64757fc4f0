//! Buckets `Members`, the members of the cluster and its learners, and `MembersRemoved`, the ids of
//! those who were and never will be again.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the member's id, big endian |
//!
//! The value in `Members` is the member's name and urls and whether it is a learner, which `apply`
//! owns (`apply/cluster`); in `MembersRemoved` it is [`REMOVED`], as in etcd's bucket of that name.

use types::MemberId;

use super::{Bucket, KeyError};

/// The value of every record of bucket `MembersRemoved`.
pub const REMOVED: &[u8] = b"removed";

/// The key of a member, in either bucket.
#[must_use]
pub const fn encode(id: MemberId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// Which member is at `key`, in either bucket.
pub fn decode(key: &[u8]) -> Result<MemberId, KeyError> {
    let id = key
        .try_into()
        .or(Err(KeyError::new(Bucket::Members, key)))?;
    Ok(MemberId(u64::from_be_bytes(id)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_says_which_member_it_is(id: u64) {
            prop_assert_eq!(decode(&encode(MemberId(id))), Ok(MemberId(id)));
        }

        #[test]
        fn keys_sort_by_id(a: u64, b: u64) {
            prop_assert_eq!(encode(MemberId(a)).cmp(&encode(MemberId(b))), a.cmp(&b));
        }

        #[test]
        fn only_eight_bytes_are_a_key(key: Vec<u8>) {
            prop_assert_eq!(decode(&key).is_ok(), key.len() == 8);
        }
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        assert_eq!(encode(MemberId(0x0102)), [0, 0, 0, 0, 0, 0, 1, 2]);
    }
}

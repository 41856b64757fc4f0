//! Bucket `Alarm`: the alarms that stand.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the id of the member that raised it, big endian |
//! | 8 | the kind: the number of `etcdserverpb.AlarmType` |
//!
//! The value is empty, or `q` if the alarm is a quarantine; `apply` owns the bucket. Which kinds there are is its
//! business too.

use types::MemberId;

use super::{Bucket, KeyError};

/// The key of the alarm of `kind` that `member` raised.
#[must_use]
pub fn encode(member: MemberId, kind: u8) -> [u8; 9] {
    let mut key = [0; 9];
    let (left, right) = key.split_at_mut(8);
    left.copy_from_slice(&member.0.to_be_bytes());
    right.copy_from_slice(&[kind]);
    key
}

/// Which member raised the alarm at `key`, and of which kind it is.
pub fn decode(key: &[u8]) -> Result<(MemberId, u8), KeyError> {
    match key.split_first_chunk() {
        Some((member, &[kind])) => Ok((MemberId(u64::from_be_bytes(*member)), kind)),
        _ => Err(KeyError::new(Bucket::Alarm, key)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_says_whose_alarm_it_is(member: u64, kind: u8) {
            let member = MemberId(member);
            prop_assert_eq!(decode(&encode(member, kind)), Ok((member, kind)));
        }

        #[test]
        fn keys_sort_by_member_and_kind(a: (u64, u8), b: (u64, u8)) {
            let order = encode(MemberId(a.0), a.1).cmp(&encode(MemberId(b.0), b.1));
            prop_assert_eq!(order, a.cmp(&b));
        }

        #[test]
        fn only_nine_bytes_are_a_key(key: Vec<u8>) {
            prop_assert_eq!(decode(&key).is_ok(), key.len() == 9);
        }
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        assert_eq!(encode(MemberId(0x0102), 3), [0, 0, 0, 0, 0, 0, 1, 2, 3]);
    }
}

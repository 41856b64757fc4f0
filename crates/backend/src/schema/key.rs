//! Bucket `Key`: the history of the keys, in segments.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | main revision of the segment's first version, big endian |
//! | 8..16 | its sub revision, big endian |
//!
//! Revisions are never negative, so the order of the keys is that of history. The value is a segment,
//! which `mvcc` owns (`mvcc/segment`): packed `mvccpb.KeyValue`s and tombstones.

use types::Revision;

use super::{Bucket, KeyError, join};

/// The key of the segment that begins with `first`.
#[must_use]
pub fn encode(first: Revision) -> [u8; 16] {
    debug_assert!(
        first.main >= 0 && first.sub >= 0,
        "a revision is never negative: {first}"
    );
    join(first.main.to_be_bytes(), first.sub.to_be_bytes())
}

/// The revision that the segment at `key` begins with.
pub fn decode(key: &[u8]) -> Result<Revision, KeyError> {
    let error = || KeyError::new(Bucket::Key, key);
    let (main, rest) = key.split_first_chunk().ok_or_else(error)?;
    let sub = rest.try_into().or(Err(error()))?;
    let first = Revision::new(i64::from_be_bytes(*main), i64::from_be_bytes(sub));
    if first.main < 0 || first.sub < 0 {
        return Err(error());
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_says_which_revision_it_begins_with(main in 0..=i64::MAX, sub in 0..=i64::MAX) {
            let first = Revision::new(main, sub);
            prop_assert_eq!(decode(&encode(first)), Ok(first));
        }

        #[test]
        fn keys_sort_as_history_does(
            a in (0..=i64::MAX, 0..=i64::MAX),
            b in (0..=i64::MAX, 0..=i64::MAX),
        ) {
            let (a, b) = (Revision::new(a.0, a.1), Revision::new(b.0, b.1));
            prop_assert_eq!(encode(a).cmp(&encode(b)), a.cmp(&b));
        }

        #[test]
        fn whatever_can_be_decoded_is_what_would_be_written(key: Vec<u8>) {
            if let Ok(first) = decode(&key) {
                prop_assert_eq!(&encode(first)[..], &key[..]);
            }
        }
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let key = encode(Revision::new(0x0102, 3));
        assert_eq!(key, [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert!(decode(&[0xff; 16]).is_err(), "a negative revision");
        assert!(decode(&key[..15]).is_err(), "too short");
    }
}

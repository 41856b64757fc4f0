//! A key that has a past: its last change, and those before it.
//!
//! Most pasts are short. So the newest of the older versions stand in the same memory as the last change, no more of it
//! than they take, and a put makes it anew; when there is no room for one more, all of them move to the end of a
//! persistent vector, which costs them all together about as much as a put. A vector alone takes a kilobyte as soon as
//! it has four versions.

use std::cmp::Ordering;
use std::sync::Arc;

use arrayvec::ArrayVec;
use imbl::Vector;
use triomphe::ThinArc;

use super::Version;
use crate::StoredKv;

/// Versions beside the last change, at most.
const SHORT_MAX: usize = 15;

/// A key's last change and its past. One pointer; never without a past.
#[derive(Clone, Debug)]
pub(super) struct Several(ThinArc<Head, Version>);

#[derive(Debug)]
struct Head {
    newest: StoredKv,
    /// Before those that stand beside.
    long: Option<Arc<Vector<Version>>>,
}

/// The versions before the last change, ascending.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Older<'a> {
    long: Option<&'a Arc<Vector<Version>>>,
    short: &'a [Version],
}

/// What the past is to be.
#[derive(Debug, Default)]
pub(super) struct Past {
    long: Option<Arc<Vector<Version>>>,
    short: ArrayVec<Version, SHORT_MAX>,
}

impl Several {
    /// Gives the change back if there is no past.
    pub(super) fn new(newest: StoredKv, past: Past) -> Result<Self, StoredKv> {
        let Past { long, short } = past;
        if long.is_none() && short.is_empty() {
            return Err(newest);
        }
        let head = Head { newest, long };
        Ok(Self(ThinArc::from_header_and_slice(head, &short)))
    }

    /// The last change: a version, or a tombstone.
    pub(super) fn newest(&self) -> &StoredKv {
        &self.0.header.header.newest
    }

    pub(super) fn older(&self) -> Older<'_> {
        Older {
            long: self.0.header.header.long.as_ref(),
            short: &self.0.slice,
        }
    }
}

impl Older<'_> {
    fn long_len(&self) -> usize {
        self.long.map_or(0, |long| long.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.long.is_none() && self.short.is_empty()
    }

    pub(super) fn get(&self, place: usize) -> Option<Version> {
        match place.checked_sub(self.long_len()) {
            Some(place) => self.short.get(place).copied(),
            None => self.long?.get(place).copied(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Version> {
        let long = self.long.map(|long| long.iter());
        long.into_iter().flatten().chain(self.short).copied()
    }

    /// How many of them are before the one of which `is_before` does not say so any more.
    pub(super) fn partition_point(&self, is_before: impl Fn(&Version) -> bool) -> usize {
        let Some(long) = self.long else {
            return self.short.partition_point(is_before);
        };
        if self.short.first().is_some_and(&is_before) {
            return long.len() + self.short.partition_point(is_before);
        }
        let order = |version: &Version| match is_before(version) {
            true => Ordering::Less,
            false => Ordering::Greater,
        };
        match long.binary_search_by(order) {
            Ok(place) | Err(place) => place,
        }
    }

    /// These, and one more behind them.
    pub(super) fn and(&self, last: Version) -> Past {
        let mut past = self.without(0);
        if past.short.is_full() {
            let mut long = past
                .long
                .take()
                .map_or_else(Vector::new, Arc::unwrap_or_clone);
            long.extend(past.short.drain(..));
            past.long = Some(Arc::new(long));
        }
        past.short.push(last);
        past
    }

    /// These, without so many of the oldest.
    pub(super) fn without(&self, count: usize) -> Past {
        let of_short = count.saturating_sub(self.long_len());
        let long = self.long.filter(|long| count < long.len());
        Past {
            long: long.map(|long| match count {
                0 => Arc::clone(long),
                _ => Arc::new(long.skip(count)),
            }),
            short: self.short[of_short..].iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::Revision;

    use super::*;
    use crate::key_index::tests::put;

    proptest! {
        #[test]
        fn a_past_is_a_list(steps in prop::collection::vec(prop::option::weighted(0.1, 0..40usize), 1..200)) {
            let (mut several, mut model) = (None::<Several>, Vec::new());
            for (step, main) in steps.into_iter().zip(1..) {
                let older = several.as_ref().map(Several::older).unwrap_or_default();
                let past = match step {
                    None => {
                        let version = Version::new(Revision::new(main, 0), 100, false);
                        model.push(version);
                        older.and(version)
                    }
                    Some(count) => {
                        let count = count.min(model.len());
                        model.drain(..count);
                        older.without(count)
                    }
                };
                several = Several::new(put(main + 1), past).ok();
                prop_assert_eq!(several.is_none(), model.is_empty());
                let older = several.as_ref().map(Several::older).unwrap_or_default();
                prop_assert_eq!(older.is_empty(), model.is_empty());
                prop_assert!(older.iter().eq(model.iter().copied()));
                for place in 0..=model.len() {
                    prop_assert_eq!(older.get(place), model.get(place).copied());
                }
                for at in (0..main).step_by(3) {
                    let is_before = |version: &Version| version.main <= at;
                    prop_assert_eq!(older.partition_point(is_before), model.partition_point(is_before));
                }
            }
        }
    }

    #[test]
    fn a_key_with_a_short_past_takes_little() {
        assert_eq!(size_of::<Several>(), 8);
        assert_eq!(size_of::<Head>(), 16);
        assert_eq!(size_of::<Version>(), 16);
    }
}

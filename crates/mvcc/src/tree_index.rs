//! All keys in order, so that a reader's copy costs nothing and stays as it is (`btree`).
//!
//! A leaf holds each key's [`KeyIndex`]: one pointer to its last version, in whose bytes the key itself is, its fingerprint,
//! and a few flags. When a leaf is shared with a published view, it is
//! copied before a change, and that costs one count on each of its keys' versions, which is what a put mostly
//! costs; hence few pointers.
//!
//! Above the leaves stand [`Tally`]s: how many keys exist below, when the last of them has changed, and whether
//! any has something to compact. So counting, skipping what is deleted, and compaction look only at what they
//! are about.

pub(crate) mod btree;

use types::KeyRange;

use crate::key_index::{Compacted, KeyIndex, Tally, Version};
use crate::{EventKind, StoredKv};
use btree::{BTree, Item};

/// All keys that exist or have a past.
#[derive(Clone, Debug, Default)]
pub(crate) struct TreeIndex {
    keys: BTree<KeyIndex>,
}

/// How far a compaction of the index has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Go on here.
    At(Box<[u8]>),
    /// Every key has been looked at.
    Done,
}

impl TreeIndex {
    /// A key's versions.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyIndex> {
        self.keys.get(key)
    }

    /// The newest version of a key that exists.
    pub(crate) fn live(&self, key: &[u8]) -> Option<&StoredKv> {
        self.get(key)?.live()
    }

    /// How many keys exist.
    pub(crate) fn live_len(&self) -> usize {
        self.keys.sum().live
    }

    /// Adds a change, which is made from the version that it replaces: a new one, or a tombstone.
    pub(crate) fn change(
        &mut self,
        key: &[u8],
        make: impl FnOnce(Option<&StoredKv>) -> (EventKind, StoredKv),
    ) {
        self.keys.change(key, |before| {
            let (kind, newest) = make(before.and_then(KeyIndex::live));
            match before {
                None => KeyIndex::new(kind, newest),
                Some(before) => before.with(kind, newest),
            }
        });
    }

    /// Every key in order, those that have only a past included.
    pub(crate) fn all(&self) -> impl Iterator<Item = &KeyIndex> {
        self.keys.iter()
    }

    /// How many keys of the range exist at `revision`. It looks at those around the range's ends, and at those
    /// that have changed since.
    pub(crate) fn count(&self, keys: &KeyRange, revision: i64) -> usize {
        let of_tally = |tally: &Tally| (tally.changed <= revision).then_some(tally.live);
        let of_key = |key: &KeyIndex| usize::from(key.exists_at(revision));
        match keys {
            KeyRange::Single(key) => self.get(key).map_or(0, of_key),
            KeyRange::From(start) | KeyRange::Range { start, .. } => {
                let start = (!start.is_empty()).then_some(&start[..]);
                self.keys.count(start, end(keys), &of_tally, &of_key)
            }
        }
    }

    /// The keys of the range that exist at `revision`, in order.
    pub(crate) fn existing<'a>(
        &'a self,
        keys: &'a KeyRange,
        revision: i64,
    ) -> impl Iterator<Item = &'a KeyIndex> {
        let is_wanted = move |tally: &Tally| tally.live > 0 || tally.changed > revision;
        let (single, several) = match keys {
            KeyRange::Single(key) => (self.get(key), None),
            KeyRange::From(start) | KeyRange::Range { start, .. } => {
                let several = self.keys.range(start, end(keys), is_wanted);
                (None, Some(several))
            }
        };
        let found = single.into_iter().chain(several.into_iter().flatten());
        found.filter(move |key| key.exists_at(revision))
    }

    /// Compacts the next keys: looks at `budget` of them at most, beginning at `from`. Each version
    /// dropped goes to `dropped`.
    pub(crate) fn compact_step(
        &mut self,
        from: &[u8],
        budget: usize,
        revision: i64,
        mut dropped: impl FnMut(Version),
    ) -> Progress {
        let mut next_keys = self.keys.range(from, None, |tally| tally.is_compactable);
        let compactable: Vec<KeyIndex> = next_keys
            .by_ref()
            .take(budget)
            .filter(|key| key.is_compactable())
            .cloned()
            .collect();
        let next = next_keys.next().map(|key| Box::from(key.key()));
        for key in compactable {
            match key.compact(revision, &mut dropped) {
                Compacted::Unchanged => {}
                Compacted::Shorter(shorter) => self.keys.change(key.key(), |_| shorter),
                Compacted::Gone => self.keys.remove(key.key()),
            }
        }
        next.map_or(Progress::Done, Progress::At)
    }

    /// Counts again what [`TreeIndex::live_len`] has added up.
    #[cfg(test)]
    pub(crate) fn count_live(&self) -> usize {
        self.all().filter(|key| key.live().is_some()).count()
    }
}

/// The first key behind a range of several.
fn end(keys: &KeyRange) -> Option<&[u8]> {
    match keys {
        KeyRange::Range { end, .. } => Some(end),
        KeyRange::Single(_) | KeyRange::From(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;
    use types::Revision;

    use super::*;
    use crate::KvParts;

    fn put(index: &mut TreeIndex, key: &[u8], main: i64) {
        index.change(key, |_| {
            let kv = StoredKv::new(&KvParts {
                key,
                value: b"value",
                mod_revision: Revision::new(main, 0),
                create_revision: main,
                version: 1,
                lease: None,
            });
            (EventKind::Put, kv)
        });
    }

    fn delete(index: &mut TreeIndex, key: &[u8], main: i64) {
        index.change(key, |_| {
            let tombstone = StoredKv::tombstone(key, Revision::new(main, 0));
            (EventKind::Delete, tombstone)
        });
    }

    fn key(number: u16) -> Bytes {
        format!("/registry/{number:05}").into()
    }

    /// A million keys take what this takes a million times, and their bytes.
    #[test]
    fn a_key_takes_little_more_than_its_bytes() {
        assert_eq!(size_of::<StoredKv>(), 8);
        assert_eq!(size_of::<KeyIndex>(), 24);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_every_revision_since_the_compaction(
            changes in prop::collection::vec((0..300u16, prop::bool::weighted(0.3)), 1..600),
            compacted in 1..400i64,
            ranges in prop::collection::vec((0..310u16, prop::option::of(0..310u16)), 8),
        ) {
            let (mut index, mut moments) = (TreeIndex::default(), Vec::new());
            let mut model = BTreeMap::new();
            for (main, (number, is_deletion)) in (2..).zip(&changes) {
                let key = key(*number);
                if !is_deletion {
                    put(&mut index, &key, main);
                    model.insert(key, ());
                } else if model.remove(&key).is_some() {
                    delete(&mut index, &key, main);
                }
                moments.push((main, model.clone()));
            }
            let done = index.compact_step(&[], usize::MAX, compacted, |_| {});
            prop_assert_eq!(done, Progress::Done);
            prop_assert_eq!(index.live_len(), index.count_live());
            for (main, model) in moments.iter().filter(|(main, _)| *main >= compacted).step_by(7) {
                for (start, end) in &ranges {
                    let range = match end {
                        None => KeyRange::From(key(*start)),
                        Some(end) => KeyRange::Range { start: key(*start), end: key(*end) },
                    };
                    let expected: Vec<&Bytes> = model.keys().filter(|key| range.contains(key)).collect();
                    prop_assert_eq!(index.count(&range, *main), expected.len());
                    let found: Vec<&[u8]> = index.existing(&range, *main).map(Item::key).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn a_compaction_passes_over_keys_without_a_past() {
        let mut index = TreeIndex::default();
        for number in 0..20_000 {
            put(&mut index, &key(number), i64::from(number) + 2);
        }
        put(&mut index, &key(17_000), 30_000);
        let mut dropped = Vec::new();
        let progress = index.compact_step(&[], 100, 40_000, |version| dropped.push(version.main));
        assert_eq!((progress, dropped), (Progress::Done, vec![17_002]));
        let again = index.keys.range(&[], None, |tally| tally.is_compactable);
        assert!(again.count() < 20, "no more than the first leaf");
    }
}

//! All keys in order: a persistent map, so that a reader's copy costs nothing and stays as it is.
//!
//! One entry is one allocation with one pointer to it: the key's bytes behind its [`KeyIndex`]. A
//! change replaces the entry. When a leaf of the map is shared with a published view, it is copied
//! first, and that costs one count on each of its entries, which is what a put mostly costs; hence
//! one pointer and not two.
//!
//! Next to the pointer is a [`Mark`]: revision of the last change, and whether it was a deletion.
//! Counting and skipping need only that, without touching the entries' memory.
//!
//! The map's inner nodes hold entries too, as signposts. A signpost may be an older entry of its
//! key, so up to one entry in sixteen keeps an outdated version in memory.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;

use imbl::OrdMap;
use triomphe::ThinArc;
use types::KeyRange;

use crate::StoredKv;
use crate::key_index::{Compacted, KeyIndex, Newest, Version};

/// A key and its versions.
#[derive(Clone, Debug)]
struct Entry(ThinArc<KeyIndex, u8>);

impl Entry {
    fn new(key: &[u8], index: KeyIndex) -> Self {
        Self(ThinArc::from_header_and_slice(index, key))
    }

    fn key(&self) -> &[u8] {
        &self.0.slice
    }

    fn index(&self) -> &KeyIndex {
        &self.0.header.header
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// What can be said of a key without looking at it: the revision of its last change, whether that
/// was a deletion, and whether there are older versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(i64);

impl Mark {
    fn of(index: &KeyIndex) -> Self {
        let newest = index.newest_version();
        Self(
            newest.main << 2 | i64::from(newest.is_tombstone()) << 1 | i64::from(index.has_older()),
        )
    }

    fn main(self) -> i64 {
        self.0 >> 2
    }

    fn is_deleted(self) -> bool {
        self.0 & 2 != 0
    }

    fn has_older(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether compaction can find something to drop.
    fn is_compactable(self) -> bool {
        self.0 & 3 != 0
    }

    /// Whether the key exists at `revision`, if the mark alone tells.
    fn exists_at(self, revision: i64) -> Option<bool> {
        if self.main() <= revision {
            Some(!self.is_deleted())
        } else if self.has_older() {
            None
        } else {
            Some(false)
        }
    }
}

/// All keys that exist or have a past.
#[derive(Clone, Debug, Default)]
pub(crate) struct TreeIndex {
    entries: OrdMap<Entry, Mark>,
    /// How many of them exist now.
    live: usize,
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
        self.entries
            .get_key_value(key)
            .map(|(entry, _)| entry.index())
    }

    /// The newest version of a key that exists.
    pub(crate) fn live(&self, key: &[u8]) -> Option<&StoredKv> {
        self.get(key)?.live()
    }

    /// How many keys exist.
    pub(crate) fn live_len(&self) -> usize {
        self.live
    }

    /// Adds a change, which is made from the version that it replaces.
    pub(crate) fn change(&mut self, key: &[u8], newest: impl FnOnce(Option<&StoredKv>) -> Newest) {
        let (index, was_live) = match self.get(key) {
            None => (KeyIndex::new(newest(None)), false),
            Some(before) => (before.with(newest(before.live())), before.live().is_some()),
        };
        self.live = self.live + usize::from(index.live().is_some()) - usize::from(was_live);
        self.set(key, index);
    }

    fn set(&mut self, key: &[u8], index: KeyIndex) {
        let mark = Mark::of(&index);
        self.entries.insert(Entry::new(key, index), mark);
    }

    /// Every key in order, those that have only a past included.
    pub(crate) fn all(&self) -> impl Iterator<Item = &KeyIndex> {
        self.entries.keys().map(Entry::index)
    }

    fn marked(&self, keys: &KeyRange) -> impl Iterator<Item = (&Entry, Mark)> {
        keys.bounds()
            .map(|bounds| self.entries.range::<_, [u8]>(bounds))
            .into_iter()
            .flatten()
            .map(|(entry, mark)| (entry, *mark))
    }

    /// How many keys of the range exist at `revision`; at `now` or later this is quick for all keys.
    pub(crate) fn count(&self, keys: &KeyRange, revision: i64, now: i64) -> usize {
        if revision >= now && self.covers_all(keys) {
            return self.live;
        }
        self.marked(keys)
            .filter(|(entry, mark)| exists_at(entry, *mark, revision))
            .count()
    }

    /// Whether the range holds every key there is.
    pub(crate) fn covers_all(&self, keys: &KeyRange) -> bool {
        match (keys, self.entries.get_min()) {
            (KeyRange::From(start), Some((first, _))) => first.key() >= start.as_ref(),
            (KeyRange::From(_), None) => true,
            _ => false,
        }
    }

    /// The keys of the range that exist at `revision`, in order.
    pub(crate) fn existing(
        &self,
        keys: &KeyRange,
        revision: i64,
    ) -> impl Iterator<Item = &KeyIndex> {
        self.marked(keys)
            .filter(move |(entry, mark)| exists_at(entry, *mark, revision))
            .map(|(entry, _)| entry.index())
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
        let bounds = (Bound::Included(from), Bound::Unbounded);
        let mut entries = self.entries.range::<_, [u8]>(bounds);
        let compactable: Vec<Entry> = entries
            .by_ref()
            .take(budget)
            .filter(|(_, mark)| mark.is_compactable())
            .map(|(entry, _)| entry.clone())
            .collect();
        let next = entries.next().map(|(entry, _)| Box::from(entry.key()));
        for entry in compactable {
            match entry.index().compact(revision, &mut dropped) {
                Compacted::Unchanged => {}
                Compacted::Shorter(index) => self.set(entry.key(), index),
                Compacted::Gone => {
                    self.entries.remove(entry.key());
                }
            }
        }
        next.map_or(Progress::Done, Progress::At)
    }

    /// Counts again what [`TreeIndex::live_len`] keeps.
    #[cfg(test)]
    pub(crate) fn count_live(&self) -> usize {
        self.entries
            .values()
            .filter(|mark| !mark.is_deleted())
            .count()
    }
}

fn exists_at(entry: &Entry, mark: Mark, revision: i64) -> bool {
    mark.exists_at(revision).unwrap_or_else(|| {
        entry
            .index()
            .version_at(revision)
            .is_some_and(|version| !version.is_tombstone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million keys take what this takes a million times, and their bytes.
    #[test]
    fn a_key_takes_little_more_than_its_bytes() {
        assert_eq!(size_of::<StoredKv>(), 48);
        assert_eq!(size_of::<KeyIndex>(), 56);
        assert_eq!(size_of::<(Entry, Mark)>(), 16);
    }
}

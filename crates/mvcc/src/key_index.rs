//! The life of one key.
//!
//! A store that keeps its past has, for every key, not a value but a line of versions. Take a key
//! that is written at revisions 2 and 4, deleted at 6, and written again at 9:
//!
//! ```text
//! revision    1    2    3    4    5    6    7    8    9    10
//!                  put       put       del            put
//! version          1         2         †              1
//! created          2         2                        9
//! generation       '--------------------'             '-------
//!
//! read at 5 = what was written at 4        read at 7 = nothing
//! ```
//!
//! A read "at revision r" finds the last change at or before r; if that is a deletion (a
//! *tombstone*), there is no key. A deletion ends a *generation*: after it `version` begins at 1
//! again and `create_revision` is new. etcd keeps a list of generations, each a list of revisions.
//! One line with the tombstones marked says the same: both `version` and `create_revision` are in
//! the bytes of the version itself, so nobody has to count back to the start of its generation.
//!
//! Most keys of a store are only ever read at their newest version. So the newest one is here as a
//! whole, with its bytes, and of the older ones only their place in history is (16 bytes each);
//! their bytes are in the event log or on the disk. Most keys also have no older version at all: such a
//! key is its newest version, and one with a past is one pointer to both (`Changes`). Of a key that was
//! deleted last, the newest version is the tombstone.
//!
//! A few keys have very many: a counter written 100,000 times between two compactions. The index
//! is persistent (a change makes a new [`KeyIndex`] beside the old one, which readers may still
//! hold), so a long list must not be copied for every put: all but the end of it is a persistent vector
//! (`several`), and both a put and a lookup in it cost O(log n).
//!
//! Compaction at revision c forgets what no read at c or later can see:
//!
//! ```text
//! compact at 1:  2  4  6†  9       nothing is older
//! compact at 3:  2  4  6†  9       2 is what a read at 3 finds
//! compact at 5:     4  6†  9
//! compact at 6:        6†  9       a watcher may start exactly here and must see the deletion
//! compact at 7:            9       and after that nobody needs a tombstone
//! ```
//!
//! A key whose line becomes empty disappears from the index.

mod several;

use several::{Older, Past, Several};
use types::Revision;

use crate::tree_index::btree::{Fingerprint, Item, Sum};
use crate::{EventKind, StoredKv};

/// One change of a key, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) main: i64,
    pub(crate) sub: u32,
    /// Length of the stored bytes, times two, plus one for a tombstone.
    packed: u32,
}

/// Longer versions are accounted for as this long; requests are far shorter.
const VERSION_BYTES_MAX: u32 = u32::MAX >> 1;

impl Version {
    pub(crate) fn new(revision: Revision, stored_len: usize, is_tombstone: bool) -> Self {
        let sub = u32::try_from(revision.sub).expect("a transaction has fewer than 2^32 changes");
        let len = u32::try_from(stored_len)
            .unwrap_or(u32::MAX)
            .min(VERSION_BYTES_MAX);
        Self {
            main: revision.main,
            sub,
            packed: len << 1 | u32::from(is_tombstone),
        }
    }

    pub(crate) fn revision(self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }

    pub(crate) fn stored_len(self) -> u64 {
        u64::from(self.packed >> 1)
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.packed & 1 == 1
    }
}

/// What can be said of a key without looking at it: the revision of its last change, and whether that
/// was a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(i64);

impl Mark {
    fn new(main: i64, is_deleted: bool) -> Self {
        Self(main << 1 | i64::from(is_deleted))
    }

    fn main(self) -> i64 {
        self.0 >> 1
    }

    fn is_deleted(self) -> bool {
        self.0 & 1 != 0
    }
}

/// All changes of a key that are not compacted.
#[derive(Clone, Debug)]
pub(crate) struct KeyIndex {
    mark: Mark,
    changes: Changes,
}

/// Each is one pointer, so that a copy of a key counts once, and the key's fingerprint, for which there is room beside
/// what tells them apart.
#[derive(Clone, Debug)]
enum Changes {
    One(Fingerprint, StoredKv),
    Several(Fingerprint, Several),
}

/// What is known of many keys together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// How many of them exist now.
    pub(crate) live: usize,
    /// None of them has changed after this revision.
    pub(crate) changed: i64,
    /// Whether compaction can find something to drop.
    pub(crate) is_compactable: bool,
}

impl Sum for Tally {
    fn and(self, other: Self) -> Self {
        Self {
            live: self.live + other.live,
            changed: self.changed.max(other.changed),
            is_compactable: self.is_compactable | other.is_compactable,
        }
    }
}

impl Item for KeyIndex {
    type Sum = Tally;

    fn key(&self) -> &[u8] {
        self.newest().key()
    }

    fn fingerprint(&self) -> Fingerprint {
        match self.changes {
            Changes::One(fingerprint, _) | Changes::Several(fingerprint, _) => fingerprint,
        }
    }

    fn sum(&self) -> Tally {
        Tally {
            live: usize::from(!self.mark.is_deleted()),
            changed: self.mark.main(),
            is_compactable: self.is_compactable(),
        }
    }
}

/// What a key is at some revision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At<'a> {
    Absent,
    /// Its bytes are here.
    Newest(&'a StoredKv),
    /// Its bytes are elsewhere.
    Older(Version),
}

/// What compaction leaves of a key.
#[derive(Debug)]
pub(crate) enum Compacted {
    /// Everything.
    Unchanged,
    /// This.
    Shorter(KeyIndex),
    /// Nothing.
    Gone,
}

impl KeyIndex {
    /// A key that has never been changed before. A deletion comes with its tombstone.
    pub(crate) fn new(kind: EventKind, newest: StoredKv) -> Self {
        Self::of(newest, kind == EventKind::Delete, Past::default())
    }

    fn of(newest: StoredKv, is_deleted: bool, past: Past) -> Self {
        let mark = Mark::new(newest.mod_revision().main, is_deleted);
        let fingerprint = Fingerprint::of(newest.key());
        let changes = match Several::new(newest, past) {
            Ok(several) => Changes::Several(fingerprint, several),
            Err(newest) => Changes::One(fingerprint, newest),
        };
        Self { mark, changes }
    }

    /// The same key after one more change.
    pub(crate) fn with(&self, kind: EventKind, newest: StoredKv) -> Self {
        let before = self.newest_version();
        debug_assert!(
            newest.mod_revision() > before.revision(),
            "changes of a key come in the order of their revisions"
        );
        let past = self.older().and(before);
        Self::of(newest, kind == EventKind::Delete, past)
    }

    /// The same key with another past.
    fn with_past(&self, past: Past) -> Self {
        Self::of(self.newest().clone(), self.mark.is_deleted(), past)
    }

    /// The last change: a version, or a tombstone.
    fn newest(&self) -> &StoredKv {
        match &self.changes {
            Changes::One(_, newest) => newest,
            Changes::Several(_, several) => several.newest(),
        }
    }

    fn older(&self) -> Older<'_> {
        match &self.changes {
            Changes::One(..) => Older::default(),
            Changes::Several(_, several) => several.older(),
        }
    }

    pub(crate) fn newest_version(&self) -> Version {
        let (newest, is_deleted) = (self.newest(), self.mark.is_deleted());
        let stored = if is_deleted {
            newest.encoded_key_only()
        } else {
            newest.encoded()
        };
        Version::new(newest.mod_revision(), stored.len(), is_deleted)
    }

    /// Whether compaction can find something to drop.
    pub(crate) fn is_compactable(&self) -> bool {
        self.mark.is_deleted() || matches!(self.changes, Changes::Several(..))
    }

    /// The key-value as it is now, if there is one.
    pub(crate) fn live(&self) -> Option<&StoredKv> {
        (!self.mark.is_deleted()).then(|| self.newest())
    }

    /// Whether the key exists at `revision`.
    pub(crate) fn exists_at(&self, revision: i64) -> bool {
        if self.mark.main() <= revision {
            return !self.mark.is_deleted();
        }
        let then = self.version_at(revision);
        then.is_some_and(|version| !version.is_tombstone())
    }

    /// The last change at or before `revision`, a tombstone included.
    pub(crate) fn version_at(&self, revision: i64) -> Option<Version> {
        if self.mark.main() <= revision {
            return Some(self.newest_version());
        }
        let older = self.older();
        let place = changes_until(older, revision).checked_sub(1)?;
        older.get(place)
    }

    /// Whether this change is one that is not compacted.
    pub(crate) fn holds(&self, version: Version) -> bool {
        if self.newest().mod_revision() == version.revision() {
            return true;
        }
        let older = self.older();
        let place = older.partition_point(|older| older.revision() < version.revision());
        let found = older.get(place);
        found.is_some_and(|found| found.revision() == version.revision())
    }

    /// Whether the key was deleted at `revision`, and perhaps put again in the same transaction.
    pub(crate) fn has_tombstone_at(&self, revision: i64) -> bool {
        let is_one = |version: Version| version.is_tombstone() && version.main == revision;
        if is_one(self.newest_version()) {
            return true;
        }
        let older = self.older();
        let until = (0..changes_until(older, revision)).rev();
        let mut of_revision = until
            .map_while(|place| older.get(place))
            .take_while(|version| version.main == revision);
        of_revision.any(is_one)
    }

    /// What a read at `revision` finds.
    pub(crate) fn at(&self, revision: i64) -> At<'_> {
        if self.mark.main() <= revision {
            return self.live().map_or(At::Absent, At::Newest);
        }
        match self.version_at(revision) {
            Some(version) if !version.is_tombstone() => At::Older(version),
            _ => At::Absent,
        }
    }

    /// Drops what no read at `revision` or later can see; each version dropped goes to `dropped`.
    pub(crate) fn compact(&self, revision: i64, mut dropped: impl FnMut(Version)) -> Compacted {
        let newest = self.newest_version();
        let ends_here = |version: Version| version.is_tombstone() && version.main < revision;
        let older = self.older();
        if older.is_empty() {
            if newest.main <= revision && ends_here(newest) {
                dropped(newest);
                return Compacted::Gone;
            }
            return Compacted::Unchanged;
        }
        if newest.main <= revision {
            older.iter().for_each(&mut dropped);
            if ends_here(newest) {
                dropped(newest);
                return Compacted::Gone;
            }
            return Compacted::Shorter(self.with_past(Past::default()));
        }
        let until = changes_until(older, revision);
        let kept_tombstone_or_none = match until.checked_sub(1).and_then(|last| older.get(last)) {
            Some(last) if !ends_here(last) => until - 1,
            _ => until,
        };
        if kept_tombstone_or_none == 0 {
            return Compacted::Unchanged;
        }
        older.iter().take(kept_tombstone_or_none).for_each(dropped);
        Compacted::Shorter(self.with_past(older.without(kept_tombstone_or_none)))
    }
}

/// How many of the versions are at or before `revision`.
fn changes_until(versions: Older<'_>, revision: i64) -> usize {
    versions.partition_point(|version| version.main <= revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventKind::{Delete, Put};
    use crate::KvParts;

    pub(super) fn put(main: i64) -> StoredKv {
        StoredKv::new(&KvParts {
            key: b"foo",
            value: b"v",
            mod_revision: Revision::new(main, 0),
            create_revision: main,
            version: 1,
            lease: None,
        })
    }

    fn tombstone(main: i64) -> StoredKv {
        StoredKv::tombstone(b"foo", Revision::new(main, 0))
    }

    fn the_example() -> KeyIndex {
        KeyIndex::new(Put, put(2))
            .with(Put, put(4))
            .with(Delete, tombstone(6))
            .with(Put, put(9))
    }

    fn line(index: &KeyIndex) -> Vec<i64> {
        let older = index.older();
        older
            .iter()
            .chain([index.newest_version()])
            .map(|version| version.main)
            .collect()
    }

    #[test]
    fn a_read_finds_the_last_change_at_or_before_its_revision() {
        let index = the_example();
        let found = |revision| match index.at(revision) {
            At::Absent => 0,
            At::Newest(kv) => kv.mod_revision().main,
            At::Older(version) => version.main,
        };
        let by_revision: Vec<i64> = (1..=10).map(found).collect();
        assert_eq!(by_revision, [0, 2, 2, 4, 4, 0, 0, 0, 9, 9]);
    }

    #[test]
    fn compaction_keeps_what_a_read_at_its_revision_finds() {
        let left = |revision| match the_example().compact(revision, |_| {}) {
            Compacted::Unchanged => line(&the_example()),
            Compacted::Shorter(index) => line(&index),
            Compacted::Gone => vec![],
        };
        assert_eq!(left(1), [2, 4, 6, 9]);
        assert_eq!(left(3), [2, 4, 6, 9]);
        assert_eq!(left(5), [4, 6, 9]);
        assert_eq!(left(6), [6, 9]);
        assert_eq!(left(7), [9]);
        assert_eq!(left(9), [9]);
    }

    #[test]
    fn a_deleted_key_is_gone_one_revision_after_its_tombstone() {
        let deleted = KeyIndex::new(Put, put(2)).with(Delete, tombstone(6));
        let mut dropped = Vec::new();
        let Compacted::Shorter(tombstone) =
            deleted.compact(6, |version| dropped.push(version.main))
        else {
            panic!("the tombstone must stay for a watcher that starts at it");
        };
        assert_eq!((line(&tombstone), &dropped[..]), (vec![6], &[2][..]));
        assert!(matches!(tombstone.compact(6, |_| {}), Compacted::Unchanged));
        assert!(matches!(tombstone.compact(7, |_| {}), Compacted::Gone));
    }

    #[test]
    fn a_hot_key_with_many_versions_is_searched_and_shared_not_copied() {
        let mut index = KeyIndex::new(Put, put(1));
        let mut kept = Vec::new();
        for main in 2..50_000 {
            if main % 1000 == 0 {
                kept.push(index.clone());
            }
            index = index.with(Put, put(main));
        }
        assert!(matches!(index.at(17), At::Older(version) if version.main == 17));
        assert!(matches!(kept[3].at(4000), At::Newest(kv) if kv.mod_revision().main == 3999));
    }
}

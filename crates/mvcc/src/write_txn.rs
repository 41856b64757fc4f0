//! One transaction: its changes share a main revision.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use types::{KeyRange, LeaseId, Revision};

use crate::read_view::Source;
use crate::{
    Event, EventKind, Events, KvParts, Range, RangeError, RangeResult, RevisionEvents, StoredKv,
    Writer,
};

/// A transaction in progress. It sees its own changes; nobody else does before
/// [`Writer::publish`]. Dropping it without [`WriteTxn::end`] is a bug in the caller: what it
/// has changed would have no event.
#[derive(Debug)]
pub struct WriteTxn<'w> {
    writer: &'w mut Writer,
    events: Events,
}

/// A key to write.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    /// The key; never empty.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The lease to attach it to.
    pub lease: Option<LeaseId>,
}

/// A key that was deleted.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its last version.
    pub prev: StoredKv,
}

impl<'w> WriteTxn<'w> {
    pub(crate) fn new(writer: &'w mut Writer) -> Self {
        Self {
            writer,
            events: Events::new(),
        }
    }

    /// Reads through the transaction: its own changes show when `at` is `None`.
    pub fn range(&self, range: &Range) -> Result<RangeResult, RangeError> {
        let source: Source<'_> = self.writer.source();
        Source {
            revision: self.revision(),
            ..source
        }
        .range(range)
    }

    /// The newest version of one key, the transaction's own changes included.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<StoredKv> {
        self.writer.index.live(key).cloned()
    }

    /// Writes a key, and returns the version that it replaces.
    pub fn put(&mut self, put: Put<'_>) -> Option<StoredKv> {
        let mod_revision = self.next_change();
        let (events, Put { key, value, lease }) = (&mut self.events, put);
        let bytes = (key.len() + value.len()) as u64;
        let put_bytes = &self.writer.shared.put_bytes;
        put_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut replaced = None;
        self.writer.index.change(key, |before| {
            let (create_revision, version) =
                before.map_or((mod_revision.main, 0), StoredKv::lineage);
            let kv = StoredKv::new(&KvParts {
                key,
                value,
                mod_revision,
                create_revision,
                version: version + 1,
                lease,
            });
            let is_create = create_revision == mod_revision.main;
            let shown = before.filter(|_| !is_create);
            let shown =
                shown.and_then(|before| as_of_revision_before(events, before, mod_revision));
            events.push(Event::new(EventKind::Put, kv.clone(), shown));
            replaced = before.cloned();
            (EventKind::Put, kv)
        });
        replaced
    }

    /// Deletes every key of the range, in key order.
    pub fn delete_range(&mut self, keys: &KeyRange) -> Vec<Deleted> {
        let now = self.revision();
        let existing: Vec<StoredKv> = match keys {
            KeyRange::Single(key) => self.get(key).into_iter().collect(),
            _ => {
                let existing = self.writer.index.existing(keys, now);
                existing.filter_map(|index| index.live().cloned()).collect()
            }
        };
        existing
            .into_iter()
            .map(|prev| {
                self.delete(&prev);
                Deleted { prev }
            })
            .collect()
    }

    fn delete(&mut self, prev: &StoredKv) {
        let revision = self.next_change();
        let tombstone = StoredKv::tombstone(prev.key(), revision);
        let shown = as_of_revision_before(&self.events, prev, revision);
        self.events
            .push(Event::new(EventKind::Delete, tombstone.clone(), shown));
        self.writer
            .index
            .change(prev.key(), |_| (EventKind::Delete, tombstone));
    }

    fn next_change(&self) -> Revision {
        let sub = i64::try_from(self.events.len()).expect("memory holds fewer events than 2^63");
        Revision::new(self.writer.revision() + 1, sub)
    }

    /// Whether anything was changed so far.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.events.is_empty()
    }

    /// The revision that responses from inside the transaction show: the store's, plus one as soon
    /// as something was changed.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.writer.revision() + i64::from(self.has_changes())
    }

    /// Ends the transaction; returns the store's revision, which moved by one if something changed.
    pub fn end(mut self) -> i64 {
        let events = std::mem::take(&mut self.events);
        if !events.is_empty() {
            let revision = self.writer.revision() + 1;
            self.writer
                .finish(Arc::new(RevisionEvents { revision, events }));
        }
        self.writer.revision()
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        debug_assert!(
            self.events.is_empty() || std::thread::panicking(),
            "a transaction with changes was not ended"
        );
    }
}
/// What an event shows as the value before: that of the revision before, not what an earlier change
/// of the same transaction has left (etcd looks it up at the mod revision less one). `before` is what
/// the change at `revision` replaces.
fn as_of_revision_before(
    events: &[Event],
    before: &StoredKv,
    revision: Revision,
) -> Option<StoredKv> {
    if before.mod_revision().main < revision.main {
        return Some(before.clone());
    }
    let mut of_this_key = events.iter().filter(|event| event.kv.key() == before.key());
    of_this_key.next().and_then(|first| first.prev.clone())
}

//! A store that is nothing but a list of revisions, to test watching against.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use types::{KeyRange, Revision};

use crate::catch_up::WatchableStore;
use crate::history::History;
use crate::kv::KvParts;
use crate::watchable_store::{Hub, Places, WatchBatch, WatchEvents, WatchRequest, WatchStream};
use crate::{Event, EventKind, PrevKv, RangeError, RevisionEvents, StoreError, StoredKv};

/// The whole history, and the hub that is told of it.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) hub: Arc<Hub>,
    past: Arc<Mutex<Past>>,
}

#[derive(Debug, Default)]
struct Past {
    /// The first is revision 2.
    revisions: Vec<Arc<RevisionEvents>>,
    /// How many of them [`WatchableStore::history`] shows: as in the store, a revision can be read
    /// a moment after it was dispatched.
    published: usize,
    compact_revision: i64,
    broken: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            hub: Arc::new(Hub::new(1)),
            past: Arc::default(),
        }
    }

    pub(super) fn stream(&self) -> WatchStream {
        WatchStream::new(self.clone())
    }

    /// One revision that writes the keys.
    pub(super) fn put(&self, keys: &[&str]) {
        let changes: Vec<_> = keys.iter().map(|key| (EventKind::Put, *key)).collect();
        self.publish(&changes);
    }

    pub(super) fn publish(&self, changes: &[(EventKind, &str)]) {
        let changes: Vec<_> = changes
            .iter()
            .map(|(kind, key)| (*kind, *key, ""))
            .collect();
        self.publish_values(&changes);
    }

    pub(super) fn publish_values(&self, changes: &[(EventKind, &str, &str)]) {
        self.publish_batch(&[changes]);
    }

    /// Some revisions at once, as the store does it. There is one writer.
    pub(super) fn publish_batch(&self, revisions: &[&[(EventKind, &str, &str)]]) {
        let mut past = self.past.lock();
        let before = past.revisions.len();
        for changes in revisions {
            let revision = i64::try_from(past.revisions.len()).unwrap() + 2;
            let events = (0..)
                .zip(*changes)
                .map(|(sub, change)| event(change, revision, sub));
            let events = events.collect();
            past.revisions
                .push(Arc::new(RevisionEvents { revision, events }));
        }
        let new = past.revisions[before..].to_vec();
        drop(past);
        self.hub.dispatch(&new);
        let mut past = self.past.lock();
        past.published = past.revisions.len();
    }

    pub(super) fn compact(&self, revision: i64) {
        self.past.lock().compact_revision = revision;
        self.hub.compacted(revision);
    }

    pub(super) fn break_history(&self) {
        self.past.lock().broken = true;
    }

    /// All that ever happened, compacted or not.
    pub(super) fn everything(&self) -> Vec<Arc<RevisionEvents>> {
        self.past.lock().revisions.clone()
    }
}

fn event((kind, key, value): &(EventKind, &str, &str), revision: i64, sub: i64) -> Event {
    let mod_revision = Revision::new(revision, sub);
    let kv = match kind {
        EventKind::Delete => StoredKv::tombstone(key.as_bytes(), mod_revision),
        EventKind::Put => StoredKv::new(&KvParts {
            key: key.as_bytes(),
            value: value.as_bytes(),
            mod_revision,
            create_revision: revision,
            version: 1,
            lease: None,
        }),
    };
    Event::new(*kind, kv, None)
}

impl WatchableStore for World {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn history(
        &self,
        from: i64,
        to: i64,
        budget_bytes: usize,
        _prev: PrevKv,
    ) -> Result<History, RangeError> {
        let past = self.past.lock();
        if past.broken {
            return Err(RangeError::Store(StoreError::Missing {
                revision: Revision::default(),
            }));
        }
        if from < past.compact_revision {
            return Err(RangeError::Compacted {
                compact_revision: past.compact_revision,
            });
        }
        let (mut revisions, mut bytes) = (Vec::new(), 0);
        let from_place = usize::try_from(from.max(2) - 2).unwrap();
        for revision in past.revisions[..past.published].iter().skip(from_place) {
            if revision.revision > to || bytes >= budget_bytes {
                break;
            }
            bytes += revision
                .events
                .iter()
                .map(|e| e.kv.encoded().len())
                .sum::<usize>();
            revisions.push(Arc::clone(revision));
        }
        let next = revisions.last().map_or(from, |last| last.revision + 1);
        Ok(History { revisions, next })
    }
}

/// A watcher of new events on wire bounds.
pub(super) fn request(key: &str, range_end: &str) -> WatchRequest {
    WatchRequest {
        id: None,
        keys: KeyRange::from_wire(key.to_owned(), range_end.to_owned()),
        start_revision: None,
        filters: Vec::new(),
        prev_kv: PrevKv::Omit,
    }
}

/// What `next` gives without waiting; the wait is dropped.
pub(super) fn poll_now(stream: &mut WatchStream) -> Option<WatchBatch> {
    let next = pin!(stream.next());
    match next.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(batch) => Some(batch),
        Poll::Pending => None,
    }
}

/// The keys of a batch, by revision.
pub(super) fn keys_of(events: &WatchEvents) -> Vec<(i64, Vec<String>)> {
    let of_revision = |(revision, places): &(Arc<RevisionEvents>, Places)| {
        let key = |place: &u32| {
            let key = revision.events[usize::try_from(*place).unwrap()].kv.key();
            String::from_utf8(key.to_vec()).unwrap()
        };
        (revision.revision, places.iter().map(key).collect())
    };
    events.revisions.iter().map(of_revision).collect()
}

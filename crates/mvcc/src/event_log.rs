//! The last revisions' events, shared and bounded.
//!
//! Bounded by bytes, with one exception: what no committed segment holds is only here, and stays
//! until it is. So every version is always either here or in the backend, and whoever looks here
//! first and in the backend second finds it.

use std::collections::VecDeque;
use std::sync::Arc;

use types::Revision;

use crate::{RevisionEvents, StoredKv};

/// The last revisions' events, in order and without gaps.
#[derive(Debug)]
pub(crate) struct EventLog {
    revisions: VecDeque<Arc<RevisionEvents>>,
    bytes: usize,
    bytes_max: usize,
    /// Every revision up to here is in a committed segment.
    persisted: i64,
}

impl EventLog {
    /// An empty log; everything up to `persisted` is in the backend.
    pub(crate) fn new(bytes_max: usize, persisted: i64) -> Self {
        Self {
            revisions: VecDeque::new(),
            bytes: 0,
            bytes_max,
            persisted,
        }
    }

    /// Adds the next revisions; returns what has to go for them (to be dropped outside of locks).
    pub(crate) fn extend(&mut self, next: &[Arc<RevisionEvents>]) -> Vec<Arc<RevisionEvents>> {
        for events in next {
            debug_assert!(
                self.revisions
                    .back()
                    .is_none_or(|last| last.revision + 1 == events.revision),
                "the event log has no gaps"
            );
            self.bytes += events.bytes();
            self.revisions.push_back(events.clone());
        }
        self.evict()
    }

    /// Notes that everything up to `revision` is in committed segments; returns what need not be
    /// here any more.
    pub(crate) fn note_persisted(&mut self, revision: i64) -> Vec<Arc<RevisionEvents>> {
        self.persisted = self.persisted.max(revision);
        self.evict()
    }

    fn evict(&mut self) -> Vec<Arc<RevisionEvents>> {
        let mut evicted = Vec::new();
        while self.bytes > self.bytes_max {
            let persisted = self.persisted;
            let Some(first) = self
                .revisions
                .pop_front_if(|first| first.revision <= persisted)
            else {
                break;
            };
            self.bytes -= first.bytes();
            evicted.push(first);
        }
        evicted
    }

    /// Every revision up to here is in a committed segment.
    pub(crate) fn persisted(&self) -> i64 {
        self.persisted
    }

    /// The first revision that is still here.
    pub(crate) fn first(&self) -> Option<i64> {
        self.revisions.front().map(|events| events.revision)
    }

    /// The version that was written at `revision`.
    pub(crate) fn version(&self, revision: Revision) -> Option<StoredKv> {
        let place = usize::try_from(revision.main - self.first()?).ok()?;
        version_in(self.revisions.get(place)?, revision)
    }

    /// The events from revision `from` on, which must not be before the first one.
    pub(crate) fn since(&self, from: i64) -> impl Iterator<Item = &Arc<RevisionEvents>> {
        let first = self.first().unwrap_or(from);
        let skipped = usize::try_from(from - first).unwrap_or(0);
        debug_assert!(
            from >= first || self.revisions.is_empty(),
            "asked for evicted events"
        );
        self.revisions.iter().skip(skipped)
    }
}

/// The version that these events wrote at `revision`.
pub(crate) fn version_in(events: &RevisionEvents, revision: Revision) -> Option<StoredKv> {
    debug_assert_eq!(events.revision, revision.main);
    let event = events.events.get(usize::try_from(revision.sub).ok()?)?;
    debug_assert_eq!(event.kv.mod_revision(), revision);
    Some(event.kv.clone())
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::{Event, EventKind};

    fn events(revision: i64) -> Arc<RevisionEvents> {
        let kv = StoredKv::tombstone(b"key", Revision::new(revision, 0));
        Arc::new(RevisionEvents {
            revision,
            events: smallvec![Event::new(EventKind::Delete, kv, None)],
        })
    }

    #[test]
    fn what_is_not_persisted_stays_whatever_the_bound() {
        let mut log = EventLog::new(0, 1);
        assert!(log.extend(&[events(2), events(3), events(4)]).is_empty());
        assert_eq!(log.first(), Some(2));
        assert_eq!(log.note_persisted(3).len(), 2);
        assert_eq!(log.first(), Some(4));
        assert!(log.version(Revision::new(4, 0)).is_some());
        assert!(log.version(Revision::new(3, 0)).is_none());
        assert!(log.version(Revision::new(5, 0)).is_none());
    }

    #[test]
    fn the_bound_is_in_bytes() {
        let two = 2 * events(2).bytes();
        let mut log = EventLog::new(two, 1);
        log.note_persisted(100);
        let evicted = log.extend(&[events(2), events(3), events(4), events(5)]);
        assert_eq!(evicted.len(), 2);
        let left: Vec<i64> = log.since(4).map(|events| events.revision).collect();
        assert_eq!(left, [4, 5]);
    }
}

//! Events of the past, for watchers that are not up to date.

use std::sync::Arc;

use backend::Bucket;
use backend::schema::key;
use types::Revision;

use crate::segment::{Record, Segment};
use crate::{
    Event, Events, PrevKv, RangeError, ReadView, RevisionEvents, Store, StoreError, StoredKv,
};

/// A stretch of history.
#[derive(Debug)]
pub(crate) struct History {
    /// Revisions that have events, in order, without gaps between them (compaction leaves gaps).
    pub(crate) revisions: Vec<Arc<RevisionEvents>>,
    /// The first revision that was not looked at; everything below it has been returned.
    pub(crate) next: i64,
}

/// See [`Store::history`].
pub(crate) fn read(
    store: &Store,
    from: i64,
    to: i64,
    budget_bytes: usize,
    prev: PrevKv,
) -> Result<History, RangeError> {
    let view = store.view();
    let to = to.min(view.revision());
    check_not_compacted(store, from)?;
    let mut history = History {
        revisions: Vec::new(),
        next: from,
    };
    if from > to {
        return Ok(history);
    }
    let logged_from = {
        let log = view.snapshot.past.log.read();
        let first = log.first().unwrap_or(i64::MAX);
        if from >= first {
            let mut budget = Budget { left: budget_bytes };
            let wanted = log.since(from).take_while(|events| events.revision <= to);
            for events in wanted {
                history.next = events.revision + 1;
                history.revisions.push(events.clone());
                if budget.is_spent_by(events.bytes()) {
                    break;
                }
            }
            return Ok(history);
        }
        // Everything before the log, and with an empty log everything at all, is in the backend.
        first
    };
    let to = to.min(logged_from - 1);
    Disk { view: &view, prev }.read(&mut history, to, Budget { left: budget_bytes })?;
    // What has been compacted meanwhile may be missing.
    check_not_compacted(store, from)?;
    Ok(history)
}

fn check_not_compacted(store: &Store, from: i64) -> Result<(), RangeError> {
    let compact_revision = store.compact_revision();
    if from < compact_revision {
        return Err(RangeError::Compacted { compact_revision });
    }
    Ok(())
}

/// How much may still be returned.
struct Budget {
    left: usize,
}

impl Budget {
    fn is_spent_by(&mut self, bytes: usize) -> bool {
        let enough = bytes >= self.left;
        self.left = self.left.saturating_sub(bytes);
        enough
    }
}

/// History as the backend has it.
struct Disk<'a> {
    view: &'a ReadView,
    prev: PrevKv,
}

impl Disk<'_> {
    /// Continues `history` at its `next` revision, up to `to`.
    fn read(&self, history: &mut History, to: i64, mut budget: Budget) -> Result<(), RangeError> {
        let past = &self.view.snapshot.past;
        let from = history.next;
        let start = match past.read_segment(Revision::new(from, 0))? {
            Some(segment) => segment.first,
            None => Revision::new(from, 0),
        };
        let mut current: Option<RevisionEvents> = None;
        let end = key::encode(Revision::new(to.saturating_add(1), 0));
        for record in past
            .reader()
            .scan(Bucket::Key, &key::encode(start), Some(&end))
        {
            let (key, value) = record.map_err(StoreError::from)?;
            let segment = Segment::decode(&key, &value)?;
            let wanted = segment
                .records
                .iter()
                .filter(|record| record.revision.main >= from);
            for record in wanted.take_while(|record| record.revision.main <= to) {
                let revision = record.revision.main;
                if let Some(done) = current.take_if(|current| current.revision != revision)
                    && history.add(done, &mut budget)
                {
                    return Ok(());
                }
                let event = self.event(&segment, record)?;
                let events = current.get_or_insert_with(|| RevisionEvents {
                    revision,
                    events: Events::new(),
                });
                events.events.push(event);
            }
        }
        if let Some(done) = current
            && history.add(done, &mut budget)
        {
            return Ok(());
        }
        history.next = to + 1;
        Ok(())
    }

    fn event(&self, segment: &Segment, record: &Record) -> Result<Event, RangeError> {
        let kv = record.kv().map_err(|problem| segment.corrupt(problem))?;
        let prev = match self.prev {
            PrevKv::Omit => None,
            PrevKv::Include => self.prev_of(&kv)?,
        };
        Ok(Event::new(record.kind, kv, prev))
    }

    /// The version of the revision before, unless `kv` creates its key or compaction has removed it.
    fn prev_of(&self, kv: &StoredKv) -> Result<Option<StoredKv>, RangeError> {
        let before = kv.mod_revision().main - 1;
        if kv.create_revision() > before {
            return Ok(None);
        }
        let Some(index) = self.view.snapshot.index.get(kv.key()) else {
            return Ok(None);
        };
        if before < self.view.compact_revision() {
            return Ok(None);
        }
        match self.view.source().value(index.at(before), before) {
            Err(RangeError::Compacted { .. }) => Ok(None),
            prev => prev,
        }
    }
}

impl History {
    /// Adds a revision; says whether that was enough.
    fn add(&mut self, events: RevisionEvents, budget: &mut Budget) -> bool {
        self.next = events.revision + 1;
        let enough = budget.is_spent_by(events.bytes());
        self.revisions.push(Arc::new(events));
        enough
    }
}

//! How unsynced watchers read history: some of them at once, a bounded piece at a time.
//!
//! Runs off the async threads, because history may have to come from the disk. It decides nothing
//! about streams: `watchable_store::stream` says who reads when.

use std::fmt;
use std::sync::Arc;

use smallvec::smallvec;

use crate::history::History;
use crate::watchable_store::index::RangeIndex;
use crate::watchable_store::watched_range::WatchedRange;
use crate::watchable_store::{Hub, Revisions};
use crate::watcher::{Wanted, WatcherKey};
use crate::{PrevKv, RangeError, RevisionEvents, Store};

/// Bytes of history that one step reads (one revision, if that is larger).
pub(crate) const CATCH_UP_BYTES_MAX: usize = 512 << 10;

/// Watchers that one step takes along; the others of the stream have their turn later.
pub(crate) const CATCH_UP_WATCHERS_MAX: usize = 512;

/// Pairs of watcher and revision that one step gives out; it ends early when there are more.
pub(crate) const CATCH_UP_ENTRIES_MAX: usize = 16 << 10;

/// What a watch stream needs of the store: the hub for what happens now, and the past.
pub(crate) trait WatchableStore: fmt::Debug + Send + Sync + 'static {
    /// Where events are published.
    fn hub(&self) -> &Hub;

    /// The events of the revisions from `from` up to and including `to`, until about
    /// `budget_bytes` are together, but of one revision at least. [`History::next`] is the first
    /// revision that was not looked at. What was dispatched can be read as soon as readers see it; until
    /// then it is left out. May block.
    fn history(
        &self,
        from: i64,
        to: i64,
        budget_bytes: usize,
        prev: PrevKv,
    ) -> Result<History, RangeError>;
}

impl WatchableStore for Store {
    fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    fn history(
        &self,
        from: i64,
        to: i64,
        budget_bytes: usize,
        prev: PrevKv,
    ) -> Result<History, RangeError> {
        Self::history(self, from, to, budget_bytes, prev)
    }
}

/// A piece of history to read for some watchers.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// The first revision to read: the cursor of the watcher whose turn it is.
    pub(crate) from: i64,
    /// The last one: the hub's when the step began.
    pub(crate) to: i64,
    /// Those who take part, whose turn it is first.
    pub(crate) watchers: Vec<Lagging>,
}

/// A watcher that lags.
#[derive(Debug)]
pub(crate) struct Lagging {
    pub(crate) key: WatcherKey,
    pub(crate) range: WatchedRange,
    pub(crate) wanted: Wanted,
    pub(crate) prev_kv: PrevKv,
    pub(crate) cursor: i64,
}

/// What a step found.
#[derive(Debug)]
pub(crate) struct CaughtUp {
    /// The first revision that was not looked at.
    pub(crate) next: i64,
    /// Everyone who took part, with the events for them: perhaps none.
    pub(crate) watchers: Vec<(WatcherKey, Revisions)>,
}

impl CatchUp {
    /// Reads, and shares out what was read. Blocks.
    pub(crate) fn run(self, source: &dyn WatchableStore) -> Result<CaughtUp, RangeError> {
        let wants_prev = self.watchers.iter().any(|w| w.prev_kv == PrevKv::Include);
        let prev = if wants_prev {
            PrevKv::Include
        } else {
            PrevKv::Omit
        };
        let History { revisions, next } =
            source.history(self.from, self.to, CATCH_UP_BYTES_MAX, prev)?;
        let mut index = RangeIndex::default();
        for (member, watcher) in self.watchers.iter().enumerate() {
            index.insert(&watcher.range, member);
        }
        let mut given = vec![Revisions::new(); self.watchers.len()];
        let mut entries = 0;
        let mut reached = next;
        for revision in revisions {
            if entries >= CATCH_UP_ENTRIES_MAX {
                reached = revision.revision;
                break;
            }
            entries += self.share_out(&revision, &index, &mut given);
        }
        let watchers = self
            .watchers
            .into_iter()
            .map(|w| w.key)
            .zip(given)
            .collect();
        Ok(CaughtUp {
            next: reached,
            watchers,
        })
    }

    /// Gives a revision to everyone who wants it; returns to how many.
    fn share_out(
        &self,
        revision: &Arc<RevisionEvents>,
        index: &RangeIndex,
        given: &mut [Revisions],
    ) -> usize {
        let mut entries = 0;
        for (place, event) in (0u32..).zip(&revision.events) {
            index.matches(event.kv.key(), |member| {
                let watcher = &self.watchers[member];
                if revision.revision < watcher.cursor || !watcher.wanted.wants(event.kind) {
                    return;
                }
                match given[member].last_mut() {
                    Some((last, places)) if last.revision == revision.revision => {
                        places.push(place)
                    }
                    _ => {
                        given[member].push((Arc::clone(revision), smallvec![place]));
                        entries += 1;
                    }
                }
            });
        }
        entries
    }
}

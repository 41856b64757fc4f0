//! What compactions have come to on this member, under the names that etcd's metrics have for it
//! (`server/storage/mvcc/metrics.go`).
//!
//! What this is not: part of the state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use types::{Buckets, Clock, Histogram};

/// What was counted of compactions since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompactionCounts {
    /// How long steps took that forget what the index holds, in milliseconds.
    pub index_pauses_ms: Buckets,
    /// How long steps took that remove history from the disk, in milliseconds.
    pub pauses_ms: Buckets,
    /// How long whole compactions took, in milliseconds.
    pub totals_ms: Buckets,
    /// Revisions removed from the disk.
    pub keys: u64,
    /// When the last one ended: Unix time, in seconds; 0 if there was none.
    pub last_s: u64,
}

/// Reads them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Compactions(Arc<Counters>);

impl Compactions {
    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> CompactionCounts {
        let counters = &self.0;
        CompactionCounts {
            index_pauses_ms: counters.index_pauses_ms.read(),
            pauses_ms: counters.pauses_ms.read(),
            totals_ms: counters.totals_ms.read(),
            keys: counters.keys.load(Ordering::Relaxed),
            last_s: counters.last_s.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug)]
struct Counters {
    index_pauses_ms: Histogram,
    pauses_ms: Histogram,
    totals_ms: Histogram,
    keys: AtomicU64,
    last_s: AtomicU64,
}

/// What a step of a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// There was none.
    Nothing,
    /// It went through the index.
    Forgot,
    /// It removed so many revisions from the disk.
    Scrubbed(usize),
}

/// Counts them.
pub(crate) struct CompactionCounter {
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    /// When the one that goes on was begun.
    begun: Option<Instant>,
}

impl std::fmt::Debug for CompactionCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompactionCounter")
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

impl CompactionCounter {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let counters = Counters {
            index_pauses_ms: Histogram::doubling(0.5, 14),
            pauses_ms: Histogram::doubling(1.0, 13),
            totals_ms: Histogram::doubling(100.0, 14),
            keys: AtomicU64::new(0),
            last_s: AtomicU64::new(0),
        };
        Self {
            counters: Arc::new(counters),
            clock,
            begun: None,
        }
    }

    pub(crate) fn view(&self) -> Compactions {
        Compactions(Arc::clone(&self.counters))
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Notes a step that began `at`.
    pub(crate) fn step(&mut self, at: Instant, work: Work) {
        let took = self.now().saturating_duration_since(at);
        match work {
            Work::Nothing => return,
            Work::Forgot => self.counters.index_pauses_ms.observe_number(whole_ms(took)),
            Work::Scrubbed(keys) => {
                self.counters.pauses_ms.observe_number(whole_ms(took));
                let keys = u64::try_from(keys).unwrap_or(u64::MAX);
                self.counters.keys.fetch_add(keys, Ordering::Relaxed);
            }
        }
        self.begun.get_or_insert(at);
    }

    /// Notes that there is nothing left to do.
    pub(crate) fn finished(&mut self) {
        let Some(begun) = self.begun.take() else {
            return;
        };
        let took = self.now().saturating_duration_since(begun);
        self.counters.totals_ms.observe_number(whole_ms(took));
        let now = self.clock.wall().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        self.counters.last_s.store(now, Ordering::Relaxed);
    }
}

/// As etcd cuts them.
fn whole_ms(took: Duration) -> u32 {
    u32::try_from(took.as_millis()).unwrap_or(u32::MAX)
}

//! What clients ask of this member: how long reads and writes take, and under which prefixes of the keys the time is
//! spent, over the last minutes. For the status page.
//!
//! What this is not: a metric. Names of keys do not belong where every scraper reads them.

mod prefix;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use types::{Buckets, Clock, Histogram};

use self::prefix::Prefix;

/// Prefixes that are counted at a time. When there are more, the one that was asked for least makes room, and leaves the
/// newcomer its count as what may be wrong with it: whatever gets more than that share of the requests is seen.
const PREFIXES_MAX: usize = 128;
/// How long counts go into one window.
const WINDOW: Duration = Duration::from_secs(60);
/// Windows that are kept, with the one that is being filled.
const WINDOWS_MAX: usize = 5;
/// The first bound of latencies, and how many there are: 0.1 ms to 26 s.
const LATENCIES: (f64, usize) = (0.0001, 19);

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read,
    /// It goes through the log.
    Write,
}

/// Counts requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Traffic {
    all: Arc<All>,
}

struct All {
    clock: Arc<dyn Clock>,
    reads: Histogram,
    writes: Histogram,
    windows: Mutex<Windows>,
}

/// A request that is being answered; counted when it is dropped.
pub(crate) struct Timed {
    all: Arc<All>,
    kind: Kind,
    prefix: Prefix,
    begun: Instant,
}

/// What was asked under a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    /// What they took together.
    pub(crate) took: Duration,
    /// The slowest of them.
    pub(crate) slowest: Duration,
}

/// What was asked lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ByPrefix {
    /// The time it is about.
    pub(crate) span: Duration,
    /// Where most time was spent, and where most was asked.
    pub(crate) prefixes: Vec<(String, Asked)>,
}

impl Traffic {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (first_bound, bounds) = LATENCIES;
        let windows = Windows::begun_at(clock.now());
        Self {
            all: Arc::new(All {
                clock,
                reads: Histogram::doubling(first_bound, bounds),
                writes: Histogram::doubling(first_bound, bounds),
                windows: Mutex::new(windows),
            }),
        }
    }

    /// Times a request about this key until the result is dropped.
    pub(crate) fn time(&self, kind: Kind, key: &[u8]) -> Timed {
        Timed {
            all: Arc::clone(&self.all),
            kind,
            prefix: Prefix::of(key),
            begun: self.all.clock.now(),
        }
    }

    /// How long reads and writes took so far.
    pub(crate) fn latencies(&self) -> (Buckets, Buckets) {
        (self.all.reads.read(), self.all.writes.read())
    }

    /// The prefixes with the most time and with the most requests, `top` of each.
    pub(crate) fn by_prefix(&self, top: usize) -> ByPrefix {
        let now = self.all.clock.now();
        let mut windows = self.all.windows.lock();
        windows.turn(now);
        windows.report(now, top)
    }
}

impl Timed {
    /// It has turned out to be of this kind.
    pub(crate) fn is_a(&mut self, kind: Kind) {
        self.kind = kind;
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let now = self.all.clock.now();
        let took = now.saturating_duration_since(self.begun);
        let histogram = match self.kind {
            Kind::Read => &self.all.reads,
            Kind::Write => &self.all.writes,
        };
        histogram.observe(took);
        let mut windows = self.all.windows.lock();
        windows.turn(now);
        windows.count(&self.prefix, self.kind, took);
    }
}

/// The last minutes.
struct Windows {
    /// When the current one began.
    begun: Instant,
    current: Window,
    /// Those before, the latest first, and when the first of all that are kept began.
    past: VecDeque<Window>,
    since: Instant,
}

#[derive(Default)]
struct Window {
    by_prefix: BTreeMap<Prefix, Counted>,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    asked: Asked,
    /// What those counted that had this place before.
    inherited: u64,
}

impl Windows {
    fn begun_at(now: Instant) -> Self {
        Self {
            begun: now,
            current: Window::default(),
            past: VecDeque::with_capacity(WINDOWS_MAX),
            since: now,
        }
    }

    /// Begins a new window when it is time for it.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.begun);
        if age < WINDOW {
            return;
        }
        let windows = u32::try_from(WINDOWS_MAX).expect("a few");
        if age >= WINDOW * windows {
            *self = Self::begun_at(now);
            return;
        }
        while now.saturating_duration_since(self.begun) >= WINDOW {
            self.begun += WINDOW;
            self.past.push_front(std::mem::take(&mut self.current));
        }
        self.past.truncate(WINDOWS_MAX - 1);
        self.since = self.since.max(self.begun - WINDOW * (windows - 1));
    }

    fn count(&mut self, prefix: &Prefix, kind: Kind, took: Duration) {
        let asked = self.current.place(prefix);
        match kind {
            Kind::Read => asked.reads += 1,
            Kind::Write => asked.writes += 1,
        }
        asked.took += took;
        asked.slowest = asked.slowest.max(took);
    }

    fn report(&self, now: Instant, top: usize) -> ByPrefix {
        let mut sums = BTreeMap::<Prefix, Asked>::new();
        for window in std::iter::once(&self.current).chain(&self.past) {
            for (prefix, counted) in &window.by_prefix {
                sums.entry(*prefix).or_default().add(&counted.asked);
            }
        }
        let mut all: Vec<(Prefix, Asked)> = sums.into_iter().collect();
        all.sort_by_key(|(_, asked)| std::cmp::Reverse(asked.reads + asked.writes));
        // Those of the most time come first, then those that are asked for often all the same.
        let often: Vec<Prefix> = all.iter().take(top).map(|(prefix, _)| *prefix).collect();
        all.sort_by_key(|(_, asked)| std::cmp::Reverse(asked.took));
        let mut place = 0..;
        all.retain(|(prefix, _)| place.next().is_some_and(|n| n < top) || often.contains(prefix));
        ByPrefix {
            span: now.saturating_duration_since(self.since),
            prefixes: all
                .into_iter()
                .map(|(prefix, asked)| (prefix.shown(), asked))
                .collect(),
        }
    }
}

impl Window {
    /// Where the prefix is counted.
    fn place(&mut self, prefix: &Prefix) -> &mut Asked {
        let mut inherited = 0;
        if self.by_prefix.len() >= PREFIXES_MAX && !self.by_prefix.contains_key(prefix) {
            let least = self.by_prefix.iter().min_by_key(|(_, it)| it.weight());
            let (least, counted) = least.expect("it is full");
            inherited = counted.weight();
            let least = *least;
            self.by_prefix.remove(&least);
        }
        let counted = self.by_prefix.entry(*prefix).or_insert(Counted {
            asked: Asked::default(),
            inherited,
        });
        &mut counted.asked
    }
}

impl Counted {
    const fn weight(&self) -> u64 {
        self.asked.reads + self.asked.writes + self.inherited
    }
}

impl Asked {
    fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.took += other.took;
        self.slowest = self.slowest.max(other.slowest);
    }
}

#[cfg(test)]
mod tests;

//! Durations counted in buckets, as Prometheus wants them, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts values in buckets whose bounds double.
#[derive(Debug)]
pub struct Histogram {
    first_bound: f64,
    /// By bucket; the last one has what is above every bound.
    counts: Box<[AtomicU64]>,
    /// In billionths.
    sum: AtomicU64,
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Each bound, and how many values are not above it.
    pub cumulative: Vec<(f64, u64)>,
    /// All values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// `buckets` bounds, of which the first is `first_bound` and each other is twice the one before.
    #[must_use]
    pub fn doubling(first_bound: f64, buckets: usize) -> Self {
        Self {
            first_bound,
            counts: (0..=buckets).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// As etcd counts what the disk does: 1 ms to 8 s.
    #[must_use]
    pub fn of_disk() -> Self {
        Self::doubling(0.001, 14)
    }

    /// Counts a duration, in seconds.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.add(took.as_secs_f64(), nanos);
    }

    /// Counts a whole number.
    pub fn observe_number(&self, number: u32) {
        self.add(number.into(), u64::from(number) * 1_000_000_000);
    }

    fn add(&self, value: f64, billionths: u64) {
        let mut bound = self.first_bound;
        let mut place = 0;
        while place + 1 < self.counts.len() && value > bound {
            bound *= 2.0;
            place += 1;
        }
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(billionths, Ordering::Relaxed);
    }

    /// What has been counted.
    #[must_use]
    pub fn read(&self) -> Buckets {
        let mut count = 0;
        let mut bound = self.first_bound;
        let mut cumulative = Vec::with_capacity(self.counts.len());
        for bucket in &self.counts[..self.counts.len() - 1] {
            count += bucket.load(Ordering::Relaxed);
            cumulative.push((bound, count));
            bound *= 2.0;
        }
        count += self.counts[self.counts.len() - 1].load(Ordering::Relaxed);
        Buckets {
            cumulative,
            count,
            sum: Duration::from_nanos(self.sum.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_the_first_bucket_that_holds_them() {
        let histogram = Histogram::doubling(1.0, 3);
        for seconds in [0, 1, 2, 3, 100] {
            histogram.observe(Duration::from_secs(seconds));
        }
        let read = histogram.read();
        assert_eq!(read.cumulative, [(1.0, 2), (2.0, 3), (4.0, 4)]);
        assert_eq!((read.count, read.sum), (5, 106.0));
    }
}

//! Stands in for the crate of this name, which openraft counts the sizes of its batches with. It makes tables for
//! scales of all sixteen widths as soon as the first histogram exists: 26 MB and 6,500 page faults in each process, for
//! one histogram of one width, which openraft shows only with its feature `runtime-stats`, which is off here.
//!
//! These histograms count nothing and answer nothing but zero. Only what openraft names is here: a new openraft
//! that names more does not compile. Once base2histogram makes a table when it is asked for, this crate can go, with
//! its line under `[patch.crates-io]`. A program of another workspace that uses kvorum gets the original, unless its
//! workspace has the same line.

use std::fmt;
use std::marker::PhantomData;

/// A histogram that stays empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// One.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Counts nothing.
    pub const fn record(&mut self, _value: u64) {}

    /// Counts nothing.
    pub const fn record_n(&mut self, _value: u64, _times: u64) {}

    /// Of no samples.
    #[must_use]
    pub const fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: 0,
            p0_1: 0,
            p1: 0,
            p5: 0,
            p10: 0,
            p50: 0,
            p90: 0,
            p99: 0,
            p99_9: 0,
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many samples there were, and percentiles of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many samples.
    pub samples: u64,
    /// One of a thousand is below.
    pub p0_1: u64,
    /// One of a hundred is below.
    pub p1: u64,
    /// Five of a hundred are below.
    pub p5: u64,
    /// Ten of a hundred are below.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// Ten of a hundred are above.
    pub p90: u64,
    /// One of a hundred is above.
    pub p99: u64,
    /// One of a thousand is above.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples", self.samples)
    }
}

/// A chart of histograms: no text at all.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// One.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Leaves the histogram out.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }

    /// No text at all.
    #[must_use]
    pub const fn detailed(&self) -> &'static str {
        ""
    }
}

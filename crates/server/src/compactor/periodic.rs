//! Keeps a span of time: notes the revision ten times a period, and compacts to the one that is a
//! period old.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Step;

/// Periods longer than this are compacted this often.
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// Notes in an interval.
const NOTES_PER_INTERVAL: u32 = 10;

/// Decides when to compact to what.
#[derive(Debug)]
pub(super) struct Periodic {
    period: Duration,
    /// Revisions noted over the last period, oldest first.
    revisions: VecDeque<i64>,
    last_revision: i64,
    last_success: Instant,
    /// How long after `last_success` the next one is due: at first a whole period.
    due_after: Duration,
}

impl Periodic {
    pub(super) fn new(period: Duration, now: Instant) -> Self {
        Self {
            period,
            revisions: VecDeque::new(),
            last_revision: 0,
            last_success: now,
            due_after: period,
        }
    }

    /// How much time is kept.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// The time between two notes, after which a compaction that failed is tried again.
    pub(super) fn interval(&self) -> Duration {
        self.period.min(INTERVAL_MAX) / NOTES_PER_INTERVAL
    }

    /// Notes the current revision.
    pub(super) fn record(&mut self, revision: i64) {
        self.revisions.push_back(revision);
        if self.revisions.len() > self.notes_max() {
            self.revisions.pop_front();
        }
    }

    /// What is due now.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let Some(&revision) = self.revisions.front() else {
            return Step::Wait;
        };
        let waited = now.saturating_duration_since(self.last_success);
        if waited < self.due_after || revision == self.last_revision {
            return Step::Wait;
        }
        self.due_after = self.period.min(INTERVAL_MAX);
        Step::Compact(revision)
    }

    /// History is gone up to `revision`.
    pub(super) fn compacted(&mut self, revision: i64, now: Instant) {
        self.last_revision = revision;
        self.last_success = now;
    }

    fn notes_max(&self) -> usize {
        let interval = self.interval().as_nanos().max(1);
        usize::try_from(self.period.as_nanos() / interval + 1).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use types::{Clock, SystemClock};

    use super::*;

    /// Runs for `notes` notes at ten revisions each, and returns when (in notes) what was compacted.
    fn compactions(period: Duration, notes: u32) -> Vec<(u32, i64)> {
        let start = SystemClock.now();
        let mut compactor = Periodic::new(period, start);
        let mut done = Vec::new();
        for note in 1..=notes {
            compactor.record(i64::from(note) * 10);
            let now = start + note * compactor.interval();
            if let Step::Compact(revision) = compactor.step(now) {
                done.push((note, revision));
                compactor.compacted(revision, now);
            }
        }
        done
    }

    #[test]
    fn a_short_period_is_compacted_every_period_to_the_one_before() {
        let done = compactions(Duration::from_secs(600), 30);
        assert_eq!(done, [(10, 10), (20, 100), (30, 200)]);
    }

    #[test]
    fn a_long_period_is_compacted_every_hour_after_the_first_period() {
        let done = compactions(Duration::from_secs(2 * 60 * 60), 45);
        assert_eq!(done, [(20, 10), (30, 100), (40, 200)]);
    }
}

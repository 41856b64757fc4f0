//! How fast the physical work of a compaction may go on: so many revisions, then a rest
//! (`--compaction-batch-limit`, `--compaction-sleep-interval`).
//!
//! etcd sleeps between its steps. Here they come with ticks of 1 to 10 ms, and with what else is staged; so what counts is
//! how many steps there would have been since the last one.
//! Nothing that is replicated depends on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use types::Clock;

/// Steps that may be made up for at once, at most.
const STEPS_SAVED_MAX: u32 = 100;

/// Revisions of one step, and the rest after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSteps {
    /// Revisions that one step looks at.
    pub batch_limit: u32,
    /// The rest between two steps; zero: as fast as it goes.
    pub rest: Duration,
}

impl ScrubSteps {
    /// Without a rest.
    pub const UNLIMITED: Self = Self {
        batch_limit: u32::MAX,
        rest: Duration::ZERO,
    };
}

/// How much may be scrubbed now.
pub(crate) struct ScrubPace {
    steps: ScrubSteps,
    clock: Arc<dyn Clock>,
    /// Revisions that may be looked at; below 0 if a step was longer than it should have been, because
    /// segments are not cut.
    balance: i64,
    /// Up to when the balance counts.
    counted: Instant,
}

impl ScrubPace {
    pub(crate) fn new(steps: ScrubSteps, clock: Arc<dyn Clock>) -> Self {
        let counted = clock.now();
        Self {
            steps,
            balance: steps.batch_limit.into(),
            counted,
            clock,
        }
    }

    /// The rest between two steps.
    pub(crate) fn rest(&self) -> Duration {
        self.steps.rest
    }

    /// Whether anything may be scrubbed now.
    pub(crate) fn is_due(&self) -> bool {
        self.steps.rest.is_zero() || self.balance + self.earned(self.steps_since()) > 0
    }

    /// Revisions of so many steps.
    fn earned(&self, steps: u32) -> i64 {
        i64::from(self.steps.batch_limit) * i64::from(steps)
    }

    /// Revisions that may be looked at now.
    pub(crate) fn allowance(&mut self) -> usize {
        if self.steps.rest.is_zero() {
            return usize::MAX;
        }
        let steps = self.steps_since();
        if steps > 0 {
            let max = self.earned(STEPS_SAVED_MAX);
            self.balance = (self.balance + self.earned(steps)).min(max);
            self.counted = match steps {
                STEPS_SAVED_MAX => self.clock.now(),
                steps => self.counted + self.steps.rest * steps,
            };
        }
        usize::try_from(self.balance).unwrap_or(0)
    }

    /// Notes that so many were looked at.
    pub(crate) fn spend(&mut self, revisions: usize) {
        if !self.steps.rest.is_zero() {
            let revisions = i64::try_from(revisions).unwrap_or(i64::MAX);
            self.balance = self.balance.saturating_sub(revisions);
        }
    }

    /// Rests that have passed since the balance was counted.
    fn steps_since(&self) -> u32 {
        if self.steps.rest.is_zero() {
            return STEPS_SAVED_MAX;
        }
        let passed = self.clock.now().saturating_duration_since(self.counted);
        let steps = passed.as_nanos() / self.steps.rest.as_nanos();
        u32::try_from(steps).map_or(STEPS_SAVED_MAX, |steps| steps.min(STEPS_SAVED_MAX))
    }
}

impl std::fmt::Debug for ScrubPace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrubPace")
            .field("steps", &self.steps)
            .field("balance", &self.balance)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hand_clock::HandClock;

    #[test]
    fn a_compaction_makes_its_steps_and_rests_between_them() {
        let clock = HandClock::new();
        let steps = ScrubSteps {
            batch_limit: 1000,
            rest: Duration::from_millis(10),
        };
        let mut pace = ScrubPace::new(steps, clock.clone());
        assert_eq!(pace.allowance(), 1000, "the first step is at once");
        pace.spend(1200);
        assert!(!pace.is_due());
        assert_eq!(pace.allowance(), 0);
        clock.advance(Duration::from_millis(15));
        assert_eq!(pace.allowance(), 800, "what was too much is made up for");
        pace.spend(800);
        clock.advance(Duration::from_millis(5));
        assert!(pace.is_due(), "no rest is lost");
        assert_eq!(pace.allowance(), 1000);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(pace.allowance(), 100_000, "only so much is saved up");
        pace.spend(100_000);
        assert!(!pace.is_due());
        pace.spend(1500);
        clock.advance(Duration::from_millis(10));
        assert!(!pace.is_due(), "it has not been made up for");
        clock.advance(Duration::from_millis(10));
        assert!(pace.is_due());
    }

    #[test]
    fn without_a_rest_there_is_no_limit() {
        let mut pace = ScrubPace::new(ScrubSteps::UNLIMITED, HandClock::new());
        pace.spend(1 << 40);
        assert!(pace.is_due());
        assert_eq!(pace.allowance(), usize::MAX);
    }
}

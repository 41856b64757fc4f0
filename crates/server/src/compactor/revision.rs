//! Keeps a number of revisions.

use std::time::Duration;

use super::Step;

/// How often it is looked whether there are too many.
pub(super) const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Decides what to compact to.
#[derive(Debug)]
pub(super) struct Revision {
    kept: i64,
    last_revision: i64,
}

impl Revision {
    pub(super) fn new(kept: i64) -> Self {
        Self {
            kept,
            last_revision: 0,
        }
    }

    /// How many revisions are kept.
    pub(super) fn kept(&self) -> i64 {
        self.kept
    }

    /// What is due at the current revision.
    pub(super) fn step(&self, current: i64) -> Step {
        let revision = current.saturating_sub(self.kept);
        if revision <= 0 || revision == self.last_revision {
            return Step::Wait;
        }
        Step::Compact(revision)
    }

    /// History is gone up to `revision`.
    pub(super) fn compacted(&mut self, revision: i64) {
        self.last_revision = revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_revisions_are_kept() {
        let mut compactor = Revision::new(100);
        assert_eq!(compactor.step(100), Step::Wait);
        assert_eq!(compactor.step(150), Step::Compact(50));
        compactor.compacted(50);
        assert_eq!(compactor.step(150), Step::Wait);
        assert_eq!(compactor.step(151), Step::Compact(51));
    }
}

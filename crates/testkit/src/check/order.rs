//! The order of revisions fits real time: whoever begins after somebody was told of a revision
//! sees that revision, and writes after it. Reads that ask for less are excused, but nobody has
//! seen a change before it was asked for.

use std::time::Duration;

use super::{Run, cause};

pub(super) fn violations(run: &Run) -> Vec<String> {
    let mut sightings: Vec<_> = cause::sightings(&run.operations, &run.watchers).collect();
    sightings.sort_unstable();
    let known = Known::of(sightings);
    let mut violations = Vec::new();
    for operation in &run.operations {
        let Some((revision, _)) = operation.done() else {
            continue;
        };
        let newest = known.before(operation.invoked);
        if operation.is_linearizable() && !operation.wrote() && revision < newest {
            violations.push(format!(
                "{operation:?} began when revision {newest} was known"
            ));
        }
    }
    for (revision, at) in run.causes.made() {
        let operation = &run.operations[at];
        let newest = known.before(operation.invoked);
        if revision <= newest {
            violations.push(format!(
                "{operation:?} made revision {revision}, and began when {newest} was known"
            ));
        }
    }
    violations
}

/// The newest revision that was known at any moment.
struct Known(Vec<(Duration, i64)>);

impl Known {
    fn of(mut sightings: Vec<(Duration, i64)>) -> Known {
        let mut newest = 0;
        for (_, revision) in &mut sightings {
            newest = newest.max(*revision);
            *revision = newest;
        }
        Known(sightings)
    }

    fn before(&self, moment: Duration) -> i64 {
        let count = self.0.partition_point(|&(seen, _)| seen < moment);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

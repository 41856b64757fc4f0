//! No event comes twice, also not on the next stream of a watcher that went on behind the last.

use std::collections::BTreeSet;

use crate::check::Run;
use crate::history::{key, revision};

pub(in crate::check) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for watcher in &run.watchers {
        let mut seen = BTreeSet::new();
        for event in watcher.events() {
            if !seen.insert((revision(event), key(event))) {
                violations.push(format!("{event:?} came twice"));
            }
        }
    }
    violations
}

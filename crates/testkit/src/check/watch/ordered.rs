//! Events come in the order in which they happened, within a revision as well.

use crate::check::Run;
use crate::history::{key, revision};

pub(in crate::check) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for session in run.watchers.iter().flat_map(|watcher| &watcher.sessions) {
        let mut last = (0, 0);
        for event in session.answers.iter().flat_map(|answer| &answer.events) {
            let happened = run.model.at(revision(event));
            let sub = happened.iter().position(|other| key(other) == key(event));
            let at = (revision(event), sub.unwrap_or(0));
            if at < last {
                violations.push(format!("{event:?} is {at:?} and came after {last:?}"));
            }
            last = at;
        }
    }
    violations
}

//! Progress is truthful: after an answer that speaks of a revision, no event of that revision or
//! an older one comes any more; and no answer's header is older than its events.
//!
//! That everything up to a notified revision had come is part of [`super::complete`].

use crate::check::Run;
use crate::history::revision;

pub(in crate::check) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for session in run.watchers.iter().flat_map(|watcher| &watcher.sessions) {
        let mut reached = 0;
        for answer in &session.answers {
            let oldest = answer.events.iter().map(revision).min();
            let newest = answer.events.iter().map(revision).max();
            if oldest.is_some_and(|oldest| oldest <= reached) {
                violations.push(format!(
                    "{answer:?} came after word that revision {reached} was complete"
                ));
            }
            if newest.is_some_and(|newest| newest > answer.revision) {
                violations.push(format!("{answer:?} has events newer than its header"));
            }
            if answer.is_progress() {
                if answer.revision < reached {
                    violations.push(format!("{answer:?} goes back from {reached}"));
                }
                reached = reached.max(answer.revision);
            }
        }
    }
    violations
}

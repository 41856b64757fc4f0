//! A stream begins where it was asked to: nothing older comes, and a watcher that goes on behind
//! the last revision it knows, at whatever member, gets every event exactly once over all its
//! streams.

use crate::check::Run;
use crate::history::{key, revision};

pub(in crate::check) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for watcher in &run.watchers {
        for session in &watcher.sessions {
            let mut events = session.answers.iter().flat_map(|answer| &answer.events);
            let start = session.start_revision;
            if let Some(old) = events.find(|event| revision(event) < start) {
                violations.push(format!("{old:?} came on a watch from {start}"));
            }
        }
        let Some(first) = watcher.sessions.first() else {
            continue;
        };
        let last = watcher.events().map(revision).max().unwrap_or(0);
        let happened = run.model.events(&watcher.range, first.start_revision, last);
        let happened = happened.map(|event| (revision(event), key(event)));
        if !happened.eq(watcher.events().map(|event| (revision(event), key(event)))) {
            violations.push(format!(
                "the {} streams of a watch of {:?}, put together, are not what happened up to {last}",
                watcher.sessions.len(),
                watcher.range
            ));
        }
    }
    violations
}

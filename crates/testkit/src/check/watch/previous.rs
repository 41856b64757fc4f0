//! Where the value before an event was asked for, it is the key as it was one revision earlier.
//! Every watcher of a history asks for it.

use crate::check::Run;
use crate::history::{key, revision};

pub(in crate::check) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for event in run.watchers.iter().flat_map(|watcher| watcher.events()) {
        let before = run.model.value_at(key(event), revision(event) - 1);
        if event.prev_kv.as_ref() != before {
            violations.push(format!("before {event:?} there was {before:?}"));
        }
    }
    violations
}

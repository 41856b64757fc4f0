//! A guarded write was done if, and only if, its guard held just before.

use super::super::history::{Answer, Request};
use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    for operation in &run.operations {
        let Request::Guarded {
            key, mod_revision, ..
        } = operation.request
        else {
            continue;
        };
        let held = |revision| {
            let before = run.history.at(key, revision);
            before.map_or(0, |(_, found)| found) == mod_revision
        };
        let is_right = match operation.answer {
            Answer::Written { revision } => held(revision - 1),
            Answer::Refused { revision } => !held(revision),
            _ => true,
        };
        if !is_right {
            return Err(format!("{operation:?}: its guard says otherwise"));
        }
    }
    Ok(())
}

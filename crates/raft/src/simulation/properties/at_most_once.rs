//! Every value of the history was asked for, is there once, and was not refused.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Answer, Request};
use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    let mut asked = BTreeMap::new();
    for operation in &run.operations {
        if let Request::Put { value, .. } | Request::Guarded { value, .. } = operation.request {
            asked.insert(value, operation);
        }
    }
    let mut seen = BTreeSet::new();
    for (revision, changes) in &run.history.revisions {
        for value in changes.iter().filter_map(|(_, value)| *value) {
            let Some(operation) = asked.get(&value) else {
                return Err(format!(
                    "nobody wrote {value}, which is at revision {revision}"
                ));
            };
            if !seen.insert(value) {
                return Err(format!("{operation:?} was done twice, again at {revision}"));
            }
            if matches!(operation.answer, Answer::NotDone | Answer::Refused { .. }) {
                return Err(format!("{operation:?} was done at {revision}"));
            }
        }
    }
    Ok(())
}

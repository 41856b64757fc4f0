//! A change that a client was told of is in the history, at the revision it was told.

use super::super::history::{Answer, Request};
use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    for operation in &run.operations {
        let expected = match (&operation.request, &operation.answer) {
            (
                Request::Put { key, value } | Request::Guarded { key, value, .. },
                Answer::Written { revision },
            ) => (*revision, (*key, Some(*value))),
            (Request::Delete { key }, Answer::Deleted { revision, count: 1 }) => {
                (*revision, (*key, None))
            }
            _ => continue,
        };
        let changes = run.history.revisions.get(&expected.0);
        if changes.is_none_or(|changes| *changes != [expected.1]) {
            return Err(format!(
                "{operation:?} is not in the history, but {changes:?}"
            ));
        }
    }
    Ok(())
}

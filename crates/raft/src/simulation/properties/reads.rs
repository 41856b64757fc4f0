//! A read at a revision finds what the history says was there.

use super::super::history::{Answer, Request};
use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    for operation in &run.operations {
        let (Request::Read { key }, Answer::Found { revision, found }) =
            (&operation.request, &operation.answer)
        else {
            continue;
        };
        let expected = run.history.at(*key, *revision);
        if *found != expected {
            return Err(format!("{operation:?}: the history has {expected:?}"));
        }
    }
    Ok(())
}

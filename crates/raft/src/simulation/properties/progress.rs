//! When everything is mended, the group elects a leader, takes a write, and all members catch up.

use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    run.stuck.clone().map_or(Ok(()), Err)
}

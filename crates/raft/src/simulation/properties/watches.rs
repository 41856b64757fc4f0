//! A watcher gets every change, once, in order, whole revisions; also across its member's restarts.

use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    for (member, watched) in run.watched.iter().enumerate() {
        let mut expected = run.history.revisions.iter();
        for (revision, changes) in watched {
            let next = expected.next();
            if next != Some((revision, changes)) {
                return Err(format!(
                    "the watcher of member {member} got {changes:?} at {revision}, expected {next:?}"
                ));
            }
        }
    }
    Ok(())
}

//! Members that have applied the same entries hold the same store.

use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    let mut hashes = run.hashes.iter();
    let first = hashes.next();
    match hashes.find(|hash| Some(*hash) != first) {
        Some(_) => Err(format!("the members' hashes differ: {:x?}", run.hashes)),
        None => Ok(()),
    }
}

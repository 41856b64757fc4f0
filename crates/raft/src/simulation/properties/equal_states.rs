//! Members that have applied the same entries hold the same store.

use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    for (member, history) in run.histories.iter().enumerate() {
        let (here, there) = (&history.revisions, &run.history.revisions);
        let differs = |revision: &&i64| here.get(revision) != there.get(revision);
        let first = here.keys().chain(there.keys()).filter(differs).min();
        if let Some(revision) = first {
            let (here, there) = (here.get(revision), there.get(revision));
            return Err(format!(
                "at revision {revision} member {member} has {here:?} and member 0 {there:?}"
            ));
        }
    }
    if run
        .hashes
        .iter()
        .any(|hash| Some(hash) != run.hashes.first())
    {
        return Err(format!("the members' hashes differ: {:x?}", run.hashes));
    }
    Ok(())
}

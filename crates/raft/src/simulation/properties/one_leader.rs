//! A term has at most one leader.

use std::collections::BTreeMap;

use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    let mut leaders = BTreeMap::new();
    for (term, leader) in &run.leaders {
        if let Some(other) = leaders.insert(term, leader)
            && other != leader
        {
            return Err(format!("{other} and {leader} both led in term {term}"));
        }
    }
    Ok(())
}

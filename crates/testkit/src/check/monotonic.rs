//! The revision never goes back on one client, as long as it asks for linearizable answers, or
//! asks the same member in the same life.

use std::collections::BTreeMap;

use super::Run;
use crate::history::Operation;

pub(super) fn violations(run: &Run) -> Vec<String> {
    let mut operations: Vec<&Operation> = run.operations.iter().collect();
    operations.sort_by_key(|operation| operation.invoked);
    let mut everywhere: BTreeMap<usize, i64> = BTreeMap::new();
    let mut there: BTreeMap<(usize, usize, u64), i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for operation in operations.into_iter().filter(|o| o.is_about_keys()) {
        let Some((revision, _)) = operation.done() else {
            continue;
        };
        let mut advance = |last: &mut i64| {
            if revision < *last {
                violations.push(format!("{operation:?} comes after revision {last}"));
            }
            *last = revision.max(*last);
        };
        if operation.is_linearizable() {
            advance(everywhere.entry(operation.client).or_default());
        }
        if let Some(incarnation) = operation.incarnation {
            let asked = (operation.client, operation.member, incarnation);
            advance(there.entry(asked).or_default());
        }
    }
    violations
}

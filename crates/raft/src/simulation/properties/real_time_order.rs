//! What began after another had ended does not see an older store: with the history's total order and the
//! other properties, this is linearizability.

use super::super::history::{Answer, Operation};
use super::super::run::Run;

pub(super) fn check(run: &Run) -> Result<(), String> {
    let mut ended: Vec<&Operation> = run
        .operations
        .iter()
        .filter(|operation| operation.answer.revision().is_some())
        .collect();
    let mut begun = ended.clone();
    ended.sort_by_key(|operation| operation.returned);
    begun.sort_by_key(|operation| operation.invoked);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<&Operation> = None;
    for operation in begun {
        while let Some(earlier) = ended.next_if(|earlier| earlier.returned < operation.invoked) {
            if newest.is_none_or(|newest| newest.answer.revision() < earlier.answer.revision()) {
                newest = Some(earlier);
            }
        }
        let Some(before) = newest else { continue };
        let has_changed = matches!(
            operation.answer,
            Answer::Written { .. } | Answer::Deleted { count: 1, .. }
        );
        let (seen, now) = (before.answer.revision(), operation.answer.revision());
        if now < seen || (has_changed && now == seen) {
            return Err(format!("{operation:?} came after {before:?}"));
        }
    }
    Ok(())
}

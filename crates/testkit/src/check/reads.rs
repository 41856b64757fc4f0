//! Whatever was read, also by a transaction, is the store as it was at the answer's revision:
//! all of its keys at once. A swap is done exactly if the key was as expected.

use api::mvccpb::KeyValue;

use super::Run;
use crate::history::{Operation, Reply, Request};
use crate::model::Model;

pub(super) fn violations(run: &Run) -> Vec<String> {
    let wrong = run
        .operations
        .iter()
        .filter_map(|operation| differs(&run.model, operation).map(|model| (operation, model)));
    wrong
        .map(|(operation, model)| format!("{operation:?}: {model}"))
        .collect()
}

fn differs(model: &Model, operation: &Operation) -> Option<String> {
    let (revision, reply) = operation.done()?;
    if operation.is_about_keys() && revision > model.newest() {
        return Some(format!("the store ends at {}", model.newest()));
    }
    match (&operation.request, reply) {
        (Request::Read { range, .. }, Reply::Read(kvs)) => {
            let there = model.range_at(range, revision);
            (!there.iter().copied().eq(kvs)).then(|| format!("there was {there:?}"))
        }
        (Request::Delete { key }, Reply::Deleted(false)) => {
            let there = model.value_at(key, revision);
            there.map(|there| format!("there was {there:?}"))
        }
        (Request::Swap { key, expected, .. }, Reply::Swapped) => {
            let before = model.value_at(key, revision - 1);
            let as_expected = mod_revision(before) == mod_revision(expected.as_ref());
            (!as_expected).then(|| format!("there was {before:?}"))
        }
        (Request::Swap { key, expected, .. }, Reply::NotSwapped(kv)) => {
            let there = model.value_at(key, revision);
            let as_expected = mod_revision(there) == mod_revision(expected.as_ref());
            (as_expected || there != kv.as_ref()).then(|| format!("there was {there:?}"))
        }
        _ => None,
    }
}

fn mod_revision(kv: Option<&KeyValue>) -> i64 {
    kv.map_or(0, |kv| kv.mod_revision)
}

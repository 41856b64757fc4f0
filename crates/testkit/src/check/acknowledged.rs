//! What was acknowledged is there: at the revision that was answered, with nothing else in it.

use api::mvccpb::{Event, event::EventType};

use super::Run;
use crate::history::{Operation, Request, key};
use crate::model::Model;

pub(super) fn violations(run: &Run) -> Vec<String> {
    let lost = run
        .operations
        .iter()
        .filter_map(|operation| missing(&run.model, operation).map(|found| (operation, found)));
    lost.map(|(operation, found)| format!("{operation:?}: the store has {found}"))
        .collect()
}

/// What is at an acknowledged write's revision instead of it.
fn missing(model: &Model, operation: &Operation) -> Option<String> {
    let (revision, _) = operation.done()?;
    let events = model.at(revision);
    let there = !operation.wrote() || is_effect(&operation.request, events);
    (!there).then(|| format!("{events:?}"))
}

/// A key, and the value and the lease that were written to it unless it was deleted.
type Change<'a> = (&'a [u8], Option<(&'a [u8], i64)>);

/// Whether these events, and no others, are what a writing request makes.
pub(super) fn is_effect(request: &Request, events: &[Event]) -> bool {
    let expected: Vec<Change<'_>> = match request {
        Request::Put { pairs, lease } => pairs
            .iter()
            .map(|(key, value)| (&key[..], Some((&value[..], *lease))))
            .collect(),
        Request::Swap { key, value, .. } => vec![(key, Some((value, 0)))],
        Request::Delete { key } => vec![(key, None)],
        _ => Vec::new(),
    };
    let found = events.iter().map(|event| {
        let kv = event.kv.as_ref();
        let written = kv.filter(|_| event.r#type() == EventType::Put);
        (key(event), written.map(|kv| (&kv.value[..], kv.lease)))
    });
    found.eq(expected)
}

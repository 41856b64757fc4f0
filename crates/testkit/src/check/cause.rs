//! Every change has exactly one cause: an operation that was acknowledged, or one whose outcome
//! its client never learnt, or the end of a lease. What was refused caused nothing, and nothing
//! took effect twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::mvccpb::{Event, event::EventType};
use bytes::Bytes;

use super::Run;
use super::acknowledged::is_effect;
use crate::history::{Operation, Outcome, Request, Watcher, key, revision};
use crate::model::Model;

/// Which operation made which revision, and when each revision was first known to exist.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    /// Operations by the revision that they made.
    made: BTreeMap<i64, usize>,
    /// Leases by the revision in which their end deleted their keys.
    expired: BTreeMap<i64, i64>,
    /// The first moment at which somebody had seen this revision or a later one.
    seen: BTreeMap<i64, Duration>,
    violations: Vec<String>,
}

pub(super) fn violations(run: &Run) -> Vec<String> {
    run.causes.violations.clone()
}

impl Causes {
    pub(super) fn find(model: &Model, operations: &[Operation], watchers: &[Watcher]) -> Causes {
        let mut causes = Causes {
            seen: first_seen(operations, watchers),
            ..Causes::default()
        };
        causes.acknowledged(operations);
        causes.by_value(model, operations);
        causes.deletions(model, operations);
        causes
    }

    /// The revisions that operations made.
    pub(crate) fn made(&self) -> impl Iterator<Item = (i64, usize)> {
        self.made.iter().map(|(&revision, &at)| (revision, at))
    }

    /// The revisions in which leases ended by themselves, with the lease.
    pub(crate) fn expired(&self) -> impl Iterator<Item = (i64, i64)> {
        self.expired
            .iter()
            .map(|(&revision, &lease)| (revision, lease))
    }

    /// The first moment at which somebody had seen this revision or a later one.
    pub(crate) fn seen(&self, revision: i64) -> Option<Duration> {
        let seen = self.seen.range(revision..).next();
        seen.map(|(_, &moment)| moment)
    }

    fn acknowledged(&mut self, operations: &[Operation]) {
        for (at, operation) in operations.iter().enumerate() {
            if let (true, Some((revision, _))) = (operation.wrote(), operation.done()) {
                self.claim(revision, at, operations);
            }
        }
    }

    fn claim(&mut self, revision: i64, at: usize, operations: &[Operation]) {
        if let Some(other) = self.made.insert(revision, at) {
            let (one, other) = (&operations[other], &operations[at]);
            self.violations.push(format!(
                "revision {revision} is of {one:?} and of {other:?}"
            ));
        }
    }

    /// Values are unique: they say who wrote them, whatever the writer was told.
    fn by_value(&mut self, model: &Model, operations: &[Operation]) {
        let writers = writers(operations);
        let mut effective = BTreeSet::new();
        for (revision, events) in model.revisions() {
            let Some(value) = events.iter().find_map(put_value) else {
                continue;
            };
            let Some(&at) = writers.get(value) else {
                self.violations.push(format!(
                    "nobody wrote what is in revision {revision}: {events:?}"
                ));
                continue;
            };
            if self.made.get(&revision) == Some(&at) {
                continue;
            }
            let operation = &operations[at];
            let twice = !effective.insert(at);
            let whole = is_effect(&operation.request, events);
            if operation.outcome == Outcome::Unknown && !twice && whole {
                self.claim(revision, at, operations);
            } else {
                self.violations.push(format!(
                    "{operation:?} made revision {revision}: {events:?}"
                ));
            }
        }
    }

    /// A deletion does not say whose it is: an acknowledged one was claimed, a lease's end deletes
    /// all of its keys, and the others are shared out among deletions without an answer.
    fn deletions(&mut self, model: &Model, operations: &[Operation]) {
        let mut open: BTreeMap<Bytes, Vec<usize>> = BTreeMap::new();
        let mut revoked: BTreeSet<i64> = BTreeSet::new();
        for (at, operation) in operations.iter().enumerate() {
            match (&operation.request, &operation.outcome) {
                (Request::Delete { key }, Outcome::Unknown) => {
                    open.entry(key.clone()).or_default().push(at);
                }
                (Request::Revoke { lease }, outcome) if *outcome != Outcome::Refused => {
                    revoked.insert(*lease);
                }
                _ => {}
            }
        }
        for deletions in open.values_mut() {
            // The first invoked fits wherever a later one would.
            deletions.sort_by_key(|&at| std::cmp::Reverse(operations[at].invoked));
        }
        for (revision, events) in model.revisions() {
            let deletes = events.iter().all(|event| put_value(event).is_none());
            if !deletes || self.made.contains_key(&revision) {
                continue;
            }
            if let Some(lease) = ended_lease(model, revision, events) {
                if !revoked.contains(&lease) {
                    self.expired.insert(revision, lease);
                }
                continue;
            }
            match open.get_mut(key(&events[0])).and_then(Vec::pop) {
                Some(at) if events.len() == 1 => self.claim(revision, at, operations),
                _ => self
                    .violations
                    .push(format!("nobody deleted in revision {revision}: {events:?}")),
            }
        }
    }
}

/// The lease whose keys, all of them, were deleted in this revision.
fn ended_lease(model: &Model, revision: i64, events: &[Event]) -> Option<i64> {
    let lease = model.value_at(key(&events[0]), revision - 1)?.lease;
    let attached = model.attached_at(lease, revision - 1);
    let all = attached
        .iter()
        .map(|kv| &kv.key[..])
        .collect::<BTreeSet<_>>();
    let deleted = events.iter().map(key).collect::<BTreeSet<_>>();
    (lease != 0 && all == deleted).then_some(lease)
}

fn put_value(event: &Event) -> Option<&Bytes> {
    let kv = event.kv.as_ref();
    kv.filter(|_| event.r#type() == EventType::Put)
        .map(|kv| &kv.value)
}

fn writers(operations: &[Operation]) -> BTreeMap<&Bytes, usize> {
    let mut writers = BTreeMap::new();
    for (at, operation) in operations.iter().enumerate() {
        match &operation.request {
            Request::Put { pairs, .. } => {
                writers.extend(pairs.iter().map(|(_, value)| (value, at)));
            }
            Request::Swap { value, .. } => {
                writers.insert(value, at);
            }
            _ => {}
        }
    }
    writers
}

/// For each revision that somebody saw, the first moment at which it, or a later one, had been
/// seen.
fn first_seen(operations: &[Operation], watchers: &[Watcher]) -> BTreeMap<i64, Duration> {
    let mut seen: BTreeMap<i64, Duration> = BTreeMap::new();
    for (moment, revision) in sightings(operations, watchers) {
        let first = seen.entry(revision).or_insert(moment);
        *first = moment.min(*first);
    }
    let mut earliest = Duration::MAX;
    for moment in seen.values_mut().rev() {
        earliest = earliest.min(*moment);
        *moment = earliest;
    }
    seen
}

/// Moments at which it was known that the store had reached a revision.
pub(crate) fn sightings<'a>(
    operations: &'a [Operation],
    watchers: &'a [Watcher],
) -> impl Iterator<Item = (Duration, i64)> + 'a {
    let told = operations.iter().filter_map(|operation| {
        let about_keys = operation.is_about_keys();
        about_keys.then(|| Some((operation.returned, operation.done()?.0)))?
    });
    let sessions = watchers.iter().flat_map(|watcher| &watcher.sessions);
    let watched = sessions.flat_map(|session| &session.answers).map(|answer| {
        let newest = answer.events.iter().map(revision).max();
        (answer.received, newest.unwrap_or(answer.revision))
    });
    told.chain(watched)
}

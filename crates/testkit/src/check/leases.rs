//! A lease lives as long as was promised: its keys are not seen deleted by its end earlier than
//! its time after the last acknowledged grant or keep-alive *began*. A lease that was revoked has
//! no keys left at the answer's revision.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Run;
use crate::history::{Reply, Request};

pub(super) fn violations(run: &Run) -> Vec<String> {
    let promised = promises(run);
    let mut violations = Vec::new();
    for (revision, lease) in run.causes.expired() {
        let Some(seen) = run.causes.seen(revision) else {
            continue;
        };
        let promises = promised.get(&lease).map_or(&[][..], Vec::as_slice);
        if promises.is_empty() {
            violations.push(format!("nobody asked for lease {lease:x}"));
        }
        for (began, until) in promises {
            if began < until && seen < *until {
                violations.push(format!(
                    "lease {lease:x} ended in revision {revision}, seen at {seen:?}, but was \
                     promised at {began:?} to live until {until:?}"
                ));
            }
        }
    }
    for operation in &run.operations {
        if let (Request::Revoke { lease }, Some((revision, _))) =
            (&operation.request, operation.done())
        {
            let left = run.model.attached_at(*lease, revision);
            if !left.is_empty() {
                violations.push(format!("{operation:?} left {left:?}"));
            }
        }
    }
    violations
}

/// When each lease was promised life, and until when: without an answer, or when there was no such
/// lease, no longer than from the beginning on.
fn promises(run: &Run) -> BTreeMap<i64, Vec<(Duration, Duration)>> {
    let mut promises: BTreeMap<i64, Vec<(Duration, Duration)>> = BTreeMap::new();
    for operation in &run.operations {
        let (Request::Grant { lease, .. } | Request::KeepAlive { lease }) = &operation.request
        else {
            continue;
        };
        let promises = promises.entry(*lease).or_default();
        let seconds = match operation.done() {
            Some((_, Reply::Granted(ttl) | Reply::KeptAlive(ttl))) => *ttl,
            _ => 0,
        };
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        promises.push((operation.invoked, operation.invoked + life));
    }
    promises
}

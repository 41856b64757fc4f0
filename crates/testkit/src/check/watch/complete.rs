//! A stream has no gap: up to the last revision that it speaks of, it shows exactly what happened
//! to its keys.

use crate::check::Run;
use crate::history::{Session, revision};

pub(in crate::check) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for watcher in &run.watchers {
        for session in &watcher.sessions {
            let to = reached(session);
            let from = session.start_revision;
            let mut happened = run.model.events(&watcher.range, from, to);
            let mut shown = session.answers.iter().flat_map(|answer| &answer.events);
            loop {
                let (one, other) = (happened.next(), shown.next());
                let same = match (one, other) {
                    (None, None) => break,
                    (Some(one), Some(other)) => one.kv == other.kv && one.r#type == other.r#type,
                    _ => false,
                };
                if !same {
                    let member = session.member;
                    violations.push(format!(
                        "member {member} showed {other:?} where {one:?} happened (a watch of {:?} \
                         from {from} that reached {to})",
                        watcher.range
                    ));
                    break;
                }
            }
        }
    }
    violations
}

/// The revision up to which a stream has shown everything, by what it says itself. The events of
/// one revision come together, so an event speaks for its whole revision.
fn reached(session: &Session) -> i64 {
    let reached = session.answers.iter().map(|answer| {
        if answer.is_progress() {
            answer.revision
        } else {
            answer.events.iter().map(revision).max().unwrap_or(0)
        }
    });
    reached.max().unwrap_or(0)
}

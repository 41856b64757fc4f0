//! The events of one revision come in one answer, unless the client asked for fragments.

use crate::check::Run;
use crate::history::revision;

pub(in crate::check) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for watcher in &run.watchers {
        for session in &watcher.sessions {
            for answer in &session.answers {
                let shown = |at| answer.events.iter().filter(|e| revision(e) == at).count();
                let revisions = answer.events.iter().map(revision);
                let torn = revisions.into_iter().find(|&at| {
                    let happened = run.model.events(&watcher.range, at, at).count();
                    shown(at) < happened
                });
                if let Some(at) = torn {
                    let whole = run.model.at(at);
                    violations.push(format!("{answer:?} has only a part of {whole:?}"));
                }
            }
        }
    }
    violations
}

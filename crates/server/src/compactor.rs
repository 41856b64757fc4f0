//! Automatic compaction: history is given up as time passes or as revisions are made
//! (`server/etcdserver/api/v3compactor`).
//!
//! What this is not: compaction itself. A compactor decides on a revision and proposes it, and only
//! the leader's does.

mod periodic;
mod revision;

use std::time::Duration;

use apply::{Command, Rejection};
use tokio_util::sync::CancellationToken;

use crate::{EtcdServer, RequestError};
use periodic::Periodic;
use revision::Revision;

/// `--auto-compaction-mode` and `--auto-compaction-retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Keep this much time.
    Periodic(Duration),
    /// Keep so many revisions.
    Revision(i64),
}

/// What a compactor has to do after it has been told the time and the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Wait,
    /// Compact up to here.
    Compact(i64),
}

/// Compacts until the member stops.
pub async fn run(server: EtcdServer, retention: Retention, stopping: CancellationToken) {
    match retention {
        Retention::Periodic(period) => {
            let compactor = Periodic::new(period, server.config().clock.now());
            run_periodic(server, compactor, stopping).await;
        }
        Retention::Revision(kept) => {
            run_revision(server, Revision::new(kept), stopping).await;
        }
    }
}

async fn run_periodic(server: EtcdServer, mut compactor: Periodic, stopping: CancellationToken) {
    loop {
        compactor.record(current_revision(&server));
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(compactor.interval()) => {}
        }
        if !server.is_leader() {
            continue;
        }
        let Step::Compact(revision) = compactor.step(server.config().clock.now()) else {
            continue;
        };
        let (period, retry) = (compactor.period(), compactor.interval());
        tracing::info!(
            revision,
            "compact-period" = ?period,
            "starting auto periodic compaction"
        );
        let started = server.config().clock.now();
        let compacted = compact(&server, revision).await;
        let now = server.config().clock.now();
        match compacted {
            Ok(()) => {
                tracing::info!(
                    revision,
                    "compact-period" = ?period,
                    took = ?now.saturating_duration_since(started),
                    "completed auto periodic compaction"
                );
                compactor.compacted(revision, now);
            }
            Err(error) => tracing::warn!(
                revision,
                "compact-period" = ?period,
                "retry-interval" = ?retry,
                %error,
                "failed auto periodic compaction"
            ),
        }
    }
}

async fn run_revision(server: EtcdServer, mut compactor: Revision, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(revision::INTERVAL) => {}
        }
        if !server.is_leader() {
            continue;
        }
        let Step::Compact(revision) = compactor.step(current_revision(&server)) else {
            continue;
        };
        let kept = compactor.kept();
        tracing::info!(
            revision,
            "revision-compaction-retention" = kept,
            "starting auto revision compaction"
        );
        let started = server.config().clock.now();
        match compact(&server, revision).await {
            Ok(()) => {
                let now = server.config().clock.now();
                tracing::info!(
                    revision,
                    "revision-compaction-retention" = kept,
                    took = ?now.saturating_duration_since(started),
                    "completed auto revision compaction"
                );
                compactor.compacted(revision);
            }
            Err(error) => tracing::warn!(
                revision,
                "revision-compaction-retention" = kept,
                "retry-interval" = ?revision::INTERVAL,
                %error,
                "failed auto revision compaction"
            ),
        }
    }
}

fn current_revision(server: &EtcdServer) -> i64 {
    server.views().store.view().revision()
}

/// Compacts. It is well if history is gone up to there, whoever did it.
async fn compact(server: &EtcdServer, revision: i64) -> Result<(), RequestError> {
    let compact = Command::Compact { revision }.by_member();
    match server.propose(compact).await {
        Ok(_) | Err(RequestError::Rejected(Rejection::Compacted)) => Ok(()),
        Err(error) => Err(error),
    }
}

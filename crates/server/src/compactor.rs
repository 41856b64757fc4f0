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
        if compact(&server, revision, "periodic").await {
            compactor.compacted(revision, server.config().clock.now());
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
        if compact(&server, revision, "revision").await {
            compactor.compacted(revision);
        }
    }
}

fn current_revision(server: &EtcdServer) -> i64 {
    server.views().store.view().revision()
}

/// Compacts, and says whether history is gone up to there, by whomever.
async fn compact(server: &EtcdServer, revision: i64, mode: &'static str) -> bool {
    tracing::info!(revision, mode, "starting auto compaction");
    match server
        .propose(Command::Compact { revision }.by_member())
        .await
    {
        Ok(_) | Err(RequestError::Rejected(Rejection::Compacted)) => {
            tracing::info!(revision, mode, "completed auto compaction");
            true
        }
        Err(error) => {
            tracing::warn!(revision, mode, %error, "failed auto compaction");
            false
        }
    }
}

//! Notices when something that has to run has ended.

use std::sync::Arc;

use apply::Persister;
use openraft::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use crate::error::{Fatal, FatalCell};
use crate::node::Raft;

/// Waits for openraft's end. If nobody asked for it the member has to stop too.
pub(crate) async fn raft(raft: Raft, fatal: FatalCell, stop: CancellationToken) {
    let mut server = raft.server_metrics();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = server.changed() => if changed.is_err() { break },
        }
    }
    let state = raft.metrics().borrow_watched().running_state.clone();
    let reason = state.err().unwrap_or(openraft::errors::Fatal::Stopped);
    tracing::error!(%reason, "raft has stopped by itself");
    fatal.set(Fatal::Raft(Arc::new(reason)));
}

/// Waits for the persister's failure.
pub(crate) async fn persister(persister: Persister, fatal: FatalCell, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        error = persister.failed() => fatal.set(Fatal::Persist(Arc::new(error))),
    }
}

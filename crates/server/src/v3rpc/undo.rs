//! What is to be taken back when a request ends before it has come to its end: because it failed, or
//! because its client went away and it was dropped where it waited.

use std::future::Future;

use futures_util::future::BoxFuture;
use tonic::Status;

use crate::EtcdServer;

/// Takes something back when it is dropped.
pub(crate) struct Undo {
    server: EtcdServer,
    undo: Option<BoxFuture<'static, Result<(), Status>>>,
}

impl Undo {
    /// Does this when it is dropped and was not told to forget it.
    pub(crate) fn unless_forgotten(
        server: &EtcdServer,
        undo: impl Future<Output = Result<(), Status>> + Send + 'static,
    ) -> Self {
        Self {
            server: server.clone(),
            undo: Some(Box::pin(undo)),
        }
    }

    /// There is nothing to be taken back.
    pub(crate) fn forget(mut self) {
        self.undo = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        self.server.spawn_until_stopped(async move {
            if let Err(status) = undo.await {
                // The lease takes it back in the end.
                tracing::debug!(%status, "what a request left behind was not taken back");
            }
        });
    }
}

//! The tasks of a member: all are known, all end when it stops, and the first failure that it cannot
//! live with is kept for whoever asks.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Fatal;

/// A member's tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    failure: Arc<watch::Sender<Option<Arc<Fatal>>>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            failure: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Tasks {
    /// Tasks that end at another time, and whose failures are the same member's.
    pub(super) fn beside(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            failure: Arc::clone(&self.failure),
        }
    }

    /// Is cancelled when the member stops.
    pub(super) fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// A task that ends by itself once the member stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// A task that serves a listener. Its error is one the member cannot live with.
    pub(super) fn serve(&self, task: impl Future<Output = io::Result<()>> + Send + 'static) {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            if let Err(error) = task.await {
                tasks.fail(Fatal::Listener(error));
            }
        });
    }

    /// Notes a failure that the member cannot live with.
    pub(super) fn fail(&self, reason: Fatal) {
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            failure.get_or_insert_with(|| Arc::new(reason));
            is_first
        });
    }

    /// Waits for the first failure that the member cannot live with.
    pub(super) async fn failed(&self) -> Arc<Fatal> {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        let failed = failed.expect("the sender lives as long as self");
        Arc::clone(failed.as_ref().expect("waited until there is one"))
    }

    /// Asks every task to end.
    pub(super) fn cancel(&self) {
        self.stopping.cancel();
    }

    /// Asks every task to end, and waits until it has.
    pub(super) async fn stop(&self) {
        self.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

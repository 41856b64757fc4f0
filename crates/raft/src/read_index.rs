//! Linearizable reads: those that come at the same time share one round.
//!
//! A reader joins the next round and waits. One task runs the rounds, one after the other: it takes
//! everybody who has joined, has the leader confirm that it still leads and say how far the log is
//! committed, waits until that is applied here, and lets them all go. Who comes while a round runs
//! waits for the next one: the commit index of the running one may be older than what a client has
//! seen elsewhere.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::ReadIndexError;
use crate::node::Raft;
use crate::progress::Progress;
use crate::type_config::TypeConfig;

/// Readers that wait for a round. Who comes when it is full is told to come later; each belongs to
/// a request that is being served, so the server's own limits come first.
const READERS_MAX: usize = 64 * 1024;

/// Pause before a leader is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

type Reader = oneshot::Sender<Result<(), ReadIndexError>>;

/// The round that is being gathered.
#[derive(Debug, Default)]
pub(crate) struct ReadIndex {
    joined: Mutex<Joined>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Joined {
    readers: Vec<Reader>,
    closed: bool,
}

impl ReadIndex {
    /// Joins the next round.
    pub(crate) fn join(
        &self,
    ) -> Result<oneshot::Receiver<Result<(), ReadIndexError>>, ReadIndexError> {
        let (reader, ready) = oneshot::channel();
        let first = {
            let mut joined = self.joined.lock();
            if joined.closed {
                return Err(ReadIndexError::Stopped);
            }
            if joined.readers.len() >= READERS_MAX {
                return Err(ReadIndexError::Timeout);
            }
            joined.readers.push(reader);
            joined.readers.len() == 1
        };
        if first {
            self.notify.notify_one();
        }
        Ok(ready)
    }

    /// Runs rounds until the member stops.
    pub(crate) async fn run(
        self: Arc<Self>,
        raft: Raft,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) {
        let mut readers = Vec::new();
        loop {
            let round = async {
                self.notify.notified().await;
                std::mem::swap(&mut readers, &mut self.joined.lock().readers);
                let answer = confirm(&raft, &progress, &mut readers).await;
                release(&mut readers, answer);
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = round => {}
            }
        }
        let mut joined = self.joined.lock();
        joined.closed = true;
        joined.readers.clear();
    }
}

fn release(readers: &mut Vec<Reader>, answer: Result<(), ReadIndexError>) {
    for reader in readers.drain(..) {
        if reader.send(answer).is_err() {
            // receiver gone: the reader has given up waiting
        }
    }
}

/// Waits until a read on this member is linearizable. Without a leader it goes on asking for one
/// as long as a reader waits.
async fn confirm(
    raft: &Raft,
    progress: &Progress,
    readers: &mut Vec<Reader>,
) -> Result<(), ReadIndexError> {
    loop {
        match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => {
                let index = linearizer.read_log_id().index();
                progress.wait_applied(index + 1).await;
                return Ok(());
            }
            Err(error) if !may_retry(&error) => return Err(ReadIndexError::Stopped),
            Err(_no_leader) => {
                tokio::time::sleep(RETRY_PAUSE).await;
                readers.retain(|reader| !reader.is_closed());
                if readers.is_empty() {
                    return Err(ReadIndexError::Timeout);
                }
            }
        }
    }
}

fn may_retry(error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> bool {
    matches!(error, RaftError::APIError(_))
}

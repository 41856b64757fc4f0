//! Passwords are hashed here, so that it holds up nobody else: off the async threads, and not more at a time
//! than there are cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::rpctypes::ErrorCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use crate::RequestError;

/// Passwords that wait for their turn. More are refused with etcd's "too many requests".
const WAITING_MAX: usize = 1024;

/// Hashes passwords and compares them.
#[derive(Debug)]
pub(crate) struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One that waits.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// Hashes with this cost (`--bcrypt-cost`).
    pub(crate) fn new(cost: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cost,
            turns: Arc::new(Semaphore::new(cores)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The hash of a password, as it goes into a command.
    pub(crate) async fn hash(&self, password: String) -> Result<String, RequestError> {
        let cost = self.cost;
        let hash = self
            .run(move || auth::hash_password(&password, cost))
            .await?;
        let hash = hash.map_err(|_too_long| ErrorCode::PasswordTooLong)?;
        Ok(STANDARD.encode(hash))
    }

    /// Whether it is the password that was hashed.
    pub(crate) async fn verify(
        &self,
        password: String,
        hash: Vec<u8>,
    ) -> Result<bool, RequestError> {
        self.run(move || auth::verify_password(&password, &hash))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let waits = Waits(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(ErrorCode::RequestTooManyRequests.into());
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        drop(waits);
        let Ok(turn) = turn else {
            return Err(ErrorCode::Stopped.into());
        };
        let done = tokio::task::spawn_blocking(move || {
            // Its turn is over when it is done, also if nobody waits any more.
            let _turn = turn;
            work()
        });
        // The runtime refuses only when it is going away, and the member with it.
        done.await.map_err(|_gone| ErrorCode::Stopped.into())
    }
}

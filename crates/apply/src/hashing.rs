//! The hashes that compactions leave, made beside the state machine: each reads the whole store.
//!
//! What it is not: it decides nothing. A member that has not made a hash is one that cannot be compared at that
//! revision.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mvcc::HashJob;

use crate::Workers;

/// Hashes that are made at the same time. A compaction that comes when there are so many leaves none.
const JOBS_MAX: usize = 2;

/// Makes hashes. Dropping it ends those that are being made, and waits for their end.
pub(crate) struct Hashing {
    workers: Workers,
    is_cancelled: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Hashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashing")
            .field("running", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Hashing {
    pub(crate) fn new(workers: Workers) -> Self {
        Self {
            workers,
            is_cancelled: Arc::default(),
            threads: Vec::new(),
        }
    }

    pub(crate) fn begin(&mut self, job: HashJob) {
        let is_cancelled = Arc::clone(&self.is_cancelled);
        let make = move || {
            if let Err(error) = job.run(&is_cancelled) {
                tracing::error!(%error, "cannot make the hash of a compaction");
            }
        };
        match &self.workers {
            Workers::Threads => self.spawn(make),
            Workers::Tasks(pace) => {
                let pace = Arc::clone(pace);
                tokio::spawn(async move {
                    tokio::time::sleep(pace()).await;
                    make();
                });
            }
        }
    }

    /// Waits until those are made that were begun on threads.
    #[cfg(test)]
    pub(crate) fn wait(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("a hash is made without a panic");
        }
    }

    fn spawn(&mut self, make: impl FnOnce() + Send + 'static) {
        self.threads.retain(|thread| !thread.is_finished());
        if self.threads.len() >= JOBS_MAX {
            tracing::info!(
                "previous compactions are still going on, skip storing compaction hash value"
            );
            return;
        }
        let thread = std::thread::Builder::new().name("compaction-hash".to_owned());
        match thread.spawn(make) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread, skip storing compaction hash value");
            }
        }
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("the thread that makes a compaction's hash has panicked");
            }
        }
    }
}

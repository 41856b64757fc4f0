//! Where work runs that blocks on the disk: on threads, or, in a simulation, on tasks of a runtime
//! with one thread and a clock of its own, so that the same seed gives the same run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where work runs that blocks on the disk. Cheap to clone.
#[derive(Clone, Default)]
pub enum Workers {
    /// On threads.
    #[default]
    Threads,
    /// On tasks, each piece of work after the time that this says: what a disk would take. The disks
    /// must be in memory.
    Tasks(Pace),
}

/// How long the next piece of work takes.
pub type Pace = Arc<dyn Fn() -> Duration + Send + Sync>;

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Tasks(_) => "Tasks",
        })
    }
}

/// A piece of work did not end: it has panicked, or the runtime goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("work on the disk did not end")]
pub struct Unfinished;

impl Workers {
    /// Does one piece of work, and waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unfinished> {
        match self {
            // The panic's own message has been printed.
            Self::Threads => tokio::task::spawn_blocking(work)
                .await
                .map_err(|_panic| Unfinished),
            Self::Tasks(pace) => {
                tokio::time::sleep(pace()).await;
                Ok(work())
            }
        }
    }
}

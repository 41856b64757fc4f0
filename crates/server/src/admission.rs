//! How many large reads a member has in hand: each takes one of the threads for what may wait.
//!
//! What this is not: a limit of small requests. Reads of single keys are answered at once, and writes
//! have the queue of proposals, with places kept for what ends an overload.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::rpctypes::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Large reads that run at a time; more wait for their turn.
const RUNNING_MAX: usize = 128;
/// Large reads that wait; more are refused: "too many requests".
const WAITING_MAX: usize = 4096;

/// Admits large reads.
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(RUNNING_MAX, WAITING_MAX)
    }
}

impl Admission {
    fn new(running_max: usize, waiting_max: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(running_max)),
            waiting: AtomicUsize::new(0),
            waiting_max,
        }
    }

    /// Waits until the read may run; it runs while the permit lives.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, ErrorCode> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(self).ok_or(ErrorCode::RequestTooManyRequests)?;
        let permit = Arc::clone(&self.running).acquire_owned().await;
        permit.map_err(|_closed| ErrorCode::Stopped)
    }
}

/// One that waits, whether or not until the end.
struct Place<'a>(&'a Admission);

impl<'a> Place<'a> {
    fn take(admission: &'a Admission) -> Option<Self> {
        let place = Self(admission);
        let before = admission.waiting.fetch_add(1, Ordering::Relaxed);
        (before < admission.waiting_max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_to_wait_is_refused() {
        let admission = Admission::new(1, 1);
        let running = admission.enter().await.expect("nobody is there");
        let waiting = admission.enter();
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is one already"),
            refused = admission.enter() => {
                assert_eq!(refused.err(), Some(ErrorCode::RequestTooManyRequests));
            }
        }
        drop(running);
        drop(waiting.await.expect("it is its turn"));
        drop(admission.enter().await.expect("all have gone"));
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }
}

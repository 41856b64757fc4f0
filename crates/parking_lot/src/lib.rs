//! Stands in for parking_lot 0.11, which nobody but sled uses here. Its locks are those of a later version; only a
//! condition variable is another.
//!
//! sled writes with threads of its own. Seven of them wait for work, and for each piece of work it wakes all seven
//! (`notify_all`, `threadpool.rs`): one finds it and six go back to sleep. A put by one client is a piece of work, and so
//! is a group commit; on two cores the six took a sixth of a busy server's time, and made one client's put wait. Whoever waits until a
//! point in time is such a thread: nothing else in sled waits so. For them one thread is woken for a piece of work.
//!
//! No wakeup is lost by that. A thread of the pool that has found work looks for more before it waits, and looks under the
//! lock under which work is queued; who is woken has not timed out, or the next one is woken.
//!
//! Only what sled names is here: a new sled that names more does not compile. Once sled wakes one thread for a piece of
//! work, this crate can go, with its line under `[patch.crates-io]`. A program of another workspace that uses kvorum gets
//! the original, unless its workspace has the same line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use locks::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult};

/// A condition variable.
#[derive(Debug, Default)]
pub struct Condvar {
    threads: locks::Condvar,
    /// Those who wait are a pool's, each as good as the other.
    is_of_a_pool: AtomicBool,
}

impl Condvar {
    /// One for which nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            threads: locks::Condvar::new(),
            is_of_a_pool: AtomicBool::new(false),
        }
    }

    /// Waits to be woken.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        self.threads.wait(guard);
    }

    /// Waits to be woken, at most so long.
    pub fn wait_for<T: ?Sized>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        self.threads.wait_for(guard, timeout)
    }

    /// Waits for work, at most until then.
    pub fn wait_until<T: ?Sized>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        timeout: Instant,
    ) -> WaitTimeoutResult {
        // Under the lock: whoever queues work takes it before it wakes anybody.
        self.is_of_a_pool.store(true, Ordering::Relaxed);
        self.threads.wait_until(guard, timeout)
    }

    /// Wakes all who wait; of a pool's threads one. Says how many.
    pub fn notify_all(&self) -> usize {
        if self.is_of_a_pool.load(Ordering::Relaxed) {
            usize::from(self.threads.notify_one())
        } else {
            self.threads.notify_all()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use types::{Clock as _, SystemClock};

    use super::*;

    const THREADS: usize = 7;
    const PIECES: usize = 1000;

    /// Threads that take work as sled's do.
    #[derive(Default)]
    struct Pool {
        queued: Mutex<usize>,
        work: Condvar,
        woken: AtomicUsize,
        done: AtomicUsize,
    }

    impl Pool {
        fn work(&self) {
            while self.done.load(Ordering::SeqCst) < PIECES {
                self.take();
            }
        }

        fn take(&self) {
            let mut queued = self.queued.lock();
            let cutoff = SystemClock.now() + Duration::from_secs(1);
            while *queued == 0 && !self.work.wait_until(&mut queued, cutoff).timed_out() {
                self.woken.fetch_add(1, Ordering::SeqCst);
            }
            if *queued > 0 {
                *queued -= 1;
                self.done.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    #[test]
    fn one_piece_of_work_wakes_one_thread_of_a_pool_and_all_work_is_done() {
        let pool = Arc::<Pool>::default();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || pool.work())
            })
            .collect();
        for _ in 0..PIECES {
            *pool.queued.lock() += 1;
            pool.work.notify_all();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.done.load(Ordering::SeqCst), PIECES);
        assert!(pool.woken.load(Ordering::SeqCst) <= PIECES);
    }

    #[test]
    fn all_others_are_woken_together() {
        let gate = Arc::new((Mutex::new((0_usize, false)), Condvar::new()));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    let (state, opened) = &*gate;
                    let mut state = state.lock();
                    state.0 += 1;
                    while !state.1 {
                        opened.wait(&mut state);
                    }
                })
            })
            .collect();
        while gate.0.lock().0 < THREADS {
            thread::yield_now();
        }
        gate.0.lock().1 = true;
        assert_eq!(gate.1.notify_all(), THREADS);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

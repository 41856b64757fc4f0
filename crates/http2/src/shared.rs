//! What a connection's task and the tasks that read its requests' bodies have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

/// What a client may send on one connection before it has to wait for us.
pub(crate) const CONNECTION_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// What a client may send on one stream before it has to wait for us.
pub(crate) const STREAM_WINDOW_BYTES: usize = 1024 * 1024;

/// Shared by a connection and its streams.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Bytes of bodies that were taken, and for which the client may send as many.
    released: AtomicUsize,
    /// How many of them are worth a frame.
    due: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Streams that have something for the connection to do.
    ready: Vec<u32>,
    /// An answer can go on.
    is_called: bool,
    /// The connection looks at both again before it rests: nobody has to wake it.
    is_awake: bool,
    task: Option<Waker>,
}

impl Shared {
    /// The connection's task begins to work.
    pub(crate) fn awake(&self) {
        self.inner.lock().is_awake = true;
    }

    /// The connection's task has nothing to do, if that is so; the waker is woken when that changes.
    pub(crate) fn rest(&self, task: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if !inner.ready.is_empty() || inner.is_called {
            return false;
        }
        inner.is_awake = false;
        match &mut inner.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        true
    }

    /// Whether an answer can go on, of which was not known when this was asked last.
    pub(crate) fn take_call(&self) -> bool {
        std::mem::take(&mut self.inner.lock().is_called)
    }

    /// Moves the streams that have something to do to the end of `to`.
    pub(crate) fn take_ready(&self, to: &mut impl Extend<u32>) {
        to.extend(self.inner.lock().ready.drain(..));
    }

    /// Says that a stream has something to do.
    pub(crate) fn ready(&self, stream: u32) {
        let task = {
            let mut inner = self.inner.lock();
            inner.ready.push(stream);
            match inner.is_awake {
                true => None,
                false => inner.task.take(),
            }
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Bytes of a body were taken, or thrown away.
    pub(crate) fn release(&self, bytes: usize) {
        let before = self.released.fetch_add(bytes, Ordering::SeqCst);
        let due = self.due.load(Ordering::SeqCst);
        if before < due && before + bytes >= due {
            // Stream 0 is the connection itself.
            self.ready(0);
        }
    }

    /// How many bytes were taken, if they are worth a frame to a client that may send so many more: half of that,
    /// so that it never waits for what others hold.
    pub(crate) fn take_released(&self, window: usize) -> Option<usize> {
        let due = (window / 2).max(1);
        // First said, then looked: who releases does it the other way round.
        self.due.store(due, Ordering::SeqCst);
        let is_enough = self.released.load(Ordering::SeqCst) >= due;
        is_enough.then(|| self.released.swap(0, Ordering::SeqCst))
    }
}

/// For answers: who can go on calls the connection's task.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = {
            let mut inner = self.inner.lock();
            inner.is_called = true;
            match inner.is_awake {
                true => None,
                false => inner.task.take(),
            }
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_never_waits_for_a_window_that_others_hold() {
        let shared = Shared::default();
        let ready = || {
            let mut ready = Vec::new();
            shared.take_ready(&mut ready);
            ready
        };
        assert_eq!(shared.take_released(1000), None);
        shared.release(499);
        assert_eq!((ready(), shared.take_released(1000)), (vec![], None));
        shared.release(1);
        assert_eq!((ready(), shared.take_released(1000)), (vec![0], Some(500)));
        // All of the window is in bodies that nobody reads, but for some bytes that were.
        shared.release(10);
        assert_eq!((ready(), shared.take_released(0)), (vec![], Some(10)));
        shared.release(1);
        assert_eq!((ready(), shared.take_released(0)), (vec![0], Some(1)));
    }
}

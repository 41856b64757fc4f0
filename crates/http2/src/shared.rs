//! What a connection's task and the tasks that read its requests' bodies have in common.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// Shared by a connection and its streams.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Bytes of bodies that were taken, and for which the client may send as many.
    released: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Streams that have something for the connection to do.
    ready: Vec<u32>,
    /// The connection looks at `ready` again before it rests: nobody has to wake it.
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
        if !inner.ready.is_empty() {
            return false;
        }
        inner.is_awake = false;
        match &mut inner.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        true
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
        let before = self.released.fetch_add(bytes, Ordering::Relaxed);
        if before < RELEASED_BYTES && before + bytes >= RELEASED_BYTES {
            // Stream 0 is the connection itself.
            self.ready(0);
        }
    }

    /// How many bytes were taken, if they are worth a frame.
    pub(crate) fn take_released(&self) -> Option<usize> {
        let is_enough = self.released.load(Ordering::Relaxed) >= RELEASED_BYTES;
        is_enough.then(|| self.released.swap(0, Ordering::Relaxed))
    }
}

/// What a client may send on one connection before it has to wait for us.
pub(crate) const CONNECTION_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// What a client may send on one stream before it has to wait for us.
pub(crate) const STREAM_WINDOW_BYTES: usize = 1024 * 1024;
/// So much is worth a WINDOW_UPDATE of the connection.
const RELEASED_BYTES: usize = CONNECTION_WINDOW_BYTES / 2;

//! Writes staged batches to the state's store, behind the state machine.
//!
//! The log is the durability point, so nobody waits for this: a batch is committed when its turn
//! comes, and flushed only when somebody wants to cut the log. What is lost in a crash is replayed.
//!
//! One thread of its own ([`Workers`]), because a commit may take long. Its queue holds [`STAGED_MAX`] batches;
//! when it is full, the state machine goes on without staging, and whoever applies waits for
//! [`Persister::room`]. After the first failed commit or flush nothing is written any more, and the
//! member has to stop.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use backend::{Batch, Reader, WriteError, Writer};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::{Fatal, Pace, Workers};

/// Batches that may wait for the thread.
const STAGED_MAX: usize = 2;
/// Changes are staged after this at the latest, however few they are.
const STAGE_INTERVAL: Duration = Duration::from_secs(10);

/// Changes of the state that go to the disk together.
pub(crate) struct Staged {
    pub(crate) batch: Batch,
    /// The store's revision with which the batch ends.
    pub(crate) revision: i64,
    /// The compaction whose physical work this batch ends.
    pub(crate) finished_compaction: Option<i64>,
}

/// Follows what the thread has written. Cheap to clone.
#[derive(Clone)]
pub struct Persister {
    shared: Arc<Shared>,
    reader: Reader,
}

/// The state machine's end of the thread. Dropping it lets the thread commit what is staged, and
/// waits for its end.
#[derive(Debug)]
pub(crate) struct Stager {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something for the thread to do.
    work: Condvar,
    /// The same for a task in the thread's place.
    task_work: Notify,
    /// Room in the queue, or no reason to wait for it any more.
    room: Condvar,
    progress: watch::Sender<Progress>,
    is_stage_due: AtomicBool,
    /// The length of the queue, to be asked without its lock: [`Persister::room`] asks under the
    /// lock of `progress`, which is taken under the queue's.
    queued: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Staged>,
    /// Batches staged so far, counted from 1: what the store held when it was opened was batch 0,
    /// and is not known to be durable either.
    staged: u64,
    /// Flush as soon as so many batches are committed.
    flush_wanted: u64,
    is_closed: bool,
}

#[derive(Clone, Default)]
struct Progress {
    /// Batches that survive a loss of power.
    durable: u64,
    failure: Option<WriteError>,
    has_ended: bool,
}

impl fmt::Debug for Persister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persister").finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Starts the thread. `store` is told what has been committed.
pub(crate) fn start(
    backend: backend::Backend,
    store: mvcc::Store,
    workers: &Workers,
) -> std::io::Result<(Stager, Persister)> {
    let backend::Backend { reader, writer } = backend;
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            staged: 1,
            ..Queue::default()
        }),
        work: Condvar::new(),
        task_work: Notify::new(),
        room: Condvar::new(),
        progress: watch::Sender::new(Progress::default()),
        is_stage_due: AtomicBool::new(false),
        queued: AtomicUsize::new(0),
    });
    let run = Run {
        shared: Arc::clone(&shared),
        writer,
        store,
        // The batch that was there at the start is committed.
        committed: 1,
        durable: 0,
    };
    let thread = match workers {
        Workers::Threads => Some(
            std::thread::Builder::new()
                .name("persister".to_owned())
                .spawn(move || run.on_thread())?,
        ),
        Workers::Tasks(pace) => {
            tokio::spawn(run.on_task(Arc::clone(pace)));
            None
        }
    };
    let stager = Stager {
        shared: Arc::clone(&shared),
        thread,
    };
    Ok((stager, Persister { shared, reader }))
}

impl Persister {
    /// Waits until everything staged so far survives a loss of power. Safe to drop at any await.
    pub async fn durable(&self) -> Result<(), Fatal> {
        let mut progress = self.shared.progress.subscribe();
        let wanted = {
            let mut queue = self.shared.queue.lock();
            queue.flush_wanted = queue.staged;
            self.shared.wake();
            queue.staged
        };
        let is_settled = |progress: &Progress| {
            progress.durable >= wanted || progress.failure.is_some() || progress.has_ended
        };
        let Ok(progress) = progress.wait_for(is_settled).await else {
            return Err(Fatal::PersisterEnded);
        };
        match &progress.failure {
            Some(failure) => Err(Fatal::Write(failure.clone())),
            None if progress.durable < wanted => Err(Fatal::PersisterEnded),
            None => Ok(()),
        }
    }

    /// Waits until the persister has failed or ended, and says how. The member has to stop then.
    pub async fn failed(&self) -> Fatal {
        let mut progress = self.shared.progress.subscribe();
        let failed = progress
            .wait_for(|progress| progress.failure.is_some() || progress.has_ended)
            .await;
        match failed.ok().and_then(|progress| progress.failure.clone()) {
            Some(failure) => Fatal::Write(failure),
            None => Fatal::PersisterEnded,
        }
    }

    /// Waits until another batch can be staged without waiting, or the persister has failed. Safe to
    /// drop at any await.
    pub async fn room(&self) {
        let mut progress = self.shared.progress.subscribe();
        let has_room = |progress: &Progress| {
            progress.failure.is_some() || progress.has_ended || self.shared.has_room()
        };
        if progress.wait_for(has_room).await.is_err() {
            // The sender is in `self`, so it has not gone away.
        }
    }

    /// Bytes of the state's files.
    pub fn size_on_disk(&self) -> Result<u64, Fatal> {
        Ok(self.reader.size_on_disk()?)
    }
}

impl Stager {
    /// Whether changes have been waiting to be staged for long.
    pub(crate) fn is_due(&self) -> bool {
        self.shared.is_stage_due.load(Ordering::Relaxed)
    }

    /// Whether [`Stager::stage`] would not wait; it does not when the persister has failed either.
    pub(crate) fn has_room(&self) -> bool {
        self.check().is_err() || self.shared.has_room()
    }

    /// The failure, if there was one.
    pub(crate) fn check(&self) -> Result<(), Fatal> {
        let progress = self.shared.progress.borrow();
        match &progress.failure {
            Some(failure) => Err(Fatal::Write(failure.clone())),
            None if progress.has_ended => Err(Fatal::PersisterEnded),
            None => Ok(()),
        }
    }

    /// Hands over a batch. Waits while the queue is full.
    pub(crate) fn stage(&self, staged: Staged) -> Result<(), Fatal> {
        let mut queue = self.shared.queue.lock();
        loop {
            self.check()?;
            if queue.batches.len() < STAGED_MAX {
                break;
            }
            self.shared.room.wait(&mut queue);
        }
        queue.batches.push_back(staged);
        self.shared
            .queued
            .store(queue.batches.len(), Ordering::Relaxed);
        queue.staged += 1;
        self.shared.is_stage_due.store(false, Ordering::Relaxed);
        self.shared.wake();
        Ok(())
    }
}

impl Drop for Stager {
    fn drop(&mut self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.wake();
        let Some(thread) = self.thread.take() else {
            return;
        };
        if thread.join().is_err() {
            tracing::error!("the persister's thread has panicked");
        }
    }
}

/// What the thread does next.
enum Work {
    Commit(Staged),
    /// Flush; so many batches are durable then.
    Flush(u64),
    End,
}

/// Says that the thread has ended, whatever ended it: nobody may wait for it then.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0
            .progress
            .send_modify(|progress| progress.has_ended = true);
        // Under the lock, so that nobody is between looking and waiting.
        let _queue = self.0.queue.lock();
        self.0.room.notify_all();
    }
}

impl Shared {
    fn has_room(&self) -> bool {
        self.queued.load(Ordering::Relaxed) < STAGED_MAX
    }

    /// There is something to do.
    fn wake(&self) {
        self.work.notify_one();
        self.task_work.notify_one();
    }

    /// The next thing to do, if there is one. A flush goes before the batches that were staged after
    /// it was wanted.
    fn next(&self, queue: &mut Queue, committed: u64, durable: u64) -> Option<Work> {
        if queue.flush_wanted > durable && queue.flush_wanted <= committed {
            return Some(Work::Flush(committed));
        }
        if let Some(staged) = queue.batches.pop_front() {
            self.queued.store(queue.batches.len(), Ordering::Relaxed);
            self.room.notify_one();
            return Some(Work::Commit(staged));
        }
        queue.is_closed.then_some(Work::End)
    }
}

/// The thread's own.
struct Run {
    shared: Arc<Shared>,
    writer: Writer,
    store: mvcc::Store,
    /// Batches committed, and of those, flushed.
    committed: u64,
    durable: u64,
}

impl Run {
    fn on_thread(mut self) {
        let _guard = EndGuard(Arc::clone(&self.shared));
        loop {
            let work = self.wait();
            if !self.step(work) {
                return;
            }
        }
    }

    /// The same as a task; each step takes its time first.
    async fn on_task(mut self, pace: Pace) {
        let _guard = EndGuard(Arc::clone(&self.shared));
        loop {
            let work = {
                let mut queue = self.shared.queue.lock();
                self.shared.next(&mut queue, self.committed, self.durable)
            };
            let Some(work) = work else {
                let woken = self.shared.task_work.notified();
                if tokio::time::timeout(STAGE_INTERVAL, woken).await.is_err() {
                    self.shared.is_stage_due.store(true, Ordering::Relaxed);
                }
                continue;
            };
            tokio::time::sleep(pace()).await;
            if !self.step(work) {
                return;
            }
        }
    }

    fn wait(&self) -> Work {
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        loop {
            if let Some(work) = shared.next(&mut queue, self.committed, self.durable) {
                return work;
            }
            if shared.work.wait_for(&mut queue, STAGE_INTERVAL).timed_out() {
                shared.is_stage_due.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Does one thing; `false` after the last.
    fn step(&mut self, work: Work) -> bool {
        let progress = &self.shared.progress;
        let done = match work {
            Work::Commit(staged) => {
                self.committed += 1;
                // For those who wait for room: the queue got shorter.
                progress.send_modify(|_progress| {});
                commit(&mut self.writer, &self.store, staged)
            }
            Work::Flush(batches) => {
                self.durable = batches;
                self.writer.flush_durable().inspect(|()| {
                    progress.send_modify(|progress| progress.durable = batches);
                })
            }
            Work::End => return false,
        };
        if let Err(failure) = done {
            tracing::error!(error = %failure, "cannot write the state");
            let failure = Some(failure);
            progress.send_modify(|progress| progress.failure = failure);
            return false;
        }
        true
    }
}

fn commit(writer: &mut Writer, store: &mvcc::Store, staged: Staged) -> Result<(), WriteError> {
    writer.commit(staged.batch)?;
    store.note_persisted(staged.revision);
    if let Some(revision) = staged.finished_compaction {
        tracing::info!(
            "compact-revision" = revision,
            "finished scheduled compaction"
        );
    }
    Ok(())
}

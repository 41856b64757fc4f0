//! Writes staged batches to the state's store, behind the state machine.
//!
//! The log is the durability point, so nobody waits for this: a batch is committed when its turn
//! comes, and flushed only when somebody wants to cut the log. What is lost in a crash is replayed.
//!
//! One thread of its own ([`Workers`]), because a commit may take long. Its queue holds [`STAGED_MAX`] batches;
//! when it is full, the state machine goes on without staging, and whoever applies waits for
//! [`Persister::room`]. After the first failed commit or flush nothing is written any more, and the
//! member has to stop.
//!
//! By turns with that the thread writes the store anew, if that is asked for or its files have grown ([`rewrite`]), and
//! removes the one before ([`retired`]).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use backend::{Backend, Batch, Reader, Site, WriteError, Writer};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use types::{Buckets, Histogram};

use crate::{Fatal, Pace, Workers};
use retired::Retired;
pub(crate) use rewrite::Beside;
pub use rewrite::DefragmentError;
use rewrite::{Ended, Keeper, Old, Rewrites};

mod retired;
mod rewrite;

/// Batches that may wait for the thread.
const STAGED_MAX: usize = 2;
/// Changes are staged after this at the latest, however few they are.
const STAGE_INTERVAL: Duration = Duration::from_secs(10);

/// How soon to look again when somebody does something about the place beside the store.
const PLACE_BUSY_INTERVAL: Duration = Duration::from_millis(5);

/// Changes of the state that go to the disk together.
pub(crate) struct Staged {
    pub(crate) batch: Batch,
    /// The entry it ends with, counted from 1.
    pub(crate) applied: u64,
    /// The store's revision with which the batch ends.
    pub(crate) revision: i64,
    /// The compaction whose physical work this batch ends.
    pub(crate) finished_compaction: Option<i64>,
}

/// Follows what the thread has written. Cheap to clone.
#[derive(Clone)]
pub struct Persister {
    shared: Arc<Shared>,
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
    /// The store that is written, as others see it.
    store: Mutex<InUse>,
    /// The length of the queue, to be asked without its lock: [`Persister::room`] asks under the
    /// lock of `progress`, which is taken under the queue's.
    queued: AtomicUsize,
    /// Held while the place beside the store changes hands.
    rewrites: Mutex<Rewrites>,
    /// How long commits took.
    commits: Histogram,
}

#[derive(Clone)]
struct InUse {
    reader: Reader,
    site: Arc<dyn Site>,
}

/// What is to be done with the store.
enum Item {
    Commit(Staged),
    /// Another store takes its place, beside which it has grown.
    TakeOver(Backend, Beside),
}

impl Item {
    /// Whether the log has the entries of this.
    fn is_behind(&self, log_durable: Option<u64>, floor: u64) -> bool {
        match self {
            Self::Commit(staged) => {
                log_durable.is_none_or(|durable| staged.applied <= durable.max(floor))
            }
            Self::TakeOver(..) => true,
        }
    }
}

#[derive(Default)]
struct Queue {
    /// Each with its number.
    batches: VecDeque<(u64, Item)>,
    /// Batches staged so far, counted from 1: what the store held when it was opened was batch 0,
    /// and is not known to be durable either.
    staged: u64,
    /// Flush as soon as so many batches are committed.
    flush_wanted: u64,
    is_closed: bool,
    /// How far the log is durable, counted from 1; `None`: there is no log to wait for.
    log_durable: Option<u64>,
    /// The entry that the store stood at when it was opened or installed: no log is needed up to it.
    log_floor: u64,
}

#[derive(Clone, Default)]
struct Progress {
    /// Batches that are in the store.
    committed: u64,
    /// Batches that survive a loss of power.
    durable: u64,
    failure: Option<WriteError>,
    has_ended: bool,
    /// The last copy of the store.
    rewritten: Ended,
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
    backend: Backend,
    store: mvcc::Store,
    workers: &Workers,
) -> std::io::Result<(Stager, Persister)> {
    let Backend {
        reader,
        writer,
        site,
    } = backend;
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            staged: 1,
            ..Queue::default()
        }),
        work: Condvar::new(),
        task_work: Notify::new(),
        room: Condvar::new(),
        progress: watch::Sender::new(Progress {
            committed: 1,
            ..Progress::default()
        }),
        is_stage_due: AtomicBool::new(false),
        store: Mutex::new(InUse { reader, site }),
        queued: AtomicUsize::new(0),
        rewrites: Mutex::default(),
        commits: Histogram::of_disk(),
    });
    let run = Run {
        shared: Arc::clone(&shared),
        writer,
        store,
        // The batch that was there at the start is committed.
        committed: 1,
        durable: 0,
        retired: Retired::default(),
        keeper: Keeper::default(),
        looked: Instant::now(),
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
    Ok((stager, Persister { shared }))
}

impl Persister {
    /// Waits until everything staged so far survives a loss of power. Safe to drop at any await.
    pub async fn durable(&self) -> Result<(), Fatal> {
        let wanted = {
            let mut queue = self.shared.queue.lock();
            queue.flush_wanted = queue.staged;
            self.shared.wake();
            queue.staged
        };
        self.settled(|progress| progress.durable >= wanted).await
    }

    /// How long commits of the state took so far (`etcd_disk_backend_commit_duration_seconds`).
    #[must_use]
    pub fn commit_durations(&self) -> Buckets {
        self.shared.commits.read()
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

    /// From now on no batch is written that ends with an entry after `index` (counted from 1) of the
    /// log, until the log is durable further: an entry may be committed and applied here before this
    /// member's own log has it on the disk, and a state that is ahead of its log cannot be started.
    pub fn log_is_durable(&self, index: u64) {
        let mut queue = self.shared.queue.lock();
        queue.log_durable = Some(index);
        // Each flush of the log comes here, and seldom has a batch waited for it.
        let is_awaited = !queue.batches.is_empty();
        drop(queue);
        if is_awaited {
            self.shared.wake();
        }
    }

    /// The store stands at the entry `index` (counted from 1) without the log: it was opened or
    /// installed there.
    pub fn stands_at(&self, index: u64) {
        let mut queue = self.shared.queue.lock();
        queue.log_floor = queue.log_floor.max(index);
        drop(queue);
        self.shared.wake();
    }

    /// The log gets shorter: see [`Persister::log_is_durable`].
    pub fn log_is_cut(&self, index: u64) {
        let mut queue = self.shared.queue.lock();
        queue.log_durable = queue.log_durable.map(|durable| durable.min(index));
    }

    /// Waits until everything staged so far is in the store. Safe to drop at any await.
    pub async fn written(&self) -> Result<(), Fatal> {
        let wanted = self.shared.queue.lock().staged;
        self.settled(|progress| progress.committed >= wanted).await
    }

    /// Waits until that is so, or cannot be any more.
    async fn settled(&self, is_so: impl Fn(&Progress) -> bool) -> Result<(), Fatal> {
        let mut progress = self.shared.progress.subscribe();
        let is_settled = |progress: &Progress| {
            is_so(progress) || progress.failure.is_some() || progress.has_ended
        };
        let Ok(progress) = progress.wait_for(is_settled).await else {
            return Err(Fatal::PersisterEnded);
        };
        match &progress.failure {
            Some(failure) => Err(Fatal::Write(failure.clone())),
            None if !is_so(&progress) => Err(Fatal::PersisterEnded),
            None => Ok(()),
        }
    }

    /// Writes the store anew, beside the one in use, which goes on meanwhile; returns when it has taken
    /// over. Calls that wait at the same time wait for the same. Safe to drop at any await: it goes on.
    pub async fn defragment(&self) -> Result<(), Arc<DefragmentError>> {
        let wanted = self.want_defragmented();
        let mut progress = self.shared.progress.subscribe();
        let has_come = |progress: &Progress| {
            progress.rewritten.number >= wanted || progress.failure.is_some() || progress.has_ended
        };
        match progress.wait_for(has_come).await {
            Ok(progress) if progress.rewritten.number == wanted => {
                progress.rewritten.failure.clone().map_or(Ok(()), Err)
            }
            // A later one has ended, or the member is about to stop, which others tell.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Has the store written anew, and does not wait. Says which copy that is.
    pub fn want_defragmented(&self) -> u64 {
        let wanted = self.shared.rewrites.lock().want();
        // Under the lock, so that the thread is not between looking and waiting.
        let _queue = self.shared.queue.lock();
        self.shared.wake();
        wanted
    }

    /// Has the place beside the store for a state that comes, and does `begin` there.
    pub(crate) fn take_place<T>(&self, begin: impl FnOnce(&dyn Site) -> T) -> (T, Beside) {
        let mut rewrites = self.shared.rewrites.lock();
        let beside = rewrites.give_way();
        let site = self.site();
        (begin(&*site), beside)
    }

    /// Removes what a state that came has left beside the store. Not if something is there that somebody makes: who
    /// began it has removed what was left.
    pub(crate) fn clear_place(&self) -> std::io::Result<()> {
        let rewrites = self.shared.rewrites.lock();
        match rewrites.is_place_in_use() {
            true => Ok(()),
            false => self.site().clear(),
        }
    }

    /// Bytes of the state's files.
    pub fn size_on_disk(&self) -> Result<u64, Fatal> {
        Ok(self.shared.reader().size_on_disk()?)
    }

    /// Where the state's store is, and where another one goes.
    fn site(&self) -> Arc<dyn Site> {
        Arc::clone(&self.shared.store.lock().site)
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

    /// Whether nothing waits for the persister: what is staged now leaves room for one more.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.queued.load(Ordering::Relaxed) == 0
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
        self.push(&mut queue, Item::Commit(staged));
        Ok(())
    }

    /// Another store takes the place of this one, and what waits for this one is dropped. Never
    /// waits.
    pub(crate) fn take_over(&self, backend: Backend, beside: Beside) -> Result<(), Fatal> {
        self.check()?;
        let mut queue = self.shared.queue.lock();
        queue.batches.clear();
        self.push(&mut queue, Item::TakeOver(backend, beside));
        self.shared.room.notify_all();
        Ok(())
    }

    fn push(&self, queue: &mut Queue, item: Item) {
        queue.staged += 1;
        let number = queue.staged;
        queue.batches.push_back((number, item));
        self.shared
            .queued
            .store(queue.batches.len(), Ordering::Relaxed);
        self.shared.is_stage_due.store(false, Ordering::Relaxed);
        self.shared.wake();
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
    /// The number it has when it is done.
    Do(u64, Item),
    /// Flush; so many batches are durable then.
    Flush(u64),
    /// Something about the store that was in use before.
    Retired,
    /// The next step of a copy.
    Rewrite,
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
    /// Reads the store in use.
    fn reader(&self) -> Reader {
        self.store.lock().reader.clone()
    }

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
        let may_go = queue
            .batches
            .front()
            .is_some_and(|(_, item)| item.is_behind(queue.log_durable, queue.log_floor));
        if may_go && let Some((number, item)) = queue.batches.pop_front() {
            self.queued.store(queue.batches.len(), Ordering::Relaxed);
            self.room.notify_one();
            return Some(Work::Do(number, item));
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
    retired: Retired,
    keeper: Keeper,
    /// When it was looked last whether something is due.
    looked: Instant,
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
            let (work, rest) = {
                let mut queue = self.shared.queue.lock();
                self.next(&mut queue)
            };
            let Some(work) = work else {
                let shared = Arc::clone(&self.shared);
                let woken = shared.task_work.notified();
                let waited = tokio::time::timeout(rest.unwrap_or(STAGE_INTERVAL), woken).await;
                if waited.is_err() { /* then something may be due */ }
                self.look();
                continue;
            };
            tokio::time::sleep(pace()).await;
            if !self.step(work) {
                return;
            }
        }
    }

    fn wait(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        loop {
            let (work, rest) = self.next(&mut queue);
            if let Some(work) = work {
                return work;
            }
            let rest = rest.unwrap_or(STAGE_INTERVAL);
            if shared.work.wait_for(&mut queue, rest).timed_out() { /* then something may be due */
            }
            self.look();
        }
    }

    /// What to do, and otherwise how long until a chore's turn comes: a step of a copy, or of a removal.
    fn next(&self, queue: &mut Queue) -> (Option<Work>, Option<Duration>) {
        let rewrite = match self.shared.rewrites.try_lock() {
            // A copy that ends before has another store to be removed.
            _ if self.retired.is_being_removed() => None,
            Some(rewrites) => rewrites.rest(),
            // The place beside the store changes hands, and may take its time.
            None => Some(PLACE_BUSY_INTERVAL),
        };
        let (work, rest) = match self.retired.rest() {
            Some(rest) if rewrite.is_none_or(|it| rest < it) => (Work::Retired, Some(rest)),
            _ => (Work::Rewrite, rewrite),
        };
        // Whatever else waits: it has had its turn while this rested. But the thread's end does not wait for chores.
        let rest = rest.filter(|_| !queue.is_closed);
        if rest.is_some_and(|rest| rest.is_zero()) {
            return (Some(work), rest);
        }
        let work = self.shared.next(queue, self.committed, self.durable);
        (work, rest)
    }

    /// Looks from time to time whether something is due.
    fn look(&mut self) {
        if self.looked.elapsed() < STAGE_INTERVAL {
            return;
        }
        self.looked = Instant::now();
        self.shared.is_stage_due.store(true, Ordering::Relaxed);
        let reader = self.shared.reader();
        // Who holds them may take its time, and nothing could be staged meanwhile; there is a next look.
        let rewrites = self.shared.rewrites.try_lock();
        if let Some(mut rewrites) = rewrites
            && self.keeper.wants_rewrite(&reader, &self.store)
        {
            rewrites.want();
        }
    }

    /// Does one thing; `false` after the last.
    fn step(&mut self, work: Work) -> bool {
        let shared = Arc::clone(&self.shared);
        let progress = &shared.progress;
        let done = match work {
            Work::Do(number, item) => {
                // For those who wait for room: the queue got shorter.
                progress.send_modify(|_progress| {});
                self.committed = number;
                let done = match item {
                    Item::Commit(staged) => {
                        let begun = Instant::now();
                        let done = self.commit(staged);
                        shared.commits.observe(begun.elapsed());
                        done
                    }
                    Item::TakeOver(backend, _beside) => {
                        self.durable = number;
                        self.take_over(backend)
                    }
                };
                done.inspect(|()| {
                    progress.send_modify(|progress| {
                        progress.committed = number;
                        progress.durable = self.durable;
                    });
                })
                .and_then(|()| self.reclaim())
            }
            Work::Flush(batches) => {
                self.durable = batches;
                self.writer.flush_durable().inspect(|()| {
                    progress.send_modify(|progress| progress.durable = batches);
                })
            }
            Work::Retired => {
                if let Some(ended) = self.retired.step() {
                    progress.send_modify(|progress| progress.rewritten = ended);
                }
                Ok(())
            }
            Work::Rewrite => self.rewrite(),
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

    /// Goes on with the copy of the store.
    fn rewrite(&mut self) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        let ended = {
            // Until the copy has taken over, nobody else may have the place where it is.
            let mut rewrites = shared.rewrites.lock();
            let InUse { reader, site } = shared.store.lock().clone();
            let old = Old {
                reader: &reader,
                site: &*site,
                store: &self.store,
            };
            match rewrites.step(&old) {
                Ok(None) => return Ok(()),
                Ok(Some(new)) => {
                    let new_reader = new.reader.clone();
                    self.take_over(new)?;
                    self.store.defragmented(&reader, &new_reader);
                    self.durable = self.committed;
                    rewrites.end()
                }
                Err(error) => rewrites.fail(error),
            }
        };
        // Who defragments to have room has it when it is said to be done, if nobody reads the old store any more.
        let ended = self.retired.keep(ended);
        let durable = self.durable;
        shared.progress.send_modify(|progress| {
            progress.durable = durable;
            if let Some(ended) = ended {
                progress.rewritten = ended;
            }
        });
        Ok(())
    }

    fn commit(&mut self, staged: Staged) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        let mut rewrites = shared.rewrites.lock();
        if let Err(error) = rewrites.commit(&staged.batch) {
            let ended = rewrites.fail(error);
            let progress = &shared.progress;
            progress.send_modify(|progress| progress.rewritten = ended);
        }
        drop(rewrites);
        commit(&mut self.writer, &self.store, staged)
    }

    /// Takes back room in the store in use, if there is much. Not while a copy of it goes on, with which its files go.
    fn reclaim(&mut self) -> Result<(), WriteError> {
        if self.shared.rewrites.lock().is_copying() {
            return Ok(());
        }
        let reader = self.shared.reader();
        match self.keeper.wants_reclaim(&reader, &self.store) {
            true => self.writer.reclaim(),
            false => Ok(()),
        }
    }

    /// Goes on with `backend`, which holds everything staged, and is durable.
    fn take_over(&mut self, backend: Backend) -> Result<(), WriteError> {
        let taken = backend.site.take_over();
        taken.map_err(|error| WriteError::TakeOver(Arc::new(error)))?;
        self.writer = backend.writer;
        let in_use = InUse {
            reader: backend.reader,
            site: backend.site,
        };
        let before = std::mem::replace(&mut *self.shared.store.lock(), in_use);
        self.retired.put(before.reader);
        Ok(())
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

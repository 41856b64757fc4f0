//! The thread that makes the log durable: group commit.
//!
//! It takes everything that has queued, writes it as one batch, flushes once, and only then tells
//! those who wait. What comes meanwhile queues for the next round, so rounds grow with the load and
//! nobody waits for company. A failed write or flush is final: everything that waits and everything
//! that comes later fails, and the member has to stop.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use apply::Pace;
use backend::schema::raft::{RaftMetaKey, encode_log, encode_meta};
use backend::{Batch, Bucket, WriteError};
use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::group::{self, CorruptGroup, Group, PackedEntry};
use super::{Shared, marks};
use crate::error::{Fatal, FatalCell, PanicGuard};
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Bytes of commands in one round. What is over waits for the next one: a batch of the backend
/// stops other readers and writers of the process while it is applied.
const ROUND_BYTES: usize = 4 * 1024 * 1024;

/// Records of purged groups removed in one round, for the same reason.
const GARBAGE_GROUPS_PER_ROUND: usize = 64;

/// What the thread is asked to do, in the order of the queue.
pub(super) enum Write {
    /// Make entries durable.
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<TypeConfig>,
    },
    /// Make a vote durable.
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Note durably up to where ids are reserved.
    Ids {
        upto: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Remove the entries after this one.
    Truncate { after: Option<LogId> },
    /// Remove the entries up to this one.
    Purge { upto: LogId },
    /// Finish.
    Close,
}

/// Where the log's records are.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The groups: first and last index of each.
    pub(super) groups: BTreeMap<u64, u64>,
    /// Groups that are purged and not yet removed.
    pub(super) garbage: VecDeque<u64>,
}

/// The log could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The backend refused.
    #[error("cannot write the log")]
    Write(#[from] WriteError),
    /// A group that has to be cut could not be read.
    #[error("cannot read the log")]
    Read(#[from] backend::ReadError),
    /// A group that has to be cut is broken.
    #[error(transparent)]
    Corrupt(#[from] CorruptGroup),
}

pub(super) struct Flusher {
    pub(super) backend: backend::Backend,
    pub(super) queue: mpsc::Receiver<Write>,
    pub(super) shared: Arc<Shared>,
    pub(super) records: Records,
    pub(super) fatal: FatalCell,
    /// The committed mark as it is on the disk.
    pub(super) committed: Option<LogId>,
    /// Nothing comes any more.
    pub(super) is_closed: bool,
}

/// What waits for a round.
#[derive(Default)]
struct Round {
    batch: Batch,
    open: Option<Group>,
    bytes: usize,
    /// The entries of closed groups.
    packed: Vec<PackedEntry>,
    /// Whether somebody waits for the flush.
    awaited: bool,
    /// Whether the committed mark is to be written by itself.
    marks_committed: bool,
    appends: Vec<IOFlushed<TypeConfig>>,
    /// Who waits for a mark.
    marks: Vec<oneshot::Sender<io::Result<()>>>,
    truncations: usize,
    closing: bool,
}

impl Flusher {
    pub(super) fn run(mut self) {
        let _guard = PanicGuard::new("the thread that flushes the raft log", &self.fatal);
        while let Some(write) = self.next() {
            if let Err(failed) = self.round(write) {
                return self.refuse_until_closed(&failed);
            }
            if self.is_closed {
                return;
            }
        }
    }

    /// The same as a task; each round takes its time first.
    pub(super) async fn run_as_task(mut self, pace: Pace) {
        while let Some(write) = self.queue.recv().await {
            tokio::time::sleep(pace()).await;
            let Err(failed) = self.round(write) else {
                if self.is_closed {
                    return;
                }
                continue;
            };
            while let Some(write) = self.queue.recv().await {
                if !failed.refuse(write) {
                    return;
                }
            }
            if self.is_closed {
                return;
            }
        }
    }

    /// Makes what has queued durable, and tells those who wait.
    fn round(&mut self, first: Write) -> Result<(), Failed> {
        let mut round = Round::default();
        let written = self
            .collect(first, &mut round)
            .and_then(|()| self.write(&mut round));
        self.is_closed = round.closing;
        if let Err(error) = written {
            return Err(self.fail(round, error));
        }
        let last = self.records.groups.last_key_value().map(|(_, last)| *last);
        let last = last.filter(|_| round.awaited);
        self.shared.flushed(last, round.truncations);
        let packed = std::mem::take(&mut round.packed);
        round.complete();
        self.settle(packed);
        Ok(())
    }

    /// Lets go of what nobody will apply any more.
    fn settle(&self, packed: Vec<PackedEntry>) {
        let applied = self.shared.progress.applied();
        let settled = self.shared.index.write().settle(packed, applied);
        // Only here, without the lock: there may be thousands of commands in these.
        drop(settled);
    }

    /// The next thing to do. Nothing to do is the time to remove what was purged.
    fn next(&mut self) -> Option<Write> {
        loop {
            match self.queue.try_recv() {
                Ok(write) => return Some(write),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) if self.records.garbage.is_empty() => {
                    return self.queue.blocking_recv();
                }
                Err(mpsc::error::TryRecvError::Empty) => {
                    let mut batch = Batch::new();
                    self.sweep(&mut batch);
                    if let Err(error) = self.backend.writer.commit(batch) {
                        let failed = self.fail(Round::default(), error.into());
                        self.refuse_until_closed(&failed);
                        return None;
                    }
                }
            }
        }
    }

    /// Takes what has queued.
    fn collect(&mut self, first: Write, round: &mut Round) -> Result<(), FlushError> {
        let mut next = Some(first);
        while let Some(write) = next {
            self.stage(write, round)?;
            if round.closing || round.bytes >= ROUND_BYTES {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        Ok(())
    }

    fn stage(&mut self, write: Write, round: &mut Round) -> Result<(), FlushError> {
        match write {
            Write::Append { entries, done } => {
                for entry in &entries {
                    self.pack(entry, round);
                }
                round.appends.push(done);
                round.awaited = true;
            }
            Write::Vote { vote, done } => {
                put_mark(
                    &mut round.batch,
                    RaftMetaKey::Vote,
                    marks::encode_vote(&vote),
                );
                round.marks.push(done);
                round.awaited = true;
            }
            Write::Ids { upto, done } => {
                let mark = marks::encode_ids(upto);
                put_mark(&mut round.batch, RaftMetaKey::ReservedIds, mark);
                round.marks.push(done);
                round.awaited = true;
            }
            Write::Truncate { after } => {
                self.truncate(after, round)?;
                round.truncations += 1;
            }
            Write::Purge { upto } => self.purge(upto, round),
            Write::Close => {
                round.closing = true;
                round.marks_committed = true;
                round.awaited = true;
            }
        }
        Ok(())
    }

    fn pack(&mut self, entry: &Entry, round: &mut Round) {
        round.bytes += group::payload_len(entry);
        if !round.open.as_mut().is_some_and(|group| group.push(entry)) {
            self.seal(round);
            round.open = Some(Group::begin(entry, self.committed_at(entry.log_id.index)));
        }
    }

    /// Closes the group that is being filled.
    fn seal(&mut self, round: &mut Round) {
        if let Some(group) = round.open.take() {
            let first = group.first();
            self.records.groups.insert(first, group.last());
            let (record, packed) = group.finish();
            round.packed.extend(packed);
            round.batch.put(Bucket::RaftLog, key(first), record);
        }
    }

    /// Removes every entry after `after`: whole groups, and the end of at most one.
    fn truncate(&mut self, after: Option<LogId>, round: &mut Round) -> Result<(), FlushError> {
        self.seal(round);
        let from = after.map_or(0, |after| after.index + 1);
        for first in self.records.groups.split_off(&from).into_keys() {
            round.batch.delete(Bucket::RaftLog, key(first));
        }
        let Some(mut group) = self.records.groups.last_entry() else {
            return Ok(());
        };
        if *group.get() < from {
            return Ok(());
        }
        let first = *group.key();
        *group.get_mut() = from - 1;
        // The group may still be in this round's batch: write what there is, then read it back.
        self.backend
            .writer
            .commit(std::mem::take(&mut round.batch))?;
        let bytes = self
            .backend
            .reader
            .get(Bucket::RaftLog, &encode_log(first))?
            .unwrap_or_default();
        let group = group::decode(first, &bytes)?;
        let entries = group.entries.iter().map(|(entry, _packed)| entry);
        let mut kept = entries.take_while(|entry| entry.log_id.index < from);
        let begin = kept.next().expect("the group begins before the cut");
        let mut cut = Group::begin(begin, group.committed);
        for entry in kept {
            let fits = cut.push(entry);
            debug_assert!(fits, "a part of a group is not larger than the group");
        }
        round.batch.put(Bucket::RaftLog, key(first), cut.finish().0);
        Ok(())
    }

    /// Notes what is purged. The groups are removed a few at a time; until then the mark hides
    /// them.
    fn purge(&mut self, upto: LogId, round: &mut Round) {
        self.seal(round);
        round.marks_committed = true;
        put_mark(
            &mut round.batch,
            RaftMetaKey::Purged,
            marks::encode_log_id(upto),
        );
        while let Some(group) = self.records.groups.first_entry() {
            if *group.get() > upto.index {
                break;
            }
            self.records.garbage.push_back(group.remove_entry().0);
        }
    }

    fn sweep(&mut self, batch: &mut Batch) {
        let count = self.records.garbage.len().min(GARBAGE_GROUPS_PER_ROUND);
        for first in self.records.garbage.drain(..count) {
            batch.delete(Bucket::RaftLog, key(first));
        }
    }

    fn write(&mut self, round: &mut Round) -> Result<(), FlushError> {
        self.seal(round);
        self.sweep(&mut round.batch);
        if round.marks_committed {
            self.mark_committed(&mut round.batch);
        }
        let begun = Instant::now();
        if !round.batch.is_empty() {
            self.backend
                .writer
                .commit(std::mem::take(&mut round.batch))?;
            self.shared.counters.writes.observe(begun.elapsed());
        }
        if round.awaited {
            let written = Instant::now();
            self.backend.writer.flush_durable()?;
            let took = written.elapsed();
            self.shared.counters.flushed(round.bytes, took);
        }
        Ok(())
    }

    /// The committed mark for a record that is written after the entries before `index`. It never
    /// runs ahead of the entries: a restart applies up to it.
    fn committed_at(&mut self, index: u64) -> Option<LogId> {
        let committed = self.shared.index.read().committed;
        if committed.is_some_and(|mark| mark.index <= index) {
            self.committed = committed;
        }
        self.committed
    }

    /// Writes the committed mark by itself, for when the groups that hold it go.
    fn mark_committed(&mut self, batch: &mut Batch) {
        let last = self.records.groups.last_key_value().map(|(_, last)| *last);
        if let Some(mark) = last.and_then(|last| self.committed_at(last)) {
            put_mark(batch, RaftMetaKey::Committed, marks::encode_log_id(mark));
        }
    }

    /// Fails everything that waits.
    fn fail(&self, round: Round, error: FlushError) -> Failed {
        let error = Arc::new(error);
        tracing::error!(error = %crate::error::Chain(&*error), "the raft log cannot be written");
        self.fatal.set(Fatal::Log(Arc::clone(&error)));
        round.refuse(&error);
        Failed(error)
    }

    /// Fails everything that comes.
    fn refuse_until_closed(&mut self, failed: &Failed) {
        while !self.is_closed
            && let Some(write) = self.queue.blocking_recv()
        {
            self.is_closed = !failed.refuse(write);
        }
    }
}

/// Nothing can be written any more.
struct Failed(Arc<FlushError>);

impl Failed {
    /// Refuses one more; `false` after the last.
    fn refuse(&self, write: Write) -> bool {
        let mut late = Round::default();
        match write {
            Write::Append { done, .. } => late.appends.push(done),
            Write::Vote { done, .. } | Write::Ids { done, .. } => late.marks.push(done),
            Write::Truncate { .. } | Write::Purge { .. } => {}
            Write::Close => return false,
        }
        late.refuse(&self.0);
        true
    }
}

/// The key of the group that begins at `first`.
fn key(first: u64) -> Bytes {
    Bytes::copy_from_slice(&encode_log(first))
}

fn put_mark(batch: &mut Batch, mark: RaftMetaKey, value: Bytes) {
    batch.put(Bucket::RaftMeta, encode_meta(mark), value);
}

impl Round {
    fn complete(self) {
        for mark in self.marks {
            if mark.send(Ok(())).is_err() { /* receiver gone: raft has stopped */ }
        }
        // The newest first. openraft keeps only the newest completion and passes it on by a task
        // that sleeps when it is called twice in a row; the older ones are then no news to it.
        for append in self.appends.into_iter().rev() {
            append.io_completed(Ok(()));
        }
    }

    fn refuse(self, error: &Arc<FlushError>) {
        for mark in self.marks {
            if mark.send(Err(io::Error::other(Arc::clone(error)))).is_err() {
                // receiver gone: raft has stopped
            }
        }
        for append in self.appends {
            append.io_completed(Err(io::Error::other(Arc::clone(error))));
        }
    }
}

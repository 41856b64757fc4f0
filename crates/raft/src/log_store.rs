//! The Raft log and the vote, durable.
//!
//! openraft appends one to three entries at a time and does not wait for them: `append` puts them
//! into memory, where they can be read at once, and into the queue of the [`flusher`], and returns.
//! The flusher's thread packs whatever has queued into one record, writes it with one durable flush
//! and completes the callbacks: group commit, without a timer.
//!
//! ```text
//!  append ──> index (memory, reads) ─┐
//!         ──> queue ──> flusher thread: [e7 e8 | e9 | vote | e10] = 1 batch, 1 flush ──> callbacks
//!  save_vote ─> queue ──┘ (awaited)
//! ```
//!
//! On the disk (`RaftLog`, `RaftMeta`): groups of neighbouring entries, keyed by the index of the
//! first ([`group`]), and four marks ([`marks`]). Truncation removes groups and rewrites at most
//! one. Purging writes the purged mark and removes whole groups later, so a group may begin below
//! the mark: those entries are not read back. The committed mark is written along with the next
//! group; without it a restart would serve an older state until a leader has spoken.
//!
//! What it is not: it knows commands only as bytes, and never asks what has been applied. That the
//! log is purged only where the state is durable is [`log_cutter`](crate::log_cutter)'s business.

mod flusher;
mod group;
mod index;
mod marks;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use apply::{Persister, Workers};
use backend::schema::KeyError;
use backend::schema::raft::{RaftMetaKey, decode_log, encode_meta};
use backend::{Backend, Bucket, ReadError};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};
use types::{Buckets, Histogram};

pub use flusher::FlushError;
pub use group::CorruptGroup;
pub(crate) use group::{pack, unpack_all};
pub(crate) use marks::encode_vote;

use crate::codec::DecodeError;
use crate::error::FatalCell;
use crate::progress::Progress;
use crate::type_config::{Entry, LogId, TypeConfig, Vote};
use flusher::{Flusher, Records, Write};
use group::Decoded;
use index::Index;

/// Writes that wait for the flusher. openraft waits when it is full, and with it the proposer,
/// whose own queue then refuses.
const WRITE_QUEUE_LEN_MAX: usize = 4096;

/// Bytes of commands read at a time for a peer, a single larger entry aside: as much as etcd sends in
/// one message.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A record could not be read.
    #[error("cannot read the raft log")]
    Read(#[from] ReadError),
    /// A group is broken.
    #[error(transparent)]
    Corrupt(#[from] CorruptGroup),
    /// A record of the bucket that is no group.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Entries are missing.
    #[error("the raft log has a hole: entry {found} where {expected} belongs")]
    Hole {
        /// What is there.
        found: u64,
        /// What should be there.
        expected: u64,
    },
    /// A mark is broken.
    #[error("the mark {mark:?} of bucket RaftMeta is broken")]
    Mark {
        /// Which.
        mark: &'static str,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
    /// There is no thread for the flusher.
    #[error("cannot start the thread that flushes the raft log")]
    Thread(#[source] io::Error),
}

/// What the reading and the writing side share.
#[derive(Debug)]
pub(crate) struct Shared {
    index: RwLock<Index>,
    counters: Counters,
    progress: Arc<Progress>,
    /// Truncations on their way to the disk: until they are there, what is durable says nothing.
    truncations: AtomicUsize,
    /// The state's writer, which must not run ahead of the log.
    state: Option<Persister>,
    /// Up to where ids of proposals were reserved when it was opened.
    reserved_ids: u64,
}

impl Shared {
    /// Says how far the log is durable, counted from 1.
    fn tell_state(&self, durable: u64) {
        if let Some(state) = &self.state {
            state.log_is_durable(durable);
        }
    }

    /// After a flush: everything up to `last` is durable, and so is every truncation before it.
    fn flushed(&self, last: Option<u64>, truncated: usize) {
        // Under the lock that a truncation takes.
        let index = self.index.read();
        let before = self.truncations.fetch_sub(truncated, Ordering::AcqRel);
        if let Some(last) = last.filter(|_| before == truncated) {
            self.tell_state(last + 1);
        }
        drop(index);
    }
}

/// How much was written.
#[derive(Debug)]
struct Counters {
    flushes: AtomicU64,
    bytes: AtomicU64,
    /// How long the records of a round took to be written, without being durable.
    writes: Histogram,
    /// How long durable flushes took.
    fsyncs: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            flushes: AtomicU64::default(),
            bytes: AtomicU64::default(),
            writes: Histogram::of_disk(),
            fsyncs: Histogram::of_disk(),
        }
    }
}

impl Counters {
    fn flushed(&self, bytes: usize, took: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.fsyncs.observe(took);
    }
}

/// The writing side; openraft holds it.
#[derive(Debug)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Write>,
}

/// Reads the log. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

/// The member's hold on the log: closes it, and says how long it is.
#[derive(Debug)]
pub(crate) struct LogHandle {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Write>,
    worker: Mutex<Option<Worker>>,
}

/// Where the flusher runs.
#[derive(Debug)]
enum Worker {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Worker {
    /// Waits for its end; `false` if it has panicked.
    async fn ended(self) -> bool {
        match self {
            Self::Thread(thread) => {
                let joined = tokio::task::spawn_blocking(move || thread.join()).await;
                matches!(joined, Ok(Ok(())))
            }
            Self::Task(task) => task.await.is_ok(),
        }
    }
}

/// Opens the log and starts its flusher.
pub(crate) fn open(
    backend: Backend,
    progress: Arc<Progress>,
    fatal: FatalCell,
    workers: &Workers,
    durable: Option<Persister>,
) -> Result<(LogStore, LogHandle), OpenError> {
    let (index, records) = load(&backend)?;
    let reserved_ids = read_mark(&backend.reader, RaftMetaKey::ReservedIds, marks::decode_ids)?;
    let committed = index.committed;
    let counters = Counters::default();
    let shared = Arc::new(Shared {
        index: RwLock::new(index),
        counters,
        progress,
        truncations: AtomicUsize::new(0),
        state: durable,
        reserved_ids: reserved_ids.unwrap_or(0),
    });
    let last = shared.index.read().last_log_id();
    shared.tell_state(last.map_or(0, |id| id.index + 1));
    let (queue, writes) = mpsc::channel(WRITE_QUEUE_LEN_MAX);
    let shared_with = Arc::clone(&shared);
    let flusher = Flusher {
        backend,
        queue: writes,
        shared: shared_with,
        records,
        fatal,
        committed,
        is_closed: false,
    };
    let worker = match workers {
        Workers::Threads => std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || flusher.run())
            .map(Worker::Thread)
            .map_err(OpenError::Thread)?,
        Workers::Tasks(pace) => Worker::Task(tokio::spawn(flusher.run_as_task(Arc::clone(pace)))),
    };
    let handle = LogHandle {
        shared: Arc::clone(&shared),
        queue: queue.clone(),
        worker: Mutex::new(Some(worker)),
    };
    Ok((LogStore { shared, queue }, handle))
}

fn load(backend: &Backend) -> Result<(Index, Records), OpenError> {
    let reader = &backend.reader;
    let vote = read_mark(reader, RaftMetaKey::Vote, marks::decode_vote)?;
    let committed = read_mark(reader, RaftMetaKey::Committed, marks::decode_log_id)?;
    let purged = read_mark(reader, RaftMetaKey::Purged, marks::decode_log_id)?;
    let mut index = Index::new(vote, committed, purged);
    let mut records = Records::default();
    // The first entry that is to be read back. A group may begin below it, but only the first.
    let kept = purged.map_or(0, |purged| purged.index + 1);
    let mut next = kept;
    for record in reader.scan(Bucket::RaftLog, &[], None) {
        let (key, bytes) = record?;
        let first = decode_log(&key)?;
        let Decoded { committed, entries } = group::decode(first, &bytes)?;
        index.committed = index.committed.max(committed);
        let last = first + entries.len() as u64 - 1;
        if last < kept {
            records.garbage.push_back(first);
            continue;
        }
        if first > next || (first < next && next > kept) {
            return Err(OpenError::Hole {
                found: first,
                expected: next,
            });
        }
        records.groups.insert(first, last);
        for (entry, packed) in entries {
            if entry.log_id.index >= kept {
                index.push(entry);
                index.settle(vec![packed], 0);
            }
        }
        next = last + 1;
    }
    Ok((index, records))
}

fn read_mark<T>(
    reader: &backend::Reader,
    mark: RaftMetaKey,
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<Option<T>, OpenError> {
    let bytes = reader.get(Bucket::RaftMeta, encode_meta(mark))?;
    let decoded = bytes.map(|bytes| decode(&bytes)).transpose();
    decoded.map_err(|source| OpenError::Mark {
        mark: mark.name(),
        source,
    })
}

/// The flusher's thread has ended: it was closed, or it panicked.
fn closed() -> io::Error {
    io::Error::other("the raft log is closed")
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let index = self.shared.index.read();
        Ok(LogState {
            last_purged_log_id: index.purged,
            last_log_id: index.last_log_id(),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        let write = Write::Vote { vote: *vote, done };
        self.queue.send(write).await.map_err(|_gone| closed())?;
        durable.await.map_err(|_gone| closed())??;
        self.shared.index.write().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.index.write().committed = committed;
        self.shared.progress.commit(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.index.read().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut index = self.shared.index.write();
            for entry in &entries {
                index.push(entry.clone());
            }
        }
        self.queue
            .send(Write::Append { entries, done })
            .await
            .map_err(|_gone| closed())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        {
            let mut index = self.shared.index.write();
            index.truncate_after(last);
            self.shared.truncations.fetch_add(1, Ordering::AcqRel);
            if let Some(state) = &self.shared.state {
                state.log_is_cut(last.map_or(0, |id| id.index + 1));
            }
        }
        self.queue
            .send(Write::Truncate { after: last })
            .await
            .map_err(|_gone| closed())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared.index.write().purge(upto);
        self.queue
            .send(Write::Purge { upto })
            .await
            .map_err(|_gone| closed())
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.shared.index.read().range(&range)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let index = self.shared.index.read();
        let end = index.limit(start, end, READ_BYTES_MAX);
        index.range(&(start..end))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.index.read().vote)
    }
}

impl LogHandle {
    /// Writes what is left, and returns when the thread has ended.
    pub(crate) async fn close(&self) {
        if self.queue.send(Write::Close).await.is_err() { /* it has ended already */ }
        let Some(worker) = self.worker.lock().take() else {
            return;
        };
        if !worker.ended().await {
            tracing::error!("the thread that flushes the raft log has panicked");
        }
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<u64> {
        self.shared.index.read().purged.map(|id| id.index)
    }

    /// The last entry of the log, if it ever had one: it may have been purged.
    pub(crate) fn last(&self) -> Option<u64> {
        let index = self.shared.index.read();
        let last = index.last_log_id().map(|id| id.index);
        last.max(index.purged.map(|id| id.index))
    }

    /// Whether this entry is in the log, or was when it was purged.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        let index = self.shared.index.read();
        index.purged.is_some_and(|purged| purged.index >= id.index)
            || index.log_id(id.index) == Some(id)
    }

    /// The term of the vote.
    pub(crate) fn voted_term(&self) -> Option<u64> {
        let vote = self.shared.index.read().vote;
        vote.map(|vote| vote.leader_id.term)
    }

    /// Up to where ids of proposals were reserved before this start.
    pub(crate) fn reserved_ids(&self) -> u64 {
        self.shared.reserved_ids
    }

    /// Reserves ids of proposals, durably.
    pub(crate) async fn reserve_ids(&self, upto: u64) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        let write = Write::Ids { upto, done };
        self.queue.send(write).await.map_err(|_gone| closed())?;
        durable.await.map_err(|_gone| closed())?
    }

    /// Removes every entry: the next one is that after `id`. Before Raft has begun.
    pub(crate) async fn begin_after(&self, store: &mut LogStore, id: LogId) -> io::Result<()> {
        let purged = self.shared.index.read().purged;
        store.truncate_after(purged).await?;
        store.purge(id).await
    }

    /// Bytes of commands in the entries after `index`.
    pub(crate) fn bytes_after(&self, index: Option<u64>) -> u64 {
        self.shared.index.read().bytes_after(index)
    }

    /// See [`Index::cut`].
    pub(crate) fn cut(&self, upto: u64, entries: u64, bytes: u64) -> Option<u64> {
        self.shared.index.read().cut(upto, entries, bytes)
    }

    /// Whether there is anything in the log, or was.
    pub(crate) fn is_pristine(&self) -> bool {
        let index = self.shared.index.read();
        index.last_log_id().is_none() && index.vote.is_none()
    }

    /// How long writing the log took so far, and making it durable.
    pub(crate) fn durations(&self) -> (Buckets, Buckets) {
        let counters = &self.shared.counters;
        (counters.writes.read(), counters.fsyncs.read())
    }

    /// Durable flushes so far, and the bytes of commands they held.
    pub(crate) fn flushed(&self) -> (u64, u64) {
        let counters = &self.shared.counters;
        (
            counters.flushes.load(Ordering::Relaxed),
            counters.bytes.load(Ordering::Relaxed),
        )
    }
}

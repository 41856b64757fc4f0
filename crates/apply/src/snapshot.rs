//! The whole state, on its way to another member.
//!
//! Sending: [`StateMachine::pin`] holds the state of one entry without copying it. Its records are
//! what the state's store holds of it, in an order in which another store can take them, in chunks
//! that come out the same however often they are read; the physical work of compactions waits while
//! a pin lives, everything else goes on. What changes in place (leases, alarms, members, marks) is
//! small, and is copied when the pin is made.
//!
//! Receiving: [`Incoming`] writes the records into a store of their own, beside the one in use, with
//! a mark in each batch that says how far it has come. A finished one is put in the place of the other
//! in one step ([`StateMachine::install`]): after a crash either the one or the other is there, whole.
//!
//! ```text
//!  pin ─> chunk 0, 1, 2 …  ─────>  Incoming::add ─> finish (loaded, durable) ─> install ─> persister
//!  leader                          member that is behind                        readers    the disk
//! ```
//!
//! What it is not: it knows nothing of connections; `raft/snapshot` does.

use std::fmt;
use std::sync::Arc;

use backend::schema::meta::{self, MetaKey};
use backend::{Backend, Batch, Bucket};
use bytes::{Buf, BufMut, Bytes};

use crate::persister::Beside;
use crate::state_machine::Loaded;
use crate::{Fatal, LogPosition, OpenError, Persister, StateMachine, storage};

/// Bytes of records in one chunk, at most, unless a single record is larger.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Records in one chunk, at most: they are one batch for the store that takes them, and a batch of
/// many records stops everybody who reads a store.
const CHUNK_RECORDS_MAX: usize = 512;

/// What is received is made durable after so many bytes: less has to be sent again after a crash.
const FLUSH_BYTES: usize = 16 << 20;

/// A record of the state's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its bucket.
    pub bucket: Bucket,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

impl Record {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// The state of one entry, held still. Cheap to clone; the last one lets it go.
///
/// Its chunks may be read once [`Persister::written`] has returned.
#[derive(Clone, Debug)]
pub struct Pinned {
    held: Arc<Held>,
}

struct Held {
    applied: LogPosition,
    membership: Bytes,
    /// Everything but the segments.
    small: Vec<Record>,
    store: mvcc::Pinned,
    bytes: u64,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("applied", &self.applied)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Where a chunk of a pinned state begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(At);

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Small(usize),
    Segment(Bytes),
}

impl Default for Place {
    /// The beginning.
    fn default() -> Self {
        Self(At::Small(0))
    }
}

/// Some records of a pinned state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The records.
    pub records: Vec<Record>,
    /// Bytes of their keys and values.
    pub bytes: usize,
    /// Where the next chunk begins; `None`: this is the last one.
    pub next: Option<Place>,
}

/// How large a chunk may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkBounds {
    pub(crate) bytes: usize,
    pub(crate) records: usize,
}

impl Default for ChunkBounds {
    fn default() -> Self {
        Self {
            bytes: CHUNK_BYTES_MAX,
            records: CHUNK_RECORDS_MAX,
        }
    }
}

impl ChunkBounds {
    /// Whether this record has its place in the chunk. The first one always has.
    fn let_in(self, chunk: &Chunk, record: &Record) -> bool {
        chunk.records.is_empty()
            || (chunk.records.len() < self.records && chunk.bytes + record.bytes() <= self.bytes)
    }
}

impl Chunk {
    fn push(&mut self, record: Record) {
        self.bytes += record.bytes();
        self.records.push(record);
    }
}

impl Pinned {
    /// The entry.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.held.applied
    }

    /// What Raft wants back with it (see [`StateMachine::set_membership`]).
    #[must_use]
    pub fn membership(&self) -> Bytes {
        self.held.membership.clone()
    }

    /// About how many bytes its records are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.held.bytes
    }

    /// The revisioned store as of the entry.
    #[must_use]
    pub fn store(&self) -> &mvcc::Pinned {
        &self.held.store
    }

    /// Everything but the segments.
    pub(crate) fn small(&self) -> &[Record] {
        &self.held.small
    }

    /// The chunk that begins here. Reads the disk, so it blocks.
    pub fn chunk(&self, from: &Place) -> Result<Chunk, Fatal> {
        self.chunk_within(from, ChunkBounds::default())
    }

    pub(crate) fn chunk_within(&self, from: &Place, bounds: ChunkBounds) -> Result<Chunk, Fatal> {
        let mut chunk = Chunk {
            records: Vec::new(),
            bytes: 0,
            next: None,
        };
        let segment = match &from.0 {
            At::Segment(segment) => segment.clone(),
            At::Small(first) => {
                for (place, record) in self.held.small.iter().enumerate().skip(*first) {
                    if !bounds.let_in(&chunk, record) {
                        chunk.next = Some(Place(At::Small(place)));
                        return Ok(chunk);
                    }
                    chunk.push(record.clone());
                }
                Bytes::new()
            }
        };
        for segment in self.held.store.segments(&segment) {
            let (key, value) = segment?;
            let record = Record {
                bucket: Bucket::Key,
                key,
                value,
            };
            if !bounds.let_in(&chunk, &record) {
                chunk.next = Some(Place(At::Segment(record.key)));
                return Ok(chunk);
            }
            chunk.push(record);
        }
        Ok(chunk)
    }
}

impl StateMachine {
    /// Holds the state as of the last entry applied; `None` before the first one. Stages it first,
    /// so the persister must have room.
    pub fn pin(&mut self) -> Result<Option<Pinned>, Fatal> {
        let Some(applied) = self.stage_all()? else {
            return Ok(None);
        };
        let mut batch = Batch::new();
        let membership = self.stage_small(&mut batch);
        let store = self.pin_store();
        for (key, value) in store.marks() {
            batch.put(Bucket::Meta, key, value);
        }
        let small: Vec<Record> = batch
            .into_puts()
            .map(|(bucket, key, value)| Record { bucket, key, value })
            .collect();
        let small_bytes: usize = small.iter().map(Record::bytes).sum();
        Ok(Some(Pinned {
            held: Arc::new(Held {
                applied,
                membership,
                bytes: small_bytes as u64 + store.bytes(),
                small,
                store,
            }),
        }))
    }

    /// Puts a received state, which must be ahead of this one, in the place of this one. Readers and
    /// watchers go on with the new one at once; watchers that it is too new for are told that their
    /// revision is compacted. On the disk it is done when [`Persister::durable`] returns.
    pub fn install(&mut self, mut received: Received) -> Result<(), Fatal> {
        match received.parts.take() {
            Some((backend, loaded, beside)) => self.replace(backend, loaded, beside),
            None => Ok(()),
        }
    }
}

/// How far a state has been received. It is a record of the store itself, and in every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// The transfer's.
    id: u64,
    /// The first chunk that is missing.
    next: u64,
    /// Records that are there.
    records: u64,
}

impl Mark {
    fn encode(self) -> Bytes {
        let mut bytes = Vec::with_capacity(24);
        for number in [self.id, self.next, self.records] {
            bytes.put_u64(number);
        }
        bytes.into()
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let mark = Self {
            id: bytes.try_get_u64().ok()?,
            next: bytes.try_get_u64().ok()?,
            records: bytes.try_get_u64().ok()?,
        };
        bytes.is_empty().then_some(mark)
    }
}

/// A state that is being received, in a store of its own. Dropped unfinished, it stays on the disk, and
/// [`Persister::resume_incoming`] finds it.
#[derive(Debug)]
pub struct Incoming {
    backend: Backend,
    mark: Mark,
    unflushed: usize,
    beside: Beside,
}

impl Persister {
    /// Begins to receive a state; what was received of others goes. `id` names the transfer. Blocks on
    /// the disk.
    pub fn begin_incoming(&self, id: u64) -> Result<Incoming, ReceiveError> {
        let (backend, beside) = self.take_place(|site| site.begin());
        let backend = backend?;
        let mark = Mark {
            id,
            next: 0,
            records: 0,
        };
        let mut incoming = Incoming {
            backend,
            mark,
            unflushed: 0,
            beside,
        };
        incoming.commit(0, Vec::new(), mark)?;
        incoming.backend.writer.flush_durable()?;
        Ok(incoming)
    }

    /// What was received of this transfer before it broke off, if it is there. Blocks on the disk.
    pub fn resume_incoming(&self, id: u64) -> Result<Option<Incoming>, ReceiveError> {
        let (backend, beside) = self.take_place(|site| site.resume());
        let Some(backend) = backend? else {
            return Ok(None);
        };
        let mark = backend
            .reader
            .get(Bucket::Meta, meta::encode(MetaKey::Incoming))
            .map_err(OpenError::Read)?;
        let mark = mark.and_then(Mark::decode).filter(|mark| mark.id == id);
        Ok(mark.map(|mark| Incoming {
            backend,
            mark,
            unflushed: 0,
            beside,
        }))
    }

    /// Removes what was received and is not open, if nobody makes something else in its place. Blocks on the disk.
    pub fn clear_incoming(&self) -> std::io::Result<()> {
        self.clear_place()
    }
}

/// A state was received and is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// A chunk is not the one after the one before.
    #[error("chunk {found} came where {expected} belongs")]
    Gap {
        /// Its number.
        found: u64,
        /// The number of the first one that is missing.
        expected: u64,
    },
    /// Not all records are there.
    #[error("{found} records have come instead of {expected}")]
    Count {
        /// Records that the sender counted.
        expected: u64,
        /// Those that came.
        found: u64,
    },
    /// It is of another entry than was said.
    #[error("it is of entry {found:?} instead of {expected:?}")]
    Position {
        /// The entry that was offered.
        expected: LogPosition,
        /// The entry that it is of.
        found: Option<LogPosition>,
    },
    /// The live keys are not those that were counted.
    #[error("its keys take {found} bytes instead of {expected}")]
    Usage {
        /// Bytes that the sender counted.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// There is no store for it.
    #[error("there is no store for it")]
    Begin(#[from] backend::OpenError),
    /// It could not be written.
    #[error("cannot write it")]
    Write(#[from] backend::WriteError),
    /// It could not be opened.
    #[error("cannot open it")]
    Open(#[from] OpenError),
}

impl Incoming {
    /// The transfer.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.mark.id
    }

    /// The first chunk that is missing.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.mark.next
    }

    /// Adds the records of chunk `number`, which must be the next one. What was added survives a loss
    /// of power up to some chunk, from which [`Persister::resume_incoming`] goes on. Blocks on the disk.
    pub fn add(&mut self, number: u64, records: Vec<Record>) -> Result<(), ReceiveError> {
        if number != self.mark.next {
            return Err(ReceiveError::Gap {
                found: number,
                expected: self.mark.next,
            });
        }
        let mark = Mark {
            id: self.mark.id,
            next: number + 1,
            records: self.mark.records + records.len() as u64,
        };
        let bytes = records.iter().map(Record::bytes).sum();
        self.commit(bytes, records, mark)?;
        Ok(())
    }

    fn commit(
        &mut self,
        bytes: usize,
        records: Vec<Record>,
        mark: Mark,
    ) -> Result<(), backend::WriteError> {
        let mut batch = Batch::new();
        for record in records {
            batch.put(record.bucket, record.key, record.value);
        }
        batch.put(Bucket::Meta, meta::encode(MetaKey::Incoming), mark.encode());
        self.backend.writer.commit(batch)?;
        self.mark = mark;
        self.unflushed += bytes;
        if self.unflushed >= FLUSH_BYTES {
            self.backend.writer.flush_durable()?;
            self.unflushed = 0;
        }
        Ok(())
    }

    /// The state is complete: it is of this entry, and has so many records. Makes it survive a loss of
    /// power, and loads it, which checks it. Blocks on the disk.
    pub fn finish(mut self, at: LogPosition, records: u64) -> Result<Received, ReceiveError> {
        if self.mark.records != records {
            return Err(ReceiveError::Count {
                expected: records,
                found: self.mark.records,
            });
        }
        let mut batch = Batch::new();
        batch.delete(Bucket::Meta, meta::encode(MetaKey::Incoming));
        storage::stage_installed(&mut batch, at);
        self.backend.writer.commit(batch)?;
        self.backend.writer.flush_durable()?;
        match load(&self.backend, at) {
            Ok(loaded) => Ok(Received {
                parts: Some((self.backend, loaded, self.beside)),
            }),
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }

    /// Removes it.
    pub fn discard(self) {
        self.backend.reader.retire();
    }
}

fn load(backend: &Backend, at: LogPosition) -> Result<Loaded, ReceiveError> {
    let loaded = Loaded::load(&backend.reader)?;
    if loaded.applied() != Some(at) {
        return Err(ReceiveError::Position {
            expected: at,
            found: loaded.applied(),
        });
    }
    loaded
        .check_usage()
        .map_err(|(expected, found)| ReceiveError::Usage { expected, found })?;
    Ok(loaded)
}

/// A complete state in a store of its own, loaded. Dropped without being installed, its files go.
#[derive(Debug)]
pub struct Received {
    /// `None` once it is installed.
    parts: Option<(Backend, Loaded, Beside)>,
}

impl Received {
    /// The entry that it is of.
    #[must_use]
    pub fn applied(&self) -> Option<LogPosition> {
        let (_, loaded, _) = self.parts.as_ref()?;
        loaded.applied()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some((backend, ..)) = &self.parts {
            backend.reader.retire();
        }
    }
}

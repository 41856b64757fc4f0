//! A store: one reader that can be cloned, one writer that cannot.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::engine::{Change, Engine, MemoryEngine, SledEngine};
use crate::leftover::Leftover;
use crate::record::{self, Record};
use crate::schema::FORMAT_VERSION;
use crate::site::{Directories, MemorySite, Site};
use crate::{Batch, Bucket, OpenError, ReadError, Scan, WriteError};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of this store's files; made when it is not there.
    pub path: PathBuf,
    /// Bytes of the engine's own cache.
    pub cache_bytes: u64,
}

/// An open store, as [`Backend::open`] gives it: the reader to share and the one writer.
///
/// It closes when the reader's last clone, the writer and the last scan are gone. Closing also
/// writes out what was committed but not flushed, which may therefore survive; only
/// [`Writer::flush_durable`] promises that, and only it reports what went wrong.
#[derive(Debug)]
pub struct Backend {
    /// Reads; clone it freely.
    pub reader: Reader,
    /// Writes; there is one for each open store.
    pub writer: Writer,
    /// Where it is, and where a store that is to take its place goes.
    pub site: Arc<dyn Site>,
}

/// Reads what has been committed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Writes. Not `Clone`: whoever holds it is the only one who can change the store.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// Whether some value may be in pieces, so that overwriting it has pieces to remove.
    has_pieces: bool,
    /// The first failure. Set while a write runs, so that a panic in it counts as one.
    poison: Option<Arc<WriteError>>,
}

/// What a crash may leave of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    /// All of it or nothing.
    Atomic,
    /// Some of it.
    Torn,
}

/// What reader, writer and scans hold together.
#[derive(Debug)]
pub(crate) struct Shared {
    engine: Arc<dyn Engine>,
    /// Held to read the pieces of one value, and to write any: reading them is many reads, and must
    /// not meet the pieces of another value. Values in one record never take it.
    pieces: RwLock<()>,
}

impl Backend {
    /// Opens the store in sled, and checks its format version.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let engine = SledEngine::open(config)?;
        let in_path = |error| match error {
            OpenError::NoFormat => OpenError::Corrupt {
                path: config.path.clone(),
                source: error.into(),
            },
            OpenError::Read(source) => OpenError::Corrupt {
                path: config.path.clone(),
                source: source.into(),
            },
            error => error,
        };
        let site = Arc::new(Directories::around(config));
        Self::from_engine(Arc::new(engine), site).map_err(in_path)
    }

    /// An empty store in memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::from_engine(Arc::new(MemoryEngine::new()), Arc::new(MemorySite))
            .expect("an empty engine in memory has no format to disagree with and cannot fail")
    }

    /// A store on `engine`, which nothing else may write to.
    #[cfg(any(test, feature = "test-util"))]
    pub fn with_engine(engine: Arc<dyn Engine>) -> Result<Self, OpenError> {
        Self::from_engine(engine, Arc::new(MemorySite))
    }

    /// A store on `engine` at `site`.
    #[cfg(any(test, feature = "test-util"))]
    pub fn with_site(engine: Arc<dyn Engine>, site: Arc<dyn Site>) -> Result<Self, OpenError> {
        Self::from_engine(engine, site)
    }

    fn from_engine(engine: Arc<dyn Engine>, site: Arc<dyn Site>) -> Result<Self, OpenError> {
        check_format(&*engine)?;
        let (from, to) = record::piece_range();
        let has_pieces = match engine.scan(from, to).next() {
            Some(Err(error)) => return Err(OpenError::Engine(error)),
            first => first.is_some(),
        };
        let shared = Arc::new(Shared {
            engine,
            pieces: RwLock::new(()),
        });
        let reader = Reader {
            shared: Arc::clone(&shared),
        };
        Ok(Self {
            reader,
            writer: Writer {
                shared,
                has_pieces,
                poison: None,
            },
            site,
        })
    }
}

/// Refuses what a later version wrote; marks a new store, and an older one, with ours.
fn check_format(engine: &dyn Engine) -> Result<(), OpenError> {
    let record = engine
        .get(record::format_key())
        .map_err(OpenError::Engine)?;
    if let Some(record) = record {
        let found = record::decode_format(&record).map_err(OpenError::Read)?;
        if found > FORMAT_VERSION {
            return Err(OpenError::Newer {
                found,
                supported: FORMAT_VERSION,
            });
        }
        // An older kvorum must not open it from now on: what is written next may not be known to it.
        return match found < FORMAT_VERSION {
            true => mark_format(engine),
            false => Ok(()),
        };
    }
    if engine.scan(&[], &[0xff]).next().is_some() {
        return Err(OpenError::NoFormat);
    }
    mark_format(engine)
}

fn mark_format(engine: &dyn Engine) -> Result<(), OpenError> {
    engine
        .apply(vec![record::format_record(FORMAT_VERSION)])
        .map_err(OpenError::Engine)?;
    engine.flush_durable().map_err(OpenError::Engine)
}

impl Reader {
    /// The value at `key`, checked against its checksum.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let engine_key = record::record_key(bucket, key);
        let Some(record) = self
            .shared
            .engine
            .get(&engine_key)
            .map_err(ReadError::Engine)?
        else {
            return Ok(None);
        };
        let found = self.shared.read_scanned(bucket, &engine_key, &record)?;
        Ok(found.map(|(_, value)| value))
    }

    /// Every record of `bucket` from key `from` on and before key `to` (`None`: to the end).
    #[must_use]
    pub fn scan(&self, bucket: Bucket, from: &[u8], to: Option<&[u8]>) -> Scan {
        let first = record::record_key(bucket, from);
        let end = match to {
            Some(to) => record::record_key(bucket, to),
            None => record::bucket_end(bucket),
        };
        let records = (first < end).then(|| self.shared.engine.scan(&first, &end));
        Scan::new(Arc::clone(&self.shared), bucket, records)
    }

    /// The engine, to look behind the records.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.shared.engine
    }

    /// The store is not needed any more: its files go when it closes.
    pub fn retire(&self) {
        self.shared.engine.retire();
    }

    /// Closes a store that is not needed any more, if nothing else keeps it open; its files are left to be removed.
    /// `Err`: something does.
    pub fn close(self) -> Result<Leftover, Self> {
        let shared = Arc::try_unwrap(self.shared).map_err(|shared| Self { shared })?;
        Ok(Leftover::at(shared.engine.leave()))
    }

    /// Whether `other` reads the same open store.
    #[must_use]
    pub fn is_of_the_same_store(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Bytes the store's files take on the disk.
    pub fn size_on_disk(&self) -> Result<u64, ReadError> {
        self.shared.engine.size_on_disk().map_err(ReadError::Engine)
    }
}

impl Shared {
    /// The key and value of a record that was found at `engine_key`: the value that is there now if
    /// it is a large one, which may be none.
    pub(crate) fn read_scanned(
        &self,
        bucket: Bucket,
        engine_key: &Bytes,
        record: &Bytes,
    ) -> Result<Option<(Bytes, Bytes)>, ReadError> {
        let key = record::key_of(bucket, engine_key)?;
        let value = match record::decode(bucket, &key, record)? {
            Record::Whole(value) => Some(value),
            Record::Split(_) => self.read_split(bucket, &key, engine_key)?,
        };
        Ok(value.map(|value| (key, value)))
    }

    fn read_split(
        &self,
        bucket: Bucket,
        key: &Bytes,
        engine_key: &[u8],
    ) -> Result<Option<Bytes>, ReadError> {
        let _no_pieces_change = self.pieces.read();
        let get = |engine_key: &[u8]| self.engine.get(engine_key).map_err(ReadError::Engine);
        // The record may have changed before the lock was ours.
        let Some(record) = get(engine_key)? else {
            return Ok(None);
        };
        match record::decode(bucket, key, &record)? {
            Record::Whole(value) => Ok(Some(value)),
            Record::Split(split) => split.assemble(bucket, key, get).map(Some),
        }
    }
}

impl Writer {
    /// Applies `batch` as a whole: after a crash either all of it is there or nothing. It is
    /// visible to readers on return, and durable only after [`Writer::flush_durable`].
    ///
    /// After a failure nobody knows what is on the disk, so this and every later write is refused
    /// ([`WriteError::Poisoned`]) until the store is opened anew.
    ///
    /// Blocks, and not only this store: sled holds a lock of the whole *process* while it applies a
    /// batch, about 10 µs for each record, and every read and write of every other open store
    /// waits for it. Keep batches short, records packed, and reads of the store off the paths of
    /// requests.
    pub fn commit(&mut self, batch: Batch) -> Result<(), WriteError> {
        if batch.is_empty() {
            return self.check_poison();
        }
        self.write(|writer| writer.commit_unguarded(batch, Commit::Atomic))
    }

    /// Applies `batch` to a store that nobody opens or reads before it is whole: after a crash some of the
    /// batch may be there. That is cheaper than [`Writer::commit`] when the keys are new and ascend, also while others are
    /// committed behind them.
    pub fn fill(&mut self, batch: Batch) -> Result<(), WriteError> {
        if batch.is_empty() {
            return self.check_poison();
        }
        self.write(|writer| writer.commit_unguarded(batch, Commit::Torn))
    }

    /// Returns when everything committed so far survives a loss of power. Blocks for as long as
    /// the disk takes. After a failure the store is poisoned, as after a failed commit.
    pub fn flush_durable(&mut self) -> Result<(), WriteError> {
        self.write(|writer| {
            let flushed = writer.shared.engine.flush_durable();
            flushed.map_err(|error| WriteError::Flush(Arc::new(error)))
        })
    }

    /// Takes back some of the room of what is gone, in the measure in which records have come since the last time,
    /// so that the files grow less. For a store much of whose files nothing lives in: to the others it is only work.
    pub fn reclaim(&mut self) -> Result<(), WriteError> {
        self.write(|writer| {
            let reclaimed = writer.shared.engine.reclaim();
            reclaimed.map_err(|error| WriteError::Reclaim(Arc::new(error)))
        })
    }

    fn check_poison(&self) -> Result<(), WriteError> {
        match &self.poison {
            Some(first) => Err(WriteError::Poisoned {
                first: Arc::clone(first),
            }),
            None => Ok(()),
        }
    }

    /// Runs one write; whatever it ends with but success is the last one.
    fn write(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.check_poison()?;
        self.poison = Some(Arc::new(WriteError::Interrupted));
        let result = write(self);
        self.poison = result.as_ref().err().map(|error| Arc::new(error.clone()));
        result
    }

    fn commit_unguarded(&mut self, batch: Batch, how: Commit) -> Result<(), WriteError> {
        // The last change of a key wins, and the engine gets each key once and in order.
        let last: BTreeMap<_, _> = batch
            .changes
            .into_iter()
            .map(|(bucket, key, value)| ((bucket, key), value))
            .collect();
        let mut changes = Vec::with_capacity(last.len());
        let mut touches_pieces = false;
        for ((bucket, key), value) in last {
            let old_pieces = self.old_pieces(bucket, &key)?;
            let new_pieces = match value {
                Some(value) => record::put(&mut changes, (bucket, &key), &value, old_pieces),
                None => {
                    record::delete(&mut changes, bucket, &key, old_pieces);
                    0
                }
            };
            touches_pieces |= old_pieces > 0 || new_pieces > 0;
            self.has_pieces |= new_pieces > 0;
        }
        self.apply(changes, touches_pieces, how)
    }

    fn apply(
        &self,
        changes: Vec<Change>,
        touches_pieces: bool,
        how: Commit,
    ) -> Result<(), WriteError> {
        let _no_pieces_are_read = touches_pieces.then(|| self.shared.pieces.write());
        let engine = &self.shared.engine;
        let applied = match how {
            Commit::Atomic => engine.apply(changes),
            Commit::Torn => engine.fill(changes),
        };
        applied.map_err(|error| WriteError::Commit(Arc::new(error)))
    }

    /// In how many pieces the value at `key` is.
    fn old_pieces(&self, bucket: Bucket, key: &Bytes) -> Result<u32, WriteError> {
        if !self.has_pieces {
            return Ok(0);
        }
        let failed = |error| WriteError::Replace(Arc::new(error));
        let record = self.shared.engine.get(&record::record_key(bucket, key));
        let Some(record) = record.map_err(|error| failed(ReadError::Engine(error)))? else {
            return Ok(0);
        };
        record::decode_pieces(bucket, key, &record).map_err(failed)
    }
}

#[cfg(test)]
mod tests;

//! sled 0.34, with the durable flush it does not have. What it can and cannot be trusted with was
//! measured; this module is where those findings are turned into code.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::IFlags;
use sled::Transactional;
use sled::transaction::{TransactionError, TransactionResult};
use tracing::warn;

use self::cache::CacheLimit;
use self::places::{Order, Places};
use self::reclaim::Reclaim;
use self::witness::Witness;
use crate::engine::{Change, Engine, EngineError, EngineScan, PACKED_FROM};
use crate::site::remove_directory;
use crate::{Config, OpenError};

mod cache;
mod places;
mod reclaim;
mod witness;

/// sled writes an item into a file of its own under `blobs/`, which it never syncs and sometimes
/// forgets, when the item takes more than a quarter of a segment. An item here is a whole leaf, up
/// to about twenty records: a quarter of 8 MiB holds twenty pieces of `record::PIECE_BYTES`.
const SEGMENT_BYTES: usize = 8 << 20;

/// How often opening is tried while another holder of the file lock goes away, and how long it
/// waits between.
const OPEN_ATTEMPTS_MAX: usize = 100;
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Of so many records that fill a store, the next ones' places are made, and not their own: the leaf that they come into
/// is not split while it is empty.
const FILLED_FEW: usize = 16;

/// The tree of the small records (`engine::PACKED_FROM`); the others are in the default tree. With a
/// small record in every batch, as the log's and the state's are, sled writes 4.5 bytes for each
/// byte of 40 kB records, and 6.4 when they share a tree.
const SMALL_TREE: &[u8] = b"small";

/// The tree of the engine's own records, and the key of the last flush's number in it.
const OWN_TREE: &[u8] = b"engine";
const LAST_FLUSH: &[u8] = b"last flush";

/// What ext4 calls itself (`linux/magic.h`, `EXT4_SUPER_MAGIC`); ext2 and ext3 are the same driver's.
const EXT4_MAGIC: rustix::fs::FsWord = 0xef53;

/// How sled's writes reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// Each is durable when it ends.
    Durable,
    /// In the order in which sled makes them, each durable before the next.
    InOrder,
    /// As the kernel and the device like.
    InAnyOrder,
}

/// One sled database.
///
/// sled panics, rather than returning an error, in places where it reads a damaged page. Such a
/// panic is not caught here: it poisons the writer if it was one, and stops the member.
pub(crate) struct SledEngine {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    small: sled::Tree,
    cache: Arc<CacheLimit>,
    reclaim: Reclaim,
    /// Among the packed records.
    places: Mutex<Places>,
    /// Among those that the store is filled with, a few at a time.
    filled: Mutex<Places>,
    /// Our own descriptor of sled's only data file, to sync it.
    file: File,
    writes: Writes,
    path: PathBuf,
    flushes: Mutex<Flushes>,
    failed: AtomicBool,
    /// The files are to go.
    retired: AtomicBool,
}

/// How far the store is durable.
struct Flushes {
    /// Where sled keeps the number of the last flush.
    tree: sled::Tree,
    witness: Witness,
    /// The number of the last flush.
    last: u64,
}

impl SledEngine {
    /// Opens or makes the database in `config.path`.
    pub(crate) fn open(config: &Config) -> Result<Self, OpenError> {
        let path = config.path.clone();
        let io_error = |source| OpenError::Io {
            path: config.path.clone(),
            source,
        };
        fs::create_dir_all(&path).map_err(io_error)?;
        let db = open_when_unlocked(config)?;
        let file = File::open(path.join("db")).map_err(io_error)?;
        let writes = write_synchronously(&file, &path).map_err(io_error)?;
        let flushes = Flushes::open(&db, &path)?;
        let small = db
            .open_tree(SMALL_TREE)
            .map_err(|error| refused(&path, error))?;
        // sled does not sync what it writes here once; without it the store would be refused. At every
        // start, because the one that made the files may have been killed before it came to this.
        File::open(path.join("conf"))
            .and_then(|conf| conf.sync_all())
            .map_err(io_error)?;
        sync_names(&path).map_err(io_error)?;
        let (failed, retired) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self {
            cache: Arc::new(CacheLimit::new(db.clone(), config.cache_bytes)),
            reclaim: Reclaim::new(flushes.tree.clone()),
            db: Some(db),
            places: Mutex::new(Places::new(Order::Appended)),
            filled: Mutex::new(Places::new(Order::Filled)),
            small,
            file,
            writes,
            path,
            flushes: Mutex::new(flushes),
            failed,
            retired,
        })
    }

    /// One change is atomic by itself. It costs no marker in sled's log, which would be a write of
    /// its own, and does not stop the readers and writers of the process as a batch does.
    fn apply_one(&self, (key, value): Change) -> sled::Result<()> {
        let tree = if is_packed(&key) {
            self.db()
        } else {
            &self.small
        };
        let written = value
            .as_ref()
            .filter(|_| is_packed(&key))
            .map_or(0, Bytes::len);
        match value {
            Some(value) => tree.insert(&*key, &*value)?,
            None => tree.remove(&*key)?,
        };
        self.wrote_packed(written)
    }

    fn apply_all(&self, mut changes: Vec<Change>) -> Result<(), EngineError> {
        if changes.len() <= 1 {
            let applied = changes
                .pop()
                .map_or(Ok(()), |change| self.apply_one(change));
            return applied.map_err(|source| self.fail("apply a change", source));
        }
        let (packed, small): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(key, _)| is_packed(key));
        let written = packed.iter().filter_map(|(_, value)| value.as_ref());
        let written: usize = written.map(Bytes::len).sum();
        let applied = match (small.is_empty(), packed.is_empty()) {
            (true, _) => self.db().apply_batch(sled_batch(packed)),
            (false, true) => self.small.apply_batch(sled_batch(small)),
            (false, false) => self.apply_to_both(&sled_batch(small), &sled_batch(packed)),
        };
        applied
            .and_then(|()| self.wrote_packed(written))
            .map_err(|source| self.fail("apply a batch", source))
    }

    /// For what is to fill the store.
    fn make_places(&self, packed: &[Change]) -> sled::Result<()> {
        if packed.len() <= FILLED_FEW {
            return self.filled.lock().make(self.db(), packed);
        }
        let own = packed.iter().filter(|(_, value)| value.is_some());
        for (key, _) in own {
            self.db().insert(&**key, &[])?;
        }
        Ok(())
    }

    fn wrote_packed(&self, bytes: usize) -> sled::Result<()> {
        self.reclaim.written(bytes);
        self.cache.passed(bytes)
    }

    /// A transaction of sled's holds the same process-wide lock as a batch, and recovers as a whole
    /// like one.
    fn apply_to_both(&self, small: &sled::Batch, packed: &sled::Batch) -> sled::Result<()> {
        let trees: (&sled::Tree, &sled::Tree) = (&self.small, self.db());
        let applied: TransactionResult<(), Infallible> =
            trees.transaction(|(small_tree, packed_tree)| {
                small_tree.apply_batch(small)?;
                packed_tree.apply_batch(packed)?;
                Ok(())
            });
        applied.map_err(|error| match error {
            TransactionError::Storage(error) => error,
            TransactionError::Abort(never) => match never {},
        })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("only drop takes the database away")
    }

    fn fail(
        &self,
        operation: &'static str,
        source: impl Error + Send + Sync + 'static,
    ) -> EngineError {
        self.failed.store(true, Ordering::Relaxed);
        EngineError::new(operation, source)
    }
}

impl Flushes {
    /// Refuses a store that has less in it than was once durable.
    fn open(db: &sled::Db, path: &Path) -> Result<Self, OpenError> {
        let tree = db
            .open_tree(OWN_TREE)
            .map_err(|error| refused(path, error))?;
        let last = tree.get(LAST_FLUSH).map_err(|error| refused(path, error))?;
        let last = match last.as_deref().map(<[u8; 8]>::try_from) {
            None => 0,
            Some(Ok(number)) => u64::from_be_bytes(number),
            Some(Err(source)) => {
                return Err(OpenError::Corrupt {
                    path: path.to_owned(),
                    source: source.into(),
                });
            }
        };
        let (witness, durable) = Witness::open(path).map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?;
        if last < durable {
            return Err(OpenError::Corrupt {
                path: path.to_owned(),
                source: format!("flush {durable} was durable, and flush {last} is the last in it")
                    .into(),
            });
        }
        Ok(Self {
            tree,
            witness,
            last,
        })
    }
}

impl fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledEngine")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = if is_packed(key) {
            self.db().get(key)
        } else {
            self.small.get(key)
        };
        let failed = |source| EngineError::new("read", source);
        let value = value.map_err(failed)?;
        let value = value.filter(|value| !is_place(key, value));
        if is_packed(key)
            && let Some(value) = &value
        {
            self.cache.passed(value.len()).map_err(failed)?;
        }
        Ok(value.map(Bytes::from_owner))
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> EngineScan {
        // Every small record comes before every packed one.
        let small = (!is_packed(from)).then(|| self.small.range::<&[u8], _>(from..to));
        let packed = is_packed(to).then(|| self.db().range::<&[u8], _>(from..to));
        let cache = Arc::clone(&self.cache);
        let packed = packed.into_iter().flatten().map(move |record| {
            let record = record?;
            cache.passed(record.1.len())?;
            Ok(record)
        });
        let records = small.into_iter().flatten().chain(packed);
        let records = records.filter(|record| {
            let place = record.as_ref().map(|(key, value)| is_place(key, value));
            !place.unwrap_or(false)
        });
        Box::new(records.map(|record| match record {
            Ok((key, value)) => Ok((Bytes::from_owner(key), Bytes::from_owner(value))),
            Err(source) => Err(EngineError::new("read", source)),
        }))
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut places = self.places.lock();
        let made = places.make(self.db(), &changes);
        made.map_err(|source| self.fail("make places", source))?;
        let gone = changes.iter().filter(|(_, value)| value.is_none());
        let gone = gone.map(|(key, _)| key.clone()).collect();
        self.apply_all(changes)?;
        let removed = places.remove(self.db(), gone);
        removed.map_err(|source| self.fail("remove places", source))
    }

    fn fill(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let (packed, small): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(key, _)| is_packed(key));
        // A leaf that more than sixteen records have come into is split: both halves are written anew, with
        // what had been written before. So places are made first, and the leaves split while they are
        // small; what fills them is then written once: those of these records where they are many, else those of the
        // next ones. One by one, because a batch of sled's has no order.
        self.make_places(&packed)
            .map_err(|source| self.fail("make places", source))?;
        for change in packed {
            self.apply_one(change)
                .map_err(|source| self.fail("apply a change", source))?;
        }
        self.apply_all(small)
    }

    fn flush_durable(&self) -> Result<(), EngineError> {
        let mut flushes = self.flushes.lock();
        let number = flushes.last + 1;
        let numbered = flushes.tree.insert(LAST_FLUSH, &number.to_be_bytes());
        numbered.map_err(|source| self.fail("number a flush", source))?;
        if self.writes == Writes::InAnyOrder {
            // The segments that sled has filled since the last flush must be durable before it
            // writes over those whose records it has moved into them.
            self.file
                .sync_data()
                .map_err(|source| self.fail("sync its file", source))?;
        }
        // On Linux sled's flush ends in sync_file_range: the pages are on their way to the device,
        // but neither the file's metadata nor the device's own cache is flushed, so the data does
        // not survive a loss of power (sled issues 1351 and 1452). The fdatasync that is missing
        // comes from our own descriptor of the same file, unless each write has brought it along. sled's
        // flush_async is never used: it can deadlock (1308).
        self.db()
            .flush()
            .map_err(|source| self.fail("write out its buffers", source))?;
        if self.writes != Writes::Durable {
            self.file
                .sync_data()
                .map_err(|source| self.fail("sync its file", source))?;
        }
        let noted = flushes.witness.note(number);
        noted.map_err(|source| self.fail("note that it is durable", source))?;
        flushes.last = number;
        Ok(())
    }

    fn reclaim(&self) -> Result<(), EngineError> {
        if self.writes == Writes::InAnyOrder {
            // sled would write over segments from which it has moved records that may not be durable yet.
            return Ok(());
        }
        // What is moved is in sled's cache then.
        let moved = self.reclaim.run();
        moved
            .and_then(|bytes| self.cache.passed(bytes))
            .map_err(|source| self.fail("take back room", source))
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn leave(&self) -> Option<PathBuf> {
        self.retired.store(false, Ordering::Relaxed);
        let is_closed_when_dropped = !self.failed.load(Ordering::Relaxed);
        is_closed_when_dropped.then(|| self.path.clone())
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        bytes_under(&self.path).map_err(|source| EngineError::new("measure its files", source))
    }
}

impl Drop for SledEngine {
    fn drop(&mut self) {
        // sled writes out what is buffered and syncs when it is dropped, and panics when that
        // sync fails. After a failed write or flush it must not touch the files again: it is
        // leaked instead, with its lock, until the process ends (which is what a member does next).
        let db = self.db.take();
        if self.failed.load(Ordering::Relaxed) {
            std::mem::forget(db);
            return;
        }
        drop(db);
        if self.retired.load(Ordering::Relaxed)
            && let Err(error) = remove_directory(&self.path)
        {
            // What is left goes when the member starts the next time.
            warn!(path = %self.path.display(), %error, "cannot remove a store that is not needed");
        }
    }
}

fn is_packed(key: &[u8]) -> bool {
    key.first().is_some_and(|first| *first >= PACKED_FROM)
}

/// No record lacks a value: see [`places`].
fn is_place(key: &[u8], value: &[u8]) -> bool {
    is_packed(key) && value.is_empty()
}

fn sled_batch(changes: Vec<Change>) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(&*key, &*value),
            None => batch.remove(&*key),
        }
    }
    batch
}

/// A database that was dropped a moment ago keeps its file lock until sled's garbage collection
/// has freed the last page that refers to it.
fn open_when_unlocked(config: &Config) -> Result<sled::Db, OpenError> {
    let mut attempts = 1;
    loop {
        match open_once(config) {
            Err(OpenError::InUse { .. }) if attempts < OPEN_ATTEMPTS_MAX => {
                attempts += 1;
                wait_for_the_lock();
            }
            result => return result,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "sled offers nothing to wait on; a store is opened at start, never on a runtime thread"
)]
fn wait_for_the_lock() {
    std::thread::sleep(OPEN_RETRY_DELAY);
}

fn open_once(config: &Config) -> Result<sled::Db, OpenError> {
    let sled_config = sled::Config::new()
        .path(&config.path)
        .cache_capacity(config.cache_bytes)
        .segment_size(SEGMENT_BYTES)
        // No flusher thread: only flush_durable decides when something is written.
        .flush_every_ms(None);
    // Where sled meets a damaged file while it recovers, it asserts and unwraps rather than
    // returning an error. Nothing of ours is inside yet, and nothing of the failed attempt is used
    // afterwards, so unwinding out of it is sound; what the operator needs is an error that names
    // the directory and the way out. Nowhere else is a panic of sled's caught.
    let opened = panic::catch_unwind(AssertUnwindSafe(|| sled_config.open()));
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(refused(&config.path, error)),
        Err(panicked) => {
            let said = panicked
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panicked.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "no reason given".to_owned());
            Err(OpenError::Corrupt {
                path: config.path.clone(),
                source: format!("the storage engine panicked: {said}").into(),
            })
        }
    }
}

/// What a refusal of sled's to open `path` means.
fn refused(path: &Path, error: sled::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        // sled has no kind of its own for its lock.
        sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock") => {
            OpenError::InUse { path }
        }
        sled::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            OpenError::Corrupt {
                path,
                source: error.into(),
            }
        }
        sled::Error::Io(source) => OpenError::Io { path, source },
        sled::Error::Unsupported(problem) => OpenError::Unsupported { path, problem },
        error => OpenError::Corrupt {
            path,
            source: error.into(),
        },
    }
}

/// Has the file system write sled's data file synchronously, by the file's attribute (`chattr +S`).
///
/// sled moves live records out of a segment and then uses it again, and orders the two writes by
/// sync_file_range, which does not reach through the cache of the device. If the power fails, the
/// old segment may be gone and the new one not there, with records in it that were durable: in our
/// model of such a disk 16 of 40 stores did not open any more and 2 mixed batches.
/// With the attribute every write of sled's is durable before its next one begins. sled opens the
/// file itself, so that there is no way to ask for O_DSYNC instead.
///
/// ext4 ends each write to such a file with what fdatasync does (`generic_write_sync`, `ext4_sync_file`), the flush
/// of the device's cache included: counted in `/proc/diskstats` it is one for each write, and an fdatasync after it is a second one that
/// has nothing to flush and takes as long. Elsewhere it is not known here, and asked for.
fn write_synchronously(file: &File, path: &Path) -> io::Result<Writes> {
    let set = rustix::fs::ioctl_getflags(file)
        .and_then(|flags| rustix::fs::ioctl_setflags(file, flags | IFlags::SYNC))
        .and_then(|()| rustix::fs::ioctl_getflags(file));
    // What sled wrote while it opened the file was not yet in order.
    file.sync_all()?;
    match set {
        Ok(flags) if flags.contains(IFlags::SYNC) => {
            let is_ext4 = rustix::fs::fstatfs(file)?.f_type == EXT4_MAGIC;
            return Ok(if is_ext4 {
                Writes::Durable
            } else {
                Writes::InOrder
            });
        }
        Ok(_) => warn!(path = %path.display(), "file system ignores the synchronous attribute"),
        Err(error) => warn!(
            path = %path.display(),
            %error,
            "file system has no synchronous attribute: a loss of power may damage the store unless \
             the device's cache survives it"
        ),
    }
    Ok(Writes::InAnyOrder)
}

/// Makes the names of new files durable: a file that was synced is of no use without its name.
fn sync_names(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The length of every file in `path` and below.
fn bytes_under(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A file may go away between being listed and being looked at.
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        bytes += if metadata.is_dir() {
            bytes_under(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

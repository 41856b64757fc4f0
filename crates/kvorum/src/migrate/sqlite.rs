//! A member of ours out of the SQLite database that kine keeps for k3s (`kvorum migrate --from-sqlite`).
//!
//! kine writes each change of a key as a row of one table, and the row's number is the revision:
//!
//! | column | is |
//! |---|---|
//! | `id` | the revision of the change |
//! | `name` | the key; `compact_rev_key` and `gap-…` are kine's own |
//! | `created`, `deleted` | 1 if the change made the key, or deleted it |
//! | `create_revision` | the row that made it; 0 in that row itself |
//! | `prev_revision` | the row before of the same key; of `compact_rev_key`, up to where history is dropped |
//! | `lease` | seconds that the key lives, counted by whoever runs kine, from its start on |
//! | `value`, `old_value` | the value, and that of the row before |
//!
//! So the keys that exist keep their values and both of their revisions, and the new member goes on at the
//! revision where kine stopped. History is not taken over: kine drops what it needs not, and counts no
//! versions of a key. Everything before counts as compacted, so that whoever watched begins anew.
//!
//! The database is only read, under a lock that SQLite respects: nobody opens it meanwhile, and one that is
//! open is refused. One that was not closed has changes beside it in a log; of that a copy is made, because
//! to read the log is to write.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use api::leasepb::Lease;
use apply::{ImportError, Registers};
use bytes::Bytes;
use mvcc::{EventKind, KvParts, StoredKv, VersionRecord};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use raft::installed::ImpossibleMembership;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde::Serialize;
use tempfile::TempDir;
use types::{ClusterId, LeaseId, MemberId, Revision};

use crate::config::Config;
use crate::error::{BootstrapError, StartError};
use crate::restore::{PlaceError, found};

/// Where SQLite locks a database, and how many bytes (its file format, "the lock-byte page").
const LOCK_AT: i64 = 0x4000_0000;
const LOCK_BYTES: i64 = 512;
/// What is beside a database that was not closed: the log of its changes, or what to undo.
const UNCLOSED: [&str; 2] = ["-wal", "-journal"];

/// The last row of each key, unless it is a deletion's. kine's own rows are none of anybody's keys.
const LIVE: &str = "\
    FROM kine AS kv JOIN (SELECT MAX(id) AS id FROM kine GROUP BY name) AS last ON last.id = kv.id \
    WHERE COALESCE(kv.deleted, 0) = 0 AND kv.name != 'compact_rev_key'";

/// kine's database, locked and looked through.
///
/// ```no_run
/// use kvorum::Config;
/// use kvorum::migrate::sqlite::KineSource;
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
///
/// let source = KineSource::open("/var/lib/rancher/k3s/server/db/state.db".as_ref())?;
/// for note in &source.summary().notes {
///     println!("note: {note}");
/// }
/// let config = Config::builder().name("m1").data_dir("/var/lib/kvorum").build()?;
/// let migrated = source.migrate(&config, |keys| println!("{keys} keys"))?;
/// println!("{} keys, revision {}", migrated.keys, migrated.revision);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KineSource {
    path: PathBuf,
    connection: Connection,
    summary: KineSummary,
    /// Keys that begin with one of these stay where they are.
    left_out: Vec<Vec<u8>>,
    /// Keeps the kine from being started meanwhile.
    _lock: DatabaseLock,
    /// Where the copy is, if there has to be one.
    _copy: Option<TempDir>,
}

/// What is in a database of kine's. [`KineMigrated`] has an example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KineSummary {
    /// The revision it stopped at.
    pub revision: i64,
    /// Keys that exist.
    pub keys: u64,
    /// Bytes of them and their values.
    pub bytes: u64,
    /// Those of them that do not live for ever.
    pub expiring_keys: u64,
    /// Rows of history that are not taken over.
    pub history: u64,
    /// What is to be known of it before it is taken over.
    pub notes: Vec<String>,
}

/// What was taken over.
///
/// ```
/// use kvorum::Config;
/// use kvorum::migrate::sqlite::{KineMigrated, KineSource, KineSummary};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (path, data_dir) = (dir.path().join("state.db"), dir.path().join("data"));
/// # let kine = rusqlite::Connection::open(&path)?;
/// # kine.execute_batch(
/// #     "CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER,
/// #     deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB,
/// #     old_value BLOB);
/// #     INSERT INTO kine VALUES (1, '/registry/a', 1, 0, 0, 0, 0, 'one', NULL);
/// #     INSERT INTO kine VALUES (2, '/registry/a', 0, 0, 1, 1, 0, 'two', 'one');",
/// # )?;
/// # drop(kine);
///
/// // A key that was made and changed once.
/// let source = KineSource::open(&path)?;
/// let summary: &KineSummary = source.summary();
/// assert_eq!((summary.keys, summary.history, summary.revision), (1, 1, 2));
/// let config = Config::builder().name("m1").data_dir(data_dir).build()?;
/// let done: KineMigrated = source.migrate(&config, |_keys| ())?;
/// assert_eq!((done.keys, done.left_out, done.revision), (1, 0, 2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KineMigrated {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its revision.
    pub revision: i64,
    /// Its keys.
    pub keys: u64,
    /// Keys that were left out, because the caller said so.
    pub left_out: u64,
}

/// A database could not be taken over. It is as it was, and nothing was made.
///
/// ```
/// use kvorum::migrate::sqlite::{KineError, KineSource};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("state.db");
///
/// // For SQLite this is a database in which nothing is.
/// std::fs::write(&path, "")?;
/// let refused = KineSource::open(&path).expect_err("kine has never run on it");
/// assert!(matches!(refused, KineError::NotKine { .. }));
/// let text = format!("{} is no database of kine: it has no table \"kine\"", path.display());
/// assert_eq!(refused.to_string(), text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum KineError {
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody has it open.
    #[error("{} is in use: stop the k3s or kine that runs on it first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// SQLite cannot read it.
    #[error("cannot use {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite has looked at all of it.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong.
        problem: String,
    },
    /// It is somebody else's.
    #[error("{} is no database of kine: it has no table \"kine\"", path.display())]
    NotKine {
        /// The file.
        path: PathBuf,
    },
    /// A row is none of kine's.
    #[error("row {id} of {} {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Which.
        id: i64,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is no place for the new member.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its cluster cannot be.
    #[error(transparent)]
    Cluster(#[from] BootstrapError),
    /// Its members cannot be those of a cluster.
    #[error(transparent)]
    Members(#[from] ImpossibleMembership),
    /// Its state cannot be made.
    #[error(transparent)]
    State(#[from] ImportError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] StartError),
}

impl KineSource {
    /// Locks a database, and looks at all of it. Blocks.
    ///
    /// # Errors
    /// When it is none of kine's, somebody has it open, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, KineError> {
        let lock = lock(path)?;
        let in_file = |source| KineError::Io {
            path: path.to_owned(),
            source,
        };
        let is_unclosed = |file: &PathBuf| fs::metadata(file).is_ok_and(|it| it.len() > 0);
        let beside = UNCLOSED.map(|end| with_end(path, end));
        let copy = match beside.iter().any(is_unclosed) {
            false => None,
            true => Some(copy(path, &beside).map_err(in_file)?),
        };
        let connection = match &copy {
            None => connect_immutable(path),
            Some(copy) => Connection::open(copy.path().join(COPY)),
        };
        let mut source = Self {
            path: path.to_owned(),
            connection: connection.map_err(sqlite(path))?,
            summary: KineSummary::default(),
            left_out: Vec::new(),
            _lock: lock,
            _copy: copy,
        };
        source.check()?;
        source.summary = source.look_through().map_err(sqlite(path))?;
        Ok(source)
    }

    /// What is in it.
    #[must_use]
    pub const fn summary(&self) -> &KineSummary {
        &self.summary
    }

    /// Leaves out the keys that begin with `prefix`: those that belong to whoever ran kine, and that are
    /// of no use to who runs the new member.
    pub fn leave_out(&mut self, prefix: &str) {
        self.left_out.push(prefix.into());
    }

    /// Makes a member of a new cluster that goes on where kine stopped. Blocks; `seen` is told how many
    /// keys have been read.
    ///
    /// # Errors
    /// When its data directory is not empty, or something of the source cannot be carried over.
    pub fn migrate(
        &self,
        config: &Config,
        mut seen: impl FnMut(u64),
    ) -> Result<KineMigrated, KineError> {
        let revision = self.summary.revision;
        let (mut keys, mut left_out) = (0, 0);
        let identity = found(config, |import| {
            let mut leases = BTreeSet::new();
            self.each_key(|key| {
                if self.is_left_out(&key) {
                    left_out += 1;
                    return Ok(());
                }
                leases.extend(key.lease);
                import.version(&key.into_version())?;
                keys += 1;
                seen(keys);
                Ok(())
            })?;
            let lease = |LeaseId(ttl)| Lease {
                id: ttl,
                ttl,
                remaining_ttl: 0,
            };
            Ok::<_, KineError>(Registers {
                revision: Some(revision),
                scheduled_compaction: Some(revision),
                finished_compaction: Some(revision),
                leases: leases.into_iter().map(lease).collect(),
                ..Registers::default()
            })
        })?;
        Ok(KineMigrated {
            member: identity.member,
            cluster: identity.cluster,
            revision,
            keys,
            left_out,
        })
    }

    fn is_left_out(&self, key: &Key) -> bool {
        let mut prefixes = self.left_out.iter();
        prefixes.any(|prefix| key.name.starts_with(prefix))
    }

    /// Whether it is whole, and kine's.
    fn check(&self) -> Result<(), KineError> {
        let text = |sql| {
            let found = self.connection.query_row(sql, [], |row| row.get(0));
            found.map_err(sqlite(&self.path))
        };
        let problem: String = text("PRAGMA integrity_check(1)")?;
        if problem != "ok" {
            return Err(KineError::Damaged {
                path: self.path.clone(),
                problem,
            });
        }
        let tables = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'kine'";
        let tables: i64 = self
            .connection
            .query_row(tables, [], |row| row.get(0))
            .map_err(sqlite(&self.path))?;
        if tables == 0 {
            return Err(KineError::NotKine {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn look_through(&self) -> rusqlite::Result<KineSummary> {
        let number = |sql: &str| {
            self.connection
                .query_row(sql, [], |row| row.get::<_, i64>(0))
        };
        let count = |sql: &str| number(sql).map(i64::unsigned_abs);
        let rows = count("SELECT COUNT(*) FROM kine")?;
        let keys = count(&format!("SELECT COUNT(*) {LIVE}"))?;
        let own = count("SELECT COUNT(*) FROM kine WHERE name = 'compact_rev_key'")?;
        let size = "LENGTH(CAST(kv.name AS BLOB)) + COALESCE(LENGTH(CAST(kv.value AS BLOB)), 0)";
        let bytes = count(&format!("SELECT COALESCE(SUM({size}), 0) {LIVE}"))?;
        let expiring_keys = count(&format!("SELECT COUNT(*) {LIVE} AND kv.lease > 0"))?;
        // A row that is gone may have had a higher number than all that are left.
        let last = number("SELECT COALESCE(MAX(id), 0) FROM kine")?;
        let given = number("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'kine'");
        let history = rows.saturating_sub(keys + own);
        Ok(KineSummary {
            revision: last.max(given.unwrap_or(0)).max(1),
            keys,
            bytes,
            expiring_keys,
            history,
            notes: notes(history, expiring_keys),
        })
    }

    /// Visits the keys that exist, in the order of their last changes.
    fn each_key(
        &self,
        mut visit: impl FnMut(Key) -> Result<(), KineError>,
    ) -> Result<(), KineError> {
        let columns = "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value";
        let sql = format!("SELECT {columns} {LIVE} ORDER BY kv.id");
        let failed = sqlite(&self.path);
        let mut statement = self.connection.prepare(&sql).map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let id = row.get(0).map_err(&failed)?;
            let key = Key::read(id, row).map_err(&failed)?;
            let key = key.map_err(|problem| KineError::Row {
                path: self.path.clone(),
                id,
                problem,
            })?;
            visit(key)?;
        }
        Ok(())
    }
}

/// What is to be said before anything is done.
fn notes(history: u64, expiring_keys: u64) -> Vec<String> {
    let mut notes = vec![format!(
        "keys keep their values and revisions, and lose their history ({history} rows) and the count of \
         their versions: whoever reads or watches an older revision is told that it is compacted, and \
         begins anew"
    )];
    if expiring_keys > 0 {
        notes.push(format!(
            "{expiring_keys} keys expire, and kine does not keep when: their time begins anew, as when \
             kine starts, and keys of one TTL now end together"
        ));
    }
    notes
}

/// A key that exists.
struct Key {
    revision: i64,
    create_revision: i64,
    name: Vec<u8>,
    value: Vec<u8>,
    /// kine knows a lease by its seconds.
    lease: Option<LeaseId>,
}

impl Key {
    fn read(id: i64, row: &Row<'_>) -> rusqlite::Result<Result<Self, &'static str>> {
        let name = bytes(row.get_ref(1)?);
        let is_created = row.get::<_, Option<i64>>(2)?.unwrap_or(0) != 0;
        let create_revision = row.get::<_, Option<i64>>(3)?.unwrap_or(0);
        let lease = row.get::<_, Option<i64>>(4)?.filter(|ttl| *ttl > 0);
        let value = bytes(row.get_ref(5)?).unwrap_or_default();
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(Err("has no key"));
        };
        if id < 1 {
            return Ok(Err("has a number that is no revision"));
        }
        let is_known = !is_created && create_revision > 0 && create_revision <= id;
        Ok(Ok(Self {
            revision: id,
            create_revision: if is_known { create_revision } else { id },
            name,
            value,
            lease: lease.map(LeaseId),
        }))
    }

    fn into_version(self) -> VersionRecord {
        let revision = Revision::new(self.revision, 0);
        let kv = StoredKv::new(&KvParts {
            key: &self.name,
            value: &self.value,
            mod_revision: revision,
            create_revision: self.create_revision,
            version: 1,
            lease: self.lease,
        });
        VersionRecord {
            revision,
            kind: EventKind::Put,
            stored: Bytes::copy_from_slice(kv.encoded()),
        }
    }
}

/// kine's column of keys is one of numbers, so that a key that looks like one has become one.
fn bytes(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> KineError {
    let path = path.to_owned();
    move |source| KineError::Sqlite {
        path: path.clone(),
        source,
    }
}

/// The lock on a database that keeps everybody else out.
#[derive(Debug)]
struct DatabaseLock(File);

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        // To close the file is not enough: a process that is about to be started has it, too, until it runs.
        if let Err(error) = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&region(libc::F_UNLCK))) {
            tracing::debug!(%error, "the lock of a database ends with its file");
        }
    }
}

/// What SQLite's own locks are about.
fn region(lock: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: whole(lock),
        l_whence: whole(libc::SEEK_SET),
        l_start: LOCK_AT,
        l_len: LOCK_BYTES,
        l_pid: 0,
    }
}

/// Takes the lock. Where the file may not be written, nobody has it open, at least now.
fn lock(path: &Path) -> Result<DatabaseLock, KineError> {
    let in_file = |source| KineError::Io {
        path: path.to_owned(),
        source,
    };
    let wanted = region(libc::F_WRLCK);
    let (file, is_locked) = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => {
            let locked = fcntl(&file, FcntlArg::F_OFD_SETLK(&wanted));
            (file, locked)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(in_file(error)),
        Err(_read_only) => {
            let file = File::open(path).map_err(in_file)?;
            let mut found = wanted;
            let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found));
            let is_free = found.l_type == whole(libc::F_UNLCK);
            let locked = asked.and_then(|done| is_free.then_some(done).ok_or(nix::Error::EAGAIN));
            (file, locked)
        }
    };
    match is_locked {
        Ok(_done) => Ok(DatabaseLock(file)),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Err(KineError::InUse {
            path: path.to_owned(),
        }),
        Err(error) => Err(in_file(error.into())),
    }
}

fn whole(constant: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(constant).expect("the constants of a lock are small")
}

/// Opens a database that nobody changes: without locks and files of SQLite's own.
fn connect_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// What a copy is called.
const COPY: &str = "state.db";

/// Copies a database and what is beside it.
fn copy(path: &Path, beside: &[PathBuf; 2]) -> io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("kvorum-").tempdir()?;
    let to = directory.path().join(COPY);
    fs::copy(path, &to)?;
    for (from, end) in beside.iter().zip(UNCLOSED) {
        if from.exists() {
            fs::copy(from, with_end(&to, end))?;
        }
    }
    Ok(directory)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests;

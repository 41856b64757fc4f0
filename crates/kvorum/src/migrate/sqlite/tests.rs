//! Databases as kine makes them, through SQLite itself.

use rusqlite::params;
use tempfile::TempDir;

use super::*;

/// kine's, in its words and with its indexes.
const SCHEMA: &str = "\
    CREATE TABLE IF NOT EXISTS kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, \
    deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, \
    old_value BLOB); \
    CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name); \
    CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name, id); \
    CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id, deleted); \
    CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision); \
    CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision); \
    CREATE INDEX IF NOT EXISTS kine_list_query_index ON kine (name, id DESC, deleted);";

/// A row: key, created, deleted, create revision, previous revision, lease, value.
type KineRow<'a> = (&'a str, i64, i64, i64, i64, i64, &'a [u8]);

const ROWS: [KineRow<'static>; 9] = [
    ("compact_rev_key", 1, 0, 0, 0, 0, b""),
    ("/registry/a", 1, 0, 0, 0, 0, b"first"),
    ("/registry/b", 1, 0, 0, 0, 3660, b"event"),
    ("gap-4", 0, 1, 0, 0, 0, b""),
    ("/registry/a", 0, 0, 2, 2, 0, b"second"),
    ("/registry/c", 1, 0, 0, 0, 0, b"gone"),
    ("/registry/c", 0, 1, 6, 6, 0, b"gone"),
    // SQLite makes a number of it.
    ("17", 1, 0, 0, 0, 15, b""),
    ("gap-9", 0, 1, 0, 0, 0, b""),
];

struct Kine {
    directory: TempDir,
    connection: Connection,
}

impl Kine {
    fn new(mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("state.db")).unwrap();
        let set = format!("PRAGMA journal_mode = {mode}");
        connection.query_row(&set, [], |_row| Ok(())).unwrap();
        connection
            .execute_batch("PRAGMA synchronous = OFF")
            .unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let kine = Self {
            directory,
            connection,
        };
        for row in ROWS {
            kine.insert(row);
        }
        kine
    }

    fn insert(&self, (key, created, deleted, create, previous, lease, value): KineRow<'_>) {
        let columns = "name, created, deleted, create_revision, prev_revision, lease, value";
        let sql = format!("INSERT INTO kine ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)");
        let values = params![key, created, deleted, create, previous, lease, value];
        self.connection.execute(&sql, values).unwrap();
    }

    /// The file of one that was closed as it should be.
    fn close(self) -> TempDir {
        self.connection.close().unwrap();
        self.directory
    }

    /// The files of one that was killed.
    fn kill(self) -> TempDir {
        let left = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.directory.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
        left
    }
}

fn files(directory: &TempDir) -> Vec<(OsString, Vec<u8>)> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn database(directory: &TempDir) -> PathBuf {
    directory.path().join("state.db")
}

/// Key, value, revision, create revision, lease.
fn keys(source: &KineSource) -> Vec<(String, String, i64, i64, Option<i64>)> {
    let mut keys = Vec::new();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    source
        .each_key(|key| {
            let lease = key.lease.map(|LeaseId(ttl)| ttl);
            let revisions = (key.revision, key.create_revision);
            keys.push((
                text(key.name),
                text(key.value),
                revisions.0,
                revisions.1,
                lease,
            ));
            Ok(())
        })
        .unwrap();
    keys
}

#[test]
fn the_keys_that_exist_are_found_and_the_files_stay_as_they_are() {
    let closed = [Kine::new("WAL").close(), Kine::new("DELETE").close()];
    let killed = Kine::new("WAL").kill();
    assert!(
        fs::metadata(database(&killed).with_extension("db-wal"))
            .unwrap()
            .len()
            > 0
    );
    for directory in closed.iter().chain([&killed]) {
        let before = files(directory);
        let source = KineSource::open(&database(directory)).unwrap();
        let key = |key: &str, value: &str, at, created, lease| {
            (key.to_owned(), value.to_owned(), at, created, lease)
        };
        let expected = [
            key("/registry/b", "event", 3, 3, Some(3660)),
            key("/registry/a", "second", 5, 2, None),
            key("17", "", 8, 8, Some(15)),
        ];
        assert_eq!(keys(&source), expected);
        let summary = source.summary();
        assert_eq!((summary.revision, summary.keys), (9, 3));
        assert_eq!((summary.expiring_keys, summary.history), (2, 5));
        assert_eq!(summary.bytes, 2 * 11 + 2 + 5 + 6);
        drop(source);
        assert_eq!(files(directory), before);
    }
}

#[test]
fn a_database_that_somebody_reads_is_refused() {
    for mode in ["WAL", "DELETE"] {
        let kine = Kine::new(mode);
        let path = database(&kine.directory);
        // Locks of one process do not see each other: SQLite's is asked for by another one.
        let holder = HoldOpen::start(&path);
        assert!(matches!(
            KineSource::open(&path),
            Err(KineError::InUse { .. })
        ));
        drop(holder);
    }
}

#[test]
fn the_lock_ends_though_a_process_that_was_being_started_has_the_file() {
    let directory = Kine::new("DELETE").close();
    let held = lock(&database(&directory)).unwrap();
    let of_a_child = held.0.try_clone().unwrap();
    drop(held);
    let again = lock(&database(&directory));
    assert!(again.is_ok(), "{again:?}");
    drop(of_a_child);
}

/// A lock like SQLite's of somebody who reads.
struct HoldOpen {
    _file: File,
}

impl HoldOpen {
    fn start(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let shared = libc::flock {
            l_type: whole(libc::F_RDLCK),
            l_whence: whole(libc::SEEK_SET),
            l_start: LOCK_AT + 2,
            l_len: LOCK_BYTES - 2,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&shared)).unwrap();
        Self { _file: file }
    }
}

#[test]
fn what_is_no_database_of_kine_or_damaged_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = database(&directory);
    assert!(matches!(KineSource::open(&path), Err(KineError::Io { .. })));
    fs::write(
        &path,
        "not a database, but long enough to have a header of one hundred bytes".repeat(9),
    )
    .unwrap();
    assert!(matches!(
        KineSource::open(&path),
        Err(KineError::Sqlite { .. })
    ));
    fs::remove_file(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE other (id INTEGER)")
        .unwrap();
    other.close().unwrap();
    assert!(matches!(
        KineSource::open(&path),
        Err(KineError::NotKine { .. })
    ));
    let whole = Kine::new("DELETE");
    whole.connection.execute_batch("BEGIN").unwrap();
    for at in 0..3000 {
        whole.insert((&format!("/registry/{at}"), 1, 0, 0, 0, 0, &[7; 100]));
    }
    whole.connection.execute_batch("COMMIT").unwrap();
    let whole = whole.close();
    let bytes = fs::read(database(&whole)).unwrap();
    let mut refused = 0;
    for page in 1..20 {
        let mut damaged = bytes.clone();
        let at = bytes.len() / 20 * page / 4096 * 4096;
        damaged[at..at + 64].fill(0xa5);
        fs::write(&path, damaged).unwrap();
        match KineSource::open(&path) {
            Err(KineError::Damaged { .. } | KineError::Sqlite { .. }) => refused += 1,
            other => panic!("page {page}: {other:?}"),
        }
    }
    assert_eq!(refused, 19);
}

#[test]
fn a_member_is_made_that_holds_them() {
    let directory = Kine::new("WAL").close();
    let mut source = KineSource::open(&database(&directory)).unwrap();
    let to = directory.path().join("data");
    let config = Config::builder().data_dir(&to).build().unwrap();
    let mut seen = 0;
    let migrated = source.migrate(&config, |keys| seen = keys).unwrap();
    assert_eq!((migrated.revision, migrated.keys, seen), (9, 3, 3));
    assert_eq!(migrated.left_out, 0);
    assert!(to.join("member").is_dir());
    assert!(matches!(
        source.migrate(&config, |_| ()),
        Err(KineError::Place(PlaceError::NotEmpty { .. }))
    ));
    // The same without those of somebody's.
    source.leave_out("/registry/b");
    let to = directory.path().join("less");
    let config = Config::builder().data_dir(&to).build().unwrap();
    let migrated = source.migrate(&config, |_| ()).unwrap();
    assert_eq!((migrated.revision, migrated.keys), (9, 2));
    assert_eq!(migrated.left_out, 1);
}

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

use tempfile::TempDir;

use crate::record::PIECE_BYTES;
use crate::suite::{self, value};
use crate::{Backend, Batch, Bucket, OpenError};

use super::*;

fn config(dir: &Path) -> Config {
    Config {
        path: dir.join("store"),
        cache_bytes: 16 << 20,
    }
}

fn open(dir: &Path) -> Backend {
    Backend::open(&config(dir)).unwrap()
}

#[test]
fn the_suite_passes() {
    let dirs = std::cell::RefCell::new(Vec::new());
    suite::run(|| {
        let dir = TempDir::new().unwrap();
        let backend = open(dir.path());
        dirs.borrow_mut().push(dir);
        backend
    });
    for dir in dirs.into_inner() {
        assert_no_blobs(dir.path());
    }
}

/// sled never syncs these.
fn assert_no_blobs(dir: &Path) {
    let blobs = fs::read_dir(dir.join("store").join("blobs"))
        .unwrap()
        .count();
    assert_eq!(blobs, 0, "an item was too large for sled's log");
}

#[test]
fn records_outlive_the_process_that_wrote_them() {
    let dir = TempDir::new().unwrap();
    let mut model = suite::Model::default();
    for round in 0..20_u8 {
        let mut backend = open(dir.path());
        model.check(&backend.reader);
        let changes: Vec<_> = (0..100_u8)
            .map(|i| {
                let len = (i != round).then_some(usize::from(i) * 100);
                (Bucket::Key, vec![i], len)
            })
            .chain([(
                Bucket::RaftLog,
                vec![round],
                Some(PIECE_BYTES * usize::from(round % 4)),
            )])
            .collect();
        backend.writer.commit(model.batch(&changes)).unwrap();
        if round % 2 == 0 {
            backend.writer.flush_durable().unwrap();
        }
    }
    model.check(&open(dir.path()).reader);
    assert_no_blobs(dir.path());
}

#[test]
fn leaves_full_of_the_largest_records_never_become_blobs() {
    let dir = TempDir::new().unwrap();
    let mut backend = open(dir.path());
    for round in 0..6_u64 {
        for i in 0..64_u64 {
            let mut batch = Batch::new();
            // Every leaf is written anew many times, split, and merged.
            let key = (i * 37 % 64).to_be_bytes().to_vec();
            if round == 3 && i % 3 != 0 {
                batch.delete(Bucket::Key, key);
            } else {
                batch.put(Bucket::Key, key, value(round * 64 + i, PIECE_BYTES));
            }
            backend.writer.commit(batch).unwrap();
        }
        backend.writer.flush_durable().unwrap();
        assert_no_blobs(dir.path());
    }
    drop(backend);
    assert_eq!(
        open(dir.path()).reader.scan(Bucket::Key, b"", None).count(),
        64
    );
}

#[test]
fn a_value_of_64_mib_outlives_the_process() {
    let dir = TempDir::new().unwrap();
    let large = value(7, 64 << 20);
    let mut backend = open(dir.path());
    let mut batch = Batch::new();
    batch.put(Bucket::Key, "large", large.clone());
    backend.writer.commit(batch).unwrap();
    backend.writer.flush_durable().unwrap();
    drop(backend);
    let found = open(dir.path())
        .reader
        .get(Bucket::Key, b"large")
        .unwrap()
        .unwrap();
    assert!(found == large, "another value came back");
    assert_no_blobs(dir.path());
}

#[test]
fn pieces_are_removed_after_a_restart_too() {
    let dir = TempDir::new().unwrap();
    let mut batch = Batch::new();
    batch.put(Bucket::Key, "k", value(1, 3 * PIECE_BYTES));
    open(dir.path()).writer.commit(batch).unwrap();

    let mut backend = open(dir.path());
    let mut batch = Batch::new();
    batch.delete(Bucket::Key, "k");
    backend.writer.commit(batch).unwrap();
    let (from, to) = crate::record::piece_range();
    assert_eq!(backend.reader.engine().scan(from, to).count(), 0);
}

#[test]
fn a_store_can_be_opened_right_after_it_was_dropped() {
    let dir = TempDir::new().unwrap();
    for i in 0..30_u64 {
        let mut backend = open(dir.path());
        let mut batch = Batch::new();
        batch.put(Bucket::Key, i.to_be_bytes().to_vec(), value(i, 1000));
        backend.writer.commit(batch).unwrap();
        assert_eq!(
            backend.reader.scan(Bucket::Key, b"", None).count() as u64,
            i + 1
        );
    }
}

#[test]
fn a_store_that_is_open_is_in_use() {
    let dir = TempDir::new().unwrap();
    let _open = open(dir.path());
    let error = Backend::open(&config(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(error.to_string().ends_with("store is in use"), "{error}");
}

#[test]
fn the_size_is_that_of_the_files() {
    let dir = TempDir::new().unwrap();
    let mut backend = open(dir.path());
    let before = backend.reader.size_on_disk().unwrap();
    let mut batch = Batch::new();
    batch.put(Bucket::Key, "k", value(1, 20 << 20));
    backend.writer.commit(batch).unwrap();
    backend.writer.flush_durable().unwrap();
    let after = backend.reader.size_on_disk().unwrap();
    assert!(
        after > before + (15 << 20),
        "{before} before, {after} after"
    );
}

/// Fills a store, so that damage hits something.
fn filled() -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut backend = open(dir.path());
    for i in 0..200_u64 {
        let mut batch = Batch::new();
        batch.put(Bucket::Key, i.to_be_bytes().to_vec(), value(i, 20_000));
        backend.writer.commit(batch).unwrap();
    }
    backend.writer.flush_durable().unwrap();
    dir
}

/// Opens and reads everything. Returns what was found, or the error.
fn read_all(dir: &Path) -> Result<usize, String> {
    let backend = Backend::open(&config(dir)).map_err(|error| error.to_string())?;
    let mut found = 0;
    for record in backend.reader.scan(Bucket::Key, b"", None) {
        let (key, found_value) = record.map_err(|error| error.to_string())?;
        let i = u64::from_be_bytes(key.as_ref().try_into().unwrap());
        assert!(found_value == value(i, 20_000), "a wrong value was served");
        found += 1;
    }
    Ok(found)
}

#[test]
fn a_store_of_garbage_is_corrupt_and_says_the_way_out() {
    let dir = filled();
    let store = dir.path().join("store");
    fs::write(store.join("conf"), b"this is not what sled wrote here").unwrap();
    let error = Backend::open(&config(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(store.to_str().unwrap()), "{text}");
    assert!(
        text.contains("restore this member from a snapshot"),
        "{text}"
    );
}

#[test]
fn a_flipped_bit_is_never_served() {
    let dir = filled();
    let db = dir.path().join("store").join("db");
    let len = fs::metadata(&db).unwrap().len();
    let mut noticed = 0;
    for round in 0..12_u64 {
        let damaged = TempDir::new().unwrap();
        let to = damaged.path().join("store");
        fs::create_dir_all(to.join("blobs")).unwrap();
        for entry in fs::read_dir(dir.path().join("store")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(to.join("db"))
            .unwrap();
        let mut byte = [0];
        let at = value(round, 8)
            .as_ref()
            .try_into()
            .map(u64::from_le_bytes)
            .unwrap()
            % len;
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[byte[0] ^ 0x10]).unwrap();
        drop(file);
        // sled may refuse, panic, or not notice; a wrong value is what must not come out.
        let read = panic::catch_unwind(|| read_all(damaged.path()));
        noticed += usize::from(!matches!(read, Ok(Ok(200))));
    }
    eprintln!("{noticed} of 12 flipped bits were noticed");
}

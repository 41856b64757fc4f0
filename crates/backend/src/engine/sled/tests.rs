use std::fs;
use std::sync::Arc;

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

/// Opens and reads everything; nothing may be missing and nothing another value.
fn read_all(dir: &Path) -> Result<(), String> {
    let backend = Backend::open(&config(dir)).map_err(|error| format!("{error:?}"))?;
    let mut found = 0;
    for record in backend.reader.scan(Bucket::Key, b"", None) {
        let (key, found_value) = record.map_err(|error| format!("{error:?}"))?;
        let i = u64::from_be_bytes(key.as_ref().try_into().unwrap());
        assert!(found_value == value(i, 20_000), "a wrong value was served");
        found += 1;
    }
    assert_eq!(found, 200, "durable records are gone without a word");
    Ok(())
}

/// A copy of the files of a store that may be open.
fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    fs::create_dir_all(to.path().join("store").join("blobs")).unwrap();
    for entry in fs::read_dir(from.join("store")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(
                entry.path(),
                to.path().join("store").join(entry.file_name()),
            )
            .unwrap();
        }
    }
    to
}

/// Numbers that look random and are the same every time.
fn random(seed: u64) -> u64 {
    u64::from_le_bytes(
        value(seed.wrapping_add(1 << 40), 24)[16..]
            .try_into()
            .unwrap(),
    )
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

/// Flips a bit of one of the files; mostly of the data's. Returns where.
fn flip(store: &Path, round: u64) -> String {
    let mut files: Vec<_> = fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && fs::metadata(path).unwrap().len() > 0)
        .collect();
    files.sort();
    let path = match round % 4 {
        0 => files[usize::try_from(random(round)).unwrap() % files.len()].clone(),
        _ => store.join("db"),
    };
    let mut bytes = fs::read(&path).unwrap();
    let at = usize::try_from(random(round)).unwrap() % bytes.len();
    bytes[at] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    format!("{} at {at}", path.file_name().unwrap().display())
}

/// Damages a copy of `dir` by one bit and says what came of it.
fn read_damaged(dir: &Path, round: u64) -> Result<(), String> {
    let damaged = copy(dir);
    let place = flip(&damaged.path().join("store"), round);
    match panic::catch_unwind(|| read_all(damaged.path())) {
        Ok(result) => {
            eprintln!("{place}: {result:?}");
            result
        }
        Err(panicked) => {
            // sled may panic where it reads; what must not happen are this file's own assertions.
            let text = panicked
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_default();
            assert!(
                !text.contains("durable records are gone"),
                "{place}: {text}"
            );
            assert!(
                !text.contains("a wrong value was served"),
                "{place}: {text}"
            );
            eprintln!("{place}: panicked: {text}");
            Err(text)
        }
    }
}

#[test]
fn a_flipped_bit_after_a_clean_start_takes_nothing_away_unnoticed() {
    let dir = filled();
    // Now recovery has a snapshot to start from, and much of the log is dead.
    read_all(dir.path()).unwrap();
    let noticed = (0..24)
        .filter(|round| read_damaged(dir.path(), *round).is_err())
        .count();
    assert!(noticed > 4, "{noticed}");
}

#[test]
fn a_flipped_bit_in_what_recovery_reads_takes_nothing_away_unnoticed() {
    let dir = filled();
    // All of the log is read again, and would end at the damage.
    let errors: Vec<_> = (0..24)
        .filter_map(|round| read_damaged(dir.path(), round).err())
        .collect();
    assert!(errors.len() > 12, "{}", errors.len());
    let witnessed = errors
        .iter()
        .filter(|error| error.contains("was durable"))
        .count();
    assert!(
        witnessed > 8,
        "{witnessed}: what sled itself does not notice the witness does"
    );
}

#[test]
fn a_store_without_its_witness_still_opens() {
    let dir = filled();
    fs::remove_file(dir.path().join("store").join("flushed")).unwrap();
    read_all(dir.path()).unwrap();
}

#[test]
fn a_file_that_was_cut_off_takes_nothing_away_unnoticed() {
    let dir = filled();
    let len = fs::metadata(dir.path().join("store").join("db"))
        .unwrap()
        .len();
    let cut: Vec<_> = (0..6)
        .map(|round| random(round) % len)
        .chain([0, 1])
        .collect();
    for len in cut {
        let damaged = copy(dir.path());
        let db = fs::OpenOptions::new()
            .write(true)
            .open(damaged.path().join("store/db"));
        db.unwrap().set_len(len).unwrap();
        let read = panic::catch_unwind(|| read_all(damaged.path()));
        let read = read.unwrap_or_else(|_| panic!("cut at {len}: panicked"));
        // Behind the data is only room for more.
        eprintln!("cut at {len}: {read:?}");
        assert!(read.is_err() || len > 4_000_000, "cut at {len}");
    }
}

/// What a loss of power leaves of `before`, which was durable, and of the one write that led to
/// `after`: of each block one or the other, in any order, the file as long as either.
fn tear(before: &[u8], after: &[u8], seed: u64) -> Vec<u8> {
    const BLOCK_BYTES: usize = 512;
    let mut left = after.to_vec();
    left.resize(after.len().max(before.len()), 0);
    for (i, block) in (0..).zip(left.chunks_mut(BLOCK_BYTES)) {
        // Single blocks and runs of them by turns.
        let run = i >> (seed % 5 * 2);
        if random(seed ^ (run << 20)) % 8 < seed % 9 {
            continue;
        }
        let old = before
            .get(usize::try_from(i).unwrap() * BLOCK_BYTES..)
            .unwrap_or_default();
        let (from_old, none) = block.split_at_mut(old.len().min(block.len()));
        from_old.copy_from_slice(&old[..from_old.len()]);
        none.fill(0);
    }
    left
}

/// Commits the next batch of a store that turns over its few keys all the time.
fn churn(models: &mut Vec<suite::Model>, writer: &mut crate::Writer) {
    let mut model = models.last().unwrap().clone();
    let seed = models.len() as u64 * 4;
    let mut changes: Vec<_> = (seed..seed + 4)
        .map(|seed| {
            let random = random(seed);
            let len =
                (!random.is_multiple_of(7)).then_some(usize::try_from(random % 64_000).unwrap());
            (Bucket::Key, vec![u8::try_from(random % 60).unwrap()], len)
        })
        .collect();
    changes.push((Bucket::Meta, b"batch".to_vec(), Some(models.len())));
    // A log that grows at its end and is cut off at its beginning: with places in it.
    let group = |batch: usize| (batch as u64 * 40).to_be_bytes().to_vec();
    changes.push((Bucket::RaftLog, group(models.len()), Some(12_000)));
    if let Some(purged) = models.len().checked_sub(20) {
        changes.push((Bucket::RaftLog, group(purged), None));
    }
    writer.commit(model.batch(&changes)).unwrap();
    writer.reclaim().unwrap();
    models.push(model);
}

/// How many batches the store at `dir` holds, or what is wrong with it.
fn batches_in(dir: &Path, models: &[suite::Model]) -> Result<usize, String> {
    let backend = Backend::open(&config(dir)).map_err(|error| format!("{error:?}"))?;
    let last = backend
        .reader
        .get(Bucket::Meta, b"batch")
        .map_err(|error| format!("{error:?}"))?;
    let batches = last.map_or(0, |value| value.len());
    models[batches].check(&backend.reader);
    Ok(batches)
}

#[test]
fn what_was_flushed_survives_a_torn_write() {
    let dir = TempDir::new().unwrap();
    let engine = Arc::new(SledEngine::open(&config(dir.path())).unwrap());
    assert_ne!(
        engine.writes,
        Writes::InAnyOrder,
        "run this on ext4, xfs or btrfs"
    );
    let mut backend = Backend::with_engine(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
    let db = dir.path().join("store").join("db");
    let mut models = vec![suite::Model::default()];
    let mut lost = Vec::new();
    for round in 0..60 {
        // Far more than the store holds, so that sled uses its segments again and again.
        for _ in 0..random(round) % 60 {
            churn(&mut models, &mut backend.writer);
        }
        backend.writer.flush_durable().unwrap();
        let flushed = models.len() - 1;
        let left = copy(dir.path());
        let before = fs::read(&db).unwrap();
        churn(&mut models, &mut backend.writer);
        // The power fails in the middle of this.
        engine.db().flush().unwrap();
        let torn = tear(&before, &fs::read(&db).unwrap(), round);
        fs::write(left.path().join("store").join("db"), torn).unwrap();
        match batches_in(left.path(), &models) {
            Ok(batches) if batches >= flushed => {}
            held => lost.push(format!("round {round}: {held:?}, {flushed} flushed")),
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

/// Bytes on the disk of a store that 16 MiB went into, in the order of their keys.
fn bytes_of_a_new_store(write: fn(&mut crate::Writer, Batch)) -> u64 {
    let dir = TempDir::new().unwrap();
    let mut backend = open(dir.path());
    for batch_number in 0..4_u64 {
        let mut batch = Batch::new();
        for number in 0..64 {
            let number = batch_number * 64 + number;
            let key = number.to_be_bytes().to_vec();
            batch.put(Bucket::Key, key, value(number, PIECE_BYTES));
        }
        write(&mut backend.writer, batch);
    }
    backend.writer.flush_durable().unwrap();
    backend.reader.size_on_disk().unwrap()
}

#[test]
fn what_fills_a_new_store_is_written_once() {
    let filled = bytes_of_a_new_store(|writer, batch| writer.fill(batch).unwrap());
    let committed = bytes_of_a_new_store(|writer, batch| writer.commit(batch).unwrap());
    assert!(filled < 26 << 20, "{filled} bytes of 16 MiB");
    assert!(filled < committed, "{filled} bytes, and {committed}");
}

fn appended(number: u64) -> Bytes {
    let mut key = vec![PACKED_FROM];
    key.extend(number.to_be_bytes());
    key.into()
}

/// Records of 4 KiB at these numbers, one batch for each.
fn append(engine: &SledEngine, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let value = Bytes::from(vec![7; 4096]);
        engine.apply(vec![(appended(number), Some(value))]).unwrap();
    }
}

fn remove(engine: &SledEngine, numbers: impl Iterator<Item = u64>) {
    let changes = numbers.map(|number| (appended(number), None)).collect();
    engine.apply(changes).unwrap();
}

fn places(engine: &SledEngine) -> usize {
    let packed = engine.db().iter().map(Result::unwrap);
    packed.filter(|(_, value)| value.is_empty()).count()
}

#[test]
fn nobody_sees_a_place() {
    let dir = TempDir::new().unwrap();
    let engine = SledEngine::open(&config(dir.path())).unwrap();
    append(&engine, (0..200).map(|n| n * 50));
    assert!(places(&engine) > 200, "there are none");
    let (from, to) = (appended(0), appended(u64::MAX));
    let keys = |scan: EngineScan| scan.map(|record| record.unwrap().0).collect::<Vec<_>>();
    let mut expected: Vec<_> = (0..200).map(|n| appended(n * 50)).collect();
    assert_eq!(keys(engine.scan(&from, &to)), expected);
    expected.reverse();
    assert_eq!(keys(Box::new(engine.scan(&from, &to).rev())), expected);
    for (place, _) in engine.db().iter().map(Result::unwrap) {
        let seen = engine.get(&place).unwrap();
        assert_eq!(seen.is_some(), place.len() == 9, "{place:?}");
    }
}

#[test]
fn places_go_with_the_records_before_them() {
    let dir = TempDir::new().unwrap();
    let mut engine = SledEngine::open(&config(dir.path())).unwrap();
    append(&engine, (1..=1000).map(|n| n * 10));
    let made = places(&engine);
    assert!(made > 1900, "{made}");
    // From the middle, from the beginning, and then another process goes on.
    remove(&engine, (301..=600).map(|n| n * 10));
    assert!(places(&engine) < made - 500, "{made}");
    remove(&engine, (1..=300).chain(601..=999).map(|n| n * 10));
    drop(engine);
    engine = SledEngine::open(&config(dir.path())).unwrap();
    assert!(places(&engine) < 80, "{} of {made}", places(&engine));
    append(&engine, (1001..=1500).map(|n| n * 10));
    remove(&engine, (1000..=1500).map(|n| n * 10));
    assert!(places(&engine) < 80, "{} of {made}", places(&engine));
    let (from, to) = (appended(0), appended(u64::MAX));
    assert_eq!(engine.scan(&from, &to).count(), 0);
}

#[test]
fn records_in_another_order_are_kept_as_well() {
    let dir = TempDir::new().unwrap();
    let engine = SledEngine::open(&config(dir.path())).unwrap();
    append(&engine, (0..300).map(|n| n * 7919 % 1000 * 10));
    // The end of a log that another leader overwrites.
    remove(&engine, (900..1000).map(|n| n * 10));
    append(&engine, (900..1100).map(|n| n * 10 + 3));
    let (from, to) = (appended(9000), appended(u64::MAX));
    let kept = engine.scan(&from, &to).map(|record| record.unwrap().0);
    let expected: Vec<_> = (900..1100).map(|n| appended(n * 10 + 3)).collect();
    assert_eq!(kept.collect::<Vec<_>>(), expected);
}

#[test]
fn the_room_of_what_is_gone_is_used_again() {
    let dir = TempDir::new().unwrap();
    let engine = SledEngine::open(&config(dir.path())).unwrap();
    // As a state's segments come and go: at the end, and anywhere.
    let mut live = Vec::new();
    let mut largest = 0;
    for number in 0..4000 {
        let value = Bytes::from(vec![7; 32 * 1024]);
        engine.apply(vec![(appended(number), Some(value))]).unwrap();
        live.push(number);
        if live.len() > 500 {
            let gone = live.swap_remove(usize::try_from(random(number) % 500).unwrap());
            remove(&engine, std::iter::once(gone));
            engine.reclaim().unwrap();
        }
        if number % 50 == 0 {
            engine.flush_durable().unwrap();
            largest = largest.max(engine.size_on_disk().unwrap() >> 20);
        }
    }
    // Otherwise it is 120 by now.
    assert!(largest < 88, "{largest} MiB for 16");
}

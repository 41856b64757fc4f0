//! What every engine must do, as tests: one body each, run on every engine. It tests the engine
//! through [`Reader`] and [`Writer`](crate::Writer), as it is used.
//!
//! What only some engines can show (that a record outlives the process, what a crash leaves) is
//! tested beside them.

#![expect(
    clippy::unwrap_used,
    reason = "these are tests; other crates run them too"
)]
#![cfg_attr(not(test), expect(clippy::indexing_slicing, reason = "likewise"))]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;

use crate::record::PIECE_BYTES;
use crate::{Backend, Batch, Bucket, Reader};

/// A test of an empty store.
pub type Case = fn(Backend);

/// All tests, by name.
pub const CASES: &[(&str, Case)] = &[
    ("a_new_store_is_empty", a_new_store_is_empty),
    ("records_come_in_key_order", records_come_in_key_order),
    ("a_scan_keeps_to_its_bounds", a_scan_keeps_to_its_bounds),
    (
        "a_scan_goes_backwards_and_meets_itself",
        a_scan_goes_backwards_and_meets_itself,
    ),
    ("buckets_do_not_mix", buckets_do_not_mix),
    (
        "the_last_change_of_a_key_wins",
        the_last_change_of_a_key_wins,
    ),
    ("what_fills_a_store_is_there", what_fills_a_store_is_there),
    (
        "overwriting_and_deleting_leave_nothing",
        overwriting_and_deleting_leave_nothing,
    ),
    (
        "empty_keys_and_values_are_records",
        empty_keys_and_values_are_records,
    ),
    ("large_values_come_back_whole", large_values_come_back_whole),
    (
        "large_values_leave_no_pieces_behind",
        large_values_leave_no_pieces_behind,
    ),
    ("a_batch_is_seen_whole", a_batch_is_seen_whole),
    (
        "a_large_value_is_never_seen_half_overwritten",
        a_large_value_is_never_seen_half_overwritten,
    ),
    ("a_scan_survives_writes", a_scan_survives_writes),
    ("an_empty_batch_is_no_write", an_empty_batch_is_no_write),
    ("a_flush_may_follow_anything", a_flush_may_follow_anything),
    (
        "a_scan_outlives_reader_and_writer",
        a_scan_outlives_reader_and_writer,
    ),
];

/// Runs every case on a store that `open` makes, which must be empty.
pub fn run(mut open: impl FnMut() -> Backend) {
    for (name, case) in CASES {
        // A failing case is found by the last line printed before its panic.
        tracing::info!(name, "suite case");
        case(open());
    }
}

/// A value of `len` bytes that differs with `seed` from its neighbours, in every piece.
#[must_use]
pub fn value(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

fn put(backend: &mut Backend, bucket: Bucket, records: &[(&str, &str)]) {
    let mut batch = Batch::new();
    for (key, value) in records {
        batch.put(bucket, key.to_string(), value.to_string());
    }
    backend.writer.commit(batch).unwrap();
}

fn keys(reader: &Reader, bucket: Bucket, from: &str, to: Option<&str>) -> Vec<String> {
    reader
        .scan(bucket, from.as_bytes(), to.map(str::as_bytes))
        .map(|record| String::from_utf8(record.unwrap().0.to_vec()).unwrap())
        .collect()
}

fn get(reader: &Reader, bucket: Bucket, key: &str) -> Option<Bytes> {
    reader.get(bucket, key.as_bytes()).unwrap()
}

/// How many records the engine holds, of every kind.
fn engine_records(reader: &Reader) -> usize {
    reader
        .engine()
        .scan(&[], &[0xff])
        .map(Result::unwrap)
        .count()
}

fn a_new_store_is_empty(backend: Backend) {
    for bucket in Bucket::ALL {
        assert_eq!(backend.reader.get(bucket, b"k").unwrap(), None);
        assert!(backend.reader.scan(bucket, b"", None).next().is_none());
        assert!(backend.reader.scan(bucket, b"", None).next_back().is_none());
    }
    assert_eq!(
        engine_records(&backend.reader),
        1,
        "only the format version"
    );
    assert!(backend.reader.size_on_disk().unwrap() > 0);
}

fn records_come_in_key_order(mut backend: Backend) {
    let mut expected = Vec::new();
    let mut batch = Batch::new();
    // More than fit into one leaf of any tree, in an order that is not theirs.
    for i in 0..2000_u32 {
        let key = (i * 7919 % 2000).to_be_bytes();
        batch.put(Bucket::Key, key.to_vec(), key.to_vec());
        expected.push(i.to_be_bytes().to_vec());
    }
    backend.writer.commit(batch).unwrap();
    let found: Vec<_> = backend
        .reader
        .scan(Bucket::Key, b"", None)
        .map(|record| {
            let (key, value) = record.unwrap();
            assert_eq!(key, value);
            key.to_vec()
        })
        .collect();
    assert_eq!(found, expected);
}

fn a_scan_keeps_to_its_bounds(mut backend: Backend) {
    put(
        &mut backend,
        Bucket::Meta,
        &[("a", "1"), ("b", "2"), ("bb", "3"), ("c", "4")],
    );
    let reader = &backend.reader;
    let keys = |from, to| keys(reader, Bucket::Meta, from, to);
    assert_eq!(keys("", None), ["a", "b", "bb", "c"]);
    assert_eq!(keys("b", Some("c")), ["b", "bb"], "from is in, to is not");
    assert_eq!(keys("b", Some("b\0")), ["b"]);
    assert_eq!(keys("ba", None), ["bb", "c"], "from need not be there");
    assert!(keys("b", Some("b")).is_empty());
    assert!(keys("c", Some("a")).is_empty(), "to before from");
    assert!(keys("d", None).is_empty());
    assert!(keys("", Some("")).is_empty());
}

fn a_scan_goes_backwards_and_meets_itself(mut backend: Backend) {
    let mut batch = Batch::new();
    for i in 0..100_u8 {
        batch.put(Bucket::Lease, vec![i], vec![i]);
    }
    backend.writer.commit(batch).unwrap();
    let all = || {
        backend
            .reader
            .scan(Bucket::Lease, b"", None)
            .map(|record| record.unwrap().0)
    };
    let backwards: Vec<_> = all().rev().map(|key| key[0]).collect();
    assert_eq!(backwards, (0..100).rev().collect::<Vec<_>>());

    let mut from_both = all();
    for i in 0..50 {
        assert_eq!(from_both.next().unwrap()[0], i);
        assert_eq!(from_both.next_back().unwrap()[0], 99 - i);
    }
    assert!(from_both.next().is_none());
    assert!(from_both.next_back().is_none());

    let bounded = backend.reader.scan(Bucket::Lease, &[10], Some(&[13]));
    let backwards: Vec<_> = bounded.rev().map(|record| record.unwrap().0[0]).collect();
    assert_eq!(backwards, [12, 11, 10]);
}

fn buckets_do_not_mix(mut backend: Backend) {
    let mut batch = Batch::new();
    for bucket in Bucket::ALL {
        // Keys at both ends of what a bucket can hold.
        batch.put(bucket, vec![], vec![bucket as u8]);
        batch.put(bucket, vec![0xff; 20], vec![bucket as u8]);
        batch.put(
            bucket,
            b"big".to_vec(),
            value(u64::from(bucket as u8), 3 * PIECE_BYTES),
        );
    }
    batch.delete(Bucket::Key, vec![]);
    backend.writer.commit(batch).unwrap();
    for bucket in Bucket::ALL {
        let values: Vec<_> = backend
            .reader
            .scan(bucket, b"", None)
            .map(|record| record.unwrap().1)
            .collect();
        let big = value(u64::from(bucket as u8), 3 * PIECE_BYTES);
        let small = Bytes::from(vec![bucket as u8]);
        if bucket == Bucket::Key {
            assert_eq!(values, [big, small]);
        } else {
            assert_eq!(values, [small.clone(), big, small]);
        }
    }
}

fn the_last_change_of_a_key_wins(mut backend: Backend) {
    put(&mut backend, Bucket::Key, &[("b", "old")]);
    let mut batch = Batch::new();
    batch.put(Bucket::Key, "a", "1");
    batch.put(Bucket::Key, "a", "2");
    batch.put(Bucket::Key, "b", "new");
    batch.delete(Bucket::Key, "b");
    batch.delete(Bucket::Key, "c");
    batch.put(Bucket::Key, "c", "3");
    batch.put(Bucket::Key, "d", value(1, 5 * PIECE_BYTES));
    batch.put(Bucket::Key, "d", "4");
    backend.writer.commit(batch).unwrap();
    assert_eq!(get(&backend.reader, Bucket::Key, "a").unwrap(), "2");
    assert_eq!(get(&backend.reader, Bucket::Key, "b"), None);
    assert_eq!(get(&backend.reader, Bucket::Key, "c").unwrap(), "3");
    assert_eq!(get(&backend.reader, Bucket::Key, "d").unwrap(), "4");
    assert_eq!(engine_records(&backend.reader), 4, "and no pieces");
}

fn what_fills_a_store_is_there(mut backend: Backend) {
    let key = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    let len = |number: u64| match number % 4 {
        0 => 10,
        1 => PIECE_BYTES,
        2 => 3 * PIECE_BYTES + 1,
        _ => 0,
    };
    for round in 0..5_u64 {
        let mut batch = Batch::new();
        for number in round * 20..(round + 1) * 20 {
            batch.put(Bucket::Key, key(number), value(number, len(number)));
        }
        batch.put(Bucket::Meta, "round", round.to_string());
        batch.delete(Bucket::Key, key(round * 20));
        backend.writer.fill(batch).unwrap();
    }
    backend.writer.fill(Batch::new()).unwrap();
    for number in 0..100 {
        let expected = (number % 20 != 0).then(|| value(number, len(number)));
        let found = backend.reader.get(Bucket::Key, &key(number)).unwrap();
        assert_eq!(found, expected, "{number}");
    }
    assert_eq!(get(&backend.reader, Bucket::Meta, "round").unwrap(), "4");
}

fn overwriting_and_deleting_leave_nothing(mut backend: Backend) {
    for round in 0..5 {
        let text = round.to_string();
        put(&mut backend, Bucket::Members, &[("k", &text)]);
        assert_eq!(get(&backend.reader, Bucket::Members, "k").unwrap(), text);
    }
    let mut batch = Batch::new();
    batch.delete(Bucket::Members, "k");
    batch.delete(Bucket::Members, "never there");
    backend.writer.commit(batch).unwrap();
    assert_eq!(get(&backend.reader, Bucket::Members, "k"), None);
    assert_eq!(engine_records(&backend.reader), 1);
}

fn empty_keys_and_values_are_records(mut backend: Backend) {
    put(&mut backend, Bucket::Alarm, &[("", ""), ("k", "")]);
    assert_eq!(get(&backend.reader, Bucket::Alarm, "").unwrap(), "");
    assert_eq!(get(&backend.reader, Bucket::Alarm, "k").unwrap(), "");
    assert_eq!(keys(&backend.reader, Bucket::Alarm, "", None), ["", "k"]);
}

fn large_values_come_back_whole(mut backend: Backend) {
    let lens = [
        PIECE_BYTES - 1,
        PIECE_BYTES,
        PIECE_BYTES + 1,
        2 * PIECE_BYTES,
        2 * PIECE_BYTES + 1,
        5 << 20,
        33 << 20,
    ];
    let mut batch = Batch::new();
    for (i, len) in (0_u8..).zip(lens) {
        batch.put(Bucket::Key, vec![i], value(u64::from(i), len));
    }
    backend.writer.commit(batch).unwrap();
    backend.writer.flush_durable().unwrap();
    for (i, len) in (0_u8..).zip(lens) {
        let found = backend.reader.get(Bucket::Key, &[i]).unwrap().unwrap();
        assert!(
            found == value(u64::from(i), len),
            "the value of {len} bytes is another one"
        );
    }
    let scanned: Vec<_> = backend
        .reader
        .scan(Bucket::Key, b"", None)
        .map(|record| record.unwrap())
        .map(|(key, value)| (key[0], value.len()))
        .collect();
    assert_eq!(
        scanned,
        (0_u8..).zip(lens).collect::<Vec<_>>(),
        "and no piece is seen"
    );
}

fn large_values_leave_no_pieces_behind(mut backend: Backend) {
    let mut set = |len: Option<usize>| {
        let mut batch = Batch::new();
        match len {
            Some(len) => batch.put(Bucket::Key, "k", value(len as u64, len)),
            None => batch.delete(Bucket::Key, "k"),
        }
        backend.writer.commit(batch).unwrap();
        let found = get(&backend.reader, Bucket::Key, "k");
        assert_eq!(found.map(|found| found.len()), len);
        engine_records(&backend.reader) - 1
    };
    assert_eq!(set(Some(10 * PIECE_BYTES)), 1 + 10);
    assert_eq!(set(Some(3 * PIECE_BYTES + 1)), 1 + 4);
    assert_eq!(set(Some(7)), 1);
    assert_eq!(set(Some(2 * PIECE_BYTES)), 1 + 2);
    assert_eq!(set(Some(4 * PIECE_BYTES)), 1 + 4);
    assert_eq!(set(None), 0);
}

/// Runs `write` 200 times while `read` runs on another thread.
fn while_writing(
    backend: Backend,
    mut write: impl FnMut(u64, &mut Batch),
    read: impl Fn(&Reader) + Send + 'static,
) {
    let Backend {
        reader, mut writer, ..
    } = backend;
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let reading = thread::spawn({
        let done = std::sync::Arc::clone(&done);
        move || {
            while !done.load(Ordering::Relaxed) {
                read(&reader);
            }
        }
    });
    for round in 0..200 {
        let mut batch = Batch::new();
        write(round, &mut batch);
        writer.commit(batch).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    reading.join().unwrap();
}

fn a_batch_is_seen_whole(backend: Backend) {
    let write = |round: u64, batch: &mut Batch| {
        batch.put(Bucket::Key, "first", round.to_be_bytes().to_vec());
        for i in 0..50_u8 {
            batch.put(Bucket::Key, vec![b'k', i], vec![i]);
        }
        batch.put(Bucket::RaftMeta, "last", round.to_be_bytes().to_vec());
    };
    let read = |reader: &Reader| {
        // The later read must see at least what the earlier one saw.
        let last = reader.get(Bucket::RaftMeta, b"last").unwrap();
        let first = reader.get(Bucket::Key, b"first").unwrap();
        assert!(
            first >= last,
            "{first:?} is of an older batch than {last:?}"
        );
        let first = reader.get(Bucket::Key, b"first").unwrap();
        let last = reader.get(Bucket::RaftMeta, b"last").unwrap();
        assert!(
            last >= first,
            "{last:?} is of an older batch than {first:?}"
        );
    };
    while_writing(backend, write, read);
}

fn a_large_value_is_never_seen_half_overwritten(backend: Backend) {
    // Shrinks, grows, disappears and is small by turns.
    let write = |round: u64, batch: &mut Batch| match round % 5 {
        0 => batch.delete(Bucket::Key, "k"),
        1 => batch.put(Bucket::Key, "k", value(round, 10)),
        n => {
            let pieces = usize::try_from(n).unwrap();
            batch.put(Bucket::Key, "k", value(round, pieces * PIECE_BYTES - 9))
        }
    };
    let read = |reader: &Reader| {
        // The checksum tells.
        let got = reader.get(Bucket::Key, b"k").unwrap();
        assert!(got.is_none_or(|value| value.len() >= 10));
        for record in reader.scan(Bucket::Key, b"", None) {
            record.unwrap();
        }
    };
    while_writing(backend, write, read);
}

fn a_scan_survives_writes(mut backend: Backend) {
    let mut batch = Batch::new();
    for i in (0..1000_u16).step_by(2) {
        batch.put(Bucket::Key, i.to_be_bytes().to_vec(), "stays");
    }
    backend.writer.commit(batch).unwrap();
    let mut scan = backend.reader.scan(Bucket::Key, b"", None);
    let mut stayed = 0;
    let mut last = None;
    for i in (1..1000_u16).step_by(2) {
        let mut batch = Batch::new();
        batch.put(Bucket::Key, i.to_be_bytes().to_vec(), "comes");
        batch.delete(Bucket::Key, i.wrapping_sub(2).to_be_bytes().to_vec());
        backend.writer.commit(batch).unwrap();
        let Some(record) = scan.next() else { break };
        let (key, value) = record.unwrap();
        assert!(last < Some(key.clone()), "a scan never goes back");
        stayed += usize::from(value == "stays");
        last = Some(key);
    }
    stayed += scan
        .filter(|record| record.as_ref().unwrap().1 == "stays")
        .count();
    assert_eq!(stayed, 500, "what nobody touches comes exactly once");
}

fn an_empty_batch_is_no_write(mut backend: Backend) {
    assert!(Batch::new().is_empty());
    backend.writer.commit(Batch::new()).unwrap();
    assert_eq!(engine_records(&backend.reader), 1);
}

fn a_flush_may_follow_anything(mut backend: Backend) {
    backend.writer.flush_durable().unwrap();
    put(&mut backend, Bucket::Key, &[("k", "v")]);
    backend.writer.flush_durable().unwrap();
    backend.writer.flush_durable().unwrap();
    assert_eq!(get(&backend.reader, Bucket::Key, "k").unwrap(), "v");
}

fn a_scan_outlives_reader_and_writer(mut backend: Backend) {
    put(&mut backend, Bucket::Key, &[("a", "1"), ("b", "2")]);
    let scan = backend.reader.scan(Bucket::Key, b"", None);
    drop(backend);
    let counted = thread::spawn(move || scan.map(Result::unwrap).count());
    assert_eq!(counted.join().unwrap(), 2);
}

/// A step of the model test: a batch, or a check of everything.
#[derive(Clone, Debug)]
pub enum Step {
    /// Commits these changes: bucket, key, and the length of the value to set or `None` to delete.
    Commit(Vec<(Bucket, Vec<u8>, Option<usize>)>),
    /// Flushes.
    Flush,
    /// Compares a scan from one key to another with the model, taking a record from the back where
    /// the bits say so.
    Scan(Bucket, Vec<u8>, Option<Vec<u8>>, u64),
}

/// What a store must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    records: BTreeMap<(Bucket, Vec<u8>), Bytes>,
    /// Makes every value another one.
    values: u64,
}

impl Model {
    /// Makes a batch of `changes`, and makes them here.
    pub fn batch(&mut self, changes: &[(Bucket, Vec<u8>, Option<usize>)]) -> Batch {
        let mut batch = Batch::new();
        for (bucket, key, len) in changes {
            self.values += 1;
            if let Some(len) = *len {
                let value = value(self.values, len);
                self.records.insert((*bucket, key.clone()), value.clone());
                batch.put(*bucket, key.clone(), value);
            } else {
                self.records.remove(&(*bucket, key.clone()));
                batch.delete(*bucket, key.clone());
            }
        }
        batch
    }

    /// Whether `reader` finds exactly what the model holds.
    pub fn check(&self, reader: &Reader) {
        for bucket in Bucket::ALL {
            self.check_scan(reader, bucket, &[], None, 0);
        }
        for ((bucket, key), value) in &self.records {
            assert_eq!(reader.get(*bucket, key).unwrap().as_ref(), Some(value));
        }
    }

    fn check_scan(
        &self,
        reader: &Reader,
        bucket: Bucket,
        from: &[u8],
        to: Option<&[u8]>,
        mut backwards: u64,
    ) {
        let mut expected: std::collections::VecDeque<_> = self
            .records
            .range((Bound::Included((bucket, from.to_vec())), Bound::Unbounded))
            .take_while(|((found, key), _)| {
                *found == bucket && to.is_none_or(|to| key.as_slice() < to)
            })
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        let mut scan = reader.scan(bucket, from, to);
        loop {
            let (found, expected) = match backwards & 1 {
                0 => (scan.next(), expected.pop_front()),
                _ => (scan.next_back(), expected.pop_back()),
            };
            backwards = backwards.rotate_right(1);
            let found = found
                .map(Result::unwrap)
                .map(|(key, value)| (key.to_vec(), value));
            assert_eq!(found, expected);
            if expected.is_none() {
                return;
            }
        }
    }
}

/// Takes `steps` on an empty store and on the model, and compares.
pub fn check_model(mut backend: Backend, steps: &[Step]) {
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(changes) => {
                let batch = model.batch(changes);
                backend.writer.commit(batch).unwrap();
            }
            Step::Flush => backend.writer.flush_durable().unwrap(),
            Step::Scan(bucket, from, to, backwards) => {
                model.check_scan(&backend.reader, *bucket, from, to.as_deref(), *backwards);
            }
        }
    }
    model.check(&backend.reader);
}

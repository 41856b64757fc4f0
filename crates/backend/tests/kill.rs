//! sled under `kill -9`: a child process commits, flushes and acknowledges; it is killed in the
//! middle of it; nothing that it acknowledged may be gone, and the store must open. Killing a
//! process is not a loss of power: what that does is the faulty engine's business.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use kvorum_backend::{Backend, Batch, Bucket, Config};

/// Set for the child, to the store's directory.
const CHILD_PATH: &str = "KVORUM_BACKEND_KILL_PATH";
const ROUNDS: u64 = 20;
/// Records that each batch spreads over the buckets.
const RECORDS_PER_BATCH: u64 = 8;
/// Every so many batches one record is large enough to be in pieces.
const LARGE_EVERY: u64 = 5;

fn open(path: &Path) -> Backend {
    Backend::open(&Config {
        path: path.to_owned(),
        cache_bytes: 8 << 20,
    })
    .unwrap()
}

/// The value of `key` as of batch `counter`; anybody can check it.
fn value(key: u64, counter: u64) -> Bytes {
    let words = if key == 0 && counter.is_multiple_of(LARGE_EVERY) {
        20_000 + counter % 7 * 10_000
    } else {
        20 + counter % 50
    };
    (0..words)
        .flat_map(|word| (counter ^ (key << 32) ^ (word << 40)).to_le_bytes())
        .collect()
}

fn bucket(key: u64) -> Bucket {
    Bucket::ALL[usize::try_from(key % 7).unwrap()]
}

/// The last batch that is in the store. Asserts that all of it is there, and nothing of another.
fn last_batch(backend: &Backend) -> u64 {
    let counter = backend.reader.get(Bucket::Meta, b"counter").unwrap();
    let Some(counter) = counter else { return 0 };
    let counter = u64::from_be_bytes(counter.as_ref().try_into().unwrap());
    for key in 0..RECORDS_PER_BATCH {
        let found = backend.reader.get(bucket(key), &key.to_be_bytes()).unwrap();
        assert!(
            found == Some(value(key, counter)),
            "record {key} is not of batch {counter}"
        );
    }
    // A log that grows at one end and is cut at the other.
    let log: Vec<_> = backend
        .reader
        .scan(Bucket::RaftLog, &[1], None)
        .map(|record| u64::from_be_bytes(record.unwrap().0[1..].try_into().unwrap()))
        .collect();
    let expected: Vec<_> = (counter.saturating_sub(99).max(1)..=counter).collect();
    assert_eq!(log, expected);
    counter
}

fn log_key(counter: u64) -> Vec<u8> {
    let mut key = vec![1];
    key.extend_from_slice(&counter.to_be_bytes());
    key
}

/// The child: goes on for ever from where the store is.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD_PATH).map(PathBuf::from) else {
        return;
    };
    let mut backend = open(&path);
    let mut counter = last_batch(&backend);
    let mut out = std::io::stdout();
    loop {
        counter += 1;
        let mut batch = Batch::new();
        for key in 0..RECORDS_PER_BATCH {
            batch.put(bucket(key), key.to_be_bytes().to_vec(), value(key, counter));
        }
        batch.put(Bucket::Meta, "counter", counter.to_be_bytes().to_vec());
        batch.put(Bucket::RaftLog, log_key(counter), value(1, counter));
        if let Some(old) = counter.checked_sub(100) {
            batch.delete(Bucket::RaftLog, log_key(old));
        }
        backend.writer.commit(batch).unwrap();
        backend.writer.reclaim().unwrap();
        backend.writer.flush_durable().unwrap();
        writeln!(out, "acknowledged {counter}").unwrap();
        out.flush().unwrap();
    }
}

fn start_child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD_PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = start_child(&path);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The moment is that of some acknowledgement, plus whatever it takes the signal to arrive:
        // the child is then anywhere in the batches behind it.
        let patience = 1 + round * round * 7919 % 211;
        let mut heard = 0;
        for line in lines {
            let line = line.unwrap();
            // The harness may have written something onto the same line.
            let Some((_, counter)) = line.split_once("acknowledged ") else {
                continue;
            };
            acknowledged = counter.parse().unwrap();
            heard += 1;
            if heard == patience {
                child.kill().unwrap();
            }
        }
        assert!(
            heard >= patience,
            "the child stopped by itself in round {round}"
        );
        child.wait().unwrap();
        let found = last_batch(&open(&path));
        assert!(
            found >= acknowledged,
            "round {round}: {acknowledged} acknowledged, {found} found"
        );
        assert!(found <= acknowledged + 1, "only one batch is under way");
    }
    let blobs = std::fs::read_dir(path.join("blobs")).unwrap().count();
    assert_eq!(blobs, 0, "an item was too large for sled's log");
}

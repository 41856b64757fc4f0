//! Logs as etcd writes them, whole and damaged.

use std::fs;

use api::encoded::etcdserverpb::PutRequest;
use tempfile::TempDir;

use super::message::HardState;
use super::*;

const METADATA: i64 = 1;
const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CRC: i64 = 4;

/// Writes files of a log.
struct Log {
    directory: TempDir,
    crc: u32,
    bytes: Vec<u8>,
}

impl Log {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            crc: 0,
            bytes: Vec::new(),
        }
    }

    fn record(&mut self, kind: i64, message: &impl Message) {
        let data = Bytes::from(message.encode_to_vec());
        if kind != CRC {
            self.crc = crc32c::crc32c_append(self.crc, &data);
        }
        let crc = self.crc;
        let record = Record { kind, crc, data }.encode_to_vec();
        let padding = (8 - record.len() % 8) % 8;
        let mut head = record.len() as u64;
        if padding > 0 {
            head |= (0x80 | padding as u64) << 56;
        }
        self.bytes.extend_from_slice(&head.to_le_bytes());
        self.bytes.extend_from_slice(&record);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }

    fn begin(&mut self) {
        self.record(CRC, &Metadata::default());
        let metadata = Metadata {
            node_id: 0x8e9e,
            cluster_id: 0xcdf8,
        };
        self.record(METADATA, &metadata);
    }

    fn put(&mut self, term: u64, index: u64, key: &str) {
        let request = InternalRaftRequest {
            put: Some(PutRequest {
                key: Bytes::copy_from_slice(key.as_bytes()),
                ..PutRequest::default()
            }),
            ..InternalRaftRequest::default()
        };
        let data = request.encode_to_vec().into();
        let kind = 0;
        self.record(
            ENTRY,
            &WireEntry {
                kind,
                term,
                index,
                data,
            },
        );
    }

    fn state(&mut self, term: u64, commit: u64) {
        self.record(
            STATE,
            &HardState {
                term,
                vote: 0,
                commit,
            },
        );
    }

    /// Ends a file, which has room for more as etcd's have.
    fn end(&mut self, number: u64, first: u64) {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        let name = format!("{number:016x}-{first:016x}.wal");
        fs::write(self.directory.path().join(name), &self.bytes).unwrap();
        self.bytes.clear();
    }

    fn read(&self, index: u64) -> Result<Wal, WalError> {
        read(self.directory.path(), index)
    }
}

fn keys(wal: &Wal) -> Vec<(u64, u64, String)> {
    let key = |entry: &Entry| match &entry.payload {
        Payload::Request(request) => {
            let put = request.put.as_ref().unwrap();
            String::from_utf8(put.key.to_vec()).unwrap()
        }
        _ => String::new(),
    };
    let entries = wal.entries.iter();
    entries
        .map(|entry| (entry.term, entry.index, key(entry)))
        .collect()
}

fn two_files() -> Log {
    let mut log = Log::new();
    log.begin();
    log.put(1, 1, "a");
    log.put(1, 2, "lost");
    log.put(1, 3, "lost too");
    log.put(2, 2, "b");
    log.state(2, 1);
    log.end(0, 0);
    log.begin();
    log.put(2, 3, "c");
    log.put(2, 4, "d");
    log.state(2, 3);
    log.end(1, 3);
    log
}

#[test]
fn entries_behind_the_database_are_read_over_all_files() {
    let wal = two_files().read(1).unwrap();
    let entry = |index, key: &str| (2, index, key.to_owned());
    assert_eq!(keys(&wal), [entry(2, "b"), entry(3, "c"), entry(4, "d")]);
    assert_eq!((wal.member.0, wal.cluster.0), (0x8e9e, 0xcdf8));
    assert_eq!((wal.term, wal.commit, wal.base_term), (2, 3, Some(1)));
    assert!(!wal.is_torn);
    // From the second file alone.
    let wal = two_files().read(3).unwrap();
    assert_eq!(keys(&wal), [entry(4, "d")]);
    assert!(two_files().read(9).unwrap().entries.is_empty());
}

#[test]
fn a_file_that_is_missing_is_named() {
    let log = two_files();
    fs::remove_file(
        log.directory
            .path()
            .join(format!("{:016x}-{:016x}.wal", 0, 0)),
    )
    .unwrap();
    assert!(matches!(log.read(1), Err(WalError::Gap { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(read(empty.path(), 1), Err(WalError::Empty { .. })));
}

#[test]
fn what_is_cut_off_at_the_end_is_dropped_and_elsewhere_an_error() {
    let log = two_files();
    for (number, first) in [(0, 0), (1, 3)] {
        let path = log
            .directory
            .path()
            .join(format!("{number:016x}-{first:016x}.wal"));
        let whole = fs::read(&path).unwrap();
        let used = whole.len() - 1024;
        for len in 1..used {
            fs::write(&path, &whole[..len]).unwrap();
            let read = log.read(1);
            if number == 0 {
                // The rest is missing, whether or not it can be seen in this file.
                assert!(read.is_err(), "cut at {len}");
            } else if let Ok(wal) = read {
                assert!(keys(&wal).len() <= 3);
            }
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let log = two_files();
    let path = log
        .directory
        .path()
        .join(format!("{:016x}-{:016x}.wal", 0, 0));
    let whole = fs::read(&path).unwrap();
    let expected = log.read(1).unwrap();
    for at in 0..whole.len() - 1024 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        // What does not count between two records may be anything.
        if let Ok(found) = log.read(1) {
            assert_eq!(found, expected, "flipped at {at}");
        }
    }
}

//! A store on a disk in memory, for tests.

use std::sync::atomic::AtomicBool;

use backend::{Backend, Batch};
use bytes::Bytes;
use types::{KeyRange, LeaseId};

use crate::{Config, Put, Range, Store, Writer, open};

/// A store whose disk outlives it.
pub(crate) struct Fixture {
    pub(crate) backend: Backend,
    config: Config,
    pub(crate) reads: Store,
    pub(crate) writer: Writer,
}

impl Fixture {
    pub(crate) fn new(event_log_bytes_max: usize) -> Self {
        let backend = Backend::in_memory();
        let config = Config {
            event_log_bytes_max,
        };
        let (reads, writer) = open(backend.reader.clone(), &config).unwrap();
        Self {
            backend,
            config,
            reads,
            writer,
        }
    }

    pub(crate) fn stage(&mut self) {
        let mut batch = Batch::new();
        let revision = self.writer.stage(&mut batch).unwrap();
        self.backend.writer.commit(batch).unwrap();
        self.reads.note_persisted(revision);
    }

    /// Until there is nothing left to do.
    pub(crate) fn settle(&mut self) {
        self.writer.publish();
        self.hash();
        self.stage();
        for _ in 0..10_000 {
            if !self.writer.is_scrubbing() {
                return;
            }
            self.stage();
        }
        panic!("a compaction does not end");
    }

    /// Makes the hashes of compactions.
    pub(crate) fn hash(&mut self) {
        for job in self.writer.take_hash_jobs() {
            job.run(&AtomicBool::new(false)).unwrap();
        }
    }

    /// Bytes of the versions that are not compacted.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.writer.segments.live_bytes() + self.writer.unstaged_bytes() as u64
    }

    pub(crate) fn reopen(&mut self) {
        let (reads, writer) = open(self.backend.reader.clone(), &self.config).unwrap();
        (self.reads, self.writer) = (reads, writer);
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        let mut txn = self.writer.begin();
        txn.put(put(key, value, None));
        txn.end()
    }

    pub(crate) fn delete(&mut self, key: &str) -> i64 {
        let mut txn = self.writer.begin();
        txn.delete_range(&KeyRange::Single(Bytes::copy_from_slice(key.as_bytes())));
        txn.end()
    }

    pub(crate) fn get_at(&self, key: &str, at: i64) -> Option<String> {
        let keys = KeyRange::Single(Bytes::copy_from_slice(key.as_bytes()));
        let range = Range {
            keys,
            at: Some(at),
            limit: None,
            count_only: false,
        };
        let found = self.reads.view().range(&range).unwrap();
        found
            .kvs
            .first()
            .map(|kv| String::from_utf8(kv.value().to_vec()).unwrap())
    }
}

pub(crate) fn put<'a>(key: &'a str, value: &'a str, lease: Option<i64>) -> Put<'a> {
    Put {
        key: key.as_bytes(),
        value: value.as_bytes(),
        lease: lease.map(LeaseId),
    }
}

pub(crate) fn all() -> Range {
    Range {
        keys: KeyRange::all(),
        at: None,
        limit: None,
        count_only: false,
    }
}

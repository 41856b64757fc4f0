use proptest::prelude::*;
use tempfile::TempDir;

use crate::engine::FaultyEngine;
use crate::suite::{self, Step};

use super::*;

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Short and few, so that changes meet; some share prefixes.
    prop::collection::vec(prop::sample::select(vec![0, 1, b'k', 0xff]), 0..4)
}

fn bucket() -> impl Strategy<Value = Bucket> {
    prop::sample::select(vec![Bucket::Key, Bucket::Meta, Bucket::RaftMeta])
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![
        3 => Just(None),
        6 => (0..100_usize).prop_map(Some),
        1 => (record::PIECE_BYTES - 2..3 * record::PIECE_BYTES).prop_map(Some),
    ];
    prop_oneof![
        6 => prop::collection::vec((bucket(), key(), len), 1..20).prop_map(Step::Commit),
        1 => Just(Step::Flush),
        3 => (bucket(), key(), prop::option::of(key()), any::<u64>())
            .prop_map(|(bucket, from, to, backwards)| Step::Scan(bucket, from, to, backwards)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn memory_does_what_a_map_does(steps in prop::collection::vec(step(), 1..30)) {
        suite::check_model(Backend::in_memory(), &steps);
    }

    #[test]
    fn the_faulty_engine_does_what_a_map_does_while_nothing_fails(
        seed: u64,
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let backend = Backend::with_engine(Arc::new(FaultyEngine::new(seed))).unwrap();
        suite::check_model(backend, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sled_does_what_a_map_does(steps in prop::collection::vec(step(), 1..30)) {
        let dir = TempDir::new().unwrap();
        let config = Config { path: dir.path().to_owned(), cache_bytes: 8 << 20 };
        suite::check_model(Backend::open(&config).unwrap(), &steps);
    }
}

#[test]
fn a_store_of_an_earlier_version_becomes_one_of_ours() {
    let engine = Arc::new(MemoryEngine::new());
    engine
        .apply(vec![record::format_record(FORMAT_VERSION - 1)])
        .unwrap();
    drop(Backend::with_engine(Arc::clone(&engine) as Arc<dyn Engine>).unwrap());
    let marked = engine.get(record::format_key()).unwrap().unwrap();
    assert_eq!(record::decode_format(&marked).unwrap(), FORMAT_VERSION);
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let engine = Arc::new(MemoryEngine::new());
    engine
        .apply(vec![record::format_record(FORMAT_VERSION + 1)])
        .unwrap();
    let error = Backend::with_engine(engine).unwrap_err();
    let OpenError::Newer { found, supported } = error else {
        panic!("{error:?}")
    };
    assert_eq!((found, supported), (FORMAT_VERSION + 1, FORMAT_VERSION));
    assert!(
        error.to_string().contains("has format version 3"),
        "{error}"
    );
}

#[test]
fn records_without_a_format_version_are_refused() {
    let engine = Arc::new(MemoryEngine::new());
    engine
        .apply(vec![(Bytes::from_static(b"\x41k"), Some(Bytes::new()))])
        .unwrap();
    let error = Backend::with_engine(engine).unwrap_err();
    assert!(matches!(error, OpenError::NoFormat), "{error:?}");
}

#[test]
fn a_store_opens_again_on_the_same_engine() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let mut batch = Batch::new();
    batch.put(Bucket::Key, "k", "v");
    Backend::with_engine(Arc::clone(&engine))
        .unwrap()
        .writer
        .commit(batch)
        .unwrap();
    let reader = Backend::with_engine(engine).unwrap().reader;
    assert_eq!(reader.get(Bucket::Key, b"k").unwrap().unwrap(), "v");
}

#[test]
fn a_record_under_another_key_is_corrupt() {
    let engine = Arc::new(MemoryEngine::new());
    let mut backend = Backend::with_engine(Arc::clone(&engine) as Arc<dyn Engine>).unwrap();
    let mut batch = Batch::new();
    batch.put(Bucket::Key, "a", "v");
    backend.writer.commit(batch).unwrap();
    let record = engine.get(b"\x41a").unwrap();
    engine
        .apply(vec![(Bytes::from_static(b"\x41b"), record)])
        .unwrap();
    let error = backend.reader.get(Bucket::Key, b"b").unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("record 62 of bucket key is corrupt"),
        "{text}"
    );
    let scanned: Vec<_> = backend
        .reader
        .scan(Bucket::Key, b"", None)
        .map(|record| record.is_ok())
        .collect();
    assert_eq!(
        scanned,
        [true, false],
        "the scan goes on behind a corrupt record"
    );
}

#[test]
fn a_panic_in_a_write_poisons_the_store() {
    #[derive(Debug)]
    struct Panics(MemoryEngine);
    impl Engine for Panics {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, crate::engine::EngineError> {
            self.0.get(key)
        }
        fn scan(&self, from: &[u8], to: &[u8]) -> crate::engine::EngineScan {
            self.0.scan(from, to)
        }
        fn apply(&self, changes: Vec<Change>) -> Result<(), crate::engine::EngineError> {
            if changes.len() > 1 {
                panic!("as sled does when its file is damaged");
            }
            self.0.apply(changes)
        }
        fn flush_durable(&self) -> Result<(), crate::engine::EngineError> {
            Ok(())
        }
        fn size_on_disk(&self) -> Result<u64, crate::engine::EngineError> {
            Ok(0)
        }
    }
    let mut backend = Backend::with_engine(Arc::new(Panics(MemoryEngine::new()))).unwrap();
    let mut batch = Batch::new();
    batch.put(Bucket::Key, "a", "v");
    batch.put(Bucket::Key, "b", "v");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        backend.writer.commit(batch)
    }));
    assert!(panicked.is_err());
    let refused = backend.writer.flush_durable().unwrap_err();
    let WriteError::Poisoned { first } = refused else {
        panic!("{refused:?}")
    };
    assert!(matches!(*first, WriteError::Interrupted));
}

#[test]
fn handles_go_where_they_are_needed() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync + Clone>() {}
    sent::<Backend>();
    sent::<Writer>();
    sent::<Scan>();
    shared::<Reader>();
}

use std::sync::Arc;

use proptest::prelude::*;

use crate::suite::{self, Model};
use crate::{Backend, Bucket, ReadError, WriteError};

use super::*;

fn open(engine: &Arc<FaultyEngine>) -> Backend {
    Backend::with_engine(Arc::clone(engine) as Arc<dyn Engine>).unwrap()
}

/// The model after each committed batch, and how many of them were flushed.
fn fill(backend: &mut Backend, batches: usize, flush_at: Option<usize>) -> Vec<Model> {
    let mut models = vec![Model::default()];
    for round in 0..batches {
        let mut model = models.last().unwrap().clone();
        let i = u8::try_from(round).unwrap();
        let changes = [
            (Bucket::Key, vec![i], Some(usize::from(i) * 70)),
            (Bucket::Key, vec![i / 2], (i % 3 > 0).then_some(200)),
            (Bucket::Meta, b"last".to_vec(), Some(300)),
        ];
        backend.writer.commit(model.batch(&changes)).unwrap();
        models.push(model);
        if flush_at == Some(round) {
            backend.writer.flush_durable().unwrap();
        }
    }
    models
}

/// Which of `models` the store holds.
fn which(backend: &Backend, models: &[Model]) -> usize {
    let held = (0..models.len()).rev().find(|i| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            models[*i].check(&backend.reader)
        }))
        .is_ok()
    });
    held.expect("after a crash the store holds the first n batches for some n")
}

#[test]
fn the_suite_passes() {
    let mut seed = 0;
    suite::run(|| {
        seed += 1;
        open(&Arc::new(FaultyEngine::new(seed)))
    });
}

#[test]
fn what_was_flushed_survives_every_crash() {
    for seed in 0..10 {
        for loss in Loss::ALL {
            let engine = Arc::new(FaultyEngine::new(seed));
            let mut backend = open(&engine);
            let models = fill(&mut backend, 20, Some(11));
            let after = open(&Arc::new(engine.crash(loss)));
            let held = which(&after, &models);
            assert!(
                held >= 12,
                "seed {seed}, {loss:?}: flushed batches are gone"
            );
            match loss {
                Loss::Nothing => assert_eq!(held, 20),
                Loss::All => assert_eq!(held, 12),
                Loss::Torn | Loss::Scattered => {}
            }
        }
    }
}

#[test]
fn a_torn_crash_can_end_anywhere() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut backend = open(&engine);
    let models = fill(&mut backend, 20, Some(0));
    let held: std::collections::BTreeSet<_> = (0..100)
        .map(|_| which(&open(&Arc::new(engine.crash(Loss::Torn))), &models))
        .collect();
    assert!(held.len() > 8, "{held:?}");
}

#[test]
fn the_same_seed_does_the_same_again() {
    let run = || {
        let engine = Arc::new(FaultyEngine::new(42));
        let mut backend = open(&engine);
        let models = fill(&mut backend, 20, None);
        let crashes = Loss::ALL.map(|loss| engine.crash(loss));
        crashes.map(|crashed| which(&open(&Arc::new(crashed)), &models))
    };
    assert_eq!(run(), run());
}

#[test]
fn after_a_failed_commit_every_write_is_refused() {
    let engine = Arc::new(FaultyEngine::new(3));
    let mut backend = open(&engine);
    engine.fail_apply_after(2);
    let mut model = Model::default();
    let mut commit = || {
        backend
            .writer
            .commit(model.batch(&[(Bucket::Key, vec![1], Some(9))]))
    };
    commit().unwrap();
    commit().unwrap();
    assert!(matches!(commit().unwrap_err(), WriteError::Commit(_)));
    let refused = commit().unwrap_err();
    assert!(
        matches!(&refused, WriteError::Poisoned { first } if matches!(**first, WriteError::Commit(_))),
        "{refused:?}"
    );
    let refused = backend.writer.flush_durable().unwrap_err();
    assert!(
        matches!(refused, WriteError::Poisoned { .. }),
        "{refused:?}"
    );
    let refused = backend.writer.commit(crate::Batch::new()).unwrap_err();
    assert!(
        matches!(refused, WriteError::Poisoned { .. }),
        "{refused:?}"
    );
    assert_eq!(
        engine.applies(),
        3,
        "the format version and the two that succeeded"
    );
    assert_eq!(
        backend.reader.scan(Bucket::Key, b"", None).count(),
        1,
        "reads go on"
    );
}

#[test]
fn after_a_failed_flush_every_write_is_refused() {
    let engine = Arc::new(FaultyEngine::new(3));
    let mut backend = open(&engine);
    let models = fill(&mut backend, 5, Some(2));
    engine.fail_flush_after(0);
    assert!(matches!(
        backend.writer.flush_durable().unwrap_err(),
        WriteError::Flush(_)
    ));
    let refused = backend.writer.flush_durable().unwrap_err();
    let WriteError::Poisoned { first } = refused else {
        panic!("{refused:?}")
    };
    assert!(matches!(*first, WriteError::Flush(_)), "{first:?}");
    assert!(which(&open(&Arc::new(engine.crash(Loss::Torn))), &models) >= 3);
}

#[test]
fn a_flipped_bit_in_a_record_is_never_served() {
    let mut corrupt = 0;
    for seed in 0..300 {
        let engine = Arc::new(FaultyEngine::new(seed));
        let mut backend = open(&engine);
        let mut model = Model::default();
        let large = 2 * crate::record::PIECE_BYTES;
        let changes = [
            (Bucket::Key, vec![1], Some(20)),
            (Bucket::Lease, vec![2], Some(large)),
        ];
        backend.writer.commit(model.batch(&changes)).unwrap();
        for key in engine.keys().into_iter().filter(|key| key[0] != 0) {
            let engine = Arc::new(engine.crash(Loss::Nothing));
            engine.flip_bit(&key);
            let reader = open(&engine).reader;
            let (bucket, within) = match key[0] & 0x3f {
                1 => (Bucket::Key, [1]),
                _ => (Bucket::Lease, [2]),
            };
            match reader.get(bucket, &within).unwrap_err() {
                ReadError::Corrupt {
                    bucket: named,
                    key,
                    expected,
                    found,
                } => {
                    assert_eq!((named, &key[..]), (bucket, &within[..]));
                    assert_ne!(expected, found);
                    corrupt += 1;
                }
                ReadError::Malformed {
                    bucket: named, key, ..
                } => {
                    assert_eq!((named, &key[..]), (bucket, &within[..]));
                }
                error @ ReadError::Engine(_) => panic!("{error:?}"),
            }
            assert_eq!(
                reader
                    .scan(bucket, b"", None)
                    .filter(Result::is_err)
                    .count(),
                1
            );
        }
    }
    assert!(corrupt > 900, "{corrupt}");
}

#[test]
fn a_record_can_be_damaged_by_its_bucket_and_key() {
    let engine = Arc::new(FaultyEngine::new(6));
    let mut backend = open(&engine);
    fill(&mut backend, 3, Some(2));
    engine.flip_bit_of(Bucket::Meta, b"last");
    assert!(backend.reader.get(Bucket::Meta, b"last").is_err());
    assert!(backend.reader.get(Bucket::Key, &[1]).is_ok());
}

#[test]
fn a_flipped_bit_in_the_format_version_is_found_when_opening() {
    let engine = Arc::new(FaultyEngine::new(5));
    drop(open(&engine));
    engine.flip_bit(crate::record::format_key());
    let error = Backend::with_engine(engine).unwrap_err();
    assert!(matches!(error, crate::OpenError::Read(_)), "{error:?}");
}

fn change() -> impl Strategy<Value = (Bucket, Vec<u8>, Option<usize>)> {
    let bucket = prop::sample::select(Bucket::ALL.to_vec());
    let len = prop_oneof![
        1 => Just(None),
        2 => (0..2000_usize).prop_map(Some),
        1 => (60_000..200_000_usize).prop_map(Some),
    ];
    (bucket, prop::collection::vec(0..4_u8, 0..2), len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_crash_leaves_the_first_batches_and_all_that_was_flushed(
        seed: u64,
        batches in prop::collection::vec(prop::collection::vec(change(), 1..5), 1..12),
        flush_at in 0..12_usize,
        loss in prop::sample::select(Loss::ALL.to_vec()),
    ) {
        let engine = Arc::new(FaultyEngine::new(seed));
        let mut backend = open(&engine);
        let mut models = vec![Model::default()];
        for (i, changes) in batches.iter().enumerate() {
            let mut model = models.last().unwrap().clone();
            backend.writer.commit(model.batch(changes)).unwrap();
            models.push(model);
            if i == flush_at {
                backend.writer.flush_durable().unwrap();
            }
        }
        let flushed = if flush_at < batches.len() { flush_at + 1 } else { 0 };
        let after = open(&Arc::new(engine.crash(loss)));
        prop_assert!(which(&after, &models) >= flushed);
    }
}

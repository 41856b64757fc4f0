//! The log store alone: what is durable when, and what a restart finds.

use std::sync::Arc;
use std::time::Duration;

use backend::engine::{FaultyEngine, Loss};
use backend::{Backend, Bucket};
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use super::*;
use crate::error::FatalCell;
use crate::progress::Progress;
use crate::testing::put;
use crate::type_config::{Payload, Proposal};

struct Opened {
    store: LogStore,
    handle: LogHandle,
    fatal: FatalCell,
}

fn open_on(backend: Backend) -> Opened {
    let fatal = FatalCell::default();
    let (store, handle) = open(
        backend,
        Arc::default(),
        fatal.clone(),
        &Workers::Threads,
        None,
    )
    .unwrap();
    Opened {
        store,
        handle,
        fatal,
    }
}

fn open_faulty(engine: &Arc<FaultyEngine>) -> Opened {
    let engine = Arc::clone(engine) as Arc<dyn backend::engine::Engine>;
    open_on(Backend::with_engine(engine).unwrap())
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let payload = Payload::Normal(Proposal::new(
        index,
        vec![put(format!("key{index}").as_bytes(), &vec![b'v'; bytes])],
    ));
    Entry {
        log_id: crate::type_config::log_id(term, index),
        payload,
    }
}

type Flushed = oneshot::Receiver<io::Result<()>>;

/// Appends without waiting.
async fn append(store: &mut LogStore, entries: Vec<Entry>) -> Flushed {
    let (tx, rx) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(tx)).await.unwrap();
    rx
}

async fn entries(store: &mut LogStore) -> Vec<Entry> {
    store
        .get_log_reader()
        .await
        .try_get_log_entries(..)
        .await
        .unwrap()
}

async fn indexes(store: &mut LogStore) -> Vec<u64> {
    entries(store)
        .await
        .iter()
        .map(|entry| entry.log_id.index)
        .collect()
}

#[tokio::test]
async fn appends_that_queue_share_a_flush_and_a_record() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut log = open_faulty(&engine);
    let before = engine.flushes();
    // No flush ends before all of them have queued.
    engine.slow_flush(Duration::from_secs(3600));
    let mut waiting = Vec::new();
    for index in 0..1000 {
        waiting.push(append(&mut log.store, vec![entry(1, index, 20)]).await);
        assert_eq!(
            log.store
                .get_log_state()
                .await
                .unwrap()
                .last_log_id
                .unwrap()
                .index,
            index
        );
    }
    engine.slow_flush(Duration::ZERO);
    for flushed in waiting {
        flushed.await.unwrap().unwrap();
    }
    let flushes = engine.flushes() - before;
    // The one under way when the second is appended, and one for all that waited for it.
    assert!(flushes <= 2, "{flushes} flushes for 1000 appends");
    assert_eq!(log.handle.flushed().0, flushes);
    log.handle.close().await;
}

#[tokio::test]
async fn what_was_flushed_is_there_after_any_loss_of_power() {
    for seed in 0..40 {
        let engine = Arc::new(FaultyEngine::new(seed));
        let mut log = open_faulty(&engine);
        let vote = Vote::new_committed(3, 1);
        log.store.save_vote(&vote).await.unwrap();
        let mut last = None;
        for index in 0..30 {
            last = Some(append(&mut log.store, vec![entry(3, index, 300)]).await);
        }
        last.unwrap().await.unwrap().unwrap();
        // Nobody waits for these.
        for index in 30..60 {
            drop(append(&mut log.store, vec![entry(3, index, 300)]).await);
        }
        for loss in Loss::ALL {
            let mut after = open_faulty(&Arc::new(engine.crash(loss)));
            let found = entries(&mut after.store).await;
            assert!(
                found.len() >= 30,
                "seed {seed}, {loss:?}: {} entries",
                found.len()
            );
            for (index, found) in (0..).zip(found) {
                assert_eq!(found, entry(3, index, 300));
            }
            let mut reader = after.store.get_log_reader().await;
            assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
        }
    }
}

#[tokio::test]
async fn a_vote_is_durable_when_save_vote_returns() {
    let engine = Arc::new(FaultyEngine::new(7));
    let mut log = open_faulty(&engine);
    for term in 1..20 {
        let vote = Vote::new(term, 5);
        log.store.save_vote(&vote).await.unwrap();
        let mut after = open_faulty(&Arc::new(engine.crash(Loss::All)));
        assert_eq!(
            after
                .store
                .get_log_reader()
                .await
                .read_vote()
                .await
                .unwrap(),
            Some(vote)
        );
    }
}

#[tokio::test]
async fn the_committed_mark_rides_on_the_next_flush_and_never_runs_ahead() {
    let engine = Arc::new(FaultyEngine::new(8));
    let mut log = open_faulty(&engine);
    append(&mut log.store, vec![entry(1, 0, 9), entry(1, 1, 9)])
        .await
        .await
        .unwrap()
        .unwrap();
    let before = engine.flushes();
    log.store
        .save_committed(Some(crate::type_config::log_id(1, 1)))
        .await
        .unwrap();
    assert_eq!(engine.flushes(), before, "it must not cost a flush");
    append(&mut log.store, vec![entry(1, 2, 9)])
        .await
        .await
        .unwrap()
        .unwrap();
    let mut after = open_faulty(&Arc::new(engine.crash(Loss::All)));
    assert_eq!(
        after.store.read_committed().await.unwrap().unwrap().index,
        1
    );
    // Ahead of the entries: kept back until they are there.
    log.store
        .save_committed(Some(crate::type_config::log_id(1, 9)))
        .await
        .unwrap();
    append(&mut log.store, vec![entry(1, 3, 9)])
        .await
        .await
        .unwrap()
        .unwrap();
    let mut after = open_faulty(&Arc::new(engine.crash(Loss::Nothing)));
    assert_eq!(
        after.store.read_committed().await.unwrap().unwrap().index,
        1
    );
}

#[tokio::test]
async fn a_truncated_log_goes_on_after_a_restart_where_it_was_cut() {
    for cut in 0..10 {
        let engine = Arc::new(FaultyEngine::new(cut));
        let mut log = open_faulty(&engine);
        // Two groups, one from several appends.
        append(&mut log.store, (0..5).map(|i| entry(1, i, 50)).collect())
            .await
            .await
            .unwrap()
            .unwrap();
        append(&mut log.store, (5..10).map(|i| entry(1, i, 50)).collect())
            .await
            .await
            .unwrap()
            .unwrap();
        let after = cut
            .checked_sub(1)
            .map(|index| crate::type_config::log_id(1, index));
        log.store.truncate_after(after).await.unwrap();
        assert_eq!(indexes(&mut log.store).await, (0..cut).collect::<Vec<_>>());
        append(&mut log.store, vec![entry(2, cut, 70)])
            .await
            .await
            .unwrap()
            .unwrap();
        let mut again = open_faulty(&Arc::new(engine.crash(Loss::All)));
        let found = entries(&mut again.store).await;
        assert_eq!(found.len() as u64, cut + 1);
        assert_eq!(found.last(), Some(&entry(2, cut, 70)));
    }
}

#[tokio::test]
async fn a_purge_in_the_middle_of_a_group_is_exact_after_a_restart() {
    for upto in 0..12 {
        let engine = Arc::new(FaultyEngine::new(upto));
        let mut log = open_faulty(&engine);
        for first in [0, 4, 8] {
            let group = (first..first + 4).map(|i| entry(1, i, 50)).collect();
            append(&mut log.store, group).await.await.unwrap().unwrap();
        }
        let id = crate::type_config::log_id(1, upto);
        log.store.purge(id).await.unwrap();
        append(&mut log.store, vec![entry(1, 12, 50)])
            .await
            .await
            .unwrap()
            .unwrap();
        let mut again = open_faulty(&Arc::new(engine.crash(Loss::All)));
        assert_eq!(
            indexes(&mut again.store).await,
            (upto + 1..=12).collect::<Vec<_>>()
        );
        let state = again.store.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(id));
        assert_eq!(state.last_log_id.unwrap().index, 12);
        again.handle.close().await;
        log.handle.close().await;
    }
}

#[tokio::test]
async fn purged_groups_leave_the_disk() {
    let engine = Arc::new(FaultyEngine::new(3));
    let mut log = open_faulty(&engine);
    for index in 0..300 {
        append(&mut log.store, vec![entry(1, index, 10)])
            .await
            .await
            .unwrap()
            .unwrap();
    }
    log.store
        .purge(crate::type_config::log_id(1, 298))
        .await
        .unwrap();
    let records = || {
        let engine = Arc::new(engine.crash(Loss::Nothing));
        let reader = Backend::with_engine(engine).unwrap().reader;
        reader.scan(Bucket::RaftLog, &[], None).count()
    };
    let patience = tokio::time::timeout(Duration::from_secs(10), async {
        while records() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    patience
        .await
        .expect("the groups are removed without further writes");
}

#[tokio::test]
async fn a_purge_past_the_end_starts_the_log_anew() {
    let engine = Arc::new(FaultyEngine::new(4));
    let mut log = open_faulty(&engine);
    append(&mut log.store, (0..3).map(|i| entry(1, i, 50)).collect())
        .await
        .await
        .unwrap()
        .unwrap();
    log.store
        .purge(crate::type_config::log_id(4, 9))
        .await
        .unwrap();
    append(&mut log.store, vec![entry(4, 10, 50)])
        .await
        .await
        .unwrap()
        .unwrap();
    let mut again = open_faulty(&Arc::new(engine.crash(Loss::All)));
    assert_eq!(indexes(&mut again.store).await, [10]);
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_acknowledged_any_more() {
    for seed in 0..20 {
        let engine = Arc::new(FaultyEngine::new(seed));
        let mut log = open_faulty(&engine);
        let _ok = append(&mut log.store, vec![entry(1, 0, 10)])
            .await
            .await
            .unwrap();
        if seed % 2 == 0 {
            engine.fail_flush_after(3)
        } else {
            engine.fail_apply_after(3)
        };
        let mut refused = None;
        for index in 1..20 {
            let flushed = append(&mut log.store, vec![entry(1, index, 10)])
                .await
                .await
                .unwrap();
            match (flushed.is_err(), refused) {
                (true, None) => refused = Some(index),
                (false, Some(first)) => panic!("entry {index} after {first} was refused"),
                _ => {}
            }
        }
        let refused = refused.expect("the disk is broken");
        log.store.save_vote(&Vote::new(9, 9)).await.unwrap_err();
        let reason = log.fatal.wait().await;
        assert!(matches!(reason, crate::Fatal::Log(_)), "{reason:?}");
        for loss in Loss::ALL {
            let mut after = open_faulty(&Arc::new(engine.crash(loss)));
            assert!(entries(&mut after.store).await.len() as u64 >= refused);
        }
        log.handle.close().await;
    }
}

#[tokio::test]
async fn a_broken_record_is_named_when_the_log_is_opened() {
    let engine = Arc::new(FaultyEngine::new(5));
    let mut log = open_faulty(&engine);
    append(&mut log.store, vec![entry(1, 0, 10)])
        .await
        .await
        .unwrap()
        .unwrap();
    append(&mut log.store, vec![entry(1, 1, 10)])
        .await
        .await
        .unwrap()
        .unwrap();
    log.handle.close().await;
    let mut backend = Backend::with_engine(engine).unwrap();
    let mut batch = backend::Batch::new();
    batch.put(Bucket::RaftLog, 1_u64.to_be_bytes().to_vec(), vec![1, 2, 3]);
    backend.writer.commit(batch).unwrap();
    let error = open(
        backend,
        Arc::default(),
        FatalCell::default(),
        &Workers::Threads,
        None,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the raft log is broken at index 1 (record 1 of bucket RaftLog)"
    );
}

#[tokio::test]
async fn a_missing_group_is_found_when_the_log_is_opened() {
    let engine = Arc::new(FaultyEngine::new(6));
    let mut log = open_faulty(&engine);
    for index in 0..3 {
        append(&mut log.store, vec![entry(1, index, 10)])
            .await
            .await
            .unwrap()
            .unwrap();
    }
    log.handle.close().await;
    let mut backend = Backend::with_engine(engine).unwrap();
    let mut batch = backend::Batch::new();
    batch.delete(Bucket::RaftLog, 1_u64.to_be_bytes().to_vec());
    backend.writer.commit(batch).unwrap();
    let error = open(
        backend,
        Arc::default(),
        FatalCell::default(),
        &Workers::Threads,
        None,
    )
    .unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Hole {
                found: 2,
                expected: 1
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_entry_reads_the_same_before_and_after_it_has_settled() {
    let progress = Arc::<Progress>::default();
    let (mut store, handle) = open(
        Backend::in_memory(),
        Arc::clone(&progress),
        FatalCell::default(),
        &Workers::Threads,
        None,
    )
    .unwrap();
    let written: Vec<Entry> = (0..100).map(|index| entry(1, index, 2000)).collect();
    for entry in &written {
        let flushed = append(&mut store, vec![entry.clone()]).await;
        flushed.await.unwrap().unwrap();
        progress.apply(Some(entry.log_id));
        assert_eq!(entries(&mut store).await, written[..=position(entry)]);
    }
    let live = || handle.shared.index.read().live_entries();
    let patience = tokio::time::timeout(Duration::from_secs(10), async {
        while live() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    patience.await.expect("all but the last have settled");
    assert_eq!(entries(&mut store).await, written);
    // A settled entry that is cut off leaves its place to another.
    store
        .truncate_after(Some(crate::type_config::log_id(1, 49)))
        .await
        .unwrap();
    append(&mut store, vec![entry(2, 50, 10)])
        .await
        .await
        .unwrap()
        .unwrap();
    assert_eq!(entries(&mut store).await.last(), Some(&entry(2, 50, 10)));
    handle.close().await;
}

fn position(entry: &Entry) -> usize {
    usize::try_from(entry.log_id.index).unwrap()
}

#[test]
fn the_log_is_cut_by_count_and_by_bytes() {
    let mut index = Index::new(None, None, None);
    for i in 0..100 {
        index.push(entry(1, i, 1000));
    }
    let each = group::payload_len(&entry(1, 50, 1000)) as u64;
    assert_eq!(index.cut(99, 200, u64::MAX), None);
    assert_eq!(index.cut(99, 10, u64::MAX), Some(89));
    assert_eq!(index.cut(49, 10, u64::MAX), Some(39));
    assert_eq!(index.cut(99, 1000, 10 * each), Some(89));
    assert_eq!(index.cut(99, 0, 0), Some(99));
    assert_eq!(index.bytes_after(Some(98)), each);
    index.purge(crate::type_config::log_id(1, 89));
    assert_eq!(index.cut(99, 10, u64::MAX), None);
    assert_eq!(index.bytes_after(Some(10)), 10 * each);
}

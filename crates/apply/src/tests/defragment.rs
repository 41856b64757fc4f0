use backend::engine::{FaultyDisk, FaultyEngine, Loss};

use super::*;

/// Overwrites a few keys until there is much history, and compacts it.
fn churn(b: &mut Bench, rounds: usize) {
    let value = "v".repeat(2000);
    for round in 0..rounds {
        for key in 0..20 {
            b.put(&format!("k{key}"), &format!("{round} {value}"));
        }
    }
}

fn compact(b: &mut Bench) -> i64 {
    let revision = b.views.store.revision();
    b.run(&Command::Compact { revision }).unwrap();
    revision
}

fn on_disk(path: &std::path::Path) -> Bench {
    open_on(store_on_disk(path), Quota::Unlimited)
}

fn store_on_disk(path: &std::path::Path) -> backend::Backend {
    let data_dir = backend::DataDir::lock(path).unwrap();
    let config = backend::Config {
        path: data_dir.state_path(),
        cache_bytes: 1 << 20,
    };
    backend::Backend::open(&config).unwrap()
}

type Defragmenting = tokio::task::JoinHandle<Result<(), Arc<DefragmentError>>>;

fn defragmenting(b: &Bench) -> Defragmenting {
    let persister = b.persister.clone();
    tokio::spawn(async move { persister.defragment().await })
}

#[tokio::test]
async fn a_store_that_is_written_anew_has_everything_and_takes_less() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = on_disk(dir.path());
    churn(&mut b, 200);
    b.grant(5);
    let revision = compact(&mut b);
    b.compacted(revision).await;
    b.put("old", "1");
    let old = b.put("old", "2") - 1;
    let before = (b.views.store.size(), b.persister.size_on_disk().unwrap());
    assert!(b.views.store.size_in_use() < before.0 / 2);
    b.persister.defragment().await.unwrap();
    // When it is said to be done, the disk has the room.
    assert!(!dir.path().join("member/state").exists());
    assert!(b.views.store.size() < before.0 / 2, "{before:?}");
    assert!(b.persister.size_on_disk().unwrap() <= before.1);
    // What was written after it is read where it is now.
    b.put("old", "3");
    b.machine.stage_all().unwrap();
    b.persister.durable().await.unwrap();
    let range = RangeOp {
        at: Some(old),
        ..range(one("old"))
    };
    let found = execute_range(&b.views.store.view(), &range).unwrap();
    assert_eq!(found.kvs.first().unwrap().value(), b"1");
    let state = b.state();
    drop(b);
    let mut b = on_disk(dir.path());
    assert_eq!(b.state(), state);
    assert!(dir.path().join("member/state.1").exists());
    assert!(!dir.path().join("member/state").exists());
}

#[tokio::test]
async fn a_store_that_is_still_read_goes_when_nobody_reads_it_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("member/state");
    let backend = store_on_disk(dir.path());
    let reader = backend.reader.clone();
    let mut b = open_on(backend, Quota::Unlimited);
    churn(&mut b, 200);
    b.persister.defragment().await.unwrap();
    assert!(old.exists());
    drop(reader);
    let begun = tokio::time::Instant::now();
    while old.exists() {
        assert!(begun.elapsed().as_secs() < 10, "nobody removes it");
        tokio::task::yield_now().await;
    }
    // And the one after it.
    b.persister.defragment().await.unwrap();
    assert!(!dir.path().join("member/state.1").exists());
}

#[tokio::test]
async fn what_is_written_meanwhile_is_in_both() {
    let mut b = bench();
    churn(&mut b, 20);
    for round in 0..30 {
        let defragmented = defragmenting(&b);
        let mut revision = 0;
        for key in 0..50 {
            b.put(&format!("k{key}"), &format!("{round}"));
            if key % 10 == 0 {
                revision = compact(&mut b);
                b.machine.stage_all().unwrap();
                tokio::task::yield_now().await;
            }
        }
        defragmented.await.unwrap().unwrap();
        b.compacted(revision).await;
        b.machine.stage_all().unwrap();
        b.persister.written().await.unwrap();
        b.views.store.hash_kv(None).unwrap();
    }
}

/// Small batches come in every rest of a copy; large ones write more than a step of it copies.
#[tokio::test]
async fn a_store_that_is_always_written_to_is_written_anew_all_the_same() {
    for (values, bytes) in [(1, 1), (20, 50_000)] {
        let value = "v".repeat(bytes);
        let mut b = bench();
        churn(&mut b, 100);
        let defragmented = defragmenting(&b);
        let begun = tokio::time::Instant::now();
        let mut number = 0;
        while !defragmented.is_finished() {
            for _ in 0..values {
                number += 1;
                b.put(&format!("key{number}"), &value);
            }
            b.machine.stage_all().unwrap();
            tokio::task::yield_now().await;
            assert!(begun.elapsed().as_secs() < 20, "after {number} values");
        }
        defragmented.await.unwrap().unwrap();
    }
}

/// Whenever the power fails, the store opens, and has what was durable.
#[tokio::test]
async fn a_crash_in_the_middle_loses_nothing() {
    for seed in 0..40 {
        let disk = FaultyDisk::new(seed);
        let mut b = open_on(disk.open().unwrap(), Quota::Unlimited);
        churn(&mut b, 20);
        b.machine.stage_all().unwrap();
        b.persister.durable().await.unwrap();
        let state = b.state();
        let defragmenting = defragmenting(&b);
        // At another moment each time.
        tokio::time::sleep(std::time::Duration::from_micros(seed * 50)).await;
        let after = disk.crash(if seed % 2 == 0 {
            Loss::All
        } else {
            Loss::Nothing
        });
        defragmenting.await.unwrap().unwrap();
        let mut after = open_on(after.open().unwrap(), Quota::Unlimited);
        assert_eq!(after.state(), state, "seed {seed}");
    }
}

#[tokio::test]
async fn a_state_that_comes_has_the_place_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = on_disk(dir.path());
    churn(&mut b, 5);
    b.machine.stage_all().unwrap();
    let incoming = b.persister.begin_incoming(7).unwrap();
    let waiting = b.persister.defragment();
    tokio::pin!(waiting);
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut waiting);
    assert!(early.await.is_err());
    drop(incoming);
    waiting.await.unwrap();
    // And the other way round: the copy gives way.
    b.persister.want_defragmented();
    let incoming = b.persister.begin_incoming(8).unwrap();
    assert_eq!(incoming.next(), 0);
    incoming.discard();
    b.persister.defragment().await.unwrap();
}

/// As a member does from time to time.
#[tokio::test]
async fn a_copy_is_not_begun_anew_because_nothing_comes() {
    let disk = FaultyDisk::new(1);
    let mut b = open_on(disk.open().unwrap(), Quota::Unlimited);
    churn(&mut b, 200);
    let (begun, defragmented) = copying(&b, &disk).await;
    b.persister.clear_incoming().unwrap();
    defragmented.await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&disk.in_use(), &begun), "it was another copy");
}

/// Begins a copy. Returns the store that it goes into before it has ended.
async fn copying(b: &Bench, disk: &FaultyDisk) -> (Arc<FaultyEngine>, Defragmenting) {
    for _ in 0..100 {
        let defragmented = defragmenting(b);
        while !defragmented.is_finished() {
            match disk.begun() {
                Some(begun) => return (begun, defragmented),
                None => tokio::task::yield_now().await,
            }
        }
        defragmented.await.unwrap().unwrap();
    }
    panic!("a copy always ends before anybody sees it");
}

#[tokio::test]
async fn no_room_is_taken_back_in_a_store_that_is_copied() {
    let disk = FaultyDisk::new(1);
    disk.in_use().claim_size(200 << 20);
    let mut b = open_on(disk.open().unwrap(), Quota::Unlimited);
    churn(&mut b, 200);
    let old = disk.in_use();
    let (_, defragmented) = copying(&b, &disk).await;
    let reclaims = old.reclaims();
    while !defragmented.is_finished() {
        b.put("key", "value");
        b.machine.stage_all().unwrap();
        tokio::task::yield_now().await;
    }
    defragmented.await.unwrap().unwrap();
    assert_eq!(old.reclaims(), reclaims);
}

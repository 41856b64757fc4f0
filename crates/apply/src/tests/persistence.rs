use std::time::Duration;

use backend::Backend;
use backend::engine::{Engine, FaultyEngine, Loss, MemoryEngine};

use super::hand_clock::HandClock;
use super::*;

fn on(engine: &Arc<FaultyEngine>) -> Bench {
    let engine: Arc<dyn Engine> = engine.clone();
    open_on(Backend::with_engine(engine).unwrap(), Quota::Unlimited)
}

fn fill(b: &mut Bench) {
    b.grant(5);
    b.put("a", "1");
    b.run(&Command::Put(Put {
        lease: PutLease::Attach(LeaseId(5)),
        ..put("b", "2")
    }))
    .unwrap();
    b.put("a", "3");
    b.run(&Command::Compact { revision: 3 }).unwrap();
    b.run(&Command::DeleteRange(delete(one("a")))).unwrap();
    let raise = AlarmAction::Activate;
    let alarm = Some(AlarmKind::NoSpace);
    b.run(&Command::Alarm {
        action: raise,
        member: MEMBER,
        alarm,
    })
    .unwrap();
    let members = vec![Member {
        id: MEMBER,
        name: "m".into(),
        ..Member::default()
    }];
    let at = LogPosition {
        term: 2,
        leader: 3,
        index: b.next,
    };
    b.machine.set_membership(at, members, "raw".into());
    b.next += 1;
}

#[tokio::test]
async fn what_is_durable_survives_with_its_position() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut b = on(&engine);
    fill(&mut b);
    let fingerprint = b.fingerprint();
    let position = b.machine.stage_all().unwrap();
    assert_eq!(position, b.machine.applied().0);
    b.persister.durable().await.unwrap();
    let after_crash = Arc::new(engine.crash(Loss::All));
    let mut b = on(&after_crash);
    assert_eq!(b.machine.applied().0, position);
    assert_eq!(b.fingerprint(), fingerprint);
    assert_eq!(b.views.leases.get(LeaseId(5)).unwrap().keys, ["b"]);
}

#[tokio::test]
async fn a_stop_keeps_what_is_staged_and_needs_no_flush() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut b = on(&engine);
    let flushes = engine.flushes();
    fill(&mut b);
    let fingerprint = b.fingerprint();
    b.machine.stage_all().unwrap();
    drop(b);
    assert_eq!(engine.flushes(), flushes);
    let mut b = on(&Arc::new(engine.crash(Loss::Nothing)));
    assert_eq!(b.fingerprint(), fingerprint);
}

#[tokio::test]
async fn durable_flushes_what_an_earlier_process_left_unflushed() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut b = on(&engine);
    b.put("a", "1");
    b.machine.stage_all().unwrap();
    drop(b);
    // The same disk, with nothing flushed so far.
    let mut b = on(&engine);
    let flushes = engine.flushes();
    assert_eq!(b.machine.stage_all().unwrap().unwrap().index, 0);
    b.persister.durable().await.unwrap();
    assert_eq!(engine.flushes(), flushes + 1);
    let b = on(&Arc::new(engine.crash(Loss::All)));
    assert!(b.views.store.view().get(b"a").is_some());
}

#[tokio::test]
async fn a_failed_commit_stops_everything() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut b = on(&engine);
    engine.fail_apply_after(0);
    b.put("a", "1");
    b.machine.stage_all().unwrap();
    assert!(matches!(b.persister.failed().await, Fatal::Write(_)));
    assert!(matches!(b.persister.durable().await, Err(Fatal::Write(_))));
    assert!(matches!(b.machine.finish_batch(), Err(Fatal::Write(_))));
    assert!(matches!(b.machine.stage_all(), Err(Fatal::Write(_))));
    let at = LogPosition {
        term: 1,
        leader: 0,
        index: b.next,
    };
    assert!(matches!(
        b.machine.apply(at, &Command::Put(put("a", "1")).into()),
        Err(Fatal::Write(_))
    ));
}

#[tokio::test]
async fn a_failed_flush_stops_everything() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut b = on(&engine);
    engine.fail_flush_after(0);
    b.put("a", "1");
    b.machine.stage_all().unwrap();
    assert!(matches!(b.persister.durable().await, Err(Fatal::Write(_))));
    assert!(matches!(b.machine.tick(), Err(Fatal::Write(_))));
}

#[tokio::test]
async fn a_burst_does_not_outrun_the_persister() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut b = on(&engine);
    let value = "v".repeat(10_000);
    for i in 0..1000 {
        b.put(&format!("k{i}"), &value);
    }
    b.machine.stage_all().unwrap();
    b.persister.durable().await.unwrap();
    // How many depends on how often the persister gets its turn.
    assert!(engine.applies() >= 3, "{} batches", engine.applies());
    let mut after = on(&Arc::new(engine.crash(Loss::All)));
    assert_eq!(after.fingerprint(), b.fingerprint());
}

#[tokio::test]
async fn a_compaction_is_scrubbed_without_traffic() {
    let mut b = open_on(
        Backend::with_engine(Arc::new(MemoryEngine::new())).unwrap(),
        Quota::Unlimited,
    );
    for i in 0..2000 {
        b.put(&format!("k{}", i % 50), "value");
    }
    b.run(&Command::Compact { revision: 1900 }).unwrap();
    let store = b.views.store.clone();
    let mut compacted = std::pin::pin!(store.compacted(1900));
    // While the hash of what was compacted is made, there is nothing to do for some time.
    for _ in 0..600 {
        if b.machine.needs_tick() {
            b.machine.tick().unwrap();
        }
        let look = Duration::from_millis(5);
        if tokio::time::timeout(look, compacted.as_mut()).await.is_ok() {
            return;
        }
    }
    panic!("the compaction does not end");
}

/// Lets a compaction go on as far as it may now.
async fn scrub(b: &mut Bench) {
    for _ in 0..1000 {
        // While one is made nothing is removed, which is no rest.
        b.machine.wait_for_hashes();
        if !b.machine.needs_tick() {
            return;
        }
        b.machine.tick().unwrap();
        b.persister.written().await.unwrap();
    }
    panic!("it goes on for ever");
}

#[tokio::test]
async fn a_compaction_goes_on_after_each_rest() {
    let clock = HandClock::new();
    let rest = Duration::from_secs(60);
    let steps = ScrubSteps {
        batch_limit: 256,
        rest,
    };
    let config = Config {
        clock: clock.clone(),
        scrub: steps,
        ..config(Quota::Unlimited)
    };
    let mut b = open_with(Backend::in_memory(), &config);
    for n in 0..2048 {
        b.put("a", &n.to_string());
    }
    b.run(&Command::Compact { revision: 2000 }).unwrap();
    let mut rests = 0;
    let store = b.views.store.clone();
    let mut compacted = std::pin::pin!(store.compacted(2000));
    loop {
        scrub(&mut b).await;
        let is_done = tokio::time::timeout(Duration::ZERO, compacted.as_mut()).await;
        if is_done.is_ok() {
            break;
        }
        clock.advance(rest);
        rests += 1;
        assert!(rests < 20, "it does not end");
    }
    // Seven whole segments have revisions to remove: the first one at once, each other one after a rest.
    assert_eq!(rests, 6);
}

#[tokio::test]
async fn no_batch_is_written_before_the_log_has_its_entries() {
    let engine = Arc::new(FaultyEngine::new(1));
    let mut b = on(&engine);
    let applies = engine.applies();
    b.persister.log_is_durable(0);
    b.put("a", "1");
    b.machine.stage_all().unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), b.persister.written());
    assert!(early.await.is_err());
    assert_eq!(engine.applies(), applies);
    b.persister.log_is_durable(b.next);
    b.persister.durable().await.unwrap();
    assert!(engine.applies() > applies);
}

#[tokio::test]
async fn room_is_taken_back_where_the_files_are_far_more_than_what_is_in_use() {
    for (bytes, is_wanted) in [(20 << 20, false), (200 << 20, true)] {
        let engine = Arc::new(FaultyEngine::new(1));
        engine.claim_size(bytes);
        let mut b = on(&engine);
        b.put("a", "1");
        b.machine.stage_all().unwrap();
        b.persister.durable().await.unwrap();
        assert_eq!(engine.reclaims() > 0, is_wanted);
    }
}

#[tokio::test]
async fn a_compaction_asks_for_a_tick_after_each_rest() {
    let rests = [(0, 1), (10, 10), (60_000, 10)];
    for (rest, asked) in rests.map(|(rest, asked)| (Duration::from_millis(rest), asked)) {
        let config = Config {
            scrub: ScrubSteps {
                batch_limit: 256,
                rest,
            },
            ..config(Quota::Unlimited)
        };
        let mut b = open_with(Backend::in_memory(), &config);
        assert_eq!(b.machine.tick_interval(), Duration::from_millis(100));
        for n in 0..2048 {
            b.put("a", &n.to_string());
        }
        b.run(&Command::Compact { revision: 2000 }).unwrap();
        b.machine.wait_for_hashes();
        assert_eq!(b.machine.tick_interval(), Duration::from_millis(asked));
    }
}

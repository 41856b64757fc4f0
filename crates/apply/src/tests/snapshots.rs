//! States on their way from one member to another.

use backend::Backend;
use backend::engine::{FaultyDisk, Loss};
use bytes::Bytes;
use proptest::prelude::*;

use super::random::{QUOTA, a_log};
use super::*;
use crate::snapshot::ChunkBounds;

const SMALL: ChunkBounds = ChunkBounds {
    bytes: 300,
    records: 3,
};

fn on_disk(disk: &FaultyDisk) -> Bench {
    open_on(disk.open().unwrap(), QUOTA)
}

impl Bench {
    /// Holds the state, and waits until it can be read.
    fn pin(&mut self) -> Pinned {
        let pinned = self.machine.pin().unwrap().expect("something was applied");
        self.persister_settles(|persister| async move { persister.written().await.unwrap() });
        pinned
    }

    fn persister_settles<F: Future<Output = ()>>(&self, wait: impl FnOnce(Persister) -> F) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build().unwrap();
        runtime.block_on(wait(self.persister.clone()));
    }

    fn durable(&self) {
        self.persister_settles(|persister| async move { persister.durable().await.unwrap() });
    }

    /// Receives what is left of a pinned state.
    fn receive_rest(&self, mut incoming: Incoming, pinned: &Pinned) -> Received {
        let chunks = chunks(pinned);
        let from = usize::try_from(incoming.next()).unwrap();
        for (number, chunk) in chunks.iter().enumerate().skip(from) {
            incoming.add(number as u64, chunk.records.clone()).unwrap();
        }
        let records: usize = chunks.iter().map(|chunk| chunk.records.len()).sum();
        incoming.finish(pinned.applied(), records as u64).unwrap()
    }

    fn receive(&self, pinned: &Pinned) -> Received {
        let incoming = self.persister.begin_incoming(7).unwrap();
        self.receive_rest(incoming, pinned)
    }

    fn install(&mut self, received: Received) {
        self.machine.install(received).unwrap();
        self.next = self.machine.applied().0.unwrap().index + 1;
    }

    /// The hashes of all revisions after the compacted one, of which only the member that compacted
    /// remembers what it was before.
    fn hashes(&self) -> Vec<String> {
        let store = &self.views.store;
        let from = store.compact_revision().max(0) + 1;
        let hash = |revision| format!("{:?}", store.hash_kv(Some(revision)));
        (from..=store.revision()).map(hash).collect()
    }
}

fn chunks(pinned: &Pinned) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut place = Some(Place::default());
    while let Some(at) = place.take() {
        let chunk = pinned.chunk_within(&at, SMALL).unwrap();
        place = chunk.next.clone();
        chunks.push(chunk);
    }
    chunks
}

/// The log with so many puts before it, which is more than one segment.
fn behind_history(puts: usize, log: Vec<(Command, u8)>) -> Vec<(Command, u8)> {
    let a_put = |n| (Command::Put(put(["a", "b", "cc"][n % 3], "value")), 0);
    (0..puts).map(a_put).chain(log).collect()
}

fn filled() -> Bench {
    let mut b = open_on(Backend::in_memory(), QUOTA);
    b.grant(5);
    for n in 0..20 {
        b.put(&format!("key{}", n % 7), &format!("value{n}"));
    }
    b.run(&Command::Put(Put {
        lease: PutLease::Attach(LeaseId(5)),
        ..put("leased", "x")
    }))
    .unwrap();
    b
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    /// The sender goes on while its state is read; the receiver is somewhere behind.
    #[test]
    fn an_installed_state_is_the_senders(
        history in prop_oneof![9 => Just(0), 1 => Just(600)],
        log in a_log(120),
        pin_at in any::<prop::sample::Index>(),
        receiver_at in any::<prop::sample::Index>(),
    ) {
        let pin_at = 1 + pin_at.index(log.len() + 1).min(log.len().saturating_sub(1));
        prop_assume!(!log.is_empty());
        let (log, pin_at) = (behind_history(history, log), history + pin_at);
        let receiver_at = receiver_at.index(pin_at + 1);
        let mut reference = open_on(Backend::in_memory(), QUOTA);
        let outcomes = reference.run_log(&log);

        let mut sender = open_on(Backend::in_memory(), QUOTA);
        sender.run_log(&log[..pin_at]);
        let pinned = sender.pin();
        sender.run_log(&log[pin_at..]);
        for _ in 0..3 {
            sender.machine.stage_all().unwrap();
            sender.machine.tick().unwrap();
        }

        let disk = FaultyDisk::new(1);
        let mut receiver = on_disk(&disk);
        receiver.run_log(&log[..receiver_at]);
        let received = receiver.receive(&pinned);
        drop(pinned);
        receiver.install(received);
        prop_assert_eq!(receiver.next, pin_at as u64);

        let mut prefix = open_on(Backend::in_memory(), QUOTA);
        prefix.run_log(&log[..pin_at]);
        prop_assert_eq!(receiver.fingerprint(), prefix.fingerprint());
        prop_assert_eq!(receiver.hashes(), prefix.hashes());

        prop_assert_eq!(&receiver.run_log(&log[pin_at..])[..], &outcomes[pin_at..]);
        prop_assert_eq!(receiver.fingerprint(), reference.fingerprint());
        prop_assert_eq!(receiver.hashes(), reference.hashes());
        drop(receiver);
        let mut receiver = on_disk(&disk.crash(Loss::Nothing));
        let replayed = usize::try_from(receiver.next).unwrap();
        prop_assert!(replayed >= pin_at);
        receiver.run_log(&log[replayed..]);
        prop_assert_eq!(receiver.fingerprint(), reference.fingerprint());
        prop_assert_eq!(receiver.hashes(), reference.hashes());
    }

    /// Wherever the power fails, one of the two states is there, whole; and the transfer goes on.
    #[test]
    fn a_crash_leaves_one_state_whole(
        log in a_log(60),
        crash_after in 0..12_u64,
        is_flush: bool,
        loss in prop::sample::select(Loss::ALL.to_vec()),
        seed: u64,
    ) {
        prop_assume!(log.len() > 4);
        let mut sender = open_on(Backend::in_memory(), QUOTA);
        sender.run_log(&log);
        let pinned = sender.pin();
        let disk = FaultyDisk::new(seed);
        let mut receiver = on_disk(&disk);
        receiver.run_log(&log[..4]);
        receiver.machine.stage_all().unwrap();
        receiver.durable();
        let before = receiver.fingerprint();

        let mut incoming = receiver.persister.begin_incoming(9).unwrap();
        let engine = disk.begun().unwrap();
        if is_flush {
            engine.fail_flush_after(crash_after % 2);
        } else {
            engine.fail_apply_after(crash_after);
        }
        let chunks = chunks(&pinned);
        let mut sent = 0;
        let mut failed = false;
        for (number, chunk) in chunks.iter().enumerate() {
            if incoming.add(number as u64, chunk.records.clone()).is_err() {
                failed = true;
                break;
            }
            sent += 1;
        }
        let records: usize = chunks.iter().map(|chunk| chunk.records.len()).sum();
        if !failed && let Ok(received) = incoming.finish(pinned.applied(), records as u64) {
            receiver.install(received);
            receiver.durable();
            let after = receiver.fingerprint();
            drop(receiver);
            let mut reopened = on_disk(&disk.crash(loss));
            prop_assert_eq!(reopened.fingerprint(), after);
            prop_assert_eq!(reopened.machine.installed(), Some(pinned.applied()));
            return Ok(());
        }
        let disk = disk.crash(loss);
        let mut reopened = on_disk(&disk);
        prop_assert_eq!(reopened.fingerprint(), before);
        prop_assert_eq!(reopened.machine.installed(), None);
        prop_assert!(reopened.persister.resume_incoming(8).unwrap().is_none(), "of another transfer");
        let Some(incoming) = reopened.persister.resume_incoming(9).unwrap() else {
            // It was complete, and only not installed.
            return Ok(());
        };
        prop_assert!(incoming.next() <= sent + 1);
        let received = reopened.receive_rest(incoming, &pinned);
        reopened.install(received);
        prop_assert_eq!(reopened.fingerprint(), sender.fingerprint());
    }
}

#[test]
fn chunks_come_out_the_same_however_often_they_are_read() {
    let mut sender = filled();
    for n in 0..600 {
        sender.put("other", &format!("value{n}"));
    }
    let pinned = sender.pin();
    let first = chunks(&pinned);
    assert!(first.len() > 3, "{}", first.len());
    for n in 0..300 {
        sender.put("other", &format!("value{n}"));
    }
    sender.run(&Command::Compact { revision: 20 }).unwrap();
    sender.machine.stage_all().unwrap();
    sender.machine.tick().unwrap();
    assert_eq!(chunks(&pinned), first);
    let whole = pinned.chunk(&Place::default()).unwrap();
    assert_eq!(whole.next, None);
    let records: Vec<Record> = first.into_iter().flat_map(|chunk| chunk.records).collect();
    assert_eq!(whole.records, records);
    assert!(pinned.bytes() > 0);
}

#[tokio::test]
async fn physical_compaction_waits_for_a_pin_and_for_nothing_else() {
    let mut b = bench();
    for n in 0..600 {
        b.put("key", &format!("value{n}"));
    }
    b.machine.stage_all().unwrap();
    let pinned = b.machine.pin().unwrap().unwrap();
    b.persister.written().await.unwrap();
    b.run(&Command::Compact { revision: 600 }).unwrap();
    let moment = std::time::Duration::from_millis(1);
    for _ in 0..100 {
        b.persister.room().await;
        b.machine.tick().unwrap();
        let compacted = b.views.store.compacted(600);
        assert!(tokio::time::timeout(moment, compacted).await.is_err());
    }
    // The pace of its steps has let it go on by now.
    assert!(!b.machine.needs_tick(), "it waits without a tick");
    drop(pinned);
    assert!(b.machine.needs_tick());
    b.compacted(600).await;
}

#[tokio::test]
async fn readers_and_watchers_go_on_across_an_installation() {
    use mvcc::{PrevKv, WatchBatch, WatchRequest};
    let mut sender = filled();
    let mut receiver = open_on(Backend::in_memory(), QUOTA);
    receiver.put("mine", "1");
    receiver.put("mine", "2");
    let old = receiver.views.store.view();
    let mut stream = receiver.views.store.watch_stream();
    let watch = |start_revision| WatchRequest {
        id: None,
        keys: KeyRange::all(),
        start_revision,
        filters: Vec::new(),
        prev_kv: PrevKv::Include,
    };
    let now = stream.create(watch(None)).unwrap();
    let later = stream.create(watch(Some(23))).unwrap();

    let pinned = sender.machine.pin().unwrap().unwrap();
    sender.persister.written().await.unwrap();
    let received = receiver.receive(&pinned);
    receiver.install(received);
    let at = mvcc::Range {
        keys: one("mine"),
        at: Some(2),
        limit: None,
        count_only: false,
    };
    assert_eq!(old.range(&at).unwrap().kvs[0].value(), b"1");
    assert_eq!(receiver.views.store.revision(), 22);
    receiver.put("new", "x");

    let mut seen = Vec::new();
    while seen.len() < 20 {
        match stream.next().await {
            WatchBatch::Events(events) if events.id == now => {
                seen.extend(events.revisions.iter().map(|(events, _)| events.revision));
            }
            WatchBatch::Events(events) => assert_eq!(events.id, later),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, (4..=23).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_watcher_that_a_state_is_too_new_for_is_told() {
    use mvcc::{PrevKv, WatchBatch, WatchRequest};
    let mut sender = filled();
    sender.run(&Command::Compact { revision: 15 }).unwrap();
    let mut receiver = open_on(Backend::in_memory(), QUOTA);
    receiver.put("mine", "1");
    let mut stream = receiver.views.store.watch_stream();
    let id = stream
        .create(WatchRequest {
            id: None,
            keys: KeyRange::all(),
            start_revision: None,
            filters: Vec::new(),
            prev_kv: PrevKv::Omit,
        })
        .unwrap();
    let pinned = sender.machine.pin().unwrap().unwrap();
    sender.persister.written().await.unwrap();
    let received = receiver.receive(&pinned);
    receiver.install(received);
    match stream.next().await {
        WatchBatch::Compacted {
            id: found,
            compact_revision: 15,
        } => assert_eq!(found, id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_wrong_with_a_transfer_is_found() {
    let mut sender = filled();
    let pinned = sender.pin();
    let receiver = open_on(Backend::in_memory(), QUOTA);
    let chunks = chunks(&pinned);
    let incoming = || receiver.persister.begin_incoming(1).unwrap();

    let mut gap = incoming();
    let found = gap.add(1, chunks[1].records.clone()).unwrap_err();
    assert!(
        matches!(
            found,
            ReceiveError::Gap {
                found: 1,
                expected: 0
            }
        ),
        "{found}"
    );

    let mut short = incoming();
    short.add(0, chunks[0].records.clone()).unwrap();
    let found = short.finish(pinned.applied(), 1000).unwrap_err();
    assert!(matches!(found, ReceiveError::Count { .. }), "{found}");

    let whole = pinned.chunk(&Place::default()).unwrap();
    let mut other = incoming();
    other.add(0, whole.records.clone()).unwrap();
    let at = LogPosition {
        index: 3,
        ..pinned.applied()
    };
    let found = other.finish(at, whole.records.len() as u64).unwrap_err();
    assert!(matches!(found, ReceiveError::Position { .. }), "{found}");

    let mut records = whole.records.clone();
    let segment = records
        .iter_mut()
        .find(|record| record.bucket == backend::Bucket::Key)
        .unwrap();
    segment.value = Bytes::copy_from_slice(&segment.value[..segment.value.len() / 2]);
    let mut cut = incoming();
    cut.add(0, records).unwrap();
    let count = whole.records.len() as u64;
    let found = cut.finish(pinned.applied(), count).unwrap_err();
    assert!(
        matches!(found, ReceiveError::Usage { .. } | ReceiveError::Open(_)),
        "{found}"
    );
}

#[tokio::test]
async fn on_directories_the_old_store_goes() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = backend::DataDir::lock(dir.path()).unwrap();
    let open = |path| {
        Backend::open(&backend::Config {
            path,
            cache_bytes: 1 << 20,
        })
        .unwrap()
    };
    let mut sender = filled();
    let pinned = sender.machine.pin().unwrap().unwrap();
    sender.persister.written().await.unwrap();
    let mut receiver = open_on(open(data_dir.state_path()), QUOTA);
    receiver.put("mine", "1");
    let old_view = receiver.views.store.view();
    let received = receiver.receive(&pinned);
    receiver.install(received);
    receiver.persister.durable().await.unwrap();
    drop(old_view);
    receiver.put("after", "2");
    receiver.machine.stage_all().unwrap();
    receiver.persister.durable().await.unwrap();
    let state = receiver.state();
    assert!(receiver.persister.size_on_disk().unwrap() > 0);
    drop(receiver);
    assert!(!data_dir.state_path().exists(), "the old store has gone");
    drop(data_dir);
    let data_dir = backend::DataDir::lock(dir.path()).unwrap();
    assert_eq!(data_dir.state_path().file_name().unwrap(), "state.1");
    let mut receiver = open_on(open(data_dir.state_path()), QUOTA);
    assert_eq!(receiver.state(), state);
    assert_eq!(receiver.machine.installed(), Some(pinned.applied()));
}

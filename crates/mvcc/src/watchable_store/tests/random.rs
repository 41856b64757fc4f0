//! Everything at once, on threads, against the full history: order, uniqueness, no gap, whole
//! revisions, and no progress ahead of an event.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use types::{KeyRange, WatchId};

use super::model::{World, poll_now};
use crate::watchable_store::{EventFilter, WatchBatch, WatchRequest, WatchStream};
use crate::watcher::Wanted;
use crate::{EventKind, PrevKv, RevisionEvents};

const REVISIONS: i64 = 3_000;
const STREAMS: u64 = 12;
const KEYS: u64 = 12;

/// Numbers that look random; the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn revision(&mut self, up_to: i64) -> i64 {
        i64::try_from(self.roll(u64::try_from(up_to).unwrap())).unwrap()
    }

    fn key(&mut self) -> String {
        format!("k{:02}", self.roll(KEYS))
    }
}

/// One watcher, and what its client has seen.
struct Seen {
    range: KeyRange,
    wanted: Wanted,
    /// The first revision it has to be given.
    first: i64,
    /// Events as (revision, place).
    events: Vec<(i64, u32)>,
    /// At this many events, it was said that there are no more up to this revision.
    progress: Vec<(usize, i64)>,
}

struct Client {
    dice: Dice,
    stream: WatchStream,
    live: HashMap<WatchId, Seen>,
    gone: Vec<Seen>,
    compacted: usize,
    answers: usize,
}

impl Client {
    fn create(&mut self) {
        let key = self.dice.key();
        let keys = match self.dice.roll(4) {
            0 => KeyRange::from_wire(key, ""),
            1 => KeyRange::from_wire(key, &b"\0"[..]),
            2 => KeyRange::from_wire("k", "l"),
            _ => KeyRange::from_wire(key, self.dice.key()),
        };
        let head = self.stream.revision();
        let start_revision = match self.dice.roll(4) {
            0 => Some(head + self.dice.revision(20)),
            1 | 2 => Some(1 + self.dice.revision(head)),
            _ => None,
        };
        let filters = match self.dice.roll(6) {
            0 => vec![EventFilter::NoPut],
            1 => vec![EventFilter::NoDelete],
            _ => Vec::new(),
        };
        let wanted = Wanted::without(&filters);
        let range = keys.clone();
        let request = WatchRequest {
            id: None,
            keys,
            start_revision,
            filters,
            prev_kv: PrevKv::Omit,
        };
        let Ok(id) = self.stream.create(request) else {
            assert!(range.is_empty());
            return;
        };
        let first = start_revision.unwrap_or_else(|| self.stream.given(id) + 1);
        let seen = Seen {
            range,
            wanted,
            first,
            events: Vec::new(),
            progress: Vec::new(),
        };
        assert!(self.live.insert(id, seen).is_none());
    }

    fn take(&mut self, batch: WatchBatch) {
        match batch {
            WatchBatch::Events(batch) => {
                let seen = self
                    .live
                    .get_mut(&batch.id)
                    .expect("events of a watcher that is gone");
                for (revision, places) in &batch.revisions {
                    assert!(!places.is_empty());
                    seen.events
                        .extend(places.iter().map(|place| (revision.revision, *place)));
                }
            }
            WatchBatch::Compacted { id, .. } => {
                self.compacted += 1;
                self.gone
                    .push(self.live.remove(&id).expect("cancelled twice"));
            }
            WatchBatch::Progress { revision } => {
                self.answers += 1;
                for seen in self.live.values_mut() {
                    assert!(seen.first <= revision + 1, "progress while a watcher waits");
                    seen.progress.push((seen.events.len(), revision));
                }
            }
            WatchBatch::Failed => panic!("history failed"),
        }
    }

    fn note_synced(&mut self) {
        for (id, seen) in &mut self.live {
            if let Some(revision) = self.stream.synced_revision(*id) {
                seen.progress.push((seen.events.len(), revision));
            }
        }
    }

    /// Whether every watcher that is not waiting for the future has been given everything.
    fn is_complete(&self) -> bool {
        self.live.iter().all(|(id, seen)| {
            seen.first > REVISIONS || self.stream.synced_revision(*id) == Some(REVISIONS)
        })
    }

    async fn run(mut self, done: Arc<AtomicBool>) -> Self {
        // Some read at once, some only now and then.
        let laziness = 1 + self.dice.roll(4) * 40;
        while !done.load(Ordering::Acquire) {
            match self.dice.roll(30) {
                0 => self.create(),
                1 if self.live.len() > 3 => {
                    let place = usize::try_from(self.dice.roll(3)).unwrap();
                    let id = *self.live.keys().nth(place).unwrap();
                    assert!(self.stream.cancel(id));
                    self.gone.push(self.live.remove(&id).unwrap());
                }
                2 => self.stream.request_progress(),
                3 => self.note_synced(),
                _ => {}
            }
            for _ in 0..laziness {
                tokio::task::yield_now().await;
            }
            tokio::select! {
                biased;
                batch = self.stream.next() => self.take(batch),
                () = tokio::task::yield_now() => {}
            }
        }
        self.stream.request_progress();
        while !self.is_complete() {
            match poll_now(&mut self.stream) {
                Some(batch) => self.take(batch),
                None => tokio::task::yield_now().await,
            }
        }
        self.note_synced();
        self
    }
}

impl Seen {
    /// Compares with history: `complete` watchers were there to the end.
    fn check(&self, history: &[Arc<RevisionEvents>], complete: bool) {
        let mut expected = Vec::new();
        for revision in history.iter().filter(|r| r.revision >= self.first) {
            for (place, event) in (0..).zip(&revision.events) {
                if self.wanted.wants(event.kind) && self.range.contains(event.kv.key()) {
                    expected.push((revision.revision, place));
                }
            }
        }
        let given = self.events.len();
        assert!(given <= expected.len(), "more events than happened");
        assert_eq!(
            self.events,
            expected[..given],
            "in order, once, without a gap"
        );
        if complete {
            assert_eq!(given, expected.len(), "to the end");
        } else if let (Some(last), Some(next)) = (self.events.last(), expected.get(given)) {
            assert_ne!(last.0, next.0, "whole revisions");
        }
        let mut before = 0;
        for (count, revision) in &self.progress {
            let until = expected.partition_point(|(of, _)| of <= revision);
            assert_eq!(
                *count, until,
                "progress at {revision} is neither ahead nor behind"
            );
            assert!(before <= *revision, "progress does not go back");
            before = *revision;
        }
    }
}

fn write(world: &World, mut dice: Dice) {
    let mut revision = 1;
    while revision < REVISIONS {
        let batch = (1 + dice.revision(5)).min(REVISIONS - revision);
        let mut revisions = Vec::new();
        for _ in 0..batch {
            let mut changes = Vec::new();
            for _ in 0..1 + dice.roll(3) {
                let kind = if dice.roll(4) == 0 {
                    EventKind::Delete
                } else {
                    EventKind::Put
                };
                let size = if dice.roll(8) == 0 {
                    dice.roll(100_000)
                } else {
                    dice.roll(64)
                };
                changes.push((kind, dice.key(), "v".repeat(usize::try_from(size).unwrap())));
            }
            revisions.push(changes);
        }
        let borrowed: Vec<Vec<_>> = revisions
            .iter()
            .map(|changes| {
                changes
                    .iter()
                    .map(|(k, key, v)| (*k, key.as_str(), v.as_str()))
                    .collect()
            })
            .collect();
        let slices: Vec<&[_]> = borrowed.iter().map(Vec::as_slice).collect();
        world.publish_batch(&slices);
        revision += batch;
        if dice.roll(200) == 0 {
            world.compact(revision - dice.revision(revision.min(1000)));
        }
        if dice.roll(3) == 0 {
            std::thread::yield_now();
        }
    }
}

async fn round(seed: u64) -> (usize, usize, usize) {
    let world = World::new();
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for number in 0..STREAMS {
        let client = Client {
            dice: Dice(seed * 1000 + number),
            stream: world.stream(),
            live: HashMap::new(),
            gone: Vec::new(),
            compacted: 0,
            answers: 0,
        };
        clients.push(tokio::spawn(client.run(Arc::clone(&done))));
    }
    let writer = {
        let world = world.clone();
        tokio::task::spawn_blocking(move || write(&world, Dice(seed)))
    };
    writer.await.unwrap();
    done.store(true, Ordering::Release);
    let history = world.everything();
    let (mut events, mut compacted, mut answers) = (0, 0, 0);
    for client in clients {
        let client = client.await.unwrap();
        for seen in client.live.values() {
            seen.check(&history, seen.first <= REVISIONS);
            events += seen.events.len();
        }
        client
            .gone
            .iter()
            .for_each(|seen| seen.check(&history, false));
        compacted += client.compacted;
        answers += client.answers;
    }
    assert_eq!(world.hub.counts().watchers, 0);
    assert!(world.hub.synced().index.is_empty());
    (events, compacted, answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_watchers_see_history_as_it_was() {
    let rounds = std::env::var("WATCH_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let (mut events, mut compacted, mut answers) = (0, 0, 0);
    for seed in 1..=rounds {
        let round = round(seed).await;
        events += round.0;
        compacted += round.1;
        answers += round.2;
    }
    assert!(
        events > 1000 && compacted > 0 && answers > 10,
        "{events} {compacted} {answers}"
    );
}

//! One run: a group, clients, faults, and what came of it.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apply::{Views, Workers};
use backend::engine::{Loss, Promise};
use mvcc::{EventKind, PrevKv, WatchBatch, WatchRequest, WatchStream};
use random::rngs::StdRng;
use random::{RngExt, SeedableRng};
use tokio::task::LocalSet;
use tokio::time::Instant;
use types::{KeyRange, MemberId};

use super::history::{At, Change, History, Operation};
use super::{clients, faults};
use crate::testing::group::id;
use crate::testing::net::{Link, Net, url};
use crate::testing::{Disks, Member, backend, config};
use crate::{Config, Node, Peer};

/// How long clients and faults go on.
pub(super) const TROUBLE: Duration = Duration::from_secs(20);
/// How long the group may take to recover from them.
const RECOVERY: Duration = Duration::from_secs(120);
/// Clients of a run.
const CLIENTS: usize = 4;

/// What is wrong with the group on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Nothing.
    Nothing,
    /// Flushing a disk does nothing.
    Flushes,
    /// Linearizable reads ask nobody.
    ReadIndex,
    /// The records of a state's batch become durable one after the other.
    Batches,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) operations: Vec<Operation>,
    /// Each member that led, with its term, as often as it was seen.
    pub(super) leaders: Vec<(u64, MemberId)>,
    pub(super) history: History,
    /// What a watcher on each member was given.
    pub(super) watched: Vec<Vec<(i64, Vec<Change>)>>,
    /// The history that each member has at the end; `history` is the first one's.
    pub(super) histories: Vec<History>,
    /// The hash of each member's store at the end.
    pub(super) hashes: Vec<(u32, i64)>,
    /// What did not come about at the end.
    pub(super) stuck: Option<String>,
    /// Faults, for whoever looks at a violation.
    pub(super) log: Vec<String>,
}

/// A run while it goes on. One thread: nobody else borrows while somebody does.
pub(super) struct World {
    pub(super) broken: Broken,
    pub(super) net: Arc<Net>,
    pub(super) random: RefCell<StdRng>,
    members: RefCell<Vec<Option<Member>>>,
    disks: RefCell<Vec<Disks>>,
    /// How often each member was started.
    starts: RefCell<Vec<u64>>,
    /// How long a disk takes, in microseconds.
    disk_us: Vec<Arc<AtomicU64>>,
    began: Instant,
    run: RefCell<Run>,
}

impl Run {
    /// Runs.
    pub(super) fn of(seed: u64, broken: Broken) -> Self {
        crate::seed_this_thread(seed);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
        let runtime = builder.build().unwrap();
        LocalSet::new().block_on(&runtime, World::run(seed, broken))
    }

    /// All that happened, to be compared and read.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for line in &self.log {
            writeln!(text, "{line}").unwrap();
        }
        for operation in &self.operations {
            writeln!(text, "{operation:?}").unwrap();
        }
        writeln!(text, "{:?}\n{:?}", self.hashes, self.history).unwrap();
        text
    }
}

impl World {
    async fn run(seed: u64, broken: Broken) -> Run {
        let mut random = StdRng::seed_from_u64(seed);
        let members = if random.random_bool(0.7) { 3 } else { 5 };
        let world = Rc::new(Self {
            broken,
            net: Arc::default(),
            members: RefCell::new((0..members).map(|_| None).collect()),
            disks: RefCell::new((0..members).map(|n| disks(seed * 64 + n, broken)).collect()),
            starts: RefCell::new((0..members).map(|_| 0).collect()),
            disk_us: (0..members)
                .map(|_| Arc::new(AtomicU64::new(200)))
                .collect(),
            began: Instant::now(),
            random: RefCell::new(random),
            run: RefCell::new(Run {
                seed,
                watched: vec![Vec::new(); usize::try_from(members).unwrap()],
                ..Run::default()
            }),
        });
        for number in 0..world.len() {
            world.start(number).await;
        }
        let mut tasks = Vec::new();
        for client in 0..CLIENTS {
            tasks.push(tokio::task::spawn_local(clients::run(
                client,
                Rc::clone(&world),
            )));
        }
        let watchers: Vec<_> = (0..world.len())
            .map(|number| tokio::task::spawn_local(Rc::clone(&world).watch(number)))
            .collect();
        let observer = tokio::task::spawn_local(Rc::clone(&world).observe());
        faults::run(&world).await;
        for task in tasks {
            task.await.unwrap();
        }
        let stuck = tokio::time::timeout(RECOVERY, world.recovered())
            .await
            .is_err();
        observer.abort();
        for watcher in watchers {
            watcher.abort();
        }
        world.conclude(stuck).await;
        let run = std::mem::take(&mut *world.run.borrow_mut());
        world.members.borrow_mut().clear();
        run
    }

    pub(super) fn len(&self) -> usize {
        self.disk_us.len()
    }

    pub(super) fn now(&self) -> At {
        self.began.elapsed()
    }

    pub(super) fn draw(&self, below: usize) -> usize {
        self.random.borrow_mut().random_range(0..below)
    }

    pub(super) fn chance(&self, of: f64) -> bool {
        self.random.borrow_mut().random_bool(of)
    }

    pub(super) fn note(&self, text: &str) {
        let line = format!("{:?} {text}", self.now());
        // For a run that does not come to its end.
        if std::env::var_os("KVORUM_SIMULATION_TRACE").is_some() {
            eprintln!("{line}");
        }
        self.run.borrow_mut().log.push(line);
    }

    pub(super) fn done(&self, operation: Operation) {
        self.run.borrow_mut().operations.push(operation);
    }

    pub(super) fn is_running(&self, number: usize) -> bool {
        self.members.borrow()[number].is_some()
    }

    pub(super) fn member(&self, number: usize) -> Option<(Node, Views)> {
        let members = self.members.borrow();
        let member = members[number].as_ref()?;
        Some((member.node.clone(), member.views.clone()))
    }

    /// Starts a member on its disks.
    pub(super) async fn start(&self, number: usize) {
        let disk = Arc::clone(&self.disk_us[number]);
        let pace = move || Duration::from_micros(disk.load(Ordering::Relaxed));
        // Some were set back while the member was down.
        let clock = self
            .now()
            .saturating_sub(Duration::from_secs(self.draw(2) as u64 * 10));
        let config = Config {
            member: id(number),
            initial_members: (0..self.len())
                .map(|number| Peer {
                    id: id(number),
                    name: format!("member-{number}"),
                    peer_urls: vec![url(number)],
                })
                .collect(),
            // Short, so that logs are cut and members have to be sent a state.
            snapshot_count: 50,
            snapshot_catchup_entries: 20,
            started_at: std::time::UNIX_EPOCH + clock,
            workers: Workers::Tasks(Arc::new(pace)),
            ..config()
        };
        let (log, state) = {
            let disks = &self.disks.borrow()[number];
            (backend(&disks.log), disks.state.open().unwrap())
        };
        let member = Member::among(log, state, config, self.net.dialer(number)).await;
        self.net.serve(number, member.node.peer_service());
        self.members.borrow_mut()[number] = Some(member);
        self.starts.borrow_mut()[number] += 1;
    }

    /// Which of its starts a member lives from, if it does.
    pub(super) fn life(&self, number: usize) -> Option<u64> {
        self.is_running(number)
            .then(|| self.starts.borrow()[number])
    }

    /// The power of a member fails.
    pub(super) fn kill(&self, number: usize, loss: Loss) {
        self.net.unplug(number);
        let crashed = self.disks.borrow()[number].crash(loss);
        self.disks.borrow_mut()[number] = crashed;
        self.members.borrow_mut()[number] = None;
    }

    /// How long the disk of a member takes from now on.
    pub(super) fn slow_disk(&self, number: usize, by: Duration) {
        let us = u64::try_from(by.as_micros()).unwrap();
        self.disk_us[number].store(us, Ordering::Relaxed);
    }

    /// Mends everything.
    pub(super) async fn mend(&self) {
        self.note("everything is mended");
        for number in 0..self.len() {
            self.net.set_all(number, self.len(), Link::Open);
            self.slow_disk(number, Duration::from_micros(200));
            if !self.is_running(number) {
                self.start(number).await;
            }
        }
    }

    /// Waits until a write goes through each member and all have applied the same.
    async fn recovered(&self) {
        for number in 0..self.len() {
            clients::write_until_done(self, number).await;
            self.note(&format!("a write through {number} is done"));
        }
        loop {
            let states: Vec<(u64, i64)> = (0..self.len())
                .filter_map(|number| self.member(number))
                .map(|(node, views)| (node.status().applied_index, views.store.revision()))
                .collect();
            let have_watched = {
                let run = self.run.borrow();
                let mut watched = run.watched.iter().zip(&states);
                watched.all(|(watched, (_, revision))| {
                    watched.last().map(|(last, _)| last) == Some(revision)
                })
            };
            if have_watched && states.iter().all(|(applied, _)| *applied == states[0].0) {
                return;
            }
            self.note(&format!("applied and revision: {states:?}"));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn conclude(&self, is_stuck: bool) {
        if is_stuck {
            let states: Vec<_> = (0..self.len())
                .filter_map(|number| self.member(number))
                .map(|(node, views)| (node.status(), views.store.revision()))
                .collect();
            let stuck = format!("the group does not recover: {states:?}");
            self.run.borrow_mut().stuck = Some(stuck);
            return;
        }
        for number in 0..self.len() {
            let (_, views) = self.member(number).expect("all run at the end");
            let hash = views.store.hash_kv(None).unwrap();
            let history = history(&views).await;
            let mut run = self.run.borrow_mut();
            run.hashes.push((hash.hash, hash.hash_revision));
            run.histories.push(history);
        }
        let mut run = self.run.borrow_mut();
        run.history = run.histories[0].clone();
    }

    /// Notes who leads, again and again.
    async fn observe(self: Rc<Self>) {
        loop {
            for number in 0..self.len() {
                let Some((node, _)) = self.member(number) else {
                    continue;
                };
                let status = node.status();
                if status.leader == Some(id(number)) {
                    self.run
                        .borrow_mut()
                        .leaders
                        .push((status.term, id(number)));
                }
            }
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }

    /// Watches everything on one member, and goes on where it stood when the member is back.
    async fn watch(self: Rc<Self>, number: usize) {
        loop {
            if let Some((node, views)) = self.member(number) {
                let next = {
                    let run = self.run.borrow();
                    let last = run.watched[number].last();
                    last.map_or(1, |(revision, _)| revision + 1)
                };
                let stream = watch_from(&views, next);
                // The watcher must not keep the member alive.
                drop((node, views));
                self.follow(number, stream).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn follow(&self, number: usize, mut stream: WatchStream) {
        let life = self.life(number);
        while self.life(number) == life {
            let next = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
            if self.life(number) != life {
                return;
            }
            if let Ok(batch) = next {
                self.run.borrow_mut().watched[number].extend(changes(batch));
            }
        }
    }
}

fn disks(seed: u64, broken: Broken) -> Disks {
    let disks = Disks::new(seed);
    let promise = match broken {
        Broken::Nothing | Broken::ReadIndex => None,
        Broken::Flushes => Some(Promise::Durability),
        Broken::Batches => Some(Promise::Atomicity),
    };
    disks
        .log
        .break_promise(promise.filter(|promise| *promise == Promise::Durability));
    disks.state.in_use().break_promise(promise);
    disks
}

async fn history(views: &Views) -> History {
    let mut history = History::default();
    let mut stream = watch_from(views, 1);
    while history.last() < views.store.revision() {
        for (revision, changes) in changes(stream.next().await) {
            history.revisions.insert(revision, changes);
        }
    }
    history
}

fn watch_from(views: &Views, revision: i64) -> WatchStream {
    let mut stream = views.store.watch_stream();
    let request = WatchRequest {
        id: None,
        keys: KeyRange::all(),
        start_revision: Some(revision),
        filters: Vec::new(),
        prev_kv: PrevKv::Omit,
    };
    stream.create(request).unwrap();
    stream
}

fn changes(batch: WatchBatch) -> Vec<(i64, Vec<Change>)> {
    let WatchBatch::Events(events) = batch else {
        return Vec::new();
    };
    events
        .revisions
        .iter()
        .map(|(revision, _all)| {
            let changes = revision.events.iter().map(|event| {
                let value = (event.kind == EventKind::Put).then(|| number(event.kv.value()));
                (event.kv.key()[0], value)
            });
            (revision.revision, changes.collect())
        })
        .collect()
}

/// The number that a value stands for.
pub(super) fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

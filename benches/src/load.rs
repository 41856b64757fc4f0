//! The loads: what clients do to a server. The same for every server, to the byte.

mod kubernetes;
mod single_key;
pub(crate) mod watch;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Context;
pub(crate) use api::etcdserverpb::PutRequest;
use api::etcdserverpb::RangeRequest;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::grpc::{Connection, frame};
use crate::measure::{Figures, Latencies, Meter, now};
use crate::target::Target;

pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
pub(crate) const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
pub(crate) const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// How many clients share one connection: as many as a busy API server puts on one.
const CLIENTS_PER_CONNECTION: usize = 16;
/// Keys that puts and single-key reads choose from.
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;
const LIST_KEYS: u64 = 10_000;
const LIST_VALUE_BYTES: usize = 1024;
/// Puts a second of the load that offers the same to both servers: less than either can take.
const PACED_PUTS_PER_S: u32 = 8_000;

const PACED_UPDATES_PER_S: u32 = 1_000;
/// Keys beside which they are made.
const OTHER_KEYS: u64 = 50_000;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Put 256 bytes on one of 100,000 keys.
    Put,
    /// The same, 8,000 times a second and not as often as possible.
    PutPaced,
    /// Read one of them, linearizable.
    RangeLinearizable,
    /// Read one of them, serializable.
    RangeSerializable,
    /// List 10,000 keys of 1 KiB.
    List,
    /// Watchers of one prefix, one writer: an operation is an event that arrived.
    Watch,
    /// Watchers of one key each, one writer.
    WatchKeys,
    /// Watchers of one prefix, and clients on the same connection that list as fast as they can.
    WatchBesideLists,
    /// Guarded updates on hot prefixes, events with leases, watches with prev_kv and progress.
    Kubernetes,
    /// The same 1,000 times a second, beside 50,000 other keys of 1 KiB.
    KubernetesPaced,
    /// The same, while history is compacted, the store defragmented and a snapshot taken, one after the other all the time.
    KubernetesUpkeep,
}

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put 256 B",
            Self::PutPaced => "put 256 B, 8,000/s",
            Self::RangeLinearizable => "range, linearizable",
            Self::RangeSerializable => "range, serializable",
            Self::List => "list 10k keys",
            Self::Watch => "watch, one prefix",
            Self::WatchKeys => "watch, a key each",
            Self::WatchBesideLists => "watch beside lists",
            Self::Kubernetes => "kubernetes mix",
            Self::KubernetesPaced => "kubernetes mix, 1,000/s",
            Self::KubernetesUpkeep => "the same during upkeep",
        }
    }

    /// The numbers of clients at which the load is measured.
    pub(crate) fn clients(self) -> &'static [usize] {
        match self {
            Self::List => &[1, 8],
            Self::Watch => &[100, 1_000],
            Self::WatchKeys => &[10_000],
            Self::WatchBesideLists => &[16],
            Self::Kubernetes | Self::KubernetesPaced | Self::KubernetesUpkeep => &[64],
            Self::PutPaced => &[100],
            Self::Put | Self::RangeLinearizable | Self::RangeSerializable => &[1, 100, 1_000],
        }
    }

    /// Puts what the load reads, once for a fresh server.
    pub(crate) async fn prepare(self, target: &Target) -> anyhow::Result<()> {
        match self {
            Self::RangeLinearizable | Self::RangeSerializable => {
                single_key::fill(target, "bench/", KEYS, VALUE_BYTES).await
            }
            Self::List | Self::WatchBesideLists => {
                single_key::fill(target, "list/", LIST_KEYS, LIST_VALUE_BYTES).await
            }
            Self::KubernetesPaced | Self::KubernetesUpkeep => {
                single_key::fill(target, "others/", OTHER_KEYS, LIST_VALUE_BYTES).await
            }
            Self::Put | Self::PutPaced | Self::Watch | Self::WatchKeys | Self::Kubernetes => Ok(()),
        }
    }

    /// Runs the load for `duration` and measures it.
    pub(crate) async fn run(
        self,
        target: &Target,
        clients: usize,
        duration: Duration,
    ) -> anyhow::Result<Figures> {
        match self {
            Self::Watch | Self::WatchKeys | Self::WatchBesideLists => {
                watch::run(self, target, clients, duration).await
            }
            Self::Kubernetes => kubernetes::run(target, clients, duration, None).await,
            Self::KubernetesPaced => {
                kubernetes::run(target, clients, duration, Some(PACED_UPDATES_PER_S)).await
            }
            Self::KubernetesUpkeep => {
                let upkeep = kubernetes::upkeep(target);
                let load = kubernetes::run(target, clients, duration, Some(PACED_UPDATES_PER_S));
                tokio::select! {
                    figures = load => figures,
                    Err(failure) = upkeep => Err(failure),
                }
            }
            _ => single_key::run(self, target, clients, duration).await,
        }
    }
}

/// Runs `clients` copies of a closed loop until the time is over, and measures all of them
/// together. `operation` does one request; its own time is its latency.
///
/// With `per_s`, all clients together do so many operations a second. One that is late because the one before it took long
/// has waited since it was due.
pub(crate) async fn closed_loop<C, F>(
    target: &Target,
    clients: usize,
    duration: Duration,
    per_s: Option<u32>,
    client: impl Fn(usize, Connection) -> C,
) -> anyhow::Result<Figures>
where
    C: FnMut() -> F + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let connections = connections(target, clients).await?;
    let meter = Meter::start(&target.pids)?;
    let begun = now();
    let until = begun + duration;
    let mut tasks = JoinSet::new();
    for index in 0..clients {
        let operation = client(index, connections[index % connections.len()].clone());
        let mut turns = Turns::new(begun, per_s, index, clients)?;
        tasks.spawn(async move {
            let (mut operation, mut latencies) = (operation, Latencies::new());
            while let Some(begun) = turns.next(until).await {
                operation().await?;
                latencies.record(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Latencies::new();
    while let Some(done) = tasks.join_next().await {
        latencies.add(done.context("a client panicked")??);
    }
    meter.stop(latencies)
}

/// When one of many clients does its next operation.
struct Turns {
    due: Instant,
    /// `None`: as soon as it can.
    every: Option<Duration>,
}

impl Turns {
    /// Of the client with this number, when all of them do so many operations a second.
    fn new(
        begun: Instant,
        per_s: Option<u32>,
        index: usize,
        clients: usize,
    ) -> anyhow::Result<Self> {
        let (index, clients) = (u32::try_from(index)?, u32::try_from(clients)?);
        let every = per_s.map(|per_s| Duration::from_secs(1) * clients / per_s);
        Ok(Self {
            due: begun + every.unwrap_or_default() * index / clients,
            every,
        })
    }

    /// Waits for the next one, and says from when on its time counts: the timer's own lateness is not the server's.
    async fn next(&mut self, until: Instant) -> Option<Instant> {
        let free = now();
        let Some(every) = self.every else {
            return (free < until).then_some(free);
        };
        if self.due >= until {
            return None;
        }
        let due = self.due;
        self.due += every;
        if free >= due {
            return Some(due);
        }
        tokio::time::sleep_until(due.into()).await;
        Some(now())
    }
}

/// Enough connections for so many clients.
pub(crate) async fn connections(
    target: &Target,
    clients: usize,
) -> anyhow::Result<Vec<Connection>> {
    target
        .connect(clients.div_ceil(CLIENTS_PER_CONNECTION))
        .await
}

/// A client's own source of chance: the same for both servers.
pub(crate) fn chance(client: usize) -> StdRng {
    StdRng::seed_from_u64(0x6b76_6f72_756d + client as u64)
}

pub(crate) fn value(rng: &mut StdRng, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    rng.fill_bytes(&mut value);
    value
}

//! The loads: what clients do to a server. The same for every server, to the byte.

mod kubernetes;
mod single_key;
mod watch;

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

pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// How many clients share one connection: as many as a busy API server puts on one.
const CLIENTS_PER_CONNECTION: usize = 16;
/// Keys that puts and single-key reads choose from.
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;
const LIST_KEYS: u64 = 10_000;

/// A server under load.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `host:port` of its client listener.
    pub(crate) authority: String,
    /// Its process.
    pub(crate) pid: u32,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Put 256 bytes on one of 100,000 keys.
    Put,
    /// Read one of them, linearizable.
    RangeLinearizable,
    /// Read one of them, serializable.
    RangeSerializable,
    /// List 10,000 keys.
    List,
    /// 100 watchers on one prefix, one writer: an operation is an event that arrived.
    Watch,
    /// Guarded updates on hot prefixes, events with leases, watches with prev_kv and progress.
    Kubernetes,
}

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put 256 B",
            Self::RangeLinearizable => "range, linearizable",
            Self::RangeSerializable => "range, serializable",
            Self::List => "list 10k keys",
            Self::Watch => "watch fan-out",
            Self::Kubernetes => "kubernetes mix",
        }
    }

    /// The numbers of clients at which the load is measured.
    pub(crate) fn clients(self) -> &'static [usize] {
        match self {
            Self::List => &[1, 8],
            Self::Watch => &[100],
            Self::Kubernetes => &[64],
            Self::Put | Self::RangeLinearizable | Self::RangeSerializable => &[1, 64, 512],
        }
    }

    /// Puts what the load reads, once for a fresh server.
    pub(crate) async fn prepare(self, target: &Target) -> anyhow::Result<()> {
        match self {
            Self::RangeLinearizable | Self::RangeSerializable => {
                single_key::fill(target, "bench/", KEYS).await
            }
            Self::List => single_key::fill(target, "list/", LIST_KEYS).await,
            Self::Put | Self::Watch | Self::Kubernetes => Ok(()),
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
            Self::Watch => watch::run(target, clients, duration).await,
            Self::Kubernetes => kubernetes::run(target, clients, duration).await,
            _ => single_key::run(self, target, clients, duration).await,
        }
    }
}

/// Runs `clients` copies of a closed loop until the time is over, and measures all of them
/// together. `operation` does one request; its own time is its latency.
pub(crate) async fn closed_loop<C, F>(
    target: &Target,
    clients: usize,
    duration: Duration,
    client: impl Fn(usize, Connection) -> C,
) -> anyhow::Result<Figures>
where
    C: FnMut() -> F + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let connections = connections(target, clients).await?;
    let meter = Meter::start(target.pid)?;
    let until = now() + duration;
    let mut tasks = JoinSet::new();
    for index in 0..clients {
        let operation = client(index, connections[index % connections.len()].clone());
        tasks.spawn(repeat(operation, until));
    }
    let mut latencies = Latencies::new();
    while let Some(done) = tasks.join_next().await {
        latencies.add(&done.context("a client panicked")??);
    }
    meter.stop(&latencies)
}

async fn repeat<C, F>(mut operation: C, until: Instant) -> anyhow::Result<Latencies>
where
    C: FnMut() -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let mut latencies = Latencies::new();
    loop {
        let begun = now();
        if begun >= until {
            return Ok(latencies);
        }
        operation().await?;
        latencies.record(begun.elapsed());
    }
}

/// Enough connections for so many clients.
pub(crate) async fn connections(
    target: &Target,
    clients: usize,
) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..clients.div_ceil(CLIENTS_PER_CONNECTION) {
        connections.push(Connection::open(&target.authority).await?);
    }
    Ok(connections)
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

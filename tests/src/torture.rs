//! A cluster under concurrent clients and a seeded schedule of faults; everything that clients and
//! watchers were told is recorded and checked when the cluster is whole again.
//!
//! What this is not: the same run twice. The seed fixes what is done to whom and when, and what
//! clients ask; threads, disks and sockets do the rest.

mod client;
mod faults;
mod watcher;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::check::Run;
use testkit::history::Range;
use testkit::model::Model;
use testkit::{Client, Cluster, ClusterSpec, Program, eventually, note};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use client::Customer;
use faults::Faults;
use watcher::Spectator;

pub use faults::Scope;

/// Clients that write and read.
const CUSTOMERS: u32 = 6;
/// What watchers watch: everything, a prefix, one key.
const SPECTATORS: usize = 4;

/// A run.
#[derive(Debug, Clone)]
pub struct Torture {
    /// The cluster.
    pub spec: ClusterSpec,
    /// What everything random is derived from.
    pub seed: u64,
    /// How long there are faults.
    pub duration: Duration,
    /// Which faults there are.
    pub scope: Scope,
}

/// A member as clients see it.
#[derive(Debug, Clone)]
struct Target {
    member: usize,
    client: Client,
    /// How often it was started; 0 while one process goes and the next has not come.
    incarnation: Arc<AtomicU64>,
}

/// What all tasks of a run share.
#[derive(Debug, Clone)]
struct Stage {
    started: Instant,
    targets: watch::Receiver<Vec<Target>>,
    /// Clients stop.
    closing: watch::Receiver<bool>,
    /// Watchers stop when they know of this revision; 0 while it is not known.
    last_revision: watch::Receiver<i64>,
}

impl Stage {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn any_target(&self, rng: &mut StdRng) -> Target {
        let targets = self.targets.borrow();
        targets[rng.random_range(0..targets.len())].clone()
    }

    fn closing(&self) -> bool {
        *self.closing.borrow()
    }
}

impl Torture {
    /// Runs it and checks.
    ///
    /// # Errors
    /// When a property is violated, or the cluster does not recover.
    pub async fn run(self) -> Result<()> {
        let mut spec = self.spec.clone().proxied();
        if spec.program() == Program::Kvorum {
            spec = spec.faulty_disks();
        }
        let cluster = spec.start().await?;
        cluster.leader().await?;
        let mut rng = StdRng::seed_from_u64(self.seed);
        let (closing, closing_seen) = watch::channel(false);
        let (last_revision, last_revision_seen) = watch::channel(0);
        let mut faults = Faults::new(cluster, rng.random(), self.scope)?;
        let stage = Stage {
            started: Instant::now(),
            targets: faults.targets(),
            closing: closing_seen,
            last_revision: last_revision_seen,
        };
        let (mut customers, mut spectators) = (JoinSet::new(), JoinSet::new());
        for number in 0..CUSTOMERS {
            customers.spawn(Customer::new(number, stage.clone(), rng.random()).work());
        }
        for number in 0..SPECTATORS {
            let range = match number % 3 {
                0 => Range::all(),
                1 => Range::prefix("k/"),
                _ => Range::single("k/1"),
            };
            spectators.spawn(Spectator::new(range, stage.clone(), rng.random()).look());
        }
        let faulty = faults.run(self.duration).await;
        let faulty = faulty.with_context(|| faults.story());
        closing.send_replace(true);
        let operations: Vec<_> = customers.join_all().await.into_iter().flatten().collect();
        let ended = match faulty {
            Ok(()) => end(faults.cluster()).await.context("the end"),
            Err(error) => Err(error),
        };
        let (newest, model) = ended?;
        last_revision.send_replace(newest);
        let watchers = spectators.join_all().await;
        let watchers = watchers.into_iter().collect::<Result<Vec<_>>>()?;
        let (asked, known) = (
            operations.len(),
            operations.iter().filter(|o| o.done().is_some()),
        );
        note(format_args!(
            "{:?} members, seed {}: {} faults; {} of {asked} requests answered; {newest} revisions; \
             {} watch streams",
            faults.cluster().members().len(),
            self.seed,
            faults.count(),
            known.count(),
            watchers.iter().map(|w| w.sessions.len()).sum::<usize>()
        ));
        if std::env::var_os("KVORUM_TORTURE_STORY").is_some() {
            note(faults.story());
        }
        let run = Run::new(model, operations, watchers);
        run.check().with_context(|| faults.story())?;
        faults.into_cluster().stop().await
    }
}

/// All members show the same store, once no lease is left to end: its newest revision, and its
/// life.
async fn end(cluster: &Cluster) -> Result<(i64, Model)> {
    let members = cluster.present();
    eventually("all leases end", || async {
        let leases = leases(cluster, members[0]).await?;
        ensure!(leases.is_empty(), "there are {leases:x?}");
        Ok(())
    })
    .await?;
    let mut newest = 0;
    for &at in &members {
        // Linearizable, so that nobody is behind what any client was told.
        let revision = eventually("a read at the end", || revision(cluster, at)).await?;
        newest = revision.max(newest);
    }
    let mut hashes = BTreeSet::new();
    for &at in &members {
        let hash = eventually("a hash of the whole store", || hash(cluster, at, newest)).await?;
        hashes.insert(hash);
    }
    ensure!(
        hashes.len() == 1,
        "members have different hashes: {hashes:?}"
    );
    let mut models = Vec::new();
    for &at in &members {
        let mut model = Model::default();
        let client = cluster.client(at)?;
        let read = model.read_to(&client, newest).await;
        read.with_context(|| format!("what member {at} shows"))?;
        models.push(model);
    }
    let model = models.pop().context("a cluster has members")?;
    ensure!(
        models.iter().all(|other| *other == model),
        "members show different histories"
    );
    Ok((newest, model))
}

async fn revision(cluster: &Cluster, at: usize) -> Result<i64> {
    let request = pb::RangeRequest {
        key: b"k".to_vec(),
        ..Default::default()
    };
    let answer = cluster.client(at)?.kv.range(request).await?.into_inner();
    Ok(answer.header.context("a response has a header")?.revision)
}

async fn leases(cluster: &Cluster, at: usize) -> Result<Vec<pb::LeaseStatus>> {
    let request = pb::LeaseLeasesRequest {};
    let answer = cluster.client(at)?.lease.lease_leases(request).await?;
    Ok(answer.into_inner().leases)
}

async fn hash(cluster: &Cluster, at: usize, revision: i64) -> Result<u32> {
    let request = pb::HashKvRequest { revision };
    let answer = cluster.client(at)?.maintenance.hash_kv(request).await?;
    Ok(answer.into_inner().hash)
}

impl Target {
    /// The life of the member that answers now, if that is certain.
    fn life(&self) -> Option<u64> {
        let incarnation = self.incarnation.load(Ordering::SeqCst);
        (incarnation != 0).then_some(incarnation)
    }
}

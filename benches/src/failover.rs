//! How long a cluster takes no writes after its leader was killed by SIGKILL: etcd and kvorum by
//! turns, kill by kill, with the same election settings.
//!
//! Two figures for each kill. *Service*: from the kill to the first acknowledgement of a write that
//! was sent after it, with new writes sent to all survivors every few milliseconds, so that no
//! client's patience is measured. *Client*: the longest time between two acknowledgements at an
//! ordinary client that writes to one member after the other and waits for every answer.

use std::time::{Duration, Instant};

use anyhow::Context;
use api::etcdserverpb::PutRequest;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use testkit::patience::patience;
use testkit::{Client, Cluster, ClusterSpec, Retrying};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Server;
use crate::measure::now;
use crate::report::median;

/// Between two writes to one survivor, while nobody has acknowledged any.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// The moment of the kill is random within this time, so that it falls anywhere between heartbeats.
const LOAD: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_millis(1500);
/// What the client does between two writes.
const CLIENT_PAUSE: Duration = Duration::from_millis(1);

/// What `failover` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each cluster loses its leader.
    #[arg(long, default_value_t = 30)]
    kills: u64,
    /// How many members each cluster has.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// A flag for every member of both, `--election-timeout=500` say (may be repeated).
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    flag: Vec<String>,
}

/// All kills of one program.
#[derive(Debug, Serialize)]
pub(crate) struct Outages {
    server: &'static str,
    outages: Vec<Outage>,
}

/// Kills the leaders of all clusters by turns.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Outages>> {
    let progress = ProgressBar::new(options.kills).with_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} kills, {elapsed} so far, {eta} to go: {msg}",
    )?);
    let mut victims = Vec::new();
    let mut all = Vec::new();
    for server in servers {
        victims.push(Victim::start(*server, options).await?);
        let server = server.name();
        let outages = Vec::new();
        all.push(Outages { server, outages });
    }
    for _ in 0..options.kills {
        for (victim, of) in victims.iter_mut().zip(&mut all) {
            progress.set_message(of.server);
            let outage = victim.lose_leader().await;
            of.outages.push(outage.with_context(|| of.server)?);
        }
        progress.inc(1);
    }
    for victim in victims {
        victim.stop().await?;
    }
    progress.finish_and_clear();
    Ok(all)
}

/// Median and worst, as Markdown.
pub(crate) fn table(all: &[Outages]) -> String {
    let mut table =
        "| server | kills | service: median ms | worst ms | client: median ms | worst ms |\n\
                     |---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for of in all {
        let service = || of.outages.iter().map(|outage| outage.service_ms);
        let client = || of.outages.iter().map(|outage| outage.client_ms);
        table += &format!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
            of.server,
            of.outages.len(),
            median(service()),
            service().fold(0.0, f64::max),
            median(client()),
            client().fold(0.0, f64::max),
        );
    }
    table
}

/// One kill.
#[derive(Clone, Copy, Debug, Serialize)]
struct Outage {
    service_ms: f64,
    client_ms: f64,
}

/// A cluster that loses its leader again and again.
struct Victim {
    cluster: Cluster,
    rng: StdRng,
}

impl Victim {
    async fn start(server: Server, options: &Options) -> anyhow::Result<Self> {
        let spec = ClusterSpec::of(server.program(), options.members);
        let spec = options.flag.iter().fold(spec, ClusterSpec::arg);
        let cluster = spec.start().await?;
        cluster.leader().await?;
        let rng = StdRng::seed_from_u64(1);
        Ok(Self { cluster, rng })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.cluster.stop().await
    }

    /// Kills the leader, measures, and makes the cluster whole again.
    async fn lose_leader(&mut self) -> anyhow::Result<Outage> {
        let leader = self.cluster.leader().await?;
        let present = self.cluster.present();
        let all = present.iter().map(|&at| self.cluster.client(at));
        let all = all.collect::<anyhow::Result<Vec<_>>>()?;
        let survivors: Vec<Client> = present
            .iter()
            .filter(|&&at| at != leader)
            .map(|&at| all[at].clone())
            .collect();
        let (serves, serves_seen) = watch::channel(false);
        let client = tokio::spawn(ordinary_client(all, serves_seen));
        let load = self.rng.random_range(LOAD);
        tokio::time::sleep(load).await;
        self.cluster.member_mut(leader).kill()?;
        let moment = now();
        let service = first_acknowledgement(&survivors).await?;
        serves.send_replace(true);
        let gap = client.await??;
        self.cluster.restart(leader).await?;
        Ok(Outage {
            service_ms: (service - moment).as_secs_f64() * 1000.0,
            client_ms: gap.as_secs_f64() * 1000.0,
        })
    }
}

/// Sends writes to everybody until one is acknowledged; says when that was.
async fn first_acknowledgement(survivors: &[Client]) -> anyhow::Result<Instant> {
    let mut probes = JoinSet::new();
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    let deadline = tokio::time::Instant::now() + patience();
    loop {
        tokio::select! {
            biased;
            Some(probe) = probes.join_next() => {
                if let Some(moment) = probe? {
                    return Ok(moment);
                }
            }
            _ = ticks.tick() => {
                for survivor in survivors {
                    let mut kv = survivor.kv.clone();
                    probes.spawn(async move {
                        let acknowledged = kv.put(write("probe")).await.is_ok();
                        acknowledged.then(now)
                    });
                }
            }
            () = tokio::time::sleep_until(deadline) => anyhow::bail!("no write is acknowledged"),
        }
    }
}

/// Writes to one member after the other, until the cluster serves again and every member had its
/// turn since; returns the longest time between two acknowledgements.
async fn ordinary_client(
    all: Vec<Client>,
    serves: watch::Receiver<bool>,
) -> anyhow::Result<Duration> {
    let (mut last, mut longest) = (now(), Duration::ZERO);
    let (mut turn, mut turns_left) = (0, all.len());
    while turns_left > 0 {
        if *serves.borrow() {
            turns_left -= 1;
        }
        turn += 1;
        let mut client = Retrying::new(all.clone(), turn % all.len());
        client.put("client", "value").await?;
        longest = longest.max(last.elapsed());
        last = now();
        tokio::time::sleep(CLIENT_PAUSE).await;
    }
    Ok(longest)
}

fn write(key: &str) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: "value".into(),
        ..Default::default()
    }
}

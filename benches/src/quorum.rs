//! Clusters that are broken on purpose under a steady load: etcd and kvorum by turns, fault by fault,
//! with the same flags, every link between members through a proxy.
//!
//! Requests go to one member after the other, also to those that are in trouble, and nobody tries again: what
//! is measured is the cluster, not a client's patience. Every acknowledged write is looked for at the end, and
//! every linearizable read is held against the writes that were acknowledged before it was sent.

mod fault;
mod load;
mod timeline;

use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use testkit::patience::patience;
use testkit::{Cluster, ClusterSpec};

use crate::Server;
use crate::measure::now;
use crate::plot::Files;

use fault::Fault;
use load::{Load, Record};

/// The load without a fault, before and after.
const CALM: Duration = Duration::from_secs(3);
/// Between two looks at whether all members are well.
const HEALTH_INTERVAL: Duration = Duration::from_millis(20);
/// A member that lacks fewer entries than this has caught up: under load it always lacks some.
const LAG_MAX: u64 = 100;

/// What `quorum` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many members each cluster has.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Only these faults (may be repeated).
    #[arg(long, value_enum)]
    fault: Vec<Fault>,
    /// A flag for every member of both, `--election-timeout=500` say (may be repeated).
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    flag: Vec<String>,
    #[command(flatten)]
    files: Files,
}

/// One fault at one program.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    fault: Fault,
    server: &'static str,
    /// The longest time between two acknowledged writes, from the fault to full health.
    without_writes_ms: f64,
    /// Writes and reads that failed in that time.
    errors: usize,
    /// 99th percentiles of acknowledged writes, by when they were sent.
    p99_before_ms: f64,
    p99_during_ms: f64,
    p99_after_ms: f64,
    /// From the end of the fault until every member is well.
    healthy_after_ms: f64,
    /// Acknowledged writes that are not there.
    lost: usize,
    /// Linearizable reads that were older than a write acknowledged before.
    stale: usize,
    #[serde(skip)]
    marks: Marks,
    #[serde(skip)]
    record: Record,
}

/// When what happened, since the load began.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    broken: Duration,
    mended: Duration,
    healthy: Duration,
    end: Duration,
}

/// Breaks a fresh cluster of each program for each fault.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let faults = match options.fault.as_slice() {
        [] => <Fault as clap::ValueEnum>::value_variants(),
        chosen => chosen,
    };
    let turns = faults.len() * servers.len();
    let progress = ProgressBar::new(turns as u64).with_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} turns, {elapsed} so far, {eta} to go: {msg}",
    )?);
    let mut outcomes = Vec::new();
    for &fault in faults {
        for &server in servers {
            progress.inc(1);
            if !fault.can_be_done_to(server.program()) {
                continue;
            }
            progress.set_message(format!("{} on {}", fault.name(), server.name()));
            let outcome = break_and_watch(server, fault, options).await;
            outcomes
                .push(outcome.with_context(|| format!("{} on {}", fault.name(), server.name()))?);
        }
    }
    progress.finish_and_clear();
    options.files.write(&timeline::plots(&outcomes))?;
    Ok(outcomes)
}

async fn break_and_watch(
    server: Server,
    fault: Fault,
    options: &Options,
) -> anyhow::Result<Outcome> {
    let mut spec = ClusterSpec::of(server.program(), options.members).proxied();
    if fault.needs_faulty_disks() {
        spec = spec.faulty_disks();
    }
    let spec = options.flag.iter().fold(spec, ClusterSpec::arg);
    let mut cluster = spec.start().await?;
    cluster.leader().await?;
    let began = now();
    let load = Load::start(&cluster)?;
    tokio::time::sleep(CALM).await;
    let broken = began.elapsed();
    fault.run(&mut cluster).await?;
    let mended = began.elapsed();
    become_healthy(&cluster).await?;
    let healthy = began.elapsed();
    tokio::time::sleep(CALM).await;
    let end = began.elapsed();
    let record = load.stop().await?;
    let survivor = *cluster.running().first().context("nobody is left")?;
    let lost = record.lost(&cluster.client(survivor)?).await?;
    cluster.stop().await?;
    let marks = Marks {
        broken,
        mended,
        healthy,
        end,
    };
    Ok(judge(fault, server, marks, record, lost))
}

fn judge(fault: Fault, server: Server, marks: Marks, record: Record, lost: usize) -> Outcome {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    Outcome {
        fault,
        server: server.name(),
        without_writes_ms: ms(record.longest_gap(marks.broken, marks.healthy)),
        errors: record.errors(marks.broken, marks.healthy),
        p99_before_ms: ms(record.p99(Duration::ZERO, marks.broken)),
        p99_during_ms: ms(record.p99(marks.broken, marks.mended)),
        p99_after_ms: ms(record.p99(marks.mended, marks.end)),
        healthy_after_ms: ms(marks.healthy - marks.mended),
        lost,
        stale: record.stale(),
        marks,
        record,
    }
}

/// Every member has the same leader and has caught up.
async fn become_healthy(cluster: &Cluster) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + patience();
    while !is_healthy(cluster).await {
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "the cluster does not become healthy"
        );
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
    Ok(())
}

async fn is_healthy(cluster: &Cluster) -> bool {
    let mut seen = Vec::new();
    for at in cluster.present() {
        match tokio::time::timeout(Duration::from_secs(1), cluster.status(at)).await {
            Ok(Ok(status)) => seen.push((status.leader, status.raft_applied_index)),
            Ok(Err(_)) | Err(_) => return false,
        }
    }
    let newest = seen.iter().map(|&(_, applied)| applied).max().unwrap_or(0);
    let leader = seen.first().map_or(0, |&(leader, _)| leader);
    leader != 0
        && seen
            .iter()
            .all(|&(its, applied)| its == leader && newest - applied < LAG_MAX)
}

/// All outcomes, as Markdown.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut table = "| fault | server | no writes for ms | errors | p99 before, during, after ms \
                     | well after ms | lost | stale |\n|---|---|---:|---:|---|---:|---:|---:|\n"
        .to_owned();
    for outcome in outcomes {
        table += &format!(
            "| {} | {} | {:.0} | {} | {:.0}, {:.0}, {:.0} | {:.0} | {} | {} |\n",
            outcome.fault.name(),
            outcome.server,
            outcome.without_writes_ms,
            outcome.errors,
            outcome.p99_before_ms,
            outcome.p99_during_ms,
            outcome.p99_after_ms,
            outcome.healthy_after_ms,
            outcome.lost,
            outcome.stale,
        );
    }
    table
}

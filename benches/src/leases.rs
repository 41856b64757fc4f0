//! Many leases that expire at once, one key attached to each: how long it takes until the last key
//! is gone, and what another client's writes take meanwhile. etcd and kvorum by turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use api::etcdserverpb::{LeaseGrantRequest, PutRequest, RangeRequest};
use serde::Serialize;
use testkit::{Client, Spec};
use tokio::task::JoinSet;

use crate::measure::{Latencies, now};
use crate::{Server, by_turns};

/// Clients that make leases.
const GRANTERS: usize = 64;
/// Between two looks, and between two writes of the client that is measured.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const WRITE_PAUSE: Duration = Duration::from_millis(5);

/// What `leases` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many.
    #[arg(long, default_value_t = 100_000)]
    leases: u64,
    /// When they expire, in seconds after the first was asked for; they must have been made by then.
    #[arg(long, default_value_t = 60)]
    ttl: u64,
}

/// What one server did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Expiry {
    server: &'static str,
    leases: u64,
    /// From the moment when all have expired.
    half_gone_s: f64,
    gone_s: f64,
    write_p50_ms: f64,
    write_p99_ms: f64,
    write_worst_ms: f64,
    writes_failed: u64,
}

/// Measures all servers, one after the other.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Expiry>> {
    by_turns(servers, async |server| measure(server, options).await).await
}

/// As Markdown.
pub(crate) fn table(all: &[Expiry]) -> String {
    let mut table = "| server | leases | half gone after s | all gone after s | a write meanwhile: p50 ms | p99 ms | worst ms | failed |\n\
                     |---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for expiry in all {
        table += &format!(
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} |\n",
            expiry.server,
            expiry.leases,
            expiry.half_gone_s,
            expiry.gone_s,
            expiry.write_p50_ms,
            expiry.write_p99_ms,
            expiry.write_worst_ms,
            expiry.writes_failed,
        );
    }
    table
}

async fn measure(server: Server, options: &Options) -> anyhow::Result<Expiry> {
    let running = Spec::of(server.program()).start().await?;
    let client = running.client().await?;
    let expire_at = now() + Duration::from_secs(options.ttl);
    grant(&client, options.leases, expire_at).await?;
    anyhow::ensure!(now() < expire_at, "not made in time: take a larger --ttl");
    tokio::time::sleep_until(expire_at.into()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(client.clone(), Arc::clone(&is_over)));
    let mut half_gone_s = None;
    let gone_s = loop {
        let left = count(&client).await?;
        let since = expire_at.elapsed().as_secs_f64();
        if left * 2 <= options.leases {
            half_gone_s.get_or_insert(since);
        }
        if left == 0 {
            break since;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    is_over.store(true, Ordering::Relaxed);
    let (mut writes, writes_failed) = writer.await?;
    running.stop().await?;
    Ok(Expiry {
        server: server.name(),
        leases: options.leases,
        half_gone_s: half_gone_s.unwrap_or(gone_s),
        gone_s,
        write_p50_ms: writes.quantile_ms(500),
        write_p99_ms: writes.quantile_ms(990),
        write_worst_ms: writes.quantile_ms(1000),
        writes_failed,
    })
}

/// Makes the leases and their keys; each has what is left until then.
async fn grant(client: &Client, leases: u64, expire_at: Instant) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for granter in 0..GRANTERS as u64 {
        let mut client = client.clone();
        tasks.spawn(async move {
            for number in (granter..leases).step_by(GRANTERS) {
                let left = expire_at.saturating_duration_since(now());
                let ttl = i64::try_from(left.as_secs() + 1)?;
                let grant = LeaseGrantRequest { ttl, id: 0 };
                let lease = client.lease.lease_grant(grant).await?.into_inner().id;
                let put = PutRequest {
                    key: format!("leased/{number:07}").into_bytes(),
                    value: "value".into(),
                    lease,
                    ..PutRequest::default()
                };
                client.kv.put(put).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a client panicked")??;
    }
    Ok(())
}

async fn count(client: &Client) -> anyhow::Result<u64> {
    let keys = RangeRequest {
        key: "leased/".into(),
        range_end: "leased0".into(),
        count_only: true,
        serializable: true,
        ..RangeRequest::default()
    };
    let found = client.kv.clone().range(keys).await?.into_inner();
    Ok(u64::try_from(found.count)?)
}

/// What writes took until it was over, and how many failed.
async fn write(mut client: Client, is_over: Arc<AtomicBool>) -> (Latencies, u64) {
    let (mut latencies, mut failed) = (Latencies::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let put = PutRequest {
            key: "other".into(),
            value: "value".into(),
            ..PutRequest::default()
        };
        let asked = now();
        // What was refused took its time as well: etcd answers that a request has timed out.
        failed += u64::from(client.kv.put(put).await.is_err());
        latencies.record(asked.elapsed());
        tokio::time::sleep(WRITE_PAUSE).await;
    }
    (latencies, failed)
}

//! A large store: how long it takes to load, what it costs, how long a restart takes, and whether
//! everything is still there.

use std::sync::Arc;

use anyhow::{Context, ensure};
use api::etcdserverpb::{RangeRequest, RangeResponse};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::Server;
use crate::grpc::{Connection, frame};
use crate::load::{PUT, PutRequest, RANGE, chance, connections, value};
use crate::measure::{ProcessUse, now};
use crate::target::{Running, Target};

const FILLERS: usize = 256;
pub(crate) const VALUE_BYTES: usize = 300;
/// Read back at a time.
const PAGE_BYTES: usize = 3_000_000;

/// What a large store cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bulk {
    pub(crate) keys: u64,
    pub(crate) load_s: f64,
    pub(crate) server_cpu_s: f64,
    pub(crate) loaded_rss_mib: f64,
    pub(crate) disk_mib: f64,
    pub(crate) restart_s: f64,
    pub(crate) restarted_rss_mib: f64,
    pub(crate) read_back_s: f64,
}

/// The bar for loading so many keys into a server.
pub(crate) fn progress(server: Server, keys: u64) -> anyhow::Result<ProgressBar> {
    let progress = ProgressBar::new(keys).with_style(ProgressStyle::with_template(
        "{msg} {bar:40} {pos}/{len} keys, {per_sec}, {eta} to go",
    )?);
    progress.set_message(format!("loading {}", server.name()));
    Ok(progress)
}

/// Loads, restarts and reads back `keys` keys; fails if one is missing or changed.
pub(crate) async fn run(
    running: &mut Running,
    keys: u64,
    value_bytes: usize,
    progress: &ProgressBar,
) -> anyhow::Result<Bulk> {
    let target = running.target.clone();
    let before = ProcessUse::read(&target.pids)?;
    let begun = now();
    load(&target, keys, value_bytes, progress).await?;
    let load_s = begun.elapsed().as_secs_f64();
    let loaded = ProcessUse::read(&target.pids)?;
    progress.set_message("restarting");
    running.terminate().await?;
    let disk_mib = mib(running.size_on_disk()?);
    let restart_s = running.restart().await?.as_secs_f64();
    let target = &running.target;
    let restarted = ProcessUse::read(&target.pids)?;
    progress.set_message("reading back");
    let begun = now();
    let reader = target.connect(1).await?.pop().context("a connection")?;
    read_back(&reader, keys, value_bytes).await?;
    Ok(Bulk {
        keys,
        load_s,
        server_cpu_s: loaded.cpu_since(&before).as_secs_f64(),
        loaded_rss_mib: mib(loaded.rss_bytes()),
        disk_mib,
        restart_s,
        restarted_rss_mib: mib(restarted.rss_bytes()),
        read_back_s: begun.elapsed().as_secs_f64(),
    })
}

/// Puts so many keys.
pub(crate) async fn load(
    target: &Target,
    keys: u64,
    value_bytes: usize,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let connections = connections(target, FILLERS).await?;
    let progress = Arc::new(progress.clone());
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS {
        let connection = connections[filler % connections.len()].clone();
        let progress = progress.clone();
        tasks.spawn(async move {
            let mut n = filler as u64;
            while n < keys {
                let request = frame(&PutRequest {
                    key: key(n),
                    value: content(n, value_bytes),
                    ..PutRequest::default()
                });
                connection.unary(PUT, request).await?;
                progress.inc(1);
                n += FILLERS as u64;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a client panicked")??;
    }
    Ok(())
}

async fn read_back(connection: &Connection, keys: u64, value_bytes: usize) -> anyhow::Result<()> {
    let mut next = key(0);
    let mut n = 0;
    loop {
        let request = RangeRequest {
            key: next,
            range_end: b"bulk0".to_vec(),
            limit: i64::try_from((PAGE_BYTES / value_bytes.max(1)).max(1))?,
            ..RangeRequest::default()
        };
        let page: RangeResponse = connection.call(RANGE, &request).await?;
        for kv in &page.kvs {
            ensure!(kv.key[..] == key(n)[..], "key {n} is missing");
            ensure!(
                kv.value[..] == content(n, value_bytes)[..],
                "the value of key {n} has changed"
            );
            n += 1;
        }
        let Some(last) = page.kvs.last() else { break };
        next = last.key.to_vec();
        next.push(0);
        if !page.more {
            break;
        }
    }
    ensure!(n == keys, "{n} of {keys} keys came back");
    Ok(())
}

pub(crate) fn key(n: u64) -> Vec<u8> {
    format!("bulk/{n:061}").into_bytes()
}

fn content(n: u64, value_bytes: usize) -> Vec<u8> {
    value(&mut chance(usize::try_from(n).unwrap_or(0)), value_bytes)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The table of one or two servers.
pub(crate) fn table(results: &[(&str, Vec<Bulk>)]) -> String {
    let mut table = String::from(
        "| server | keys | load s | CPU s | RSS MiB | disk MiB | restart s | RSS after MiB | read back s |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (server, runs) in results {
        let m = |figure: fn(&Bulk) -> f64| crate::report::median(runs.iter().map(figure));
        table += &format!(
            "| {server} | {} | {:.1} | {:.1} | {:.0} | {:.0} | {:.2} | {:.0} | {:.1} |\n",
            runs.first().map_or(0, |run| run.keys),
            m(|r| r.load_s),
            m(|r| r.server_cpu_s),
            m(|r| r.loaded_rss_mib),
            m(|r| r.disk_mib),
            m(|r| r.restart_s),
            m(|r| r.restarted_rss_mib),
            m(|r| r.read_back_s),
        );
    }
    table
}

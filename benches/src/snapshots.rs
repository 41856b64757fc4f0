//! A snapshot under full write load: how long it takes, what other requests notice of it, what memory it
//! costs; then how long it takes to restore it, and to start on what was restored. etcd and kvorum by turns.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::etcdserverpb::{PutRequest, RangeRequest, SnapshotRequest};
use serde::Serialize;
use testkit::{Client, Program, Server as Member, Spec, binaries, process};
use tokio::task::{JoinHandle, JoinSet};

use crate::Server;
use crate::bulk::mib;
use crate::measure::{Latencies, now};

/// Clients that fill the store.
const FILLERS: usize = 64;
/// Between two reads of the client that reads, and between two looks at the memory.
const PAUSE: Duration = Duration::from_millis(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// More than any store that is asked for.
const QUOTA: &str = "--quota-backend-bytes=68719476736";

/// What `snapshots` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Bytes of all values.
    #[arg(long, default_value_t = 2 << 30)]
    bytes: u64,
    /// Bytes of one value.
    #[arg(long, default_value_t = 4096)]
    value: usize,
    /// Clients that write while the snapshot is taken.
    #[arg(long, default_value_t = 32)]
    writers: usize,
    /// How long the same load is measured without a snapshot.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// What one server did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    server: &'static str,
    mib: f64,
    snapshot_s: f64,
    before: Noticed,
    meanwhile: Noticed,
    rss_before_mib: f64,
    rss_peak_mib: f64,
    restore_s: f64,
    start_s: f64,
}

/// What clients noticed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Noticed {
    writes_per_s: f64,
    write_p99_ms: f64,
    write_worst_ms: f64,
    read_p99_ms: f64,
    read_worst_ms: f64,
}

/// Measures all servers, one after the other.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Snapshot>> {
    let mut all = Vec::new();
    for server in servers {
        let measured = measure(*server, options).await;
        all.push(measured.with_context(|| server.name())?);
    }
    Ok(all)
}

/// As Markdown.
pub(crate) fn table(all: &[Snapshot]) -> String {
    let mut table = "| server | snapshot MiB | s | writes/s before → meanwhile | write p99 ms | write worst ms | read p99 ms | read worst ms | RSS MiB before → peak | restore s | start s |\n\
                     |---|---:|---:|---|---|---|---|---|---|---:|---:|\n"
        .to_owned();
    for it in all {
        let (before, meanwhile) = (&it.before, &it.meanwhile);
        table += &format!(
            "| {} | {:.0} | {:.1} | {:.0} → {:.0} | {:.1} → {:.1} | {:.1} → {:.1} | {:.1} → {:.1} | {:.1} → {:.1} | {:.0} → {:.0} | {:.1} | {:.1} |\n",
            it.server,
            it.mib,
            it.snapshot_s,
            before.writes_per_s,
            meanwhile.writes_per_s,
            before.write_p99_ms,
            meanwhile.write_p99_ms,
            before.write_worst_ms,
            meanwhile.write_worst_ms,
            before.read_p99_ms,
            meanwhile.read_p99_ms,
            before.read_worst_ms,
            meanwhile.read_worst_ms,
            it.rss_before_mib,
            it.rss_peak_mib,
            it.restore_s,
            it.start_s,
        );
    }
    table
}

async fn measure(server: Server, options: &Options) -> anyhow::Result<Snapshot> {
    let mut running = Spec::of(server.program()).arg(QUOTA).start().await?;
    let client = running.client().await?;
    fill(&client, options).await?;
    let load = Load::start(&client, options);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let before = load.stop().await?;
    let rss_before_mib = mib(running.rss()?);
    let load = Load::start(&client, options);
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("snapshot.db");
    let begun = now();
    let saved = tokio::spawn(save(running.client().await?, file.clone()));
    let mut rss_peak = 0;
    while !saved.is_finished() {
        rss_peak = rss_peak.max(running.rss()?);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let bytes = saved.await??;
    let snapshot_s = begun.elapsed().as_secs_f64();
    let meanwhile = load.stop().await?;
    running.terminate().await?;
    let begun = now();
    restore(&running, server.program(), &file)?;
    let restore_s = begun.elapsed().as_secs_f64();
    let begun = now();
    running.restart().await?;
    let start_s = begun.elapsed().as_secs_f64();
    running.stop().await?;
    Ok(Snapshot {
        server: server.name(),
        mib: mib(bytes),
        snapshot_s,
        before,
        meanwhile,
        rss_before_mib,
        rss_peak_mib: mib(rss_peak),
        restore_s,
        start_s,
    })
}

fn key(number: u64) -> Vec<u8> {
    format!("snapshots/{number:09}").into_bytes()
}

async fn fill(client: &Client, options: &Options) -> anyhow::Result<()> {
    let keys = options.bytes / options.value.max(1) as u64;
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS as u64 {
        let mut client = client.clone();
        let value = vec![b'v'; options.value];
        tasks.spawn(async move {
            for number in (filler..keys).step_by(FILLERS) {
                let put = PutRequest {
                    key: key(number),
                    value: value.clone(),
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

/// Clients that write as fast as they can, and one that reads.
struct Load {
    is_over: Arc<AtomicBool>,
    begun: std::time::Instant,
    writers: Vec<JoinHandle<anyhow::Result<Latencies>>>,
    reader: JoinHandle<anyhow::Result<Latencies>>,
}

impl Load {
    fn start(client: &Client, options: &Options) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let writer = |writer: usize| {
            let (client, is_over) = (client.clone(), Arc::clone(&is_over));
            tokio::spawn(write(client, writer as u64, is_over))
        };
        Self {
            begun: now(),
            writers: (0..options.writers).map(writer).collect(),
            reader: tokio::spawn(read(client.clone(), Arc::clone(&is_over))),
            is_over,
        }
    }

    async fn stop(self) -> anyhow::Result<Noticed> {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.is_over.store(true, Ordering::Relaxed);
        let mut writes = Latencies::new();
        for writer in self.writers {
            writes.add(&writer.await??);
        }
        let reads = self.reader.await??;
        let ms = |of: &Latencies, quantile| {
            Duration::from_micros(of.quantile_us(quantile)).as_secs_f64() * 1000.0
        };
        let count = u32::try_from(writes.count())?;
        Ok(Noticed {
            writes_per_s: f64::from(count) / seconds,
            write_p99_ms: ms(&writes, 0.99),
            write_worst_ms: ms(&writes, 1.0),
            read_p99_ms: ms(&reads, 0.99),
            read_worst_ms: ms(&reads, 1.0),
        })
    }
}

async fn write(
    mut client: Client,
    writer: u64,
    is_over: Arc<AtomicBool>,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    let mut number = writer;
    while !is_over.load(Ordering::Relaxed) {
        // New keys, beside those that are there.
        number += 1_000;
        let put = PutRequest {
            key: format!("load/{}", number % 1_000_000).into_bytes(),
            value: vec![b'w'; 256],
            ..PutRequest::default()
        };
        let asked = now();
        client.kv.put(put).await?;
        latencies.record(asked.elapsed());
    }
    Ok(latencies)
}

async fn read(mut client: Client, is_over: Arc<AtomicBool>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    while !is_over.load(Ordering::Relaxed) {
        let range = RangeRequest {
            key: key(0),
            ..RangeRequest::default()
        };
        let asked = now();
        client.kv.range(range).await?;
        latencies.record(asked.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(latencies)
}

/// Bytes of a snapshot that is stored in `file`.
async fn save(mut client: Client, file: std::path::PathBuf) -> anyhow::Result<u64> {
    let mut pieces = client
        .maintenance
        .snapshot(SnapshotRequest {})
        .await?
        .into_inner();
    let mut out = fs::File::create(file)?;
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await? {
        bytes += piece.blob.len() as u64;
        tokio::task::block_in_place(|| out.write_all(&piece.blob))?;
    }
    Ok(bytes)
}

/// Puts what is restored in the place of the server's data directory.
fn restore(server: &Member, program: Program, snapshot: &Path) -> anyhow::Result<()> {
    let tool = match program {
        Program::Kvorum => binaries::kvorum()?,
        Program::Etcd => binaries::etcdutl()?,
    };
    let (to, url) = (server.data_dir(), server.peer_url());
    fs::remove_dir_all(&to)?;
    let output = process::command(&tool)
        .args(["snapshot", "restore"])
        .arg(snapshot)
        .arg("--data-dir")
        .arg(&to)
        .args(["--name=m1", &format!("--initial-cluster=m1={url}")])
        .arg(format!("--initial-advertise-peer-urls={url}"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", tool.display());
    Ok(())
}

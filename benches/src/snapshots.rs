//! A snapshot under full write load: how long it takes, what other requests notice of it, what memory it
//! costs; then how long it takes to restore it, and to start on what was restored. etcd and kvorum by turns.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use api::etcdserverpb::SnapshotRequest;
use serde::Serialize;
use testkit::{Client, Program, Server as Member, Spec, binaries, process};

use crate::bulk::mib;
use crate::large_store::{Load, Noticed, QUOTA, Writers, fill};
use crate::measure::now;
use crate::{Server, by_turns};

/// Between two looks at the memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

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

/// Measures all servers, one after the other.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Snapshot>> {
    by_turns(servers, async |server| measure(server, options).await).await
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
    let keys = options.bytes / options.value.max(1) as u64;
    fill(&client, keys, options.value).await?;
    let writers = Writers {
        count: options.writers,
        pause: Duration::ZERO,
    };
    let load = Load::start(&client, writers);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let before = load.stop().await?;
    let rss_before_mib = mib(running.rss()?);
    let load = Load::start(&client, writers);
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

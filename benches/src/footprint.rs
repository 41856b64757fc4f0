//! What a server takes beside its requests: memory when it is empty, for each connection and each watcher that does
//! nothing; what it writes while nobody asks for anything; what the disk holds after many overwrites. etcd and
//! kvorum by turns.

use std::time::Duration;

use api::etcdserverpb::{DefragmentRequest, RangeRequest};
use serde::Serialize;
use testkit::Client;
use tonic::Code;

use crate::bulk::mib;
use crate::load::{Load, RANGE, watch};
use crate::measure::{Disk, ProcessUse};
use crate::target::{Running, Shape, Target};
use crate::{Server, by_turns, grpc, maintenance};

/// Until what a server does at its start, or after a load, is over.
const SETTLED: Duration = Duration::from_secs(5);
const WRITERS: usize = 100;

/// What `footprint` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections that do nothing.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Watchers of a key each, a hundred to a connection.
    #[arg(long, default_value_t = 10_000)]
    watchers: usize,
    /// How long it is looked at while nobody asks for anything.
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// How long keys are overwritten.
    #[arg(long, default_value_t = 60)]
    overwrite: u64,
    /// Overwrites as many as a server takes, and not equally many with each.
    #[arg(long)]
    unpaced: bool,
    /// Seconds between two compactions meanwhile.
    #[arg(long, default_value_t = 5)]
    compact: u64,
}

/// What one server takes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Footprint {
    server: &'static str,
    idle: Idle,
    connection_kib: f64,
    watcher_kib: f64,
    overwritten: Overwritten,
}

/// An empty server that nobody asks for anything.
#[derive(Clone, Debug, Serialize)]
struct Idle {
    rss_mib: f64,
    cpu_ms_per_s: f64,
    written_kib_per_s: f64,
}

/// Keys that were put again and again while history was compacted.
#[derive(Clone, Debug, Serialize)]
struct Overwritten {
    puts: u64,
    written_bytes_per_put: f64,
    disk_mib: f64,
    /// After Defragment.
    defragmented_mib: f64,
}

/// Measures all servers, one after the other.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Footprint>> {
    by_turns(servers, async |server| measure(server, options).await).await
}

/// As Markdown.
pub(crate) fn table(all: &[Footprint]) -> String {
    let mut table = "| server | empty MiB | KiB/connection | KiB/watcher | idle: CPU ms/s | written KiB/s | overwrites | \
                     written B/put | disk MiB | after Defragment MiB |\n\
                     |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for it in all {
        table += &format!(
            "| {} | {:.1} | {:.1} | {:.2} | {:.1} | {:.1} | {} | {:.0} | {:.1} | {:.1} |\n",
            it.server,
            it.idle.rss_mib,
            it.connection_kib,
            it.watcher_kib,
            it.idle.cpu_ms_per_s,
            it.idle.written_kib_per_s,
            it.overwritten.puts,
            it.overwritten.written_bytes_per_put,
            it.overwritten.disk_mib,
            it.overwritten.defragmented_mib,
        );
    }
    table
}

async fn measure(server: Server, options: &Options) -> anyhow::Result<Footprint> {
    let shape = Shape::single(&[]);
    let mut running = shape.start(server).await?;
    let idle = idle(&running.target, Duration::from_secs(options.idle)).await?;
    let connection_kib = connections(&running.target, options.connections).await?;
    running.restart().await?;
    let watcher_kib = watchers(&running.target, options.watchers).await?;
    running.cluster.stop().await?;
    let running = shape.start(server).await?;
    let overwritten = overwrite(&running, options).await?;
    running.cluster.stop().await?;
    Ok(Footprint {
        server: server.name(),
        idle,
        connection_kib,
        watcher_kib,
        overwritten,
    })
}

async fn idle(target: &Target, time: Duration) -> anyhow::Result<Idle> {
    let begun = settled(target).await?;
    let disk = Disk::find()?;
    let written = disk.written()?;
    tokio::time::sleep(time).await;
    let ended = ProcessUse::read(&target.pids)?;
    Ok(Idle {
        rss_mib: mib(begun.rss_bytes()),
        cpu_ms_per_s: ended.cpu_since(&begun).as_secs_f64() * 1e3 / time.as_secs_f64(),
        written_kib_per_s: mib(disk.written()? - written) * 1024.0 / time.as_secs_f64(),
    })
}

/// What is resident more, for each connection.
async fn connections(target: &Target, connections: usize) -> anyhow::Result<f64> {
    let before = ProcessUse::read(&target.pids)?;
    let open = target.connect(connections).await?;
    for connection in &open {
        connection.unary(RANGE, read()).await?;
    }
    let after = settled(target).await?;
    kib_each(&before, &after, open.len())
}

/// What is resident more, for each watcher, its connection's part with it.
async fn watchers(target: &Target, watchers: usize) -> anyhow::Result<f64> {
    let before = settled(target).await?;
    let open = watch::keys(target, watchers).await?;
    let after = settled(target).await?;
    drop(open);
    kib_each(&before, &after, watchers)
}

fn kib_each(before: &ProcessUse, after: &ProcessUse, count: usize) -> anyhow::Result<f64> {
    let more = after.rss_bytes().saturating_sub(before.rss_bytes());
    Ok(mib(more) * 1024.0 / f64::from(u32::try_from(count)?))
}

async fn settled(target: &Target) -> anyhow::Result<ProcessUse> {
    tokio::time::sleep(SETTLED).await;
    ProcessUse::read(&target.pids)
}

fn read() -> bytes::Bytes {
    grpc::frame(&RangeRequest {
        key: b"nothing".to_vec(),
        ..RangeRequest::default()
    })
}

async fn overwrite(running: &Running, options: &Options) -> anyhow::Result<Overwritten> {
    let target = &running.target;
    let mut client = running.cluster.client(0)?;
    let load = if options.unpaced {
        Load::Put
    } else {
        Load::PutPaced
    };
    let writing = {
        let (target, time) = (target.clone(), Duration::from_secs(options.overwrite));
        tokio::spawn(async move { load.run(&target, WRITERS, time).await })
    };
    let mut due = tokio::time::interval(Duration::from_secs(options.compact));
    while !writing.is_finished() {
        due.tick().await;
        compact(&mut client).await?;
    }
    let figures = writing.await??;
    compact(&mut client).await?;
    settled(target).await?;
    let disk_mib = mib(running.size_on_disk()?);
    let asked = DefragmentRequest {};
    client.maintenance.defragment(asked).await?;
    settled(target).await?;
    Ok(Overwritten {
        puts: figures.operations,
        written_bytes_per_put: figures.written_bytes,
        disk_mib,
        defragmented_mib: mib(running.size_on_disk()?),
    })
}

/// As far as there is anything: nothing may have been written since the last time.
async fn compact(client: &mut Client) -> anyhow::Result<()> {
    match maintenance::compact(client).await {
        Err(refused) if refused.code() == Code::OutOfRange => Ok(()),
        answered => Ok(answered?),
    }
}

//! Runs a real etcd and kvorum by turns on this machine and this disk, under the same loads, and
//! prints what each of them did and the ratio.
//!
//! ```text
//! cargo run --release -p kvorum-benches                      everything, as a table
//! cargo run --release -p kvorum-benches -- --json FILE       and every figure as JSON
//! cargo run --release -p kvorum-benches -- --bulk 1000000 --rounds 1
//! cargo run --release -p kvorum-benches -- --load put --seconds 2 --rounds 1
//! cargo run --release -p kvorum-benches -- failover          leaders that are killed, 30 of each
//! cargo run --release -p kvorum-benches -- quorum --html FILE     every fault there is, and its timeline (--png)
//! cargo run --release -p kvorum-benches -- leases            100,000 leases that expire at once
//! cargo run --release -p kvorum-benches -- snapshots         2 GiB saved under load, restored, started
//! cargo run --release -p kvorum-benches -- maintenance       2 GiB compacted and defragmented under load
//! cargo run --release -p kvorum-benches -- lists             1 GiB listed
//! cargo run --release -p kvorum-benches -- footprint         memory and disk beside requests
//! cargo run --release -p kvorum-benches -- growth --png FILE   each cost with 10 thousand to a million keys
//! cargo run --release -p kvorum-benches -- --members 3 --tls --load put
//! cargo run --release -p kvorum-benches -- engines           the log's way to the disk: sled, a plain file
//! ```
//!
//! The etcd is the one that `tests/fetch-clients` fetches; `KVORUM_TEST_ETCD` names another.
//! Each server gets a fresh data directory and its default flags; no two servers run at once.

mod bulk;
mod engines;
mod failover;
mod footprint;
mod growth;
mod grpc;
mod large_store;
mod leases;
mod lists;
mod load;
mod maintenance;
mod measure;
mod plot;
mod quorum;
mod report;
mod snapshots;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use testkit::Program;

use crate::bulk::Bulk;
use crate::load::Load;
use crate::measure::Figures;
use crate::report::Row;
use crate::target::Shape;

/// What the load generator takes, the server lacks.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Benchmarks kvorum side by side with a real etcd.
#[derive(Parser)]
struct Args {
    /// Instead of the loads: something that takes a cluster.
    #[command(subcommand)]
    command: Option<Command>,
    /// Only these loads (may be repeated).
    #[arg(long, value_enum)]
    load: Vec<Load>,
    /// Only this number of clients, where a load has several.
    #[arg(long)]
    clients: Option<usize>,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each server takes its turn; the medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[command(flatten)]
    shape: Shape,
    /// Instead of the loads: load so many keys, restart, and read them back.
    #[arg(long, value_name = "KEYS")]
    bulk: Option<u64>,
    /// Bytes of one value of --bulk.
    #[arg(long, value_name = "BYTES", default_value_t = bulk::VALUE_BYTES)]
    bulk_value: usize,
    /// Only this server, for profiling; there is no ratio then.
    #[arg(long, value_enum)]
    only: Option<Server>,
    /// Where to write every figure as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// How long a cluster takes no writes after its leader was killed.
    Failover(failover::Options),
    /// What a cluster's clients notice of every fault there is.
    Quorum(quorum::Options),
    /// How long it takes until leases that expire at once are gone.
    Leases(leases::Options),
    /// A snapshot of a large store under full write load, its restoration, and a start on it.
    Snapshots(snapshots::Options),
    /// Compaction and Defragment of a large store under load.
    Maintenance(maintenance::Options),
    /// A list of 1 GiB, and the memory it costs.
    Lists(lists::Options),
    /// Memory and disk, beside what requests take.
    Footprint(footprint::Options),
    /// How each cost grows with the number of keys.
    Growth(growth::Options),
    /// What sled costs the log, beside a plain file behind the same trait.
    Engines(engines::Options),
}

impl Command {
    async fn run(&self, servers: &[Server], args: &Args) -> anyhow::Result<()> {
        match self {
            Self::Failover(options) => report(
                &failover::run(servers, options).await?,
                failover::table,
                args,
            ),
            Self::Quorum(options) => {
                report(&quorum::run(servers, options).await?, quorum::table, args)
            }
            Self::Leases(options) => {
                report(&leases::run(servers, options).await?, leases::table, args)
            }
            Self::Snapshots(options) => report(
                &snapshots::run(servers, options).await?,
                snapshots::table,
                args,
            ),
            Self::Maintenance(options) => report(
                &maintenance::run(servers, options).await?,
                maintenance::table,
                args,
            ),
            Self::Lists(options) => {
                report(&lists::run(servers, options).await?, lists::table, args)
            }
            Self::Footprint(options) => report(
                &footprint::run(servers, options).await?,
                footprint::table,
                args,
            ),
            Self::Growth(options) => {
                report(&growth::run(servers, options).await?, growth::table, args)
            }
            Self::Engines(options) => report(&engines::run(options)?, engines::table, args),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Server {
    Etcd,
    Kvorum,
}

impl Server {
    const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kvorum => "kvorum",
        }
    }

    const fn program(self) -> Program {
        match self {
            Self::Etcd => Program::Etcd,
            Self::Kvorum => Program::Kvorum,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let loads = match args.load.as_slice() {
        [] => <Load as clap::ValueEnum>::value_variants(),
        chosen => chosen,
    };
    let servers: Vec<Server> = match args.only {
        Some(server) => vec![server],
        None => vec![Server::Etcd, Server::Kvorum],
    };
    if let Some(command) = &args.command {
        return command.run(&servers, &args).await;
    }
    if let Some(keys) = args.bulk {
        return measure_bulk(&servers, keys, &args).await;
    }
    let turns = loads.len() * args.rounds * servers.len();
    let progress = ProgressBar::new(turns as u64).with_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} turns, {elapsed} so far, {eta} to go: {msg}",
    )?);
    let mut rows = Vec::new();
    for &load in loads {
        let measured = measure_load(load, &servers, &args, &progress).await;
        rows.extend(measured.inspect_err(|_failed| print(&report::table(&rows)))?);
    }
    progress.finish_and_clear();
    if let Some(path) = &args.json {
        std::fs::write(path, report::json(&rows)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    print(&report::table(&rows));
    Ok(())
}

async fn measure_bulk(servers: &[Server], keys: u64, args: &Args) -> anyhow::Result<()> {
    let mut results: Vec<(&str, Vec<Bulk>)> = servers
        .iter()
        .map(|server| (server.name(), Vec::new()))
        .collect();
    for _ in 0..args.rounds {
        for (&server, (_, runs)) in servers.iter().zip(&mut results) {
            let progress = bulk::progress(server, keys)?;
            let mut running = args.shape.start(server).await?;
            runs.push(bulk::run(&mut running, keys, args.bulk_value, &progress).await?);
            progress.finish_and_clear();
            running.cluster.stop().await?;
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&results)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    print(&bulk::table(&results));
    Ok(())
}

/// Measures all servers, one after the other.
async fn by_turns<T>(
    servers: &[Server],
    measure: impl AsyncFn(Server) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    for &server in servers {
        all.push(measure(server).await.with_context(|| server.name())?);
    }
    Ok(all)
}

/// Prints what was measured, and writes it where that is asked for.
fn report<T: serde::Serialize>(
    measured: &[T],
    table: impl FnOnce(&[T]) -> String,
    args: &Args,
) -> anyhow::Result<()> {
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(measured)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    print(&table(measured));
    Ok(())
}

async fn measure_load(
    load: Load,
    servers: &[Server],
    args: &Args,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let clients: Vec<usize> = match args.clients {
        Some(clients) => vec![clients],
        None => load.clients().to_vec(),
    };
    let mut rows: Vec<Row> = clients
        .iter()
        .map(|&clients| Row {
            load,
            clients,
            etcd: Vec::new(),
            kvorum: Vec::new(),
        })
        .collect();
    for _ in 0..args.rounds {
        for &server in servers {
            progress.set_message(format!("{} on {server:?}", load.name()));
            let figures = take_turn(server, load, &clients, args).await?;
            for (row, figures) in rows.iter_mut().zip(figures) {
                match server {
                    Server::Etcd => row.etcd.push(figures),
                    Server::Kvorum => row.kvorum.push(figures),
                }
            }
            progress.inc(1);
        }
    }
    Ok(rows)
}

/// One fresh server, the load with each number of clients, and the server's end.
async fn take_turn(
    server: Server,
    load: Load,
    clients: &[usize],
    args: &Args,
) -> anyhow::Result<Vec<Figures>> {
    let running = args.shape.start(server).await?;
    let target = &running.target;
    load.prepare(target).await?;
    let mut figures = Vec::new();
    for &clients in clients {
        let duration = Duration::from_secs(args.seconds);
        let measured = load.run(target, clients, duration).await;
        figures
            .push(measured.with_context(|| {
                format!("{} with {clients} clients on {server:?}", load.name())
            })?);
    }
    running.cluster.stop().await?;
    Ok(figures)
}

#[expect(
    clippy::print_stdout,
    reason = "the report is what this program is for"
)]
fn print(text: &str) {
    println!("{text}");
}

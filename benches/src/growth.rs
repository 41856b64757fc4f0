//! How each cost grows with the number of keys: requests, memory, disk and a restart. etcd and kvorum by turns, on a
//! fresh directory for each number of keys.

use std::time::Duration;

use anyhow::Context;
use api::etcdserverpb::RangeRequest;
use bytes::Bytes;
use rand::Rng;
use serde::Serialize;

use crate::bulk::{self, mib};
use crate::large_store::QUOTA;
use crate::load::{PUT, PutRequest, RANGE, chance, closed_loop, value};
use crate::measure::{Figures, ProcessUse};
use crate::plot::{Files, LINE_CHART_HEIGHT, LINE_CHART_WIDTH, Line, Plots, line_chart};
use crate::target::{Shape, Target};
use crate::{Server, by_turns, grpc};

const CLIENTS: usize = 100;
/// Keys of one list.
const LISTED: i64 = 100;

/// What `growth` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many keys there are (may be repeated).
    #[arg(long, default_values_t = [10_000, 100_000, 1_000_000])]
    keys: Vec<u32>,
    /// How long each kind of request is measured.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    #[command(flatten)]
    files: Files,
}

/// What one server costs with so many keys.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Size {
    server: &'static str,
    keys: u32,
    put: Figures,
    get: Figures,
    list: Figures,
    rss_mib: f64,
    disk_mib: f64,
    restart_s: f64,
}

/// A column: what it is called, in what unit, and how it is found.
type Column = (&'static str, &'static str, fn(&Size) -> f64);

const COLUMNS: [Column; 6] = [
    ("put: server CPU", "µs", |size| size.put.server_cpu_us),
    ("get: server CPU", "µs", |size| size.get.server_cpu_us),
    ("list of 100: server CPU", "µs", |size| {
        size.list.server_cpu_us
    }),
    ("memory", "MiB", |size| size.rss_mib),
    ("disk", "MiB", |size| size.disk_mib),
    ("restart", "s", |size| size.restart_s),
];

/// Measures all servers with each number of keys.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Size>> {
    let mut all = Vec::new();
    for &keys in &options.keys {
        all.extend(by_turns(servers, async |server| measure(server, keys, options).await).await?);
    }
    options.files.write(&plots(&all))?;
    Ok(all)
}

/// As Markdown.
pub(crate) fn table(all: &[Size]) -> String {
    let mut table = String::from("| keys | server |");
    let mut line = String::from("\n|---:|---|");
    for (name, unit, _) in COLUMNS {
        table += &format!(" {name} {unit} |");
        line += "---:|";
    }
    table = table + &line + "\n";
    for size in all {
        table += &format!("| {} | {} |", size.keys, size.server);
        for (_, _, figure) in COLUMNS {
            table += &format!(" {:.1} |", figure(size));
        }
        table += "\n";
    }
    table
}

fn plots(all: &[Size]) -> Plots {
    let mut plots = Plots::new(
        "What grows with the number of keys",
        "Keys of 66 and values of 300 bytes; both scales are logarithmic: a cost that does not depend on the number \
         of keys is a level line.",
        LINE_CHART_WIDTH,
    );
    for (name, unit, figure) in COLUMNS {
        plots.heading(name);
        let line = |server: Server| Line {
            name: server.name(),
            points: all
                .iter()
                .filter(|size| size.server == server.name())
                .map(|size| (f64::from(size.keys), figure(size)))
                .collect(),
        };
        let chart = line_chart(unit, "keys", &[line(Server::Etcd), line(Server::Kvorum)]);
        plots.add(LINE_CHART_HEIGHT, chart);
    }
    plots
}

async fn measure(server: Server, keys: u32, options: &Options) -> anyhow::Result<Size> {
    let shape = Shape::single(&[QUOTA]);
    let mut running = shape.start(server).await?;
    let size = u64::from(keys);
    let progress = bulk::progress(server, size)?;
    bulk::load(&running.target, size, bulk::VALUE_BYTES, &progress).await?;
    progress.finish_and_clear();
    let restart_s = running.restart().await?.as_secs_f64();
    let target = &running.target;
    let rss_mib = mib(ProcessUse::read(&target.pids)?.rss_bytes());
    let disk_mib = mib(running.size_on_disk()?);
    let duration = Duration::from_secs(options.seconds);
    let costs = Size {
        server: server.name(),
        keys,
        get: requests(target, duration, size, get).await?,
        list: requests(target, duration, size, list).await?,
        put: requests(target, duration, size, put).await?,
        rss_mib,
        disk_mib,
        restart_s,
    };
    running.cluster.stop().await.context("stopping")?;
    Ok(costs)
}

/// Requests for keys that are chosen by chance.
async fn requests(
    target: &Target,
    duration: Duration,
    keys: u64,
    request: fn(u64) -> (&'static str, Bytes),
) -> anyhow::Result<Figures> {
    closed_loop(target, CLIENTS, duration, None, |index, connection| {
        let mut rng = chance(index);
        move || {
            let connection = connection.clone();
            let (path, framed) = request(rng.random_range(0..keys));
            async move { connection.unary(path, framed).await.map(|_bytes| ()) }
        }
    })
    .await
}

fn put(n: u64) -> (&'static str, Bytes) {
    let put = PutRequest {
        key: bulk::key(n),
        value: value(&mut chance(0), bulk::VALUE_BYTES),
        ..PutRequest::default()
    };
    (PUT, grpc::frame(&put))
}

fn get(n: u64) -> (&'static str, Bytes) {
    let range = RangeRequest {
        key: bulk::key(n),
        ..RangeRequest::default()
    };
    (RANGE, grpc::frame(&range))
}

fn list(n: u64) -> (&'static str, Bytes) {
    let range = RangeRequest {
        key: bulk::key(n),
        range_end: b"bulk0".to_vec(),
        limit: LISTED,
        ..RangeRequest::default()
    };
    (RANGE, grpc::frame(&range))
}

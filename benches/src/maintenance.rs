//! What clients notice of a compaction and of Defragment on a large store, beside the same load without. etcd
//! and kvorum by turns.

use std::time::Duration;

use api::etcdserverpb::{CompactionRequest, DefragmentRequest, StatusRequest};
use serde::Serialize;
use testkit::{Client, Spec};

use crate::bulk::mib;
use crate::large_store::{Load, Noticed, QUOTA, Writers, fill};
use crate::measure::now;
use crate::{Server, by_turns};

/// What `maintenance` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Bytes of all values; half of them are history.
    #[arg(long, default_value_t = 2 << 30)]
    bytes: u64,
    /// Bytes of one value.
    #[arg(long, default_value_t = 4096)]
    value: usize,
    /// Clients that write meanwhile.
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Milliseconds that each of them waits after a write.
    #[arg(long, default_value_t = 5)]
    pause: u64,
    /// How long the same load is measured with nothing going on.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// What one server did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Maintenance {
    server: &'static str,
    phases: Vec<Phase>,
}

/// Something that was done, and what was noticed of it.
#[derive(Clone, Debug, Serialize)]
struct Phase {
    what: &'static str,
    seconds: f64,
    db_size_mib: f64,
    noticed: Noticed,
}

/// Measures all servers, one after the other.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<Maintenance>> {
    by_turns(servers, async |server| measure(server, options).await).await
}

/// As Markdown.
pub(crate) fn table(all: &[Maintenance]) -> String {
    let mut table = "| server | while | s | db size after MiB | writes/s | write p99 ms (over idle) | write worst ms | read p99 ms (over idle) | read worst ms |\n\
                     |---|---|---:|---:|---:|---|---:|---|---:|\n"
        .to_owned();
    for it in all {
        let Some(idle) = it.phases.first().map(|phase| &phase.noticed) else {
            continue;
        };
        for phase in &it.phases {
            let noticed = &phase.noticed;
            table += &format!(
                "| {} | {} | {:.1} | {:.0} | {:.0} | {:.1} (**{:.1}**) | {:.1} | {:.1} (**{:.1}**) | {:.1} |\n",
                it.server,
                phase.what,
                phase.seconds,
                phase.db_size_mib,
                noticed.writes_per_s,
                noticed.write_p99_ms,
                noticed.write_p99_ms / idle.write_p99_ms,
                noticed.write_worst_ms,
                noticed.read_p99_ms,
                noticed.read_p99_ms / idle.read_p99_ms,
                noticed.read_worst_ms,
            );
        }
    }
    table
}

async fn measure(server: Server, options: &Options) -> anyhow::Result<Maintenance> {
    let running = Spec::of(server.program()).arg(QUOTA).start().await?;
    let client = running.client().await?;
    let keys = options.bytes / 2 / options.value.max(1) as u64;
    fill(&client, keys, options.value).await?;
    fill(&client, keys, options.value).await?;
    let mut phases = Vec::new();
    for what in ["nothing", "compaction", "Defragment"] {
        let load = Load::start(
            &client,
            Writers {
                count: options.writers,
                pause: Duration::from_millis(options.pause),
            },
        );
        let begun = now();
        // On a connection of its own: it is not measured.
        do_it(what, &mut running.client().await?, options).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let noticed = load.stop().await?;
        let status = client.maintenance.clone().status(StatusRequest {}).await?;
        phases.push(Phase {
            what,
            seconds,
            db_size_mib: mib(u64::try_from(status.into_inner().db_size)?),
            noticed,
        });
    }
    running.stop().await?;
    Ok(Maintenance {
        server: server.name(),
        phases,
    })
}

/// Drops all history, and returns when it is gone.
pub(crate) async fn compact(client: &mut Client) -> Result<(), tonic::Status> {
    let status = client.maintenance.status(StatusRequest {}).await?;
    let header = status.into_inner().header.unwrap_or_default();
    let request = CompactionRequest {
        revision: header.revision,
        physical: true,
    };
    client.kv.compact(request).await.map(|_compacted| ())
}

async fn do_it(what: &str, client: &mut Client, options: &Options) -> anyhow::Result<()> {
    match what {
        "compaction" => {
            compact(client).await?;
        }
        "Defragment" => {
            client.maintenance.defragment(DefragmentRequest {}).await?;
        }
        _ => tokio::time::sleep(Duration::from_secs(options.seconds)).await,
    }
    Ok(())
}

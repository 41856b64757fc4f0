//! A list of a very large range: what it takes, and what memory it costs the server. kvorum by RangeStream and by
//! Range, an etcd that has no RangeStream by Range alone.

use api::etcdserverpb::RangeRequest;
use serde::Serialize;
use testkit::{Client, Spec};

use crate::bulk::mib;
use crate::large_store::{QUOTA, fill};
use crate::measure::now;
use crate::{Server, by_turns};

/// What `lists` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of one value.
    #[arg(long, default_value_t = 10_240)]
    value: usize,
}

/// One list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct List {
    server: &'static str,
    call: &'static str,
    mib: f64,
    seconds: f64,
    rss_before_mib: f64,
    rss_peak_mib: f64,
}

/// Measures all servers, one after the other.
pub(crate) async fn run(servers: &[Server], options: &Options) -> anyhow::Result<Vec<List>> {
    let lists = by_turns(servers, async |server| {
        let calls: &[&str] = match server {
            Server::Etcd => &["Range"],
            Server::Kvorum => &["RangeStream", "Range"],
        };
        measure(server, calls, options).await
    });
    Ok(lists.await?.into_iter().flatten().collect())
}

/// As Markdown.
pub(crate) fn table(all: &[List]) -> String {
    let mut table = "| server | call | MiB | s | RSS before MiB | RSS peak MiB | growth MiB |\n\
                     |---|---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for it in all {
        table += &format!(
            "| {} | {} | {:.0} | {:.1} | {:.0} | {:.0} | **{:.0}** |\n",
            it.server,
            it.call,
            it.mib,
            it.seconds,
            it.rss_before_mib,
            it.rss_peak_mib,
            (it.rss_peak_mib - it.rss_before_mib).max(0.0),
        );
    }
    table
}

async fn measure(
    server: Server,
    calls: &'static [&str],
    options: &Options,
) -> anyhow::Result<Vec<List>> {
    let mut running = Spec::of(server.program()).arg(QUOTA).start().await?;
    fill(&running.client().await?, options.keys, options.value).await?;
    let mut lists = Vec::new();
    for call in calls {
        // What filling took is given back, and the peak begins anew.
        running.terminate().await?;
        running.restart().await?;
        let client = running.client().await?;
        let rss_before = running.rss()?;
        let begun = now();
        let bytes = match *call {
            "Range" => ranged(client).await?,
            _ => streamed(client).await?,
        };
        lists.push(List {
            server: server.name(),
            call,
            mib: mib(bytes),
            seconds: begun.elapsed().as_secs_f64(),
            rss_before_mib: mib(rss_before),
            rss_peak_mib: mib(running.rss_peak()?),
        });
    }
    running.stop().await?;
    Ok(lists)
}

fn everything() -> RangeRequest {
    RangeRequest {
        key: vec![0],
        range_end: vec![0],
        ..RangeRequest::default()
    }
}

/// Bytes of the values.
async fn ranged(mut client: Client) -> anyhow::Result<u64> {
    let all = client.kv.range(everything()).await?.into_inner();
    Ok(all.kvs.iter().map(|kv| kv.value.len() as u64).sum())
}

async fn streamed(mut client: Client) -> anyhow::Result<u64> {
    let mut chunks = client.kv.range_stream(everything()).await?.into_inner();
    let mut bytes = 0;
    while let Some(chunk) = chunks.message().await? {
        let kvs = chunk.range_response.into_iter().flat_map(|some| some.kvs);
        bytes += kvs.map(|kv| kv.value.len() as u64).sum::<u64>();
    }
    Ok(bytes)
}

//! Watch fan-out: one writer, many watchers of its prefix. A latency is the time from just before
//! the put is sent until the event is in a watcher's hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::task::JoinSet;

use super::{Figures, PUT, PutRequest, Target, VALUE_BYTES, WATCH, connections, frame};
use crate::grpc::{Connection, Streaming};
use crate::measure::{Latencies, Meter, now};

/// Puts a second: below what either server can take, so that latencies compare.
const PUTS_PER_S: u32 = 200;
const LAST: &[u8] = b"watched/last";

pub(super) async fn run(
    target: &Target,
    watchers: usize,
    duration: Duration,
) -> anyhow::Result<Figures> {
    let connections = connections(target, watchers).await?;
    let origin = now();
    let mut tasks = JoinSet::new();
    for index in 0..watchers {
        let stream = watch(&connections[index % connections.len()]).await?;
        tasks.spawn(receive(stream, origin));
    }
    let meter = Meter::start(target.pid)?;
    write(&connections[0], origin, duration).await?;
    let mut latencies = Latencies::new();
    while let Some(done) = tasks.join_next().await {
        latencies.add(&done.context("a watcher panicked")??);
    }
    meter.stop(&latencies)
}

async fn watch(connection: &Connection) -> anyhow::Result<Streaming> {
    let create = WatchCreateRequest {
        key: b"watched/".to_vec(),
        range_end: b"watched0".to_vec(),
        ..WatchCreateRequest::default()
    };
    let first = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let mut stream = connection.streaming(WATCH).await?.begin(&first).await?;
    let created: WatchResponse = stream.next().await?.context("the watch stream ended")?;
    anyhow::ensure!(
        created.created,
        "the first answer of a watch was {created:?}"
    );
    Ok(stream)
}

async fn write(connection: &Connection, origin: Instant, duration: Duration) -> anyhow::Result<()> {
    let mut due = tokio::time::interval(Duration::from_secs(1) / PUTS_PER_S);
    let until = now() + duration;
    let failed = Arc::new(AtomicBool::new(false));
    while now() < until && !failed.load(Ordering::Relaxed) {
        due.tick().await;
        let mut value = vec![0; VALUE_BYTES];
        let sent = u64::try_from(origin.elapsed().as_micros())?;
        value[..8].copy_from_slice(&sent.to_be_bytes());
        let request = put(b"watched/key".to_vec(), value);
        let (connection, failed) = (connection.clone(), failed.clone());
        tokio::spawn(async move {
            if connection.unary(PUT, request).await.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
        });
    }
    anyhow::ensure!(!failed.load(Ordering::Relaxed), "a put failed");
    connection
        .unary(PUT, put(LAST.to_vec(), vec![0; 8]))
        .await?;
    Ok(())
}

fn put(key: Vec<u8>, value: Vec<u8>) -> bytes::Bytes {
    frame(&PutRequest {
        key,
        value,
        ..PutRequest::default()
    })
}

async fn receive(mut stream: Streaming, origin: Instant) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    loop {
        let response: WatchResponse = stream.next().await?.context("the watch stream ended")?;
        let arrived = origin.elapsed();
        for event in response.events {
            let kv = event.kv.context("an event without a key")?;
            if kv.key == LAST {
                return Ok(latencies);
            }
            let sent: [u8; 8] = kv.value.get(..8).context("a short value")?.try_into()?;
            let sent = Duration::from_micros(u64::from_be_bytes(sent));
            latencies.record(arrived.saturating_sub(sent));
        }
    }
}

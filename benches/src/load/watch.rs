//! Watches: one writer, many watchers. A latency is the time from just before the put is sent until the event is in
//! a watcher's hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use bytes::Bytes;
use rand::Rng;
use tokio::task::JoinSet;

use super::single_key::list;
use super::{
    CLIENTS_PER_CONNECTION, Figures, Load, PUT, PutRequest, RANGE, Target, VALUE_BYTES, WATCH,
    chance, frame,
};
use crate::grpc::{Connection, Streaming};
use crate::measure::{Latencies, Meter, now};

/// Written at the end; every stream watches it.
const LAST: &[u8] = b"watched/last";

/// So many watchers of a key each, on as many streams and connections as the load has.
pub(crate) async fn keys(target: &Target, watchers: usize) -> anyhow::Result<Vec<Streaming>> {
    let watching = Watching::of(Load::WatchKeys, watchers);
    watching.streams(&watching.connections(target).await?).await
}

/// More puts that fail than this are not an overload.
const REFUSED_MAX: usize = 1_000;

/// Who watches what, beside what.
struct Watching {
    watchers: usize,
    /// One stream carries so many.
    watchers_per_stream: usize,
    streams_per_connection: usize,
    what: What,
    puts_per_s: u32,
    /// Clients that list all the time, on the watchers' connections.
    listers: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// All of them the same prefix.
    Prefix,
    /// Each of them a key of its own.
    Keys,
}

impl Watching {
    fn of(load: Load, watchers: usize) -> Self {
        let apart = Self {
            watchers,
            watchers_per_stream: 1,
            streams_per_connection: CLIENTS_PER_CONNECTION,
            what: What::Prefix,
            puts_per_s: 200,
            listers: 0,
        };
        match load {
            Load::WatchKeys => Self {
                watchers_per_stream: 100,
                streams_per_connection: 1,
                what: What::Keys,
                puts_per_s: 1_000,
                ..apart
            },
            Load::WatchBesideLists => Self {
                listers: 4,
                ..apart
            },
            // A thousand watchers and a thousand puts a second: a million events.
            _ if watchers >= 1_000 => Self {
                puts_per_s: 1_000,
                ..apart
            },
            _ => apart,
        }
    }

    async fn connections(&self, target: &Target) -> anyhow::Result<Vec<Connection>> {
        let connections = self.stream_count().div_ceil(self.streams_per_connection);
        target.connect(connections).await
    }

    const fn stream_count(&self) -> usize {
        self.watchers.div_ceil(self.watchers_per_stream)
    }

    async fn streams(&self, connections: &[Connection]) -> anyhow::Result<Vec<Streaming>> {
        let mut streams = Vec::new();
        for stream in 0..self.stream_count() {
            let connection = &connections[stream % connections.len()];
            streams.push(watch(connection, stream, self).await?);
        }
        Ok(streams)
    }
}

pub(super) async fn run(
    load: Load,
    target: &Target,
    watchers: usize,
    duration: Duration,
) -> anyhow::Result<Figures> {
    let watching = Watching::of(load, watchers);
    let connections = watching.connections(target).await?;
    let writer = target.connect(1).await?.pop().context("a connection")?;
    let origin = now();
    let mut tasks = JoinSet::new();
    for stream in watching.streams(&connections).await? {
        tasks.spawn(receive(stream, origin));
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut listers = JoinSet::new();
    for lister in 0..watching.listers {
        let connection = connections[lister % connections.len()].clone();
        listers.spawn(list_on(connection, over.clone()));
    }
    let meter = Meter::start(&target.pids)?;
    write(&writer, origin, duration, &watching).await?;
    let mut latencies = Latencies::new();
    while let Some(done) = tasks.join_next().await {
        latencies.add(done.context("a watcher panicked")??);
    }
    let figures = meter.stop(latencies)?;
    over.store(true, Ordering::Relaxed);
    while let Some(done) = listers.join_next().await {
        done.context("a client that lists panicked")??;
    }
    Ok(figures)
}

async fn list_on(connection: Connection, over: Arc<AtomicBool>) -> anyhow::Result<()> {
    while !over.load(Ordering::Relaxed) {
        connection.unary(RANGE, list()).await?;
    }
    Ok(())
}

/// One stream with all its watchers.
async fn watch(
    connection: &Connection,
    stream: usize,
    watching: &Watching,
) -> anyhow::Result<Streaming> {
    let first = stream * watching.watchers_per_stream;
    let mut creates: Vec<WatchRequest> = match watching.what {
        What::Prefix => Vec::new(),
        What::Keys => (first..first + watching.watchers_per_stream)
            .map(|watcher| create(own_key(watcher), Vec::new()))
            .collect(),
    };
    // With a prefix, the last key is in it.
    creates.push(match watching.what {
        What::Prefix => create(b"watched/".to_vec(), b"watched0".to_vec()),
        What::Keys => create(LAST.to_vec(), Vec::new()),
    });
    let mut creates = creates.iter();
    let first = creates.next().context("a watcher")?;
    let mut stream = connection.streaming(WATCH, first).await?;
    created(&mut stream).await?;
    for create in creates {
        stream.send(create);
        created(&mut stream).await?;
    }
    Ok(stream)
}

fn create(key: Vec<u8>, range_end: Vec<u8>) -> WatchRequest {
    let create = WatchCreateRequest {
        key,
        range_end,
        ..WatchCreateRequest::default()
    };
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

async fn created(stream: &mut Streaming) -> anyhow::Result<()> {
    let answer: WatchResponse = stream.next().await?.context("the watch stream ended")?;
    anyhow::ensure!(answer.created, "the answer to a new watch was {answer:?}");
    Ok(())
}

fn own_key(watcher: usize) -> Vec<u8> {
    format!("watched/{watcher:06}").into_bytes()
}

async fn write(
    connection: &Connection,
    origin: Instant,
    duration: Duration,
    watching: &Watching,
) -> anyhow::Result<()> {
    let mut due = tokio::time::interval(Duration::from_secs(1) / watching.puts_per_s);
    let mut rng = chance(0);
    let until = now() + duration;
    let mut puts = JoinSet::new();
    let mut refused = 0;
    while now() < until {
        due.tick().await;
        let key = match watching.what {
            What::Prefix => b"watched/key".to_vec(),
            What::Keys => own_key(rng.random_range(0..watching.watchers)),
        };
        let mut value = vec![0; VALUE_BYTES];
        let sent = u64::try_from(origin.elapsed().as_micros())?;
        value[..8].copy_from_slice(&sent.to_be_bytes());
        let connection = connection.clone();
        puts.spawn(async move { connection.unary(PUT, put(key, value)).await });
        while let Some(done) = puts.try_join_next() {
            // An etcd with too many watchers times some out; what counts is the events that come.
            refused += usize::from(done.context("a client panicked")?.is_err());
        }
    }
    while let Some(done) = puts.join_next().await {
        refused += usize::from(done.context("a client panicked")?.is_err());
    }
    anyhow::ensure!(refused < REFUSED_MAX, "{refused} puts failed");
    while let Err(error) = connection.unary(PUT, put(LAST.to_vec(), vec![0; 8])).await {
        refused += 1;
        anyhow::ensure!(refused < REFUSED_MAX, error);
    }
    Ok(())
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Bytes {
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

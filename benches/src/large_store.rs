//! A large store, and clients that write and read while something is done to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use api::etcdserverpb::{PutRequest, RangeRequest};
use serde::Serialize;
use testkit::Client;
use tokio::task::{JoinHandle, JoinSet};

use crate::measure::{Latencies, now};

/// Clients that fill the store.
const FILLERS: usize = 64;
/// Between two reads of the client that reads.
const PAUSE: Duration = Duration::from_millis(5);
/// More than any store that is asked for.
pub(crate) const QUOTA: &str = "--quota-backend-bytes=68719476736";

/// What clients noticed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Noticed {
    pub(crate) writes_per_s: f64,
    pub(crate) write_p99_ms: f64,
    pub(crate) write_worst_ms: f64,
    pub(crate) read_p99_ms: f64,
    pub(crate) read_worst_ms: f64,
}

fn key(number: u64) -> Vec<u8> {
    format!("store/{number:09}").into_bytes()
}

/// Puts so many keys with values of so many bytes.
pub(crate) async fn fill(client: &Client, keys: u64, value_bytes: usize) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS as u64 {
        let mut client = client.clone();
        let value = vec![b'v'; value_bytes];
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

/// Those who write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writers {
    pub(crate) count: usize,
    /// After each write; zero: as fast as they can.
    pub(crate) pause: Duration,
}

/// Clients that write, and one that reads.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    begun: std::time::Instant,
    writers: Vec<JoinHandle<anyhow::Result<Latencies>>>,
    reader: JoinHandle<anyhow::Result<Latencies>>,
}

impl Load {
    pub(crate) fn start(client: &Client, writers: Writers) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let writer = |writer: usize| {
            let (client, is_over) = (client.clone(), Arc::clone(&is_over));
            tokio::spawn(write(client, writer as u64, writers.pause, is_over))
        };
        Self {
            begun: now(),
            writers: (0..writers.count).map(writer).collect(),
            reader: tokio::spawn(read(client.clone(), Arc::clone(&is_over))),
            is_over,
        }
    }

    pub(crate) async fn stop(self) -> anyhow::Result<Noticed> {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.is_over.store(true, Ordering::Relaxed);
        let mut writes = Latencies::new();
        for writer in self.writers {
            writes.add(writer.await??);
        }
        let mut reads = self.reader.await??;
        let count = u32::try_from(writes.count())?;
        Ok(Noticed {
            writes_per_s: f64::from(count) / seconds,
            write_p99_ms: writes.quantile_ms(990),
            write_worst_ms: writes.quantile_ms(1000),
            read_p99_ms: reads.quantile_ms(990),
            read_worst_ms: reads.quantile_ms(1000),
        })
    }
}

async fn write(
    mut client: Client,
    writer: u64,
    pause: Duration,
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
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
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

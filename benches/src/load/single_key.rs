//! Puts, reads of one key, and lists.

use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use tokio::task::JoinSet;

use super::{
    Connection, Figures, KEYS, Load, PACED_PUTS_PER_S, PUT, PutRequest, RANGE, RangeRequest,
    Target, VALUE_BYTES, chance, closed_loop, connections, frame, value,
};

/// How many clients fill a store.
const FILLERS: usize = 128;

pub(super) async fn run(
    load: Load,
    target: &Target,
    clients: usize,
    duration: Duration,
) -> anyhow::Result<Figures> {
    let client = |index: usize, connection: Connection| {
        let mut rng = chance(index);
        move || {
            let connection = connection.clone();
            let (path, request) = match load {
                Load::Put | Load::PutPaced => {
                    let key = key("bench/", rng.random_range(0..KEYS));
                    (PUT, put(key, value(&mut rng, VALUE_BYTES)))
                }
                Load::List => (RANGE, list()),
                _ => {
                    let key = key("bench/", rng.random_range(0..KEYS));
                    (RANGE, get(key, load == Load::RangeSerializable))
                }
            };
            async move { connection.unary(path, request).await.map(|_bytes| ()) }
        }
    };
    let per_s = (load == Load::PutPaced).then_some(PACED_PUTS_PER_S);
    closed_loop(target, clients, duration, per_s, client).await
}

pub(super) async fn fill(
    target: &Target,
    prefix: &'static str,
    keys: u64,
    value_bytes: usize,
) -> anyhow::Result<()> {
    let connections = connections(target, FILLERS).await?;
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS {
        let connection = connections[filler % connections.len()].clone();
        tasks.spawn(async move {
            let mut rng = chance(filler);
            let mut n = filler as u64;
            while n < keys {
                let request = put(key(prefix, n), value(&mut rng, value_bytes));
                connection.unary(PUT, request).await?;
                n += FILLERS as u64;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a client panicked")??;
    }
    Ok(())
}

fn key(prefix: &str, n: u64) -> Vec<u8> {
    format!("{prefix}{n:010}").into_bytes()
}

fn put(key: Vec<u8>, value: Vec<u8>) -> bytes::Bytes {
    frame(&PutRequest {
        key,
        value,
        ..PutRequest::default()
    })
}

fn get(key: Vec<u8>, serializable: bool) -> bytes::Bytes {
    frame(&RangeRequest {
        key,
        serializable,
        ..RangeRequest::default()
    })
}

pub(super) fn list() -> bytes::Bytes {
    frame(&RangeRequest {
        key: b"list/".to_vec(),
        range_end: b"list0".to_vec(),
        ..RangeRequest::default()
    })
}

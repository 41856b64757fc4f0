//! Stores of any size, and everything that a client can see of one, told in a few numbers: what does not
//! fit into the memory of a test twice.

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use crc32c::crc32c_append;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use testkit::{Client, eventually};
use tokio::task::JoinSet;

use crate::contents;

/// Clients that fill a store.
const FILLERS: u64 = 16;
/// Keys that are read at a time.
const PAGE_KEYS: i64 = 200;
/// A key in so many is written again, and deleted, and has a lease.
const AGAIN: u64 = 10;
const DELETED: u64 = 17;
const LEASED: u64 = 23;
const LEASE_ID: i64 = 4711;

/// What a client can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The current revision.
    pub revision: i64,
    /// Keys that exist.
    pub keys: usize,
    /// Bytes of their values.
    pub bytes: u64,
    /// CRC-32C of all of them, in their order.
    pub digest: u32,
    /// `HashKV` at the revision and before it, each with where history begins.
    pub hashes: Vec<(i64, u32, i64)>,
    /// The leases: id, TTL and keys.
    pub leases: Vec<(i64, i64, Vec<Vec<u8>>)>,
    /// The alarms.
    pub alarms: Vec<pb::AlarmMember>,
}

/// Bytes of the value of a key: most are small, some are as large as a request may be.
fn value_bytes(number: u64) -> usize {
    match number {
        _ if number % 500 == 7 => 1_500_000,
        _ if number % 20 == 3 => 70_000,
        _ if number % 50 == 11 => 0,
        _ => 4096,
    }
}

/// Puts keys with so many bytes of values, some of them twice, deletes some, and compacts on the way.
///
/// # Errors
/// When the server refuses.
pub async fn fill(client: &Client, bytes: u64) -> Result<()> {
    let grant = pb::LeaseGrantRequest {
        ttl: 900_000,
        id: LEASE_ID,
    };
    client.clone().lease.lease_grant(grant).await?;
    let keys = keys_of(bytes);
    let half = keys / 2;
    write(client, 0..half).await?;
    let found = contents::revision(&mut client.clone()).await?;
    let compact = pb::CompactionRequest {
        revision: found - found / 4,
        physical: true,
    };
    client.clone().kv.compact(compact).await?;
    write(client, half..keys).await
}

/// How many keys have so many bytes.
fn keys_of(bytes: u64) -> u64 {
    let mut sum = 0;
    let is_before = |number: &u64| {
        sum += value_bytes(*number) as u64;
        sum < bytes
    };
    (0..).take_while(is_before).count() as u64
}

async fn write(client: &Client, keys: std::ops::Range<u64>) -> Result<()> {
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let (client, keys) = (client.clone(), keys.clone());
        fillers.spawn(async move {
            for number in keys.filter(|number| number % FILLERS == filler) {
                write_one(&mut client.clone(), number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = fillers.join_next().await {
        done.context("a client panicked")??;
    }
    Ok(())
}

async fn write_one(client: &mut Client, number: u64) -> Result<()> {
    let key = format!("/large/{:02}/{number:09}", number % 16).into_bytes();
    let mut rng = StdRng::seed_from_u64(number);
    let times = if number % AGAIN == 1 { 2 } else { 1 };
    for _ in 0..times {
        let mut value = vec![0; value_bytes(number)];
        rng.fill_bytes(&mut value);
        let put = pb::PutRequest {
            key: key.clone(),
            value,
            lease: if number % LEASED == 5 { LEASE_ID } else { 0 },
            ..pb::PutRequest::default()
        };
        client.kv.put(put).await?;
    }
    if number % DELETED == 2 {
        let delete = pb::DeleteRangeRequest {
            key,
            ..pb::DeleteRangeRequest::default()
        };
        client.kv.delete_range(delete).await?;
    }
    Ok(())
}

/// What is in a member.
///
/// # Errors
/// When it does not answer.
pub async fn read(client: &mut Client) -> Result<Summary> {
    let revision = contents::revision(client).await?;
    let mut summary = Summary {
        revision,
        keys: 0,
        bytes: 0,
        digest: 0,
        hashes: Vec::new(),
        leases: contents::leases(client).await?,
        alarms: contents::alarms(client).await?,
    };
    let mut from = vec![0];
    loop {
        let page = pb::RangeRequest {
            key: from,
            range_end: vec![0],
            limit: PAGE_KEYS,
            revision,
            ..pb::RangeRequest::default()
        };
        let page = client.kv.range(page).await?.into_inner();
        for kv in &page.kvs {
            summary.keys += 1;
            summary.bytes += kv.value.len() as u64;
            summary.digest = crc32c_append(summary.digest, &kv.encode_length_delimited_to_vec());
        }
        match page.kvs.last() {
            Some(last) if page.more => from = [&last.key[..], &[0]].concat(),
            _ => break,
        }
    }
    let (_, compacted) = contents::hash(client, revision).await?;
    for at in [
        revision,
        revision - 1,
        revision - (revision - compacted) / 2,
    ] {
        if at >= compacted && at > 0 {
            let (hash, compacted) = contents::hash(client, at).await?;
            summary.hashes.push((at, hash, compacted));
        }
    }
    Ok(summary)
}

/// The same, once the member has caught up: compaction goes on after a start.
///
/// # Errors
/// When they stay different.
pub async fn becomes_equal(expected: &Summary, client: &Client) -> Result<()> {
    eventually("it holds the same", || async {
        let found = read(&mut client.clone()).await?;
        ensure!(found == *expected, "{found:?} instead of {expected:?}");
        Ok(())
    })
    .await
}

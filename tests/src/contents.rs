//! Everything that a client can see of a store, to be compared with another one's; and stores worth
//! comparing.

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use api::mvccpb::KeyValue;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::{Client, eventually};

/// Everything that a client can see.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The current revision.
    pub revision: i64,
    /// All keys, in their order.
    pub kvs: Vec<KeyValue>,
    /// The hash of history, and up to where it is compacted.
    pub hash: (u32, i64),
    /// The leases: id, TTL and keys.
    pub leases: Vec<(i64, i64, Vec<Vec<u8>>)>,
    /// The alarms.
    pub alarms: Vec<pb::AlarmMember>,
}

/// What is in a member.
///
/// # Errors
/// When it does not answer.
pub async fn read(client: &mut Client) -> Result<Contents> {
    let all = pb::RangeRequest {
        key: vec![0],
        range_end: vec![0],
        ..pb::RangeRequest::default()
    };
    let range = client.kv.range(all).await?.into_inner();
    let revision = range.header.context("a range has a header")?.revision;
    Ok(Contents {
        revision,
        kvs: range.kvs,
        hash: hash(client, revision).await?,
        leases: leases(client).await?,
        alarms: alarms(client).await?,
    })
}

/// The hash of history up to a revision, and from where on.
///
/// # Errors
/// When it is refused.
pub async fn hash(client: &mut Client, revision: i64) -> Result<(u32, i64)> {
    let hash = pb::HashKvRequest { revision };
    let hash = client.maintenance.hash_kv(hash).await?.into_inner();
    Ok((hash.hash, hash.compact_revision))
}

/// The leases, in the order of their ids: id, TTL and keys.
///
/// # Errors
/// When the member does not answer.
pub async fn leases(client: &mut Client) -> Result<Vec<(i64, i64, Vec<Vec<u8>>)>> {
    let listed = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await?;
    let mut leases = Vec::new();
    for lease in listed.into_inner().leases {
        let asked = pb::LeaseTimeToLiveRequest {
            id: lease.id,
            keys: true,
        };
        let found = client.lease.lease_time_to_live(asked).await?.into_inner();
        let mut keys = found.keys;
        keys.sort();
        leases.push((found.id, found.granted_ttl, keys));
    }
    leases.sort();
    Ok(leases)
}

/// The alarms.
///
/// # Errors
/// When the member does not answer.
pub async fn alarms(client: &mut Client) -> Result<Vec<pb::AlarmMember>> {
    let alarms = client
        .maintenance
        .alarm(pb::AlarmRequest::default())
        .await?;
    Ok(alarms.into_inner().alarms)
}

/// Whether two members hold the same, said in few words if they do not.
///
/// # Errors
/// When they do not.
pub fn check_equal(expected: &Contents, found: &Contents) -> Result<()> {
    ensure!(
        expected.revision == found.revision,
        "revision {} instead of {}",
        found.revision,
        expected.revision
    );
    for (expected, found) in expected.kvs.iter().zip(&found.kvs) {
        ensure!(expected == found, "{found:?} instead of {expected:?}");
    }
    let (keys, found_keys) = (expected.kvs.len(), found.kvs.len());
    ensure!(keys == found_keys, "{found_keys} keys instead of {keys}");
    ensure!(
        expected.leases == found.leases,
        "leases {:?} instead of {:?}",
        found.leases,
        expected.leases
    );
    ensure!(
        expected.alarms == found.alarms,
        "alarms {:?} instead of {:?}",
        found.alarms,
        expected.alarms
    );
    ensure!(
        expected.hash == found.hash,
        "HashKV {:?} instead of {:?}",
        found.hash,
        expected.hash
    );
    Ok(())
}

/// What is in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Nothing at all.
    Empty,
    /// One key.
    One,
    /// Some thousands of versions of keys, deletions, transactions and leases.
    Many,
    /// The same, compacted on the way, with more after that.
    Compacted,
    /// Values up to the limit of a request.
    Large,
}

impl Filling {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Empty,
        Self::One,
        Self::Many,
        Self::Compacted,
        Self::Large,
    ];
}

/// Fills a store.
///
/// # Errors
/// When it refuses.
pub async fn fill(client: &mut Client, filling: Filling) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(7);
    match filling {
        Filling::Empty => Ok(()),
        Filling::One => put(client, b"key".to_vec(), b"value".to_vec(), 0).await,
        Filling::Many => many(client, &mut rng).await,
        Filling::Compacted => {
            many(client, &mut rng).await?;
            let revision = revision(client).await?;
            let request = pb::CompactionRequest {
                revision: revision - 100,
                physical: true,
            };
            client.kv.compact(request).await?;
            many(client, &mut rng).await
        }
        Filling::Large => {
            for (key, len) in [("a", 1_500_000), ("b", 70_000), ("c", 0), ("a", 1_400_000)] {
                let value = (0..len).map(|_| rng.random()).collect();
                put(client, key.as_bytes().to_vec(), value, 0).await?;
            }
            Ok(())
        }
    }
}

async fn put(client: &mut Client, key: Vec<u8>, value: Vec<u8>, lease: i64) -> Result<()> {
    let request = pb::PutRequest {
        key,
        value,
        lease,
        ..pb::PutRequest::default()
    };
    client.kv.put(request).await?;
    Ok(())
}

/// Writes more of the same, and ends with nothing that makes an etcd write its database.
///
/// # Errors
/// When it refuses.
pub async fn write_more(client: &mut Client) -> Result<()> {
    write(client, &mut StdRng::seed_from_u64(8)).await.map(drop)
}

async fn many(client: &mut Client, rng: &mut StdRng) -> Result<()> {
    let revoked = write(client, rng).await?;
    let revoke = pb::LeaseRevokeRequest { id: revoked };
    client.lease.lease_revoke(revoke).await?;
    Ok(())
}

/// Writes in all ways; returns one of the leases.
async fn write(client: &mut Client, rng: &mut StdRng) -> Result<i64> {
    let mut leases = vec![0];
    for _ in 0..3 {
        let request = pb::LeaseGrantRequest {
            ttl: 100_000,
            id: 0,
        };
        leases.push(client.lease.lease_grant(request).await?.into_inner().id);
    }
    let revoked = leases[1];
    for step in 0..40 {
        let operation = |rng: &mut StdRng, number: usize| {
            let key = format!("/registry/{:03}/{number}", rng.random_range(0..30)).into_bytes();
            let request = match rng.random_range(0..5) {
                0 => pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                    key,
                    ..pb::DeleteRangeRequest::default()
                }),
                _ => pb::request_op::Request::RequestPut(pb::PutRequest {
                    key,
                    value: vec![b'x'; rng.random_range(0..300)],
                    lease: leases[rng.random_range(0..leases.len())],
                    ..pb::PutRequest::default()
                }),
            };
            pb::RequestOp {
                request: Some(request),
            }
        };
        // Transactions for the number of versions, single requests for that of revisions.
        let success = (0..60).map(|number| operation(rng, number)).collect();
        let txn = pb::TxnRequest {
            success,
            ..pb::TxnRequest::default()
        };
        client.kv.txn(txn).await?;
        for number in 0..4 {
            let key = format!("single/{}", rng.random_range(0..20)).into_bytes();
            if number == step % 4 {
                let request = pb::DeleteRangeRequest {
                    key,
                    ..pb::DeleteRangeRequest::default()
                };
                client.kv.delete_range(request).await?;
            } else {
                put(client, key, vec![1; 50], 0).await?;
            }
        }
    }
    Ok(revoked)
}

/// The current revision.
///
/// # Errors
/// When the member does not answer.
pub async fn revision(client: &mut Client) -> Result<i64> {
    let request = pb::RangeRequest {
        key: b"x".to_vec(),
        ..pb::RangeRequest::default()
    };
    let range = client.kv.range(request).await?.into_inner();
    Ok(range.header.context("a range has a header")?.revision)
}

/// The same, once the member has caught up: compaction goes on after a start.
///
/// # Errors
/// When they stay different.
pub async fn becomes_equal(expected: &Contents, client: &Client) -> Result<()> {
    eventually("it holds the same", || async {
        let found = read(&mut client.clone()).await?;
        check_equal(expected, &found)
    })
    .await
}

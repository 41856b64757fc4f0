//! kill -9 at random moments under load: what was acknowledged is there, the revision never goes
//! back, and the hash of the whole history equals a model's.
//!
//! `KVORUM_CRASH_ROUNDS` says how often, `KVORUM_SEED` when.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use api::mvccpb::event::EventType;
use kvorum_tests::history::History;
use pb::request_op::Request as Op;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::patience::parameter;
use testkit::{Client, Server, Spec, note};
use tokio::task::JoinSet;

const ROUNDS: u32 = 50;
const WRITERS: u64 = 16;
const KEYS_PER_WRITER: u32 = 8;
const TTL_LONG: i64 = 1_000_000;
/// Load lasts this long before the kill, at most.
const LOAD_MAX: Duration = Duration::from_millis(600);
/// Every so many rounds the store is compacted first.
const COMPACTION_INTERVAL: u32 = 7;
/// Revisions at which the hash is compared in each round, besides the newest.
const HASHES_PER_ROUND: u32 = 3;

/// An acknowledged change.
#[derive(Debug)]
enum Acknowledged {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        revision: i64,
    },
    Delete {
        key: Vec<u8>,
        revision: i64,
    },
    Grant {
        id: i64,
    },
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() -> Result<()> {
    let seed = parameter("KVORUM_SEED", RandomState::new().hash_one("seed"))?;
    let rounds = parameter("KVORUM_CRASH_ROUNDS", ROUNDS)?;
    note(format_args!(
        "KVORUM_SEED={seed} KVORUM_CRASH_ROUNDS={rounds}"
    ));
    let mut server = Spec::kvorum().start().await?;
    let mut state = State {
        rng: StdRng::seed_from_u64(seed),
        ..State::default()
    };
    for round in 0..rounds {
        state
            .round(&mut server, round)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    note(format_args!(
        "{rounds} kills, {} acknowledged changes, revision {}, {} leases",
        state.acknowledged,
        state.history.newest(),
        state.leases.len()
    ));
    server.stop().await
}

struct State {
    rng: StdRng,
    history: History,
    leases: BTreeSet<i64>,
    acknowledged: usize,
}

impl Default for State {
    fn default() -> State {
        let rng = StdRng::seed_from_u64(0);
        State {
            rng,
            history: History::default(),
            leases: BTreeSet::new(),
            acknowledged: 0,
        }
    }
}

impl State {
    async fn round(&mut self, server: &mut Server, round: u32) -> Result<()> {
        if round % COMPACTION_INTERVAL == COMPACTION_INTERVAL - 1 {
            self.compact(server).await?;
        }
        let acknowledged = self.load_and_kill(server, round).await?;
        server.restart().await?;
        let client = server.client().await?;
        let newest = newest_revision(&client).await?;
        let revisions = acknowledged.iter().map(Acknowledged::revision);
        let seen = revisions.max().unwrap_or(0).max(self.history.newest());
        ensure!(
            newest >= seen,
            "the revision went back from {seen} to {newest}"
        );
        self.history
            .read_to(&client, newest)
            .await
            .context("reading the history")?;
        for change in &acknowledged {
            self.check(change).with_context(|| format!("{change:?}"))?;
        }
        self.check_leases(&client).await?;
        self.acknowledged += acknowledged.len();
        self.check_hashes(&client).await
    }

    async fn compact(&mut self, server: &Server) -> Result<()> {
        let newest = self.history.newest();
        let revision = self.rng.random_range(newest / 2..=newest);
        if revision > 1 {
            let physical = self.rng.random_bool(0.5);
            let request = pb::CompactionRequest { revision, physical };
            let compacted = server.client().await?.kv.compact(request).await;
            // A revision that was compacted already is refused: nothing lost.
            if compacted.is_ok() {
                self.history.compacted(revision);
            }
        }
        Ok(())
    }

    /// Lets writers write until the server is killed, and returns what it acknowledged.
    async fn load_and_kill(
        &mut self,
        server: &mut Server,
        round: u32,
    ) -> Result<Vec<Acknowledged>> {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let client = server.client().await?;
            let rng = StdRng::seed_from_u64(self.rng.random());
            writers.spawn(write_until_killed(client, writer, round, rng));
        }
        let load = self.rng.random_range(Duration::ZERO..LOAD_MAX);
        // Not a wait for a condition: the moment of the kill is what is random.
        tokio::time::sleep(load).await;
        server.kill()?;
        let mut acknowledged = Vec::new();
        while let Some(writer) = writers.join_next().await {
            acknowledged.extend(writer?);
        }
        let grants = acknowledged.iter().filter_map(|change| match change {
            Acknowledged::Grant { id } => Some(*id),
            _ => None,
        });
        self.leases.extend(grants);
        Ok(acknowledged)
    }

    fn check(&self, change: &Acknowledged) -> Result<()> {
        let (key, revision, wanted) = match change {
            Acknowledged::Put {
                key,
                value,
                revision,
            } => (key, revision, Some(value)),
            Acknowledged::Delete { key, revision } => (key, revision, None),
            Acknowledged::Grant { .. } => return Ok(()),
        };
        let events = self.history.at(*revision);
        let found = events
            .iter()
            .find(|event| event.kv.as_ref().is_some_and(|kv| kv.key == *key));
        let found = found.with_context(|| format!("lost; its revision has {events:?}"))?;
        let value = found.kv.as_ref().map(|kv| &kv.value);
        match wanted {
            Some(wanted) => ensure!(
                value.is_some_and(|value| value == wanted),
                "another value: {found:?}"
            ),
            None => ensure!(
                found.r#type() == EventType::Delete,
                "no deletion: {found:?}"
            ),
        }
        Ok(())
    }

    async fn check_leases(&self, client: &Client) -> Result<()> {
        let leases = client
            .lease
            .clone()
            .lease_leases(pb::LeaseLeasesRequest {})
            .await?;
        let there: BTreeSet<i64> = leases
            .into_inner()
            .leases
            .iter()
            .map(|lease| lease.id)
            .collect();
        let lost: Vec<_> = self.leases.difference(&there).collect();
        ensure!(lost.is_empty(), "acknowledged leases are lost: {lost:x?}");
        Ok(())
    }

    async fn check_hashes(&mut self, client: &Client) -> Result<()> {
        let newest = self.history.newest();
        self.history.check_hash(client, 0).await?;
        let oldest = self.history.compact_revision() + 1;
        for _ in 0..HASHES_PER_ROUND {
            if oldest <= newest {
                let revision = self.rng.random_range(oldest..=newest);
                self.history.check_hash(client, revision).await?;
            }
        }
        Ok(())
    }
}

impl Acknowledged {
    fn revision(&self) -> i64 {
        match self {
            Acknowledged::Put { revision, .. } | Acknowledged::Delete { revision, .. } => *revision,
            Acknowledged::Grant { .. } => 0,
        }
    }
}

async fn newest_revision(client: &Client) -> Result<i64> {
    let range = pb::RangeRequest {
        key: b"x".to_vec(),
        ..Default::default()
    };
    let header = client.kv.clone().range(range).await?.into_inner().header;
    Ok(header.context("a response has a header")?.revision)
}

/// Writes one change after the other until there is no answer any more.
async fn write_until_killed(
    mut client: Client,
    writer: u64,
    round: u32,
    mut rng: StdRng,
) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for change in 0_u64.. {
        let key = format!("w{writer}/{}", rng.random_range(0..KEYS_PER_WRITER)).into_bytes();
        let value = format!("{round}.{writer}.{change}")
            .repeat(rng.random_range(1..40))
            .into_bytes();
        let written = match rng.random_range(0..20) {
            0..12 => put(&mut client, key, value).await,
            12..14 => delete(&mut client, key).await,
            14..19 => txn(&mut client, key, value).await,
            _ => grant(&mut client, &mut rng).await,
        };
        match written {
            Ok(changes) => acknowledged.extend(changes),
            // Killed: whether this change is in is not known.
            Err(_) => break,
        }
    }
    acknowledged
}

async fn put(client: &mut Client, key: Vec<u8>, value: Vec<u8>) -> Result<Vec<Acknowledged>> {
    let request = pb::PutRequest {
        key: key.clone(),
        value: value.clone(),
        ..Default::default()
    };
    let answer = client.kv.put(request).await?.into_inner();
    let revision = answer.header.context("a response has a header")?.revision;
    // Others write as well, but the header of a write shows its own revision.
    Ok(vec![Acknowledged::Put {
        key,
        value,
        revision,
    }])
}

async fn delete(client: &mut Client, key: Vec<u8>) -> Result<Vec<Acknowledged>> {
    let request = pb::DeleteRangeRequest {
        key: key.clone(),
        ..Default::default()
    };
    let answer = client.kv.delete_range(request).await?.into_inner();
    let revision = answer.header.context("a response has a header")?.revision;
    let deleted = answer.deleted == 1;
    Ok(deleted
        .then_some(Acknowledged::Delete { key, revision })
        .into_iter()
        .collect())
}

/// Two keys in one revision.
async fn txn(client: &mut Client, key: Vec<u8>, value: Vec<u8>) -> Result<Vec<Acknowledged>> {
    let second = [key.as_slice(), b"/second"].concat();
    let op = |key: &Vec<u8>| {
        let put = pb::PutRequest {
            key: key.clone(),
            value: value.clone(),
            ..Default::default()
        };
        pb::RequestOp {
            request: Some(Op::RequestPut(put)),
        }
    };
    let success = vec![op(&key), op(&second)];
    let request = pb::TxnRequest {
        success,
        ..Default::default()
    };
    let answer = client.kv.txn(request).await?.into_inner();
    let revision = answer.header.context("a response has a header")?.revision;
    let put = |key| Acknowledged::Put {
        key,
        value: value.clone(),
        revision,
    };
    Ok(vec![put(key), put(second)])
}

async fn grant(client: &mut Client, rng: &mut StdRng) -> Result<Vec<Acknowledged>> {
    let request = pb::LeaseGrantRequest {
        ttl: TTL_LONG,
        id: rng.random_range(1..i64::MAX),
    };
    let id = client.lease.lease_grant(request).await?.into_inner().id;
    Ok(vec![Acknowledged::Grant { id }])
}

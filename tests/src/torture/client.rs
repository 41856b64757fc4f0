//! A client: one request after the other, each to some member, everything written down.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::etcdserverpb as pb;
use api::mvccpb::KeyValue;
use bytes::Bytes;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;
use pb::response_op::Response as OpReply;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::history::{Mode, Operation, Outcome, Range, Reply, Request};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{Stage, Target};

/// Few keys, so that clients meet.
const KEYS: u32 = 8;
/// Keys that are only ever written with leases.
const LEASED_KEYS: u32 = 4;
/// Seconds that leases live.
const TTL: std::ops::RangeInclusive<i64> = 2..=4;
/// A client waits so long for an answer.
const PATIENCE: std::ops::Range<Duration> = Duration::from_millis(1000)..Duration::from_secs(6);
/// And so long between requests: faults, not load, are what this is about.
const PAUSE: std::ops::Range<Duration> = Duration::ZERO..Duration::from_millis(20);

pub(super) struct Customer {
    number: u32,
    stage: Stage,
    rng: StdRng,
    /// Makes values and leases unique.
    count: u32,
    /// What this client has seen, to swap.
    seen: Vec<(Bytes, Option<KeyValue>)>,
    /// Leases that were granted.
    leases: Vec<i64>,
    operations: Vec<Operation>,
}

impl Customer {
    pub(super) fn new(number: u32, stage: Stage, seed: u64) -> Customer {
        Customer {
            number,
            stage,
            rng: StdRng::seed_from_u64(seed),
            count: 0,
            seen: Vec::new(),
            leases: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// Asks until the end, and returns what it asked and was told.
    pub(super) async fn work(mut self) -> Vec<Operation> {
        while !self.stage.closing() {
            let request = self.choose();
            let answered = self.ask(request).await;
            let mut pause = self.rng.random_range(PAUSE);
            if !answered {
                pause *= 10;
            }
            tokio::time::sleep(pause).await;
        }
        // So that the store comes to rest soon.
        for lease in std::mem::take(&mut self.leases) {
            self.ask(Request::Revoke { lease }).await;
        }
        self.operations
    }

    fn choose(&mut self) -> Request {
        let key = self.key();
        match self.rng.random_range(0..100) {
            0..22 => Request::Put {
                pairs: vec![(key, self.value())],
                lease: 0,
            },
            22..30 => self.put_two(),
            30..37 => Request::Delete { key },
            37..57 => self.swap(key),
            57..72 => Request::Read {
                range: Range::single(key),
                mode: Mode::Linearizable,
            },
            72..80 => Request::Read {
                range: Range::prefix("k/"),
                mode: Mode::Linearizable,
            },
            80..90 => Request::Read {
                range: Range::prefix("k/"),
                mode: Mode::Serializable,
            },
            _ => self.lease(),
        }
    }

    fn put_two(&mut self) -> Request {
        let (first, second) = (
            self.rng.random_range(0..KEYS),
            self.rng.random_range(1..KEYS),
        );
        let second = (first + second) % KEYS;
        let pairs = [first, second].map(|key| (key_of("k", key), self.value()));
        Request::Put {
            pairs: pairs.into(),
            lease: 0,
        }
    }

    /// Swaps what was seen last, if anything was: it may have changed since.
    fn swap(&mut self, key: Bytes) -> Request {
        let (key, expected) = self.seen.pop().unwrap_or((key, None));
        Request::Swap {
            key,
            expected,
            value: self.value(),
        }
    }

    fn lease(&mut self) -> Request {
        let chosen = self.rng.random_range(0..self.leases.len() + 1);
        let Some(&lease) = self.leases.get(chosen) else {
            let lease = (i64::from(self.next()) << 16) | (i64::from(self.number) + 1);
            let ttl = self.rng.random_range(TTL);
            return Request::Grant { lease, ttl };
        };
        match self.rng.random_range(0..10) {
            0..6 => {
                let first = self.rng.random_range(0..LEASED_KEYS);
                let keys = first..=(first + self.rng.random_range(0..2)).min(LEASED_KEYS - 1);
                let pairs = keys.map(|key| (key_of("l", key), self.value())).collect();
                Request::Put { pairs, lease }
            }
            6..9 => Request::KeepAlive { lease },
            _ => {
                self.leases.remove(chosen);
                Request::Revoke { lease }
            }
        }
    }

    /// Whether there was an answer.
    async fn ask(&mut self, request: Request) -> bool {
        let target = self.stage.any_target(&mut self.rng);
        let patience = self.rng.random_range(PATIENCE);
        let life = target.life();
        let invoked = self.stage.now();
        let answer = tokio::time::timeout(patience, send(&target, &request)).await;
        let returned = self.stage.now();
        let incarnation = life.filter(|_| target.life() == life);
        let outcome = match answer {
            Ok(Ok((revision, reply))) => Outcome::Done { revision, reply },
            Ok(Err(error)) if refuses(&error) => Outcome::Refused,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        self.learn(&request, &outcome);
        let answered = outcome != Outcome::Unknown;
        self.operations.push(Operation {
            client: self.number as usize,
            member: target.member,
            incarnation,
            invoked,
            returned,
            request,
            outcome,
        });
        answered
    }

    fn learn(&mut self, request: &Request, outcome: &Outcome) {
        match (request, outcome) {
            (Request::Grant { lease, .. }, Outcome::Done { .. }) => self.leases.push(*lease),
            (Request::Put { lease, .. }, Outcome::Refused) => {
                self.leases.retain(|other| other != lease);
            }
            (
                Request::KeepAlive { lease },
                Outcome::Done {
                    reply: Reply::KeptAlive(0),
                    ..
                },
            ) => self.leases.retain(|other| other != lease),
            (
                Request::Read { range, .. },
                Outcome::Done {
                    reply: Reply::Read(kvs),
                    ..
                },
            ) if range.end.is_empty() => {
                self.seen = vec![(range.key.clone(), kvs.first().cloned())];
            }
            _ => {}
        }
    }

    fn key(&mut self) -> Bytes {
        key_of("k", self.rng.random_range(0..KEYS))
    }

    fn value(&mut self) -> Bytes {
        let (number, count) = (self.number, self.next());
        // Some values are large enough to take several frames and a while on a throttled link.
        let padding = if self.rng.random_bool(0.02) {
            60_000
        } else {
            0
        };
        format!("{number}-{count}{:padding$}", "").into()
    }

    fn next(&mut self) -> u32 {
        self.count += 1;
        self.count
    }
}

fn key_of(prefix: &str, number: u32) -> Bytes {
    format!("{prefix}/{number}").into()
}

/// Whether the answer says that nothing was done, nor will be.
fn refuses(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref().map(Status::code);
    matches!(
        code,
        Some(
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::PermissionDenied
        )
    )
}

async fn send(target: &Target, request: &Request) -> Result<(i64, Reply)> {
    let mut kv = target.client.kv.clone();
    match request {
        Request::Put { pairs, lease } => match &pairs[..] {
            [(key, value)] => {
                let answer = kv.put(put(key, value, *lease)).await?.into_inner();
                Ok((revision(answer.header)?, Reply::Put))
            }
            pairs => {
                let ops = pairs.iter().map(|(key, value)| put(key, value, *lease));
                let ops = ops.map(|put| op(Op::RequestPut(put)));
                let request = pb::TxnRequest {
                    success: ops.collect(),
                    ..Default::default()
                };
                let answer = kv.txn(request).await?.into_inner();
                Ok((revision(answer.header)?, Reply::Put))
            }
        },
        Request::Delete { key } => {
            let request = pb::DeleteRangeRequest {
                key: key.to_vec(),
                ..Default::default()
            };
            let answer = kv.delete_range(request).await?.into_inner();
            Ok((revision(answer.header)?, Reply::Deleted(answer.deleted > 0)))
        }
        Request::Swap {
            key,
            expected,
            value,
        } => swap(target, key, expected.as_ref(), value).await,
        Request::Read { range, mode } => {
            let request = pb::RangeRequest {
                key: range.key.to_vec(),
                range_end: range.end.to_vec(),
                serializable: *mode == Mode::Serializable,
                ..Default::default()
            };
            let answer = kv.range(request).await?.into_inner();
            Ok((revision(answer.header)?, Reply::Read(answer.kvs)))
        }
        _ => send_about_lease(target, request).await,
    }
}

async fn swap(
    target: &Target,
    key: &Bytes,
    expected: Option<&KeyValue>,
    value: &Bytes,
) -> Result<(i64, Reply)> {
    let mod_revision = expected.map_or(0, |kv| kv.mod_revision);
    let read = pb::RangeRequest {
        key: key.to_vec(),
        ..Default::default()
    };
    let request = pb::TxnRequest {
        compare: vec![pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.to_vec(),
            target_union: Some(TargetUnion::ModRevision(mod_revision)),
            ..Default::default()
        }],
        success: vec![op(Op::RequestPut(put(key, value, 0)))],
        failure: vec![op(Op::RequestRange(read))],
    };
    let mut kv = target.client.kv.clone();
    let answer = kv.txn(request).await?.into_inner();
    let revision = revision(answer.header)?;
    if answer.succeeded {
        return Ok((revision, Reply::Swapped));
    }
    match answer
        .responses
        .into_iter()
        .next()
        .and_then(|op| op.response)
    {
        Some(OpReply::ResponseRange(range)) => {
            let there = range.kvs.into_iter().next();
            Ok((revision, Reply::NotSwapped(there)))
        }
        other => bail!("a read answered {other:?}"),
    }
}

async fn send_about_lease(target: &Target, request: &Request) -> Result<(i64, Reply)> {
    let mut client = target.client.lease.clone();
    match *request {
        Request::Grant { lease: id, ttl } => {
            let request = pb::LeaseGrantRequest { id, ttl };
            let answer = client.lease_grant(request).await?.into_inner();
            Ok((revision(answer.header)?, Reply::Granted(answer.ttl)))
        }
        Request::Revoke { lease: id } => {
            let request = pb::LeaseRevokeRequest { id };
            let answer = client.lease_revoke(request).await?.into_inner();
            Ok((revision(answer.header)?, Reply::Revoked))
        }
        Request::KeepAlive { lease: id } => {
            let (requests, queue) = tokio::sync::mpsc::channel(1);
            requests.send(pb::LeaseKeepAliveRequest { id }).await?;
            let answers = client.lease_keep_alive(ReceiverStream::new(queue)).await?;
            let answer = answers.into_inner().message().await?;
            let answer = answer.context("the stream has ended")?;
            Ok((revision(answer.header)?, Reply::KeptAlive(answer.ttl)))
        }
        _ => bail!("{request:?} is not about a lease"),
    }
}

fn put(key: &Bytes, value: &Bytes, lease: i64) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_vec(),
        value: value.to_vec(),
        lease,
        ..Default::default()
    }
}

fn op(request: Op) -> pb::RequestOp {
    let request = Some(request);
    pb::RequestOp { request }
}

fn revision(header: Option<pb::ResponseHeader>) -> Result<i64> {
    Ok(header.context("a response has a header")?.revision)
}

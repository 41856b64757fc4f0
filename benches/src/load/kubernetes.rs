//! What API servers send: guarded updates of a few hot prefixes, short-lived events with leases, and
//! watches of each prefix with previous values and progress.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DefragmentRequest, DefragmentResponse,
    LeaseGrantRequest, LeaseGrantResponse, RequestOp, SnapshotRequest, StatusRequest,
    StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchProgressRequest,
    WatchRequest, WatchResponse,
};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::{
    COMPACT, DEFRAGMENT, Figures, LEASE_GRANT, PutRequest, RangeRequest, SNAPSHOT, STATUS, TXN,
    Target, Turns, WATCH, chance, connections, value,
};
use crate::grpc::{Connection, frame};
use crate::measure::{Latencies, Meter, now};

/// Prefixes with the bytes of their values and how many of 100 requests go to each.
const PREFIXES: [(&str, std::ops::Range<usize>, u32); 3] = [
    ("/registry/leases/kube-node-lease/", 400..1_000, 60),
    ("/registry/pods/default/", 2_000..10_000, 30),
    ("/registry/events/default/", 500..1_000, 10),
];
const OBJECTS_PER_CLIENT: usize = 20;
const WATCHES_PER_PREFIX: usize = 4;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
const EVENT_TTL_S: i64 = 3_600;

pub(super) async fn run(
    target: &Target,
    clients: usize,
    duration: Duration,
    per_s: Option<u32>,
) -> anyhow::Result<Figures> {
    let connections = connections(target, clients).await?;
    let granted: LeaseGrantResponse = connections[0]
        .call(
            LEASE_GRANT,
            &LeaseGrantRequest {
                ttl: EVENT_TTL_S,
                id: 0,
            },
        )
        .await?;
    let mut watches = JoinSet::new();
    for (prefix, _, _) in PREFIXES {
        for index in 0..WATCHES_PER_PREFIX {
            watches.spawn(watch(
                connections[index % connections.len()].clone(),
                prefix,
            ));
        }
    }
    let meter = Meter::start(&target.pids)?;
    let begun = now();
    let until = begun + duration;
    let mut tasks = JoinSet::new();
    for index in 0..clients {
        let connection = connections[index % connections.len()].clone();
        let mut client = Client::new(index, connection, granted.id);
        let mut turns = Turns::new(begun, per_s, index, clients)?;
        tasks.spawn(async move {
            let mut latencies = Latencies::new();
            while let Some(begun) = turns.next(until).await {
                client.update().await?;
                latencies.record(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Latencies::new();
    while let Some(done) = tasks.join_next().await {
        latencies.add(done.context("a client panicked")??);
    }
    let figures = meter.stop(latencies);
    anyhow::ensure!(
        watches.try_join_next().is_none(),
        "a watch ended during the load"
    );
    figures
}

/// What an operator's jobs do, one after the other, for ever: compact, defragment, take a snapshot.
pub(super) async fn upkeep(target: &Target) -> anyhow::Result<Infallible> {
    let connection = target.connect(1).await?.pop().context("a connection")?;
    loop {
        let status: StatusResponse = connection.call(STATUS, &StatusRequest {}).await?;
        let revision = status.header.context("no header")?.revision;
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        let _compacted: CompactionResponse = connection.call(COMPACT, &request).await?;
        let _defragmented: DefragmentResponse =
            connection.call(DEFRAGMENT, &DefragmentRequest {}).await?;
        connection
            .unary(SNAPSHOT, frame(&SnapshotRequest {}))
            .await?;
    }
}

/// One controller: knows the mod revision of its own objects, as an informer would.
struct Client {
    connection: Connection,
    rng: StdRng,
    index: usize,
    event_lease: i64,
    revisions: Vec<[i64; OBJECTS_PER_CLIENT]>,
}

impl Client {
    fn new(index: usize, connection: Connection, event_lease: i64) -> Self {
        let revisions = vec![[0; OBJECTS_PER_CLIENT]; PREFIXES.len()];
        Self {
            connection,
            rng: chance(index),
            index,
            event_lease,
            revisions,
        }
    }

    async fn update(&mut self) -> anyhow::Result<()> {
        let kind = self.kind();
        let (prefix, sizes, _) = &PREFIXES[kind];
        let object = self.rng.random_range(0..OBJECTS_PER_CLIENT);
        let key = format!("{prefix}{:04}-{object:02}", self.index).into_bytes();
        let bytes = self.rng.random_range(sizes.clone());
        let put = PutRequest {
            key: key.clone(),
            value: value(&mut self.rng, bytes),
            lease: if *prefix == PREFIXES[2].0 {
                self.event_lease
            } else {
                0
            },
            ..PutRequest::default()
        };
        let known = self.revisions[kind][object];
        let response: TxnResponse = self.connection.call(TXN, &guarded(key, known, put)).await?;
        let revision = response.header.context("no header")?.revision;
        // Keys outlive a run: the first update of the next one learns the revision by failing.
        self.revisions[kind][object] = match response.succeeded {
            true => revision,
            false => current_revision(&response)?,
        };
        Ok(())
    }

    fn kind(&mut self) -> usize {
        let mut draw = self.rng.random_range(0..100);
        for (kind, (_, _, share)) in PREFIXES.iter().enumerate() {
            if draw < *share {
                return kind;
            }
            draw -= share;
        }
        0
    }
}

fn guarded(key: Vec<u8>, known_revision: i64, put: PutRequest) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(known_revision)),
        ..Compare::default()
    };
    let get = RangeRequest {
        key,
        ..RangeRequest::default()
    };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put)),
        }],
        failure: vec![RequestOp {
            request: Some(Request::RequestRange(get)),
        }],
    }
}

fn current_revision(response: &TxnResponse) -> anyhow::Result<i64> {
    use api::etcdserverpb::response_op::Response;
    let first = response
        .responses
        .first()
        .and_then(|op| op.response.as_ref());
    match first {
        Some(Response::ResponseRange(range)) => {
            Ok(range.kvs.first().map_or(0, |kv| kv.mod_revision))
        }
        other => anyhow::bail!("a failed update answered {other:?}"),
    }
}

async fn watch(connection: Connection, prefix: &str) -> anyhow::Result<()> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().context("an empty prefix")? += 1;
    let create = WatchCreateRequest {
        key: prefix.as_bytes().to_vec(),
        range_end: end,
        prev_kv: true,
        progress_notify: true,
        ..WatchCreateRequest::default()
    };
    let first = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let mut stream = connection.streaming(WATCH, &first).await?;
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tokio::select! {
            response = stream.next::<WatchResponse>() => {
                response?.context("the watch stream ended")?;
            }
            _ = progress.tick() => {
                let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
                stream.send(&WatchRequest { request_union: Some(ask) });
            }
        }
    }
}

//! The steady load: so many writes and reads a second, whatever becomes of those before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use api::etcdserverpb::{PutRequest, RangeRequest};
use parking_lot::Mutex;
use testkit::{Client, Cluster};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::measure::now;

/// Between two writes.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);
/// Every so many writes there is a linearizable read.
const WRITES_PER_READ: u64 = 4;
/// How long a request may take. What is on its way at once is bounded by this: 2,500 requests.
const DEADLINE: Duration = Duration::from_secs(10);
const VALUE_BYTES: usize = 256;
const PREFIX: &str = "quorum/";
/// Keys of one page when all are read back.
const PAGE: i64 = 1000;

/// A load that is on.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    running: JoinHandle<Record>,
}

/// One write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    /// Its key's number.
    number: u64,
    /// When it was sent, since the load began.
    pub(super) sent: Duration,
    /// When its answer came.
    pub(super) answered: Duration,
    /// Whether it was acknowledged.
    pub(super) acknowledged: bool,
}

/// One linearizable read.
#[derive(Clone, Copy, Debug)]
struct Read {
    answered: Duration,
    outcome: ReadOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadOutcome {
    Fresh,
    Stale,
    Failed,
}

/// All that was sent.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// In the order of their answers.
    pub(super) writes: Vec<Write>,
    reads: Vec<Read>,
}

/// What all requests share.
struct Shared {
    began: Instant,
    /// The highest revision of an acknowledged write.
    acknowledged: AtomicI64,
    record: Mutex<Record>,
}

impl Load {
    /// Begins.
    pub(super) fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let clients = cluster.present().into_iter().map(|at| cluster.client(at));
        let clients = clients.collect::<anyhow::Result<Vec<_>>>()?;
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(drive(clients, stopped));
        Ok(Self { stop, running })
    }

    /// Sends no more, and waits for all answers.
    pub(super) async fn stop(self) -> anyhow::Result<Record> {
        self.stop.send_replace(true);
        Ok(self.running.await?)
    }
}

async fn drive(clients: Vec<Client>, mut stopped: watch::Receiver<bool>) -> Record {
    let shared = Arc::new(Shared {
        began: now(),
        acknowledged: AtomicI64::new(0),
        record: Mutex::default(),
    });
    let mut requests = JoinSet::new();
    let mut ticks = tokio::time::interval(WRITE_INTERVAL);
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            // The sender gone is as good as a stop.
            _stop = stopped.changed() => break,
            _answered = requests.join_next(), if !requests.is_empty() => {}
            _ = ticks.tick() => {
                number += 1;
                let turn = usize::try_from(number).unwrap_or(0) % clients.len();
                requests.spawn(write(Arc::clone(&shared), clients[turn].clone(), number));
                if number % WRITES_PER_READ == 0 {
                    let turn = usize::try_from(number / WRITES_PER_READ).unwrap_or(0) % clients.len();
                    requests.spawn(read(Arc::clone(&shared), clients[turn].clone()));
                }
            }
        }
    }
    while requests.join_next().await.is_some() {}
    std::mem::take(&mut *shared.record.lock())
}

async fn write(shared: Arc<Shared>, mut client: Client, number: u64) {
    let sent = shared.began.elapsed();
    let put = PutRequest {
        key: key(number).into(),
        value: vec![b'v'; VALUE_BYTES],
        ..Default::default()
    };
    let answer = tokio::time::timeout(DEADLINE, client.kv.put(put)).await;
    let revision = match answer {
        Ok(Ok(response)) => response.into_inner().header.map(|header| header.revision),
        Ok(Err(_)) | Err(_) => None,
    };
    if let Some(revision) = revision {
        shared.acknowledged.fetch_max(revision, Ordering::SeqCst);
    }
    shared.record.lock().writes.push(Write {
        number,
        sent,
        answered: shared.began.elapsed(),
        acknowledged: revision.is_some(),
    });
}

async fn read(shared: Arc<Shared>, mut client: Client) {
    let at_least = shared.acknowledged.load(Ordering::SeqCst);
    let range = RangeRequest {
        key: key(1).into(),
        ..Default::default()
    };
    let outcome = match tokio::time::timeout(DEADLINE, client.kv.range(range)).await {
        Ok(Ok(response)) => match response.into_inner().header {
            Some(header) if header.revision >= at_least => ReadOutcome::Fresh,
            _older => ReadOutcome::Stale,
        },
        Ok(Err(_)) | Err(_) => ReadOutcome::Failed,
    };
    let answered = shared.began.elapsed();
    shared.record.lock().reads.push(Read { answered, outcome });
}

impl Record {
    /// The longest time between two acknowledgements that has a part between these moments.
    pub(super) fn longest_gap(&self, from: Duration, to: Duration) -> Duration {
        let mut last = Duration::ZERO;
        let mut longest = Duration::ZERO;
        let acknowledged = self.writes.iter().filter(|write| write.acknowledged);
        for moment in acknowledged.map(|write| write.answered) {
            if moment >= from && last <= to {
                longest = longest.max(moment - last);
            }
            last = moment;
        }
        longest
    }

    /// Requests that failed between these moments.
    pub(super) fn errors(&self, from: Duration, to: Duration) -> usize {
        let within = |moment: Duration| moment >= from && moment <= to;
        let writes = self.writes.iter();
        let reads = self.reads.iter();
        writes
            .filter(|write| !write.acknowledged && within(write.answered))
            .count()
            + reads
                .filter(|read| read.outcome == ReadOutcome::Failed && within(read.answered))
                .count()
    }

    /// The 99th percentile of acknowledged writes that were sent between these moments.
    pub(super) fn p99(&self, from: Duration, to: Duration) -> Duration {
        let mut took: Vec<Duration> = self
            .writes
            .iter()
            .filter(|write| write.acknowledged && write.sent >= from && write.sent < to)
            .map(|write| write.answered - write.sent)
            .collect();
        took.sort_unstable();
        took.get(took.len() * 99 / 100).copied().unwrap_or_default()
    }

    /// Reads that were older than they may be.
    pub(super) fn stale(&self) -> usize {
        let stale = |read: &&Read| read.outcome == ReadOutcome::Stale;
        self.reads.iter().filter(stale).count()
    }

    /// Acknowledged writes that are not there.
    pub(super) async fn lost(&self, client: &Client) -> anyhow::Result<usize> {
        let mut there = BTreeSet::new();
        let mut kv = client.kv.clone();
        let mut from = PREFIX.as_bytes().to_vec();
        let end = PREFIX.replace('/', "0");
        loop {
            let page = RangeRequest {
                key: from.clone(),
                range_end: end.clone().into(),
                limit: PAGE,
                keys_only: true,
                ..Default::default()
            };
            let page = kv.range(page).await?.into_inner();
            for kv in page.kvs {
                from = kv.key.to_vec();
                there.insert(from.clone());
            }
            if !page.more {
                break;
            }
            from.push(0);
        }
        let acknowledged = self.writes.iter().filter(|write| write.acknowledged);
        Ok(acknowledged
            .filter(|write| !there.contains(key(write.number).as_bytes()))
            .count())
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:08}")
}

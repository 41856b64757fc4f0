//! A guard against requests that become dearer on their way through the state machine (`testkit::instructions`). What
//! is counted is ours: no network, no log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use backend::Backend;
use bytes::Bytes;
use kvorum_apply::{
    Command, Config, LogPosition, Put, PutLease, PutValue, Quota, Request, ScrubSteps,
    StateMachine, Views, Workers,
};
use mvcc::{PrevKv, Range, WatchBatch, WatchRequest, WatchStream};
use prost::Message as _;
use testkit::instructions::{self, Limit};
use types::{KeyRange, SystemClock};

/// Keys that are there before.
const KEYS: usize = 1_000;
const VALUE_BYTES: usize = 256;
const WATCHERS: usize = 20;

const LIMITS: [Limit; 4] = [
    (PUT, 1_000, 57_000),
    (GET, 1_000, 10_300),
    (LIST, 20, 2_740_000),
    (WATCH_EVENT, 200, 114_000),
];

/// A put of 256 bytes to one of a thousand keys, from the log's bytes until readers see it.
const PUT: &str = "put";
/// A read of one key, with its answer's bytes.
const GET: &str = "get";
/// A list of a thousand keys, with its answer's bytes.
const LIST: &str = "list";
/// A put that 20 watchers of one stream take.
const WATCH_EVENT: &str = "watch-event";

/// A state machine without a log, and the log's next index.
struct Machine {
    machine: StateMachine,
    views: Views,
    next: u64,
}

impl Machine {
    /// With its keys.
    async fn filled() -> Result<(Self, kvorum_apply::Persister)> {
        let config = Config {
            quota: Quota::Unlimited,
            clock: Arc::new(SystemClock),
            tokens: auth::Tokens::simple(Arc::new(SystemClock)),
            mvcc: mvcc::Config {
                event_log_bytes_max: 1 << 20,
            },
            scrub: ScrubSteps::UNLIMITED,
            // One thread does everything, in the same order each time.
            workers: Workers::Tasks(Arc::new(|| Duration::ZERO)),
        };
        let (machine, views, persister) = kvorum_apply::open(Backend::in_memory(), &config)?;
        let mut this = Self {
            machine,
            views,
            next: 0,
        };
        for number in 0..KEYS {
            this.put(number).await?;
        }
        Ok((this, persister))
    }

    /// As an entry of its own.
    async fn put(&mut self, number: usize) -> Result<()> {
        let put = Put {
            key: key(number),
            value: PutValue::New(Bytes::from(vec![b'v'; VALUE_BYTES])),
            lease: PutLease::Detach,
            prev_kv: false,
        };
        let encoded = Request::from(Command::Put(put)).encode();
        let request = Request::decode(&encoded)?;
        let at = LogPosition {
            term: 1,
            leader: 0,
            index: self.next,
        };
        self.next += 1;
        let outcome = self.machine.apply(at, &request)?;
        ensure!(outcome.is_ok(), "{outcome:?}");
        self.machine.finish_batch()?;
        // The persister's turn.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// The bytes of an answer with what the keys hold.
    fn range(&self, keys: KeyRange) -> Result<usize> {
        let found = self.views.store.view().range(&Range {
            keys,
            at: None,
            limit: None,
            count_only: false,
        })?;
        let response = api::encoded::etcdserverpb::RangeResponse {
            count: i64::try_from(found.count)?,
            kvs: found.kvs.into_iter().map(Into::into).collect(),
            ..Default::default()
        };
        Ok(response.encode_to_vec().len())
    }
}

fn key(number: usize) -> Bytes {
    format!("instructions/{:05}", number * 7 % KEYS).into()
}

/// A stream with watchers of everything.
fn watch(views: &Views) -> Result<WatchStream> {
    let mut stream = views.store.watch_stream();
    for _ in 0..WATCHERS {
        stream.create(WatchRequest {
            id: None,
            keys: KeyRange::From(Bytes::new()),
            start_revision: None,
            filters: Vec::new(),
            prev_kv: PrevKv::Omit,
        })?;
    }
    Ok(stream)
}

/// Waits until every watcher has been given one revision.
async fn see(stream: &mut WatchStream) -> Result<()> {
    let mut seen = 0;
    while seen < WATCHERS {
        match stream.next().await {
            WatchBatch::Events(events) => seen += events.revisions.len(),
            other => bail!("{other:?}"),
        }
    }
    Ok(())
}

/// Not a test: what the program does that is counted.
#[tokio::test]
#[ignore = "run by the other one, under valgrind"]
async fn work() -> Result<()> {
    let (name, times) = instructions::asked()?;
    let (mut machine, _persister) = Machine::filled().await?;
    let watched = (name == WATCH_EVENT).then(|| watch(&machine.views));
    let mut stream = watched.transpose()?;
    for number in 0..times {
        match &*name {
            PUT => machine.put(number).await?,
            GET => ensure!(machine.range(KeyRange::Single(key(number)))? > VALUE_BYTES),
            LIST => {
                let bytes = machine.range(KeyRange::From(Bytes::new()))?;
                ensure!(bytes > KEYS * VALUE_BYTES);
            }
            WATCH_EVENT => {
                machine.put(number).await?;
                see(stream.as_mut().context("nobody watches")?).await?;
            }
            other => bail!("no requests are called {other}"),
        }
    }
    Ok(())
}

#[test]
fn no_request_takes_more_instructions_than_it_did() -> Result<()> {
    instructions::check(&LIMITS)
}

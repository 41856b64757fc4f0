//! A guard against requests that become dearer on their way through the state machine. It counts
//! instructions, not time, so that a slow or a busy machine changes nothing: this program runs itself under
//! valgrind, once with and once without the requests of one kind.
//!
//! What this is not: a measurement of the shipped build (`benches` makes those). The limits are those of the build
//! for development, and of what is ours: no network, no log.

use std::env;
use std::process::Command as Process;
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
use testkit::{binaries, note};
use types::{KeyRange, SystemClock};

/// The environment of the program that is counted: `<path> <how often>`.
const WORK: &str = "KVORUM_COUNTED_WORK";

/// Keys that are there before.
const KEYS: usize = 1_000;
const VALUE_BYTES: usize = 256;
const WATCHERS: usize = 20;

/// A path of a request, how often it is gone, and the instructions that one may take: a fifth more than on
/// the day they were counted. Whoever makes a path cheaper lowers its limit.
const PATHS: [(Path, usize, u64); 4] = [
    (Path::Put, 1_000, 57_000),
    (Path::Get, 1_000, 10_300),
    (Path::List, 20, 3_250_000),
    (Path::WatchEvent, 200, 114_000),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// A put of 256 bytes to one of a thousand keys, from the log's bytes until readers see it.
    Put,
    /// A read of one key, with its answer's bytes.
    Get,
    /// A list of a thousand keys, with its answer's bytes.
    List,
    /// A put that 20 watchers of one stream take.
    WatchEvent,
}

impl Path {
    const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::WatchEvent => "watch-event",
        }
    }

    /// The instructions of a program that goes this way so often.
    fn count(self, times: usize) -> Result<u64> {
        let output = Process::new(binaries::valgrind()?)
            .args(["--tool=cachegrind", "--cache-sim=no"])
            .arg("--cachegrind-out-file=/dev/null")
            .arg(env::current_exe()?)
            .args(["--exact", "work", "--ignored", "--test-threads=1"])
            .env(WORK, format!("{} {times}", self.name()))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stdout)
        );
        let counted = said
            .lines()
            .find_map(|line| line.split_once("refs:"))
            .with_context(|| said.to_string())?;
        Ok(counted.1.trim().replace(',', "").parse()?)
    }
}

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
    let work = env::var(WORK)?;
    let (name, times) = work.split_once(' ').context("a path and a number")?;
    let times = times.parse()?;
    let mut paths = PATHS.iter().map(|(path, ..)| *path);
    let path = paths.find(|path| path.name() == name).context("no path")?;
    let (mut machine, _persister) = Machine::filled().await?;
    let watched = (path == Path::WatchEvent).then(|| watch(&machine.views));
    let mut stream = watched.transpose()?;
    for number in 0..times {
        match path {
            Path::Put => machine.put(number).await?,
            Path::Get => ensure!(machine.range(KeyRange::Single(key(number)))? > VALUE_BYTES),
            Path::List => {
                let bytes = machine.range(KeyRange::From(Bytes::new()))?;
                ensure!(bytes > KEYS * VALUE_BYTES);
            }
            Path::WatchEvent => {
                machine.put(number).await?;
                see(stream.as_mut().context("nobody watches")?).await?;
            }
        }
    }
    Ok(())
}

#[test]
fn no_request_takes_more_instructions_than_it_did() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        note("the limits are those of x86_64");
        return Ok(());
    }
    let without = Path::Put.count(0)?;
    let mut dearer = Vec::new();
    for (path, times, limit) in PATHS {
        let each = path.count(times)?.saturating_sub(without) / u64::try_from(times)?;
        let line = format!("{}: {each} instructions, of {limit}", path.name());
        note(&line);
        if each > limit {
            dearer.push(line);
        }
    }
    ensure!(dearer.is_empty(), "{dearer:?}");
    Ok(())
}

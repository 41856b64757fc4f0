//! One seeded random stream of requests to kvorum and to a real etcd in lockstep, every answer
//! compared.
//!
//! `generate` makes requests, valid and not; `exchange` sends
//! one to both and compares the answers; `watches` keeps watch streams open on both and
//! compares what their watchers see. `connections` does it on several connections at once, with users and
//! without, as gRPC and through the JSON gateway (`caller`).

mod caller;
pub mod connections;
mod exchange;
mod generate;
mod normalise;
mod watches;

use anyhow::{Context as _, Result};
use testkit::{Server, note};

use exchange::Both;
use generate::Generator;
use watches::Watches;

pub use caller::Wire;

/// How often everything that watchers have seen is compared, in requests.
const COMPARE_INTERVAL: u64 = 50;
/// How often hashes are compared, in requests.
const HASH_INTERVAL: u64 = 200;

/// Sends `requests` requests of the stream with this seed to both servers.
///
/// # Errors
/// At the first answer that differs: with the seed, the request's number, and both answers.
pub async fn run(kvorum: &Server, etcd: &Server, seed: u64, requests: u64) -> Result<()> {
    let both = Both {
        kvorum: kvorum.client().await?,
        etcd: etcd.client().await?,
        urls: [kvorum.client_url(), etcd.client_url()],
    };
    let mut stream = Stream {
        watches: Watches::open(&both).await?,
        generator: Generator::new(seed),
        both,
        counts: Counts::default(),
    };
    for number in 0..requests {
        stream
            .step(number)
            .await
            .with_context(|| format!("seed {seed}, request {number}"))?;
    }
    stream
        .finish()
        .await
        .with_context(|| format!("seed {seed}, after all requests"))?;
    note(format_args!("seed {seed}: {:?}", stream.counts));
    Ok(())
}

/// How much of what was sent, to see that a run was about something.
#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    refused: u64,
    hashes: u64,
    watchers: u64,
    events: u64,
    revision: i64,
    compact_revision: i64,
}

struct Stream {
    both: Both,
    generator: Generator,
    watches: Watches,
    counts: Counts,
}

impl Stream {
    async fn step(&mut self, number: u64) -> Result<()> {
        if number.is_multiple_of(HASH_INTERVAL) {
            self.hashes().await?;
        }
        if number.is_multiple_of(COMPARE_INTERVAL) {
            self.compare_watches().await?;
        }
        let request = self.generator.next();
        self.counts.requests += 1;
        if request.wants_settled_watches() {
            self.compare_watches().await?;
            if let generate::Request::Compact(_) = request {
                self.watches.caught_up().await?;
            }
        }
        let answer = match request {
            generate::Request::Watch(watch) => {
                self.counts.watchers += 1;
                let sent = self.watches.request(&self.both, &watch).await;
                return sent.with_context(|| format!("{watch:?}"));
            }
            other => {
                let text = format!("{other:?}");
                let answer = self.both.exchange(other).await;
                answer.with_context(|| text.chars().take(REQUEST_SHOWN).collect::<String>())?
            }
        };
        if answer.refused {
            self.counts.refused += 1;
        }
        self.generator.learn(&answer);
        self.watches.compacted(self.generator.compact_revision());
        Ok(())
    }

    async fn compare_watches(&mut self) -> Result<()> {
        self.counts.events += self.watches.compare(self.generator.revision()).await?;
        Ok(())
    }

    async fn hashes(&mut self) -> Result<()> {
        for revision in self.generator.hash_revisions() {
            let hash = generate::Request::HashKv(revision);
            let answer = self.both.exchange(hash).await;
            answer.with_context(|| format!("HashKV at {revision}"))?;
            self.counts.hashes += 1;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.compare_watches().await?;
        self.hashes().await?;
        self.counts.revision = self.generator.revision();
        self.counts.compact_revision = self.generator.compact_revision();
        Ok(())
    }
}

/// An oversize request is not shown in full.
const REQUEST_SHOWN: usize = 20_000;

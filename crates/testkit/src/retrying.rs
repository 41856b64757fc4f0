//! An ordinary client of a cluster: it asks one member, and the next one when that is unavailable.
//!
//! What this is not: careful. A write that is asked for again may have been done before.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::etcdserverpb as pb;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use crate::client::Client;
use crate::patience::patience;

/// Before the next member is asked, whenever all had their turn.
const PAUSE: Duration = Duration::from_millis(20);

/// A client of all members; asks the same one until it is unavailable.
#[derive(Debug, Clone)]
pub struct Retrying {
    clients: Vec<Client>,
    at: usize,
    retries: usize,
    doubts: Vec<String>,
}

impl Retrying {
    /// A client of these members, that begins with one of them.
    #[must_use]
    pub fn new(clients: Vec<Client>, first: usize) -> Retrying {
        Retrying {
            clients,
            at: first,
            retries: 0,
            doubts: Vec::new(),
        }
    }

    /// How often a request had to be sent again.
    #[must_use]
    pub fn retries(&self) -> usize {
        self.retries
    }

    /// What was said of writes that may have been done, or not.
    #[must_use]
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// Writes a key, and returns the revision.
    ///
    /// # Errors
    /// When it is refused, or every member is unavailable for as long as tests are patient.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<i64> {
        let request = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        let deadline = Instant::now() + patience();
        loop {
            let mut kv = self.clients[self.at].kv.clone();
            let answer = timeout_at(deadline, kv.put(request.clone())).await?;
            match answer {
                Ok(answer) => {
                    let header = answer.into_inner().header;
                    return Ok(header.context("a response has a header")?.revision);
                }
                Err(status) => {
                    if leaves_doubt(&status) {
                        self.doubts.push(chain(&status));
                    }
                    self.elsewhere(status, deadline).await?;
                }
            }
        }
    }

    /// Reads a key, linearizable.
    ///
    /// # Errors
    /// As for [`Retrying::put`].
    pub async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        let request = pb::RangeRequest {
            key: key.into(),
            ..Default::default()
        };
        let deadline = Instant::now() + patience();
        loop {
            let mut kv = self.clients[self.at].kv.clone();
            let answer = timeout_at(deadline, kv.range(request.clone())).await?;
            match answer {
                Ok(answer) => {
                    let kv = answer.into_inner().kvs.into_iter().next();
                    return Ok(kv.map(|kv| kv.value.to_vec()));
                }
                Err(status) => self.elsewhere(status, deadline).await?,
            }
        }
    }

    /// Goes to the next member, if that is what the answer calls for.
    async fn elsewhere(&mut self, status: Status, deadline: Instant) -> Result<()> {
        if !unavailable(&status) || Instant::now() >= deadline {
            return Err(status.into());
        }
        self.retries += 1;
        self.at = (self.at + 1) % self.clients.len();
        if self.retries.is_multiple_of(self.clients.len()) {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// How a request ends that met the server's GOAWAY: the server has not looked at it, and never will.
/// grpc-go sends such a request elsewhere by itself; tonic calls it an internal error.
const MET_GO_AWAY: &str = "connection error received: not a result of an error";

/// What every client library takes for a reason to try elsewhere. tonic reports a connection that
/// was closed under a request as one of the last two.
fn unavailable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown
    ) || chain(status).contains(MET_GO_AWAY)
}

/// Whether a write that was answered so may have been done. It was not when there was no connection, or
/// when the server had said before that it takes no more requests on this one.
fn leaves_doubt(status: &Status) -> bool {
    const NEVER_ARRIVED: [&str; 4] = [
        "tcp connect error",
        "Connection refused",
        "was canceled",
        MET_GO_AWAY,
    ];
    let said = chain(status);
    !NEVER_ARRIVED.iter().any(|words| said.contains(words))
}

/// An error and everything that led to it.
fn chain(status: &Status) -> String {
    let mut said = format!("{:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    said
}

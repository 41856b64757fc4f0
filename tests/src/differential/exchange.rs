//! One request to both servers, and the comparison of the two answers.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, ensure};
use api::etcdserverpb as pb;
use futures_util::StreamExt as _;
use testkit::Client;
use tonic::{Response, Status};

use super::generate::Request;
use super::normalise;

/// No request of the stream takes this long; a hanging server must not hang the test.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_SHOWN: usize = 4000;

/// A client of each.
pub(super) struct Both {
    pub(super) kvorum: Client,
    pub(super) etcd: Client,
    /// Where more connections can be made: to kvorum, to etcd.
    pub(super) urls: [String; 2],
}

/// What the generator learns from an answer that was the same on both.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Answer {
    pub(super) revision: Option<i64>,
    pub(super) compacted: Option<i64>,
    pub(super) refused: bool,
}

/// The answer of one server, comparable.
#[derive(Debug, Clone, PartialEq)]
enum Seen<T> {
    Response(T),
    Error(String),
}

/// Responses that carry a header.
trait HasHeader {
    fn revision(&self) -> i64;
}

macro_rules! has_header {
    ($($message:ident),*) => {
        $(impl HasHeader for pb::$message {
            fn revision(&self) -> i64 {
                self.header.as_ref().map_or(0, |header| header.revision)
            }
        })*
    };
}

has_header!(
    RangeResponse,
    PutResponse,
    DeleteRangeResponse,
    TxnResponse,
    CompactionResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    LeaseLeasesResponse,
    LeaseKeepAliveResponse,
    HashKvResponse
);

/// Sends one unary request to both at the same time.
macro_rules! unary {
    ($both:ident, $service:ident . $method:ident, $request:expr, $normalise:expr) => {{
        let request = $request;
        let mut kvorum = $both.kvorum.$service.clone();
        let mut etcd = $both.etcd.$service.clone();
        let answers = tokio::join!(
            timed(kvorum.$method(request.clone())),
            timed(etcd.$method(request.clone()))
        );
        same(
            seen(answers.0, |r| $normalise(&request, r)),
            seen(answers.1, |r| $normalise(&request, r)),
        )
    }};
}

impl Both {
    pub(super) async fn exchange(&self, request: Request) -> Result<Answer> {
        match request {
            Request::Range(r) => unary!(self, kv.range, r, normalise::range),
            Request::Put(r) => unary!(self, kv.put, r, |_, r: &mut pb::PutResponse| {
                normalise::header(&mut r.header);
            }),
            Request::DeleteRange(r) => {
                unary!(
                    self,
                    kv.delete_range,
                    r,
                    |_, r: &mut pb::DeleteRangeResponse| {
                        normalise::header(&mut r.header);
                    }
                )
            }
            Request::Txn(r) => unary!(self, kv.txn, r, normalise::txn),
            Request::Compact(r) => self.compact(r).await,
            Request::HashKv(revision) => {
                let request = pb::HashKvRequest { revision };
                unary!(
                    self,
                    maintenance.hash_kv,
                    request,
                    |_, r: &mut pb::HashKvResponse| {
                        normalise::hash(r);
                    }
                )
            }
            Request::Watch(_) => Ok(Answer::default()),
            lease => self.lease(lease).await,
        }
    }

    async fn compact(&self, request: pb::CompactionRequest) -> Result<Answer> {
        let revision = request.revision;
        let answer = unary!(
            self,
            kv.compact,
            request,
            |_, r: &mut pb::CompactionResponse| {
                normalise::header(&mut r.header);
            }
        )?;
        Ok(Answer {
            compacted: (!answer.refused).then_some(revision),
            ..answer
        })
    }

    async fn lease(&self, request: Request) -> Result<Answer> {
        match request {
            Request::LeaseGrant(r) => {
                unary!(
                    self,
                    lease.lease_grant,
                    r,
                    |_, r: &mut pb::LeaseGrantResponse| {
                        normalise::header(&mut r.header);
                    }
                )
            }
            Request::LeaseRevoke(r) => {
                unary!(
                    self,
                    lease.lease_revoke,
                    r,
                    |_, r: &mut pb::LeaseRevokeResponse| {
                        normalise::header(&mut r.header);
                    }
                )
            }
            Request::LeaseTimeToLive(r) => {
                unary!(
                    self,
                    lease.lease_time_to_live,
                    r,
                    |_, r: &mut pb::LeaseTimeToLiveResponse| {
                        normalise::time_to_live(r);
                    }
                )
            }
            Request::LeaseLeases => {
                let request = pb::LeaseLeasesRequest {};
                unary!(
                    self,
                    lease.lease_leases,
                    request,
                    |_, r: &mut pb::LeaseLeasesResponse| {
                        normalise::leases(r);
                    }
                )
            }
            Request::LeaseKeepAlive(id) => self.keep_alive(id).await,
            Request::LeaseExpiry(id) => self.expiry(id).await,
            Request::ServerChosenLease(ttl) => self.server_chosen(ttl).await,
            other => unreachable!("{other:?} is no lease request"),
        }
    }

    async fn keep_alive(&self, id: i64) -> Result<Answer> {
        let answers = tokio::join!(
            timed(keep_alive_once(&self.kvorum, id)),
            timed(keep_alive_once(&self.etcd, id))
        );
        let normalise = |r: &mut pb::LeaseKeepAliveResponse| normalise::header(&mut r.header);
        same(seen(answers.0, normalise), seen(answers.1, normalise))
    }

    /// Waits until the lease has expired on both, with what it held.
    async fn expiry(&self, id: i64) -> Result<Answer> {
        for client in [&self.kvorum, &self.etcd] {
            let what = format!("lease {id:x} expires");
            testkit::eventually(&what, || async {
                let request = pb::LeaseLeasesRequest {};
                let leases = client
                    .lease
                    .clone()
                    .lease_leases(request)
                    .await?
                    .into_inner();
                ensure!(
                    !leases.leases.iter().any(|lease| lease.id == id),
                    "it is there"
                );
                Ok(())
            })
            .await?;
        }
        let all = pb::RangeRequest {
            key: vec![0],
            range_end: vec![0],
            ..Default::default()
        };
        unary!(self, kv.range, all, normalise::range)
    }

    /// A lease whose id each server chooses itself, revoked at once: ids cannot be compared.
    async fn server_chosen(&self, ttl: i64) -> Result<Answer> {
        let mut ids = Vec::new();
        let mut ttls = Vec::new();
        for client in [&self.kvorum, &self.etcd] {
            let request = pb::LeaseGrantRequest { ttl, id: 0 };
            let granted = client.lease.clone().lease_grant(request).await;
            ttls.push(granted.as_ref().map(|r| r.get_ref().ttl).map_err(describe));
            if let Ok(granted) = granted {
                let id = granted.into_inner().id;
                ensure!(id > 0, "a lease id is positive, not {id}");
                client
                    .lease
                    .clone()
                    .lease_revoke(pb::LeaseRevokeRequest { id })
                    .await?;
                ids.push(id);
            }
        }
        ensure!(
            ttls[0] == ttls[1],
            "kvorum: {:?}, etcd: {:?}",
            ttls[0],
            ttls[1]
        );
        Ok(Answer::default())
    }
}

async fn keep_alive_once(
    client: &Client,
    id: i64,
) -> Result<Response<pb::LeaseKeepAliveResponse>, Status> {
    let request = futures_util::stream::iter([pb::LeaseKeepAliveRequest { id }]);
    let mut answers = client
        .lease
        .clone()
        .lease_keep_alive(request)
        .await?
        .into_inner();
    let answer = answers.next().await;
    answer
        .unwrap_or_else(|| Err(Status::unknown("the stream ended without an answer")))
        .map(Response::new)
}

async fn timed<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(Status::unknown(format!("no answer in time: {elapsed}"))),
    }
}

fn seen<T>(answer: Result<Response<T>, Status>, normalise: impl FnOnce(&mut T)) -> Seen<T> {
    match answer {
        Ok(response) => {
            let mut response = response.into_inner();
            normalise(&mut response);
            Seen::Response(response)
        }
        Err(status) => Seen::Error(describe(&status)),
    }
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

fn same<T: Debug + PartialEq + HasHeader>(kvorum: Seen<T>, etcd: Seen<T>) -> Result<Answer> {
    let show = |seen: &Seen<T>| {
        format!("{seen:?}")
            .chars()
            .take(ANSWER_SHOWN)
            .collect::<String>()
    };
    ensure!(
        kvorum == etcd,
        "answers differ\nkvorum: {}\netcd:   {}",
        show(&kvorum),
        show(&etcd)
    );
    Ok(match etcd {
        Seen::Response(response) => Answer {
            revision: Some(response.revision()),
            ..Answer::default()
        },
        Seen::Error(_) => Answer {
            refused: true,
            ..Answer::default()
        },
    })
}

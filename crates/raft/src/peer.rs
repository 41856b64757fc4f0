//! The members' protocol on the peer port: `proto/peerpb.proto` over gRPC.
//!
//! * [`service`]: what peers ask of this member's Raft.
//! * [`leader_service`]: what peers ask because this member leads; [`forwarded`]: the proposals among it.
//! * [`channels`]: connections to the peers: one for appends and questions, one for heartbeats and
//!   votes, one for snapshots, so that none waits for another.
//! * [`beats`]: whether heartbeats go out in time.
//! * [`handshake`]: who asks whom, and whether they belong to one cluster.
//! * [`pinger`]: who is there; [`hashes`]: what they have, to be compared.

pub(crate) mod beats;
pub(crate) mod channels;
pub(crate) mod forwarded;
pub(crate) mod handshake;
pub(crate) mod hashes;
pub(crate) mod leader_service;
pub(crate) mod pinger;
pub(crate) mod service;
pub(crate) mod wire;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::encoded::peerpb::leader_server::LeaderServer;
use api::encoded::peerpb::peer_server::PeerServer;
use api::encoded::peerpb::raft_server::RaftServer;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use types::MemberId;

use channels::MESSAGE_BYTES_MAX;
use handshake::Identity;
use leader_service::LeaderService;
use service::{PingService, RaftService};

/// How often the same refusal is logged.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Answers peers. Cheap to clone.
#[derive(Clone)]
pub struct PeerService {
    me: Identity,
    cluster: apply::Cluster,
    raft: RaftServer<RaftService>,
    leader: LeaderServer<LeaderService>,
    ping: PeerServer<PingService>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The last refusal that was logged: when, of whom, and why.
    refused: Arc<Mutex<Option<Refused>>>,
}

type Refused = (tokio::time::Instant, MemberId, String);

impl fmt::Debug for PeerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerService").finish_non_exhaustive()
    }
}

impl PeerService {
    pub(crate) fn new(
        me: Identity,
        cluster: apply::Cluster,
        raft: RaftService,
        leader: LeaderService,
        ping: PingService,
    ) -> Self {
        let (tasks, stop) = (leader.tasks.clone(), leader.stop.clone());
        Self {
            me,
            cluster,
            raft: RaftServer::new(raft).max_decoding_message_size(MESSAGE_BYTES_MAX),
            leader: LeaderServer::new(leader).max_decoding_message_size(MESSAGE_BYTES_MAX),
            ping: PeerServer::new(ping),
            tasks,
            stop,
            refused: Arc::default(),
        }
    }

    /// Whether a request for this path is the peer protocol's.
    #[must_use]
    pub fn answers(path: &str) -> bool {
        path.starts_with("/peerpb.")
    }

    /// Answers one call.
    pub async fn call<B>(&self, mut request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        let known = handshake::check(request.headers(), self.me, |id| self.cluster.is_removed(id));
        match known {
            Ok(from) => request.extensions_mut().insert(from),
            Err(refusal) => {
                self.log_refusal(&refusal, request.headers());
                return Ok(refusal.into_http());
            }
        };
        // Raft is told to stop when all calls have ended: nothing is asked of it after that.
        let _call = self.tasks.token();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                Ok(Status::unavailable("the member stops").into_http())
            }
            answer = self.answer(request) => answer,
        }
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        let path = request.uri().path();
        if path.starts_with("/peerpb.Raft/") {
            self.raft.clone().call(request).await
        } else if path.starts_with("/peerpb.Leader/") {
            self.leader.clone().call(request).await
        } else {
            self.ping.clone().call(request).await
        }
    }
}

impl PeerService {
    /// Whoever is refused tries again several times a second: each reason is told once in a while.
    fn log_refusal(&self, refusal: &Status, headers: &HeaderMap) {
        let reason = refusal.message();
        let from = handshake::sender(headers);
        let now = tokio::time::Instant::now();
        let mut last = self.refused.lock();
        let is_news = last.as_ref().is_none_or(|(at, who, why)| {
            now - *at >= REFUSAL_LOG_INTERVAL || (*who, why.as_str()) != (from, reason)
        });
        if is_news {
            tracing::warn!(peer = %from, reason, "refused a call of a peer");
            *last = Some((now, from, reason.to_owned()));
        }
    }
}

/// What this member knows of a peer, for its metrics and for checks before a change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which.
    pub id: MemberId,
    /// Since when it has answered without a gap; `None`: it does not answer.
    pub active_since: Option<Instant>,
    /// The last round trip.
    pub round_trip: Option<Duration>,
    /// The etcd version that it announces; empty until it has answered.
    pub version: String,
    /// Bytes sent to it and received from it (`etcd_network_peer_{sent,received}_bytes_total`).
    pub sent_bytes: u64,
    /// See `sent_bytes`.
    pub received_bytes: u64,
    /// Calls that failed (`etcd_network_peer_sent_failures_total`).
    pub failures: u64,
}

//! The members' protocol on the peer port: `proto/peerpb.proto` over gRPC.
//!
//! * [`service`](self): what peers ask of this member.
//! * `channels`: connections to the peers: one for appends and questions, one for heartbeats and
//!   votes, one for snapshots, so that none waits for another.
//! * `handshake`: who asks whom, and whether they belong to one cluster.

use std::convert::Infallible;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;
use types::MemberId;

/// Answers peers. Cheap to clone.
#[derive(Clone)]
pub struct PeerService {}

impl fmt::Debug for PeerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerService").finish_non_exhaustive()
    }
}

impl PeerService {
    /// Whether a request for this path is the peer protocol's.
    #[must_use]
    pub fn answers(path: &str) -> bool {
        path.starts_with("/peerpb.")
    }

    /// Answers one call.
    pub async fn call<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        drop(request);
        todo!()
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

impl crate::Node {
    /// What peers ask of this member; to be served on the peer port.
    #[must_use]
    pub fn peer_service(&self) -> PeerService {
        todo!()
    }

    /// The peers as this member sees them, without itself.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        todo!()
    }
}

//! The way to the peers, as openraft asks for it.
//!
//! Entries go ahead of their answers on one stream; heartbeats, votes and a transfer of the
//! leadership go one by one on a connection of their own. A peer that cannot be reached is tried
//! again after a short pause.

pub(crate) mod append;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::{Response, Status};
use types::MemberId;

use crate::peer::channels::{Connections, Peers, Purpose};
use crate::peer::wire::{self, Appended, WireError};
use crate::snapshot::send::Sender;
use crate::state_machine::DurableState;
use crate::type_config::{PeerNode, Snapshot, TypeConfig, Vote};

/// The pause before a peer that cannot be reached is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Makes the ways to the peers.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    peers: Arc<Peers>,
    states: Arc<Sender>,
}

/// The way to one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    connections: Arc<Connections>,
    purpose: Purpose,
    states: Arc<Sender>,
}

impl Network {
    pub(crate) const fn new(peers: Arc<Peers>, states: Arc<Sender>) -> Self {
        Self { peers, states }
    }

    fn peer(&self, target: u64, node: &PeerNode, purpose: Purpose) -> Peer {
        Peer {
            connections: self.peers.at(MemberId(target), &node.peer_urls),
            purpose,
            states: Arc::clone(&self.states),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, Purpose::Heartbeats)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, Purpose::Snapshots)
    }
}

type Failure = RPCError<TypeConfig>;

impl Peer {
    /// Waits for an answer, at most as long as openraft does.
    async fn answer<M, T>(
        &self,
        call: impl Future<Output = Result<Response<M>, Status>>,
        option: &RPCOption,
        read: impl FnOnce(M) -> Result<T, WireError>,
    ) -> Result<T, Failure> {
        let answer = tokio::time::timeout(option.hard_ttl(), call).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no answer")));
        let message = answer.map_err(|status| self.failed(&status))?.into_inner();
        read(message).map_err(|error| self.unreadable(&error))
    }

    fn failed(&self, status: &Status) -> Failure {
        failed(&self.connections, status)
    }

    fn unreadable(&self, error: &WireError) -> Failure {
        unreachable(&self.connections, error)
    }

    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<Appended, Failure> {
        let term = request.vote.leader_id.term;
        self.connections.beats.sends(self.connections.id, term);
        let mut client = self.connections.raft(Purpose::Heartbeats);
        let call = client.heartbeat(wire::append_to(&request));
        let appended = self.answer(call, option, wire::appended_from).await?;
        self.connections.beats.answered(term);
        // openraft names what the peer has confirmed.
        if let Err(StreamAppendError::Conflict(_)) = appended {
            return Err(lost(&self.connections));
        }
        Ok(appended)
    }
}

/// A peer has not got any more what it has confirmed to this leader. openraft takes it that this
/// cannot be, and goes wrong; so the peer is one that does not answer, until it stops by itself.
fn lost(connections: &Connections) -> Failure {
    tracing::error!(
        peer = %connections.id,
        "a member has lost entries that it had confirmed: remove it, and add it again"
    );
    let text = format!("member {} has lost its log", connections.id);
    Unreachable::from_string(text).into()
}

fn failed(connections: &Connections, status: &Status) -> Failure {
    connections.failed(status);
    unreachable(connections, status)
}

fn unreachable(connections: &Connections, error: &dyn std::error::Error) -> Failure {
    let error = crate::error::Chain(error);
    let text = format!("no answer from member {}: {error}", connections.id);
    Unreachable::from_string(text).into()
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = DurableState;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        Ok(match self.heartbeat(rpc, &option).await? {
            Ok(_matching) => AppendEntriesResponse::Success,
            Err(StreamAppendError::Conflict(_at)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<Appended, Failure>>, Failure>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose != Purpose::Heartbeats {
                return append::stream(&self.connections, input).await;
            }
            let Some(request) = input.next().await else {
                return Ok(Box::pin(stream::empty()) as BoxStream<'s, _>);
            };
            let appended = self.heartbeat(request, &option).await?;
            Ok(Box::pin(stream::iter([Ok(appended)])) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let mut client = self.connections.raft(Purpose::Heartbeats);
        let call = client.vote(wire::vote_request_to(&rpc));
        self.answer(call, &option, wire::vote_response_from).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let mut client = self.connections.raft(Purpose::Heartbeats);
        let call = client.pre_vote(wire::vote_request_to(&rpc));
        self.answer(call, &option, wire::vote_response_from).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let states = Arc::clone(&self.states);
        let sent = states.send(&self.connections, vote, snapshot.meta, cancel);
        sent.await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let mut client = self.connections.raft(Purpose::Heartbeats);
        let call = client.transfer_leader(wire::transfer_to(&req));
        self.answer(call, &option, wire::transferred_from).await
    }

    fn backoff(&self) -> Option<Backoff> {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| {
            Some(pause.saturating_mul(2).min(PAUSE_MAX))
        });
        Some(Backoff::new(pauses))
    }
}

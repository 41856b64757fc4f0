//! What other members ask of this one because it leads.

use std::sync::Arc;

use api::encoded::peerpb::leader_server::Leader as LeaderApi;
use api::peerpb;
use api::peerpb::propose_response::Outcome;
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::ClientWriteResult;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use types::{LeaseId, MemberId};

use super::channels::Peers;
use super::forwarded::{Answers, Came, Forwarded, Take};
use super::service::{stopped, unreadable};
use super::wire;
use crate::ask::ask;
use crate::error::Chain;
use crate::lease_requests::{LeaseAnswers, LeaseQuestion, NotLeader};
use crate::member_change::changer::Changer;
use crate::node::{COMMIT_APPLY_GAP_MAX, Raft};
use crate::progress::Progress;
use crate::proposer::{leader_id, was_not_appended};
use crate::read_index;
use crate::snapshot::send::Sender;
use crate::type_config::{OnComplete, Proposal, Proposed, TypeConfig};

/// Answers of one stream that wait to be sent. A member has fewer proposals on their way; when it
/// is full its answers are lost, and it asks again on its next stream.
const ANSWERS_MAX: usize = 1024;

/// Answers for the leader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaderService {
    pub(crate) raft: Raft,
    pub(crate) progress: Arc<Progress>,
    pub(crate) forwarded: Arc<Forwarded>,
    pub(crate) changer: Arc<Changer>,
    pub(crate) leases: LeaseAnswers,
    pub(crate) peers: Arc<Peers>,
    pub(crate) states: Arc<Sender>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What somebody is told who is no member.
const NOT_A_MEMBER: &str = "sender not found";

#[tonic::async_trait]
impl LeaderApi for LeaderService {
    async fn propose(
        &self,
        request: Request<Streaming<peerpb::ProposeRequest>>,
    ) -> Result<Response<BoxStream<peerpb::ProposeResponse>>, Status> {
        let from = self.sender(&request)?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let taking = self.clone().take_all(from, request.into_inner(), answers);
        // Not a part of the call: what was begun with a proposal is ended though the caller is gone.
        self.tasks.spawn(taking);
        let stop = self.stop.clone().cancelled_owned();
        let receiver = ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(
            futures_util::StreamExt::take_until(receiver, stop),
        )))
    }

    async fn change_members(
        &self,
        request: Request<peerpb::ChangeMembersRequest>,
    ) -> Result<Response<peerpb::ChangeMembersResponse>, Status> {
        self.sender(&request)?;
        let changed = self.changer.serve(request.into_inner()).await;
        Ok(Response::new(changed))
    }

    async fn repair(
        &self,
        request: Request<peerpb::RepairRequest>,
    ) -> Result<Response<peerpb::RepairResponse>, Status> {
        let from = self.sender(&request)?;
        let sent = self.send_state(from, request.into_inner().applied).await?;
        Ok(Response::new(sent))
    }

    async fn read_index(
        &self,
        request: Request<peerpb::ReadIndexRequest>,
    ) -> Result<Response<peerpb::ReadIndexResponse>, Status> {
        let from = self.sender(&request)?;
        let follows = request.into_inner().follows;
        let index = match self.index_for(from, follows).await? {
            Some(index) => Some(index),
            None => match self.leases.reads.ask() {
                Ok(confirmed) => confirmed.await.ok(),
                Err(_stopped) => None,
            },
        };
        Ok(Response::new(peerpb::ReadIndexResponse { index }))
    }

    async fn lease_renew(
        &self,
        request: Request<peerpb::LeaseRenewRequest>,
    ) -> Result<Response<peerpb::LeaseRenewResponse>, Status> {
        use peerpb::lease_renew_response::Outcome;
        self.sender(&request)?;
        let id = LeaseId(request.into_inner().id);
        let outcome = match self.leases.answer(LeaseQuestion::Renew(id)).await {
            Ok(ttl_s) => Outcome::TtlS(ttl_s.unwrap_or(0)),
            Err(NotLeader) => Outcome::NotLeader(true),
        };
        let outcome = Some(outcome);
        Ok(Response::new(peerpb::LeaseRenewResponse { outcome }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<peerpb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<peerpb::LeaseTimeToLiveResponse>, Status> {
        use peerpb::lease_time_to_live_response::Outcome;
        self.sender(&request)?;
        let id = LeaseId(request.into_inner().id);
        let outcome = match self.leases.answer(LeaseQuestion::Remaining(id)).await {
            Ok(left_s) => Outcome::RemainingS(left_s.unwrap_or(-1)),
            Err(NotLeader) => Outcome::NotLeader(true),
        };
        let outcome = Some(outcome);
        Ok(Response::new(peerpb::LeaseTimeToLiveResponse { outcome }))
    }
}

impl LeaderService {
    /// See [`read_index::index_for`].
    async fn index_for(
        &self,
        from: MemberId,
        follows: Option<peerpb::LeaderVote>,
    ) -> Result<Option<u64>, Status> {
        let Some(follows) = follows else {
            return Ok(None);
        };
        let follows = wire::vote_from(Some(follows)).map_err(|error| unreadable(&error))?;
        let me = MemberId(*self.raft.node_id());
        let look = move |state: &_| read_index::index_for(state, me, from, follows);
        let index = ask(&self.raft, look).await;
        index.map_err(|fatal| stopped(&fatal))
    }

    /// Who asks: the handshake has put it there. Only members are answered, and those that are being
    /// added: what is kept for each of them is bounded by how many they are.
    fn sender<T>(&self, request: &Request<T>) -> Result<MemberId, Status> {
        let from = request.extensions().get::<MemberId>().copied();
        let from = from.ok_or_else(|| Status::internal("nobody asks"))?;
        if !self.is_member(from) {
            return Err(Status::failed_precondition(NOT_A_MEMBER));
        }
        Ok(from)
    }

    /// By the last membership of the log, whether it is committed or not.
    fn is_member(&self, id: MemberId) -> bool {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        server
            .membership_config
            .membership()
            .get_node(&id.0)
            .is_some()
    }

    async fn take_all(
        self,
        from: MemberId,
        mut requests: Streaming<peerpb::ProposeRequest>,
        answers: Answers,
    ) {
        let end = loop {
            let request = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = answers.closed() => return,
                request = requests.next() => request,
            };
            match request {
                Some(Ok(request)) => {
                    if let Err(status) = self.take(from, request, &answers).await {
                        break status;
                    }
                }
                Some(Err(_)) | None => return,
            }
        };
        if answers.try_send(Err(end)).is_err() {
            // the caller has gone
        }
    }

    async fn take(
        &self,
        from: MemberId,
        request: peerpb::ProposeRequest,
        answers: &Answers,
    ) -> Result<(), Status> {
        let came = Came {
            from,
            term: request.term,
            id: request.id,
        };
        let commands = decode(request.commands)?;
        let is_member = |id| self.is_member(id);
        match self
            .forwarded
            .take(came, request.stream, answers, is_member)
        {
            Take::Propose => {}
            Take::Nothing => return Ok(()),
            Take::EndStream => return Err(Status::aborted("there is a newer stream")),
        }
        if self.progress.behind() > COMMIT_APPLY_GAP_MAX {
            self.forwarded.finish(came, Outcome::TooManyRequests);
            return Ok(());
        }
        let forwarded = Arc::clone(&self.forwarded);
        let responder = OnComplete::new(move |result: ClientWriteResult<TypeConfig>| {
            let outcome = match result {
                Ok(_written) => Outcome::Applied,
                Err(error) if was_not_appended(&error) => Outcome::NotLeader,
                Err(_lost) => Outcome::Unknown,
            };
            forwarded.finish(came, outcome);
        });
        self.raft
            .write(Proposal::new(came.id, commands))
            .with_leader(leader_id(came.term))
            .responder(responder)
            .await
            .map_err(|fatal| stopped(&fatal))
    }
}

fn decode(commands: Vec<Bytes>) -> Result<Vec<Proposed>, Status> {
    let decode = |encoded: Bytes| {
        // A copy of its own: a command's keys live on in the index, and must not keep the whole
        // message in memory.
        let encoded = Bytes::copy_from_slice(&encoded);
        let request = apply::Request::decode(&encoded)
            .map_err(|error| Status::invalid_argument(Chain(&error).to_string()))?;
        Ok(Proposed { request, encoded })
    };
    commands.into_iter().map(decode).collect()
}

//! What peers ask of this member's Raft, and whether it is there.

use std::pin::pin;
use std::sync::Arc;

use api::encoded::peerpb::peer_server::Peer;
use api::encoded::peerpb::raft_server::Raft as RaftApi;
use api::peerpb;
use api::version::ETCD_VERSION;
use futures_util::{Stream, StreamExt, stream};
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use types::MemberId;

use super::hashes::Hashes;
use super::wire::{self, Appended, WireError};
use crate::ask::ask;
use crate::error::{Chain, Fatal, FatalCell};
use crate::node::Raft;
use crate::progress::Progress;
use crate::snapshot::receive::Receiver;
use crate::status::LeaderSeen;
use crate::succession::{Streams, Succession};
use crate::type_config::TypeConfig;

/// Answers for Raft. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RaftService {
    pub(crate) raft: Raft,
    pub(crate) receiver: Receiver,
    pub(crate) seen: LeaderSeen,
    pub(crate) streams: Streams,
    pub(crate) fatal: FatalCell,
    pub(crate) stop: CancellationToken,
}

/// Answers pings, what members compare, and whether the leader is gone. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PingService {
    pub(crate) progress: Arc<Progress>,
    pub(crate) hashes: Hashes,
    pub(crate) succession: Succession,
}

pub(super) fn unreadable(error: &WireError) -> Status {
    Status::invalid_argument(Chain(error).to_string())
}

pub(crate) fn stopped(error: &impl std::error::Error) -> Status {
    Status::unavailable(Chain(error).to_string())
}

#[tonic::async_trait]
impl RaftApi for RaftService {
    async fn append(
        &self,
        request: Request<Streaming<peerpb::AppendRequest>>,
    ) -> Result<Response<BoxStream<peerpb::AppendResponse>>, Status> {
        let from = request.extensions().get::<MemberId>().copied();
        let open = from.map(|from| self.streams.open(from));
        // Why the requests ended, if not by the peer's wish.
        let failure = Arc::new(Mutex::new(None));
        // A task of openraft's own takes the requests, and must not when Raft has stopped.
        let requests = readable(request.into_inner(), Arc::clone(&failure));
        let requests = requests.take_until(self.stop.clone().cancelled_owned());
        let appended = self
            .raft
            .stream_append(requests)
            .map(|appended| match appended {
                Ok(appended) => Ok(wire::appended_to(appended)),
                Err(fatal) => Err(stopped(&fatal)),
            });
        let last = stream::once(async move { failure.lock().take() })
            .filter_map(|failure| async move { failure.map(Err) });
        let stop = self.stop.clone().cancelled_owned();
        let answers = appended.chain(last).take_until(stop);
        Ok(Response::new(Box::pin(answers.map(move |answer| {
            // The stream is open as long as its answers are.
            let _open = &open;
            answer
        }))))
    }

    async fn heartbeat(
        &self,
        request: Request<peerpb::AppendRequest>,
    ) -> Result<Response<peerpb::AppendResponse>, Status> {
        let request = wire::append_from(request.into_inner());
        let request = request.map_err(|error| unreadable(&error))?;
        let answer = self.hear(request).await?;
        if answer.is_ok() {
            self.seen.hears();
        }
        Ok(Response::new(wire::appended_to(answer)))
    }

    async fn vote(
        &self,
        request: Request<peerpb::VoteRequest>,
    ) -> Result<Response<peerpb::VoteResponse>, Status> {
        let request = wire::vote_request_from(request.into_inner());
        let request = request.map_err(|error| unreadable(&error))?;
        let response = self.raft.vote(request).await;
        let response = response.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::vote_response_to(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<peerpb::VoteRequest>,
    ) -> Result<Response<peerpb::VoteResponse>, Status> {
        let request = wire::vote_request_from(request.into_inner());
        let request = request.map_err(|error| unreadable(&error))?;
        let response = self.raft.pre_vote(request).await;
        let response = response.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::vote_response_to(&response)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<peerpb::SnapshotRequest>>,
    ) -> Result<Response<BoxStream<peerpb::SnapshotResponse>>, Status> {
        let from = request.extensions().get::<MemberId>().copied();
        let from = from.ok_or_else(|| Status::internal("a call without its handshake"))?;
        let answers = self.receiver.receive(from, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn transfer_leader(
        &self,
        request: Request<peerpb::TransferLeaderRequest>,
    ) -> Result<Response<peerpb::TransferLeaderResponse>, Status> {
        let request = wire::transfer_from(request.into_inner());
        let request = request.map_err(|error| unreadable(&error))?;
        let response = self.raft.handle_transfer_leader(request).await;
        let response = response.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::transferred_to(response)))
    }
}

impl RaftService {
    /// Takes a heartbeat. openraft answers when everything before it is durable; whoever leads
    /// wants to know whether it is believed, and that does not wait for the disk: it is known as
    /// soon as openraft has looked at the heartbeat, in the order in which it was asked.
    async fn hear(&self, request: AppendEntriesRequest<TypeConfig>) -> Result<Appended, Status> {
        let (vote, matching) = (request.vote, request.prev_log_id);
        let mut answer = pin!(self.raft.append_entries(request));
        let fatal = self.fatal.clone();
        let believes = async {
            let look = move |state: &openraft::RaftState<TypeConfig>| {
                let believes = *state.vote_ref() == vote;
                // What a heartbeat names is no guess: this member has confirmed it to this leader. It
                // could vote for one that does not have it, so it must not go on.
                if let Some(confirmed) = matching.filter(|_| believes)
                    && state.log_ids.last() < Some(&confirmed)
                {
                    fatal.set(Fatal::LogLost {
                        confirmed: confirmed.index + 1,
                    });
                }
                believes
            };
            let believes = ask(&self.raft, look).await;
            believes.map_err(|fatal| stopped(&fatal))
        };
        let believed = tokio::select! {
            biased;
            answered = &mut answer => return appended(answered, matching),
            believed = believes => believed?,
        };
        if believed {
            return Ok(Ok(matching));
        }
        appended(answer.await, matching)
    }
}

fn appended(
    answered: Result<AppendEntriesResponse<TypeConfig>, RaftError<TypeConfig>>,
    matching: Option<crate::type_config::LogId>,
) -> Result<Appended, Status> {
    Ok(match answered.map_err(|error| stopped(&error))? {
        AppendEntriesResponse::Success => Ok(matching),
        AppendEntriesResponse::PartialSuccess(matching) => Ok(matching),
        AppendEntriesResponse::Conflict => match matching {
            Some(at) => Err(StreamAppendError::Conflict(at)),
            None => return Err(Status::internal("the beginning of the log conflicts")),
        },
        AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
    })
}

/// The requests of a stream up to the first that cannot be read.
fn readable(
    requests: Streaming<peerpb::AppendRequest>,
    failure: Arc<Mutex<Option<Status>>>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    requests
        .map(|request| wire::append_from(request?).map_err(|error| unreadable(&error)))
        .scan(failure, |failure, request: Result<_, Status>| {
            let read = request.map_err(|status| *failure.lock() = Some(status));
            std::future::ready(read.ok())
        })
}

#[tonic::async_trait]
impl Peer for PingService {
    async fn ping(
        &self,
        _request: Request<peerpb::PingRequest>,
    ) -> Result<Response<peerpb::PingResponse>, Status> {
        Ok(Response::new(peerpb::PingResponse {
            version: ETCD_VERSION.to_owned(),
            applied_index: self.progress.applied(),
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<peerpb::HashKvRequest>,
    ) -> Result<Response<peerpb::HashKvResponse>, Status> {
        let hash = self.hashes.answer(request.into_inner()).await;
        Ok(Response::new(hash))
    }

    async fn leader_gone(
        &self,
        request: Request<peerpb::LeaderGoneRequest>,
    ) -> Result<Response<peerpb::LeaderGoneResponse>, Status> {
        let request = request.into_inner();
        let reason = request.reason();
        let leader = wire::vote_from(request.leader);
        let leader = leader.map_err(|error| unreadable(&error))?;
        let view = self.succession.asked(leader, reason).await;
        let view = view.map_err(|fatal| stopped(&fatal))?;
        Ok(Response::new(peerpb::LeaderGoneResponse {
            gone: view.is_gone,
            last: view.last.map(wire::id_to),
        }))
    }
}

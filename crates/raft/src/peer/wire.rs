//! openraft's messages as `peerpb` has them. Not the services that carry them.

use api::peerpb;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::codec::DecodeError;
use crate::log_store;
use crate::type_config::{LogId, TypeConfig, Vote, log_id};

/// What an append came to: how far the logs match now, or why not.
pub(crate) type Appended = openraft::raft::StreamAppendResult<TypeConfig>;

/// A message is not what this version sends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// A field that must be there.
    #[error("no {field}")]
    Missing { field: &'static str },
    /// Entries that cannot be read.
    #[error("broken entries")]
    Entries(#[source] std::sync::Arc<DecodeError>),
}

pub(crate) fn vote_to(vote: &Vote) -> peerpb::LeaderVote {
    peerpb::LeaderVote {
        term: vote.leader_id.term,
        member: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from(vote: Option<peerpb::LeaderVote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing { field: "vote" })?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.member)
    } else {
        Vote::new(vote.term, vote.member)
    })
}

pub(crate) fn id_to(id: LogId) -> peerpb::LogId {
    peerpb::LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(crate) fn id_from(id: peerpb::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn append_to(request: &AppendEntriesRequest<TypeConfig>) -> peerpb::AppendRequest {
    peerpb::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        previous: request.prev_log_id.map(id_to),
        entries: log_store::pack(&request.entries),
        committed: request.leader_commit.map(id_to),
    }
}

pub(crate) fn append_from(
    request: peerpb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let prev_log_id = request.previous.map(id_from);
    let first = prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    let entries = log_store::unpack_all(first, &request.entries)
        .map_err(|corrupt| WireError::Entries(corrupt.source))?;
    Ok(AppendEntriesRequest {
        vote: vote_from(request.vote)?,
        prev_log_id,
        entries,
        leader_commit: request.committed.map(id_from),
    })
}

pub(crate) fn appended_to(appended: Appended) -> peerpb::AppendResponse {
    use peerpb::append_response::{Conflict, Outcome, Success};
    let outcome = match appended {
        Ok(None) => Outcome::Success(Success {}),
        Ok(Some(matching)) => Outcome::Partial(id_to(matching)),
        Err(StreamAppendError::Conflict(at)) => Outcome::Conflict(Conflict {
            at: Some(id_to(at)),
        }),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(vote_to(&vote)),
    };
    peerpb::AppendResponse {
        outcome: Some(outcome),
    }
}

pub(crate) fn appended_from(response: peerpb::AppendResponse) -> Result<Appended, WireError> {
    use peerpb::append_response::{Conflict, Outcome, Success};
    Ok(match response.outcome {
        Some(Outcome::Success(Success {})) => Ok(None),
        Some(Outcome::Partial(matching)) => Ok(Some(id_from(matching))),
        Some(Outcome::Conflict(Conflict { at: Some(at) })) => {
            Err(StreamAppendError::Conflict(id_from(at)))
        }
        Some(Outcome::HigherVote(vote)) => {
            Err(StreamAppendError::HigherVote(vote_from(Some(vote))?))
        }
        Some(Outcome::Conflict(Conflict { at: None })) | None => {
            return Err(WireError::Missing { field: "outcome" });
        }
    })
}

pub(crate) fn vote_request_to(request: &VoteRequest<TypeConfig>) -> peerpb::VoteRequest {
    peerpb::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last: request.last_log_id.map(id_to),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from(
    request: peerpb::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    let last = request.last.map(id_from);
    let mut vote = VoteRequest::new(vote_from(request.vote)?, last);
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

pub(crate) fn vote_response_to(response: &VoteResponse<TypeConfig>) -> peerpb::VoteResponse {
    peerpb::VoteResponse {
        vote: Some(vote_to(&response.vote)),
        last: response.last_log_id.map(id_to),
        granted: response.vote_granted,
    }
}

pub(crate) fn vote_response_from(
    response: peerpb::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    let last = response.last.map(id_from);
    let vote = vote_from(response.vote)?;
    Ok(VoteResponse::new(vote, last, response.granted))
}

pub(crate) fn transfer_to(
    request: &TransferLeaderRequest<TypeConfig>,
) -> peerpb::TransferLeaderRequest {
    peerpb::TransferLeaderRequest {
        from: Some(vote_to(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(id_to),
    }
}

pub(crate) fn transfer_from(
    request: peerpb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let last = request.last.map(id_from);
    let from = vote_from(request.from)?;
    Ok(TransferLeaderRequest::new(from, request.to, last))
}

pub(crate) fn transferred_to(
    response: TransferLeaderResponse<TypeConfig>,
) -> peerpb::TransferLeaderResponse {
    use peerpb::transfer_leader_response::Outcome;
    let mut message = peerpb::TransferLeaderResponse::default();
    match response {
        Ok(()) => message.set_outcome(Outcome::Ok),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            message.set_outcome(Outcome::VoteChanged);
            message.expected_vote = Some(vote_to(&expected));
            message.actual_vote = Some(vote_to(&actual));
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            message.set_outcome(Outcome::LogNotFlushed);
            message.expected_last = expected.map(id_to);
            message.actual_last = actual.map(id_to);
        }
    }
    message
}

pub(crate) fn transferred_from(
    message: peerpb::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    use peerpb::transfer_leader_response::Outcome;
    Ok(match message.outcome() {
        Outcome::Ok => Ok(()),
        Outcome::VoteChanged => Err(TransferLeaderError::VoteChanged {
            expected: vote_from(message.expected_vote)?,
            actual: vote_from(message.actual_vote)?,
        }),
        Outcome::LogNotFlushed => Err(TransferLeaderError::LogNotFlushed {
            expected: message.expected_last.map(id_from),
            actual: message.actual_last.map(id_from),
        }),
    })
}

//! The sender.

use std::future::Future;
use std::sync::Arc;

use api::peerpb::{self, snapshot_request::Kind};
use apply::{Chunk, Workers};
use openraft::errors::{ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use random::TryRng;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use types::MemberId;

use super::transfers::{Start, Transfer};
use super::{Counters, Report, STALL_TIMEOUT, Transfers, Way, checksum};
use crate::error::{Chain, DecodeError, Fatal, FatalCell};
use crate::membership;
use crate::peer::channels::{Connections, Purpose};
use crate::peer::wire::{self, WireError};
use crate::runtime::Randomness;
use crate::state_machine::MachineHandle;
use crate::type_config::{LogId, SnapshotMeta, TypeConfig, Vote, log_id};

/// Chunks on their way to a peer. When so many are unanswered the next one waits.
const CHUNKS_IN_FLIGHT_MAX: u64 = 4;

/// Sends states to peers.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) machine: Arc<MachineHandle>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) workers: Workers,
    pub(crate) fatal: FatalCell,
}

/// What a transfer is for.
#[derive(Clone, Copy, Debug)]
struct Aim {
    /// The state must have this entry.
    needed: Option<LogId>,
    /// The peer has asked for it, to put it in the place of its own.
    is_repair: bool,
}

/// A transfer broke off.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("there is no state to send")]
    Nothing,
    #[error("it cannot be reached")]
    Unreached(#[source] Status),
    #[error("it does not answer")]
    Stalled,
    #[error("it has ended the transfer")]
    Ended,
    #[error("it asks for chunk {next}, which was not sent")]
    NoSuchChunk { next: u64 },
    #[error("the transfer failed")]
    Status(#[from] Status),
    #[error("its answer cannot be read")]
    Wire(#[from] WireError),
    #[error("the membership cannot be read")]
    Membership(#[from] DecodeError),
    #[error("the state was written by a later leader")]
    LaterTerm,
    #[error("this member cannot go on")]
    Fatal(#[from] Fatal),
}

impl Sender {
    /// Brings a peer to `snapshot` or further. Safe to drop: the transfer can go on later.
    pub(crate) async fn send(
        &self,
        to: &Connections,
        vote: Vote,
        needed: SnapshotMeta,
        cancel: impl Future<Output = ReplicationClosed> + Send,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let aim = Aim {
            needed: needed.last_log_id,
            is_repair: false,
        };
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            sent = self.transfer(to, vote, aim) => sent,
        };
        sent.map(SnapshotResponse::new).map_err(|error| {
            if let SendError::Status(status) | SendError::Unreached(status) = &error {
                to.failed(status);
            }
            if let SendError::Fatal(fatal) = &error {
                self.fatal.set(fatal.clone());
            }
            let reached = !matches!(error, SendError::Unreached(_));
            let error = Chain(&error);
            if reached {
                tracing::warn!(peer = %to.id, %error, "failed to send database snapshot");
            } else {
                // As often as it is tried, which is often.
                tracing::debug!(peer = %to.id, %error, "no database snapshot could be sent");
            }
            let text = format!("no state for member {}: {error}", to.id);
            Unreachable::from_string(text).into()
        })
    }

    /// Sends a peer that has asked for it the state of `applied` or later, which is to take the place of its own.
    pub(crate) async fn repair(
        &self,
        to: &Connections,
        vote: Vote,
        applied: LogId,
    ) -> Result<(), Status> {
        let aim = Aim {
            needed: Some(applied),
            is_repair: true,
        };
        match self.transfer(to, vote, aim).await {
            Ok(answered) if answered == vote => Ok(()),
            Ok(_higher) => Err(Status::aborted("another member leads now")),
            Err(error) => {
                if let SendError::Fatal(fatal) = &error {
                    self.fatal.set(fatal.clone());
                }
                Err(Status::aborted(Chain(&error).to_string()))
            }
        }
    }

    async fn transfer(&self, to: &Connections, vote: Vote, aim: Aim) -> Result<Vote, SendError> {
        let needed = aim.needed;
        // Before anything is held for it: who is not there may not be for long.
        let (requests, mut answers) = open(to).await?;
        let mut running = self.begin(to.id, &vote, needed).await?;
        let offer = running.offer(&vote, aim);
        if requests.send(request(Kind::Offer(offer))).await.is_err() {
            return Err(SendError::Ended);
        }
        let first = next_answer(&mut answers).await?;
        if let Some(vote) = first.vote {
            running.report.not_needed();
            return running.end(vote, &needed);
        }
        running.go_on_with(first.next)?;
        loop {
            while running.may_send() {
                let chunk = running.read(&self.workers).await?;
                if requests.send(request(Kind::Chunk(chunk))).await.is_err() {
                    // The answer says why.
                    break;
                }
            }
            let answer = next_answer(&mut answers).await?;
            running.acknowledged = running.acknowledged.max(answer.next);
            if let Some(vote) = answer.vote {
                running.report.done();
                return running.end(vote, &needed);
            }
        }
    }

    /// A transfer that broke off, or a new one.
    async fn begin(
        &self,
        peer: MemberId,
        vote: &Vote,
        needed: Option<LogId>,
    ) -> Result<Running, SendError> {
        let term = vote.leader_id.term;
        let transfer = match self.transfers.take(peer, term, needed) {
            Some(transfer) => transfer,
            None => self.pin(term).await?,
        };
        self.transfers.begin(peer, &transfer.meta, needed);
        tracing::info!(
            peer = %peer,
            applied_index = transfer.pinned.applied().index + 1,
            bytes = transfer.pinned.bytes(),
            "start to send database snapshot"
        );
        let bytes = transfer.pinned.bytes();
        Ok(Running {
            report: Report::begin(&self.counters, peer, Way::Out, bytes),
            transfers: Arc::clone(&self.transfers),
            peer,
            transfer: Some(transfer),
            next: 0,
            acknowledged: 0,
        })
    }

    async fn pin(&self, term: u64) -> Result<Transfer, SendError> {
        let pinned = self.machine.pin().await?.ok_or(SendError::Nothing)?;
        let at = pinned.applied();
        if at.term > term {
            return Err(SendError::LaterTerm);
        }
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(at.term, at.index)),
            last_membership: membership::decode_stored(&pinned.membership())?,
        };
        let id = Randomness
            .try_next_u64()
            .unwrap_or_else(|never| match never {});
        Ok(Transfer::new(id, pinned, meta))
    }
}

/// Begins a call.
async fn open(
    to: &Connections,
) -> Result<
    (
        mpsc::Sender<peerpb::SnapshotRequest>,
        Streaming<peerpb::SnapshotResponse>,
    ),
    SendError,
> {
    let room = usize::try_from(CHUNKS_IN_FLIGHT_MAX).expect("a small number");
    let (requests, outgoing) = mpsc::channel(room);
    let mut client = to.raft(Purpose::Snapshots);
    let call = client.snapshot(ReceiverStream::new(outgoing));
    let answers = tokio::time::timeout(STALL_TIMEOUT, call).await;
    let answers = answers.map_err(|_elapsed| SendError::Stalled)?;
    let answers = answers.map_err(SendError::Unreached)?;
    Ok((requests, answers.into_inner()))
}

fn request(kind: Kind) -> peerpb::SnapshotRequest {
    peerpb::SnapshotRequest { kind: Some(kind) }
}

async fn next_answer(
    answers: &mut Streaming<peerpb::SnapshotResponse>,
) -> Result<peerpb::SnapshotResponse, SendError> {
    let answer = tokio::time::timeout(STALL_TIMEOUT, answers.message()).await;
    let answer = answer.map_err(|_elapsed| SendError::Stalled)??;
    answer.ok_or(SendError::Ended)
}

/// A transfer that goes on. Dropped before it has ended, it can go on later.
#[derive(Debug)]
struct Running {
    report: Report,
    transfers: Arc<Transfers>,
    peer: MemberId,
    /// `None` once it has ended.
    transfer: Option<Transfer>,
    /// The chunk to be sent next.
    next: u64,
    /// The receiver has every chunk before this one.
    acknowledged: u64,
}

impl Running {
    fn transfer(&mut self) -> &mut Transfer {
        self.transfer
            .as_mut()
            .expect("it has not ended: that takes it by value")
    }

    fn offer(&mut self, vote: &Vote, aim: Aim) -> peerpb::SnapshotOffer {
        let transfer = self.transfer();
        peerpb::SnapshotOffer {
            vote: Some(wire::vote_to(vote)),
            id: transfer.id,
            applied: transfer.meta.last_log_id.map(wire::id_to),
            membership: transfer.pinned.membership(),
            bytes: transfer.pinned.bytes(),
            needed: aim.needed.map(wire::id_to),
            repair: aim.is_repair,
        }
    }

    /// The receiver has everything before `next`.
    fn go_on_with(&mut self, next: u64) -> Result<(), SendError> {
        let transfer = self.transfer();
        // What has come whole and was not installed: the last chunk says once more that it was the last.
        let next = next.min(transfer.last.unwrap_or(u64::MAX));
        if next >= transfer.starts.len() as u64 {
            self.transfers.end(self.peer, false);
            self.transfer = None;
            return Err(SendError::NoSuchChunk { next });
        }
        if next > 0 {
            tracing::info!(peer = %self.peer, chunk = next, "the database snapshot goes on");
        }
        (self.next, self.acknowledged) = (next, next);
        Ok(())
    }

    fn may_send(&self) -> bool {
        let last = self.transfer.as_ref().and_then(|transfer| transfer.last);
        last.is_none_or(|last| self.next <= last)
            && self.next < self.acknowledged + CHUNKS_IN_FLIGHT_MAX
    }

    /// Reads the next chunk off the runtime's threads.
    async fn read(&mut self, workers: &Workers) -> Result<peerpb::SnapshotChunk, SendError> {
        let number = self.next;
        let transfer = self.transfer();
        let place = usize::try_from(number)
            .ok()
            .and_then(|number| transfer.starts.get(number));
        let Start { place, records } = place
            .cloned()
            .ok_or(SendError::NoSuchChunk { next: number })?;
        let pinned = transfer.pinned.clone();
        let read = workers.run(move || pinned.chunk(&place)).await;
        let part = "the task that reads a state";
        let chunk = read.map_err(|_panic| Fatal::Panicked { part })?;
        let Chunk {
            records: read,
            bytes,
            next,
        } = chunk.map_err(|error| Fatal::Apply(Arc::new(error)))?;
        let records = records + read.len() as u64;
        let is_last = next.is_none();
        match next {
            None => transfer.last = Some(number),
            Some(place) if transfer.starts.len() as u64 == number + 1 => {
                transfer.starts.push(Start { place, records });
            }
            Some(_known) => {}
        }
        self.next += 1;
        self.report.chunk(bytes);
        let read = read
            .into_iter()
            .map(|record| peerpb::snapshot_chunk::Record {
                bucket: record.bucket as u32,
                key: record.key,
                value: record.value,
            });
        let read: Vec<_> = read.collect();
        Ok(peerpb::SnapshotChunk {
            number,
            checksum: checksum(&read),
            records: read,
            is_last,
            records_in_all: if is_last { records } else { 0 },
        })
    }

    /// The receiver has answered for the last time.
    fn end(mut self, vote: peerpb::LeaderVote, needed: &Option<LogId>) -> Result<Vote, SendError> {
        let vote = wire::vote_from(Some(vote))?;
        self.transfer = None;
        self.transfers.end(self.peer, needed.is_some());
        Ok(vote)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(transfer) = self.transfer.take() {
            self.transfers.put_back(self.peer, transfer);
        }
    }
}

//! The receiver.

use std::sync::Arc;

use api::peerpb::{self, snapshot_request::Kind};
use apply::{Incoming, LogPosition, Persister, ReceiveError, Received, Workers};
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex as SyncMutex;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Status, Streaming};
use types::MemberId;

use super::{
    Counters, Installing, KEPT_FOR, Report, SIGN_OF_LIFE_INTERVAL, STALL_TIMEOUT, Way, bucket,
    checksum,
};
use crate::ask::ask;
use crate::error::Chain;
use crate::membership;
use crate::node::Raft;
use crate::peer::wire;
use crate::repair::Repairs;
use crate::state_machine::{DurableState, MachineHandle};
use crate::type_config::{LogId, Snapshot, SnapshotMeta, Vote};

/// Receives states from peers, one at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
}

/// What a receiver works with.
pub(crate) struct Means {
    pub(crate) raft: Raft,
    pub(crate) machine: Arc<MachineHandle>,
    pub(crate) persister: Persister,
    pub(crate) workers: Workers,
    pub(crate) counters: Arc<Counters>,
    pub(crate) cluster: apply::Cluster,
    pub(crate) repairs: Arc<Repairs>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

struct Shared {
    means: Means,
    /// Who receives now; a later offer ends an earlier transfer.
    turn: SyncMutex<u64>,
    slot: Arc<Mutex<Slot>>,
}

/// What has come so far.
#[derive(Debug)]
struct Slot {
    /// Not here while it is written to, or when there is none.
    incoming: Option<Incoming>,
    /// When it was used last. `None`: there is nothing that could be left on the disk.
    used: Option<Instant>,
}

/// What was offered.
#[derive(Clone, Debug)]
struct Offer {
    vote: Vote,
    id: u64,
    applied: LogId,
    needed: Option<LogId>,
    membership: bytes::Bytes,
    bytes: u64,
    is_repair: bool,
}

/// One transfer.
struct Session {
    receiver: Receiver,
    requests: Streaming<peerpb::SnapshotRequest>,
    offer: Offer,
    turn: u64,
    report: Report,
}

/// A call that has begun.
struct Offered {
    receiver: Receiver,
    from: MemberId,
    requests: Streaming<peerpb::SnapshotRequest>,
}

/// Where a call stands.
enum State {
    Offer(Box<Offered>),
    Chunks(Box<Session>),
    /// Everything has come.
    Installing(JoinHandle<Answered>, u64),
    End,
}

type Answered = Result<peerpb::SnapshotResponse, Status>;

pub(crate) type Answers = BoxStream<'static, Answered>;

impl Receiver {
    pub(crate) fn new(means: Means) -> Self {
        let slot = Slot {
            incoming: None,
            // An earlier run may have left something.
            used: Some(Instant::now()),
        };
        Self {
            shared: Arc::new(Shared {
                means,
                turn: SyncMutex::new(0),
                slot: Arc::new(Mutex::new(slot)),
            }),
        }
    }

    /// Answers one call of a peer.
    pub(crate) fn receive(
        &self,
        from: MemberId,
        requests: Streaming<peerpb::SnapshotRequest>,
    ) -> Answers {
        let receiver = self.clone();
        let state = State::Offer(Box::new(Offered {
            receiver,
            from,
            requests,
        }));
        Box::pin(stream::unfold(state, |state| async move {
            let (answer, next) = state.step().await?;
            Some((answer, next))
        }))
    }

    /// Lets go of what broke off long ago.
    pub(crate) async fn tidy(&self) {
        let Ok(mut slot) = Arc::clone(&self.shared.slot).try_lock_owned() else {
            return;
        };
        if slot.used.is_none_or(|used| used.elapsed() < KEPT_FOR) {
            return;
        }
        slot.used = None;
        let persister = self.shared.means.persister.clone();
        let cleared = self.shared.means.workers.run(move || {
            drop(slot.incoming.take());
            persister.clear_incoming()
        });
        if let Ok(Err(error)) = cleared.await {
            tracing::warn!(%error, "cannot remove a state that was not received to its end");
        }
    }
}

impl State {
    async fn step(self) -> Option<(Answered, Self)> {
        match self {
            Self::Offer(offered) => {
                let Offered {
                    receiver,
                    from,
                    requests,
                } = *offered;
                Some(match receiver.accept(from, requests).await {
                    Ok((answer, Some(session))) => (Ok(answer), Self::Chunks(session)),
                    Ok((answer, None)) => (Ok(answer), Self::End),
                    Err(status) => (Err(status), Self::End),
                })
            }
            Self::Chunks(session) => Some(match session.chunk().await {
                Ok(stepped) => stepped,
                Err(status) => {
                    tracing::warn!(
                        error = status.message(),
                        "failed to receive database snapshot"
                    );
                    (Err(status), Self::End)
                }
            }),
            Self::Installing(mut installing, next) => {
                let installed = tokio::time::timeout(SIGN_OF_LIFE_INTERVAL, &mut installing).await;
                Some(match installed {
                    Ok(Ok(answer)) => (answer, Self::End),
                    Ok(Err(panic)) => (Err(Status::internal(panic.to_string())), Self::End),
                    Err(_elapsed) => (Ok(missing(next)), Self::Installing(installing, next)),
                })
            }
            Self::End => None,
        }
    }
}

fn missing(next: u64) -> peerpb::SnapshotResponse {
    peerpb::SnapshotResponse { next, vote: None }
}

fn last(vote: &Vote) -> peerpb::SnapshotResponse {
    peerpb::SnapshotResponse {
        next: 0,
        vote: Some(wire::vote_to(vote)),
    }
}

async fn next_request(
    requests: &mut Streaming<peerpb::SnapshotRequest>,
    stop: &CancellationToken,
) -> Result<Kind, Status> {
    let request = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Status::unavailable("the member stops")),
        request = tokio::time::timeout(STALL_TIMEOUT, requests.message()) => request,
    };
    let request = request.map_err(|_elapsed| Status::deadline_exceeded("no chunk has come"))??;
    let kind = request.and_then(|request| request.kind);
    kind.ok_or_else(|| Status::cancelled("the sender has ended the transfer"))
}

fn refused(error: &ReceiveError) -> Status {
    Status::aborted(Chain(error).to_string())
}

impl Offer {
    fn read(offer: peerpb::SnapshotOffer) -> Result<Self, Status> {
        let vote = wire::vote_from(offer.vote)
            .map_err(|error| Status::invalid_argument(Chain(&error).to_string()))?;
        let applied = offer.applied.map(wire::id_from);
        let applied = applied.ok_or_else(|| Status::invalid_argument("a state of no entry"))?;
        if applied.leader_id.term > vote.leader_id.term {
            return Err(Status::invalid_argument("a state of a later leader"));
        }
        Ok(Self {
            vote,
            id: offer.id,
            applied,
            needed: offer.needed.map(wire::id_from),
            membership: offer.membership,
            bytes: offer.bytes,
            is_repair: offer.repair,
        })
    }

    /// Whether a member that has applied this has no use for it.
    fn is_useless(&self, applied: Option<LogId>) -> bool {
        !self.is_repair && self.needed.is_some() && applied >= self.needed
    }

    fn meta(&self) -> Result<SnapshotMeta, Status> {
        let membership = membership::decode_stored(&self.membership)
            .map_err(|error| Status::invalid_argument(Chain(&error).to_string()))?;
        Ok(SnapshotMeta {
            last_log_id: Some(self.applied),
            last_membership: membership,
        })
    }
}

impl Receiver {
    /// Takes the offer, if it is of use.
    async fn accept(
        self,
        from: MemberId,
        mut requests: Streaming<peerpb::SnapshotRequest>,
    ) -> Result<(peerpb::SnapshotResponse, Option<Box<Session>>), Status> {
        let shared = &*self.shared;
        let Kind::Offer(offer) = next_request(&mut requests, &shared.means.stop).await? else {
            return Err(Status::invalid_argument("a chunk before the offer"));
        };
        let offer = Offer::read(offer)?;
        let own = ask(&shared.means.raft, |state| *state.vote_ref());
        let own = own
            .await
            .map_err(|fatal| Status::unavailable(Chain(&fatal).to_string()))?;
        if own > offer.vote {
            return Ok((last(&own), None));
        }
        if offer.is_useless(shared.means.machine.applied()) {
            return Ok((last(&offer.vote), None));
        }
        if offer.is_repair && !shared.means.repairs.is_awaited() {
            return Err(Status::failed_precondition("nobody has asked for a state"));
        }
        offer.meta()?;
        let turn = {
            let mut turn = shared.turn.lock();
            *turn += 1;
            *turn
        };
        // An earlier transfer ends with its next chunk, or has come so far that it is installed first.
        let slot = Arc::clone(&shared.slot).lock_owned().await;
        if offer.is_useless(shared.means.machine.applied()) {
            return Ok((last(&offer.vote), None));
        }
        let next = self.open(slot, offer.id).await?;
        tracing::info!(
            peer = %from,
            applied_index = offer.applied.index + 1,
            bytes = offer.bytes,
            chunk = next,
            "receiving database snapshot"
        );
        let cluster = &shared.means.cluster;
        let is_member = |id| cluster.member(id).is_some();
        shared.means.counters.forget_others(is_member);
        let report = Report::begin(&shared.means.counters, from, Way::In, offer.bytes);
        let session = Session {
            receiver: self,
            requests,
            offer,
            turn,
            report,
        };
        Ok((missing(next), Some(Box::new(session))))
    }

    /// Has the store of this transfer in the slot; says which chunk is missing. The slot is the job's: a
    /// call that breaks off does not let the next one at a directory that is still being opened.
    async fn open(&self, mut slot: OwnedMutexGuard<Slot>, id: u64) -> Result<u64, Status> {
        slot.used = Some(Instant::now());
        let has = slot.incoming.as_ref();
        if let Some(incoming) = has.filter(|incoming| incoming.id() == id) {
            return Ok(incoming.next());
        }
        let persister = self.shared.means.persister.clone();
        let opened = self.shared.means.workers.run(move || {
            drop(slot.incoming.take());
            let resumed = persister.resume_incoming(id).unwrap_or_else(|error| {
                let error = Chain(&error);
                tracing::warn!(%error, "what was received before is of no use");
                None
            });
            let incoming = match resumed {
                Some(incoming) => incoming,
                None => persister.begin_incoming(id)?,
            };
            let next = incoming.next();
            slot.incoming = Some(incoming);
            Ok(next)
        });
        let opened = opened
            .await
            .map_err(|panic| Status::internal(panic.to_string()))?;
        opened.map_err(|error: ReceiveError| refused(&error))
    }

    /// Makes of what has come the state of this member. To be run to its end whoever waits for it:
    /// until openraft is done with it nobody else may have the slot, and so the directory.
    async fn install(
        self,
        incoming: Incoming,
        offer: Offer,
        records: u64,
        mut report: Report,
        slot: OwnedMutexGuard<Slot>,
    ) -> Answered {
        let shared = &*self.shared;
        let meta = offer.meta()?;
        let at = LogPosition {
            term: offer.applied.leader_id.term,
            leader: 0,
            index: offer.applied.index,
        };
        let finished = shared
            .means
            .workers
            .run(move || incoming.finish(at, records));
        let finished = finished
            .await
            .map_err(|panic| Status::internal(panic.to_string()))?;
        let received: Received = finished.map_err(|error| refused(&error))?;
        if shared.means.stop.is_cancelled() {
            return Err(Status::unavailable("the member stops"));
        }
        tracing::info!(applied_index = at.index + 1, "applying database snapshot");
        let installing = Installing::begin(&shared.means.counters);
        if offer.is_repair {
            let repaired = shared.means.repairs.deliver(meta, received).await;
            repaired.map_err(|error| Status::aborted(Chain(&error).to_string()))?;
            drop((slot, installing));
            report.done();
            return Ok(last(&offer.vote));
        }
        let snapshot = Snapshot {
            meta,
            snapshot: DurableState::received(received),
        };
        let installed = shared
            .means
            .raft
            .install_full_snapshot(offer.vote, snapshot);
        let response = installed
            .await
            .map_err(|fatal| Status::unavailable(Chain(&fatal).to_string()))?;
        drop((slot, installing));
        report.done();
        Ok(last(&response.vote))
    }
}

impl Session {
    /// Takes the next chunk.
    async fn chunk(mut self: Box<Self>) -> Result<(Answered, State), Status> {
        let shared = Arc::clone(&self.receiver.shared);
        let Kind::Chunk(chunk) = next_request(&mut self.requests, &shared.means.stop).await? else {
            return Err(Status::invalid_argument("two offers"));
        };
        let mut slot = Arc::clone(&shared.slot).lock_owned().await;
        if *shared.turn.lock() != self.turn {
            return Err(Status::aborted("another transfer has begun"));
        }
        let has = slot.incoming.as_ref().map(Incoming::next);
        let has = has.ok_or_else(|| Status::aborted("an earlier chunk was not written"))?;
        let (is_last, records_in_all) = (chunk.is_last, chunk.records_in_all);
        let is_known = is_last && chunk.number + 1 == has;
        if !is_known {
            slot = self.write(slot, chunk).await?;
        }
        slot.used = Some(Instant::now());
        let incoming = slot.incoming.take();
        let incoming = incoming.ok_or_else(|| Status::aborted("a chunk was not written"))?;
        let next = incoming.next();
        if !is_last {
            slot.incoming = Some(incoming);
            return Ok((Ok(missing(next)), State::Chunks(self)));
        }
        let Self {
            receiver,
            offer,
            report,
            ..
        } = *self;
        let installing = receiver.install(incoming, offer, records_in_all, report, slot);
        // Not a part of the call: openraft goes on with it though the sender is gone.
        let installing = shared.means.tasks.spawn(installing);
        Ok((Ok(missing(next)), State::Installing(installing, next)))
    }

    /// Checks the chunk and writes it. The slot is the job's, as when it was opened.
    async fn write(
        &mut self,
        mut slot: OwnedMutexGuard<Slot>,
        chunk: peerpb::SnapshotChunk,
    ) -> Result<OwnedMutexGuard<Slot>, Status> {
        if checksum(&chunk.records) != chunk.checksum {
            return Err(Status::data_loss(format!(
                "chunk {} has not come as it was sent",
                chunk.number
            )));
        }
        let records: Option<Vec<apply::Record>> = chunk.records.into_iter().map(record).collect();
        let records = records.ok_or_else(|| Status::invalid_argument("a record of no bucket"))?;
        let bytes = records
            .iter()
            .map(|record| record.key.len() + record.value.len())
            .sum();
        let written = self.receiver.shared.means.workers.run(move || {
            if let Some(mut incoming) = slot.incoming.take() {
                incoming.add(chunk.number, records)?;
                slot.incoming = Some(incoming);
            }
            Ok(slot)
        });
        let written = written
            .await
            .map_err(|panic| Status::internal(panic.to_string()))?;
        self.report.chunk(bytes);
        written.map_err(|error: ReceiveError| refused(&error))
    }
}

fn record(record: peerpb::snapshot_chunk::Record) -> Option<apply::Record> {
    Some(apply::Record {
        bucket: bucket(record.bucket)?,
        key: record.key,
        value: record.value,
    })
}

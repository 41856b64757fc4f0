//! The adapter between openraft's state machine and `apply`'s.
//!
//! openraft hands over the entries that one step of the commit index covers. They are applied in
//! batches of a bounded number of commands; after each batch `finish_batch` publishes what came of
//! it (events, then the new view), then [`Progress`] says how far reads may go, and only then the
//! replies go out: a client that has its reply finds its write in any later read.
//!
//! A snapshot in openraft's sense is here no copy of anything: it is the statement "the state is
//! durable up to this entry", which is all that openraft needs to let the log be purged. What is sent to
//! another member is the state of that moment or later (`snapshot/send`); only one that was received
//! is in a [`DurableState`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use apply::{LogPosition, Persister, Pinned, Received, Workers};
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply_counts::{Applications, ApplyCounts};
use crate::error::{DecodeError, Fatal, FatalCell};
use crate::membership;
use crate::progress::Progress;
use crate::snapshot::Transfers;
use crate::type_config::{
    Entry, LogId, Outcomes, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, log_id,
};
use crate::waiters::{AppliedProposal, Waiters};

/// Commands applied between two publications. More would keep early replies waiting for late
/// ones, and a runtime's thread from its other tasks; fewer would publish for nothing.
const APPLY_BATCH_COMMANDS_MAX: usize = 512;

/// How long until the state is asked again whether it wants something done, while nothing is applied and nothing is left
/// to be done.
const CLOCKWORK_REST_MAX: Duration = Duration::from_secs(1);

/// The same where an entry was being applied.
const CLOCKWORK_BUSY_INTERVAL: Duration = Duration::from_millis(10);

/// The state and how far it is, under one lock: the adapter applies, the snapshot builder and the
/// clockwork stage.
#[derive(Debug)]
pub(crate) struct Machine {
    state: apply::StateMachine,
    applied: Option<LogId>,
    membership: StoredMembership,
    counts: Arc<ApplyCounts>,
}

/// openraft's state machine.
#[derive(Debug)]
pub(crate) struct Adapter {
    machine: Arc<Mutex<Machine>>,
    durable: DurableStates,
    progress: Arc<Progress>,
    waiters: Arc<Waiters>,
    workers: Workers,
    /// Whether openraft's worker is in the middle of applying.
    is_applying: bool,
    /// Dropped with the adapter: openraft's worker has ended then.
    _alive: oneshot::Sender<()>,
}

/// Puts a state in the place of the machine's while nothing is applied.
#[derive(Debug)]
pub(crate) struct Installer {
    machine: Arc<Mutex<Machine>>,
    durable: DurableStates,
    progress: Arc<Progress>,
    waiters: Arc<Waiters>,
    workers: Workers,
}

/// What the adapter leaves with the member.
#[derive(Debug)]
pub(crate) struct MachineHandle {
    machine: Arc<Mutex<Machine>>,
    counts: Arc<ApplyCounts>,
    durable: DurableStates,
    worker: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

/// Makes the state durable, and remembers up to where it was the last time. Cheap to clone.
#[derive(Clone, Debug)]
struct DurableStates {
    persister: Persister,
    last: Arc<Mutex<Option<SnapshotMeta>>>,
    transfers: Arc<Transfers>,
    fatal: FatalCell,
}

/// A state that is durable. It is on this member's disk; nothing of it is in here, unless it was
/// received from another member and is to be installed.
#[derive(Debug, Default)]
pub(crate) struct DurableState {
    received: Option<Received>,
}

impl DurableState {
    /// A state to be installed.
    pub(crate) const fn received(received: Received) -> Self {
        Self {
            received: Some(received),
        }
    }
}

/// Builds a snapshot: makes the state durable.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    machine: Arc<Mutex<Machine>>,
    durable: DurableStates,
}

/// Puts openraft's adapter around the state.
pub(crate) fn adapt(
    state: apply::StateMachine,
    persister: Persister,
    progress: Arc<Progress>,
    waiters: Arc<Waiters>,
    workers: Workers,
    fatal: FatalCell,
) -> Result<(Adapter, MachineHandle), DecodeError> {
    let (applied, raw) = state.applied();
    let membership = match raw {
        Some(raw) => membership::decode_stored(&raw)?,
        None => StoredMembership::default(),
    };
    let applied = applied.map(|at| log_id(at.term, at.index));
    progress.apply(applied);
    let counts = Arc::<ApplyCounts>::default();
    let machine = Arc::new(Mutex::new(Machine {
        state,
        applied,
        membership,
        counts: Arc::clone(&counts),
    }));
    let durable = DurableStates {
        persister,
        last: Arc::default(),
        transfers: Arc::default(),
        fatal,
    };
    let (alive, worker) = oneshot::channel();
    let handle = MachineHandle {
        machine: Arc::clone(&machine),
        counts,
        durable: durable.clone(),
        worker: tokio::sync::Mutex::new(Some(worker)),
    };
    Ok((
        Adapter {
            machine,
            durable,
            progress,
            waiters,
            workers,
            is_applying: false,
            _alive: alive,
        },
        handle,
    ))
}

/// The place of an entry, as `apply` keeps it. The leader's id is not in openraft's log ids when
/// a term has but one leader.
fn position(id: LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        leader: 0,
        index: id.index,
    }
}

/// Entries that are applied and not yet answered.
#[derive(Default)]
struct Batch {
    commands: usize,
    /// For those who wait here.
    applied: Vec<AppliedProposal>,
    /// openraft's own.
    responders: Vec<ApplyResponder<TypeConfig>>,
}

impl Machine {
    /// Whether the state is that of this entry or a later one.
    fn holds(&self, id: LogId) -> bool {
        self.applied
            .is_some_and(|applied| id.index <= applied.index)
    }

    /// Applies an entry, and says what its commands came to.
    fn apply(&mut self, entry: Entry) -> Result<Outcomes, apply::Fatal> {
        let at = position(entry.log_id);
        let outcomes = match entry.payload {
            EntryPayload::Blank => {
                self.state.skip(at);
                Vec::new()
            }
            EntryPayload::Normal(proposal) => {
                let mut begun = Instant::now();
                let mut outcomes = Outcomes::with_capacity(proposal.commands().len());
                for proposed in proposal.commands() {
                    let outcome = self.state.apply(at, &proposed.request)?;
                    let ended = Instant::now();
                    let took = ended.saturating_duration_since(begun);
                    self.counts
                        .applied(&proposed.request.command, &outcome, took);
                    begun = ended;
                    outcomes.push(outcome);
                }
                outcomes
            }
            EntryPayload::Membership(membership) => {
                let members = membership::members(&membership);
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                let raw = membership::encode_stored(&self.membership);
                self.state.set_membership(at, members, raw);
                Vec::new()
            }
        };
        self.applied = Some(entry.log_id);
        Ok(outcomes)
    }
}

impl Adapter {
    /// Publishes a batch, then answers it.
    fn finish(&self, batch: &mut Batch) -> Result<(), apply::Fatal> {
        let applied = {
            let mut machine = self.machine.lock();
            machine.state.finish_batch()?;
            machine.applied
        };
        self.progress.apply(applied);
        batch.commands = 0;
        let term = applied.map_or(0, |id| id.leader_id.term);
        self.waiters.applied(&mut batch.applied, term);
        for responder in batch.responders.drain(..) {
            responder.send(());
        }
        Ok(())
    }

    fn apply_one(
        &self,
        (entry, responder): EntryResponder<TypeConfig>,
        batch: &mut Batch,
    ) -> Result<(), apply::Fatal> {
        let term = entry.log_id.leader_id.term;
        let awaited = match &entry.payload {
            EntryPayload::Normal(proposal) => {
                Some(proposal.id()).filter(|id| self.waiters.may_await(*id))
            }
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        };
        let outcomes = {
            let mut machine = self.machine.lock();
            if machine.holds(entry.log_id) {
                // A state was installed while the entry was on its way here.
                batch.responders.extend(responder);
                return Ok(());
            }
            machine.apply(entry)?
        };
        batch.commands += outcomes.len().max(1);
        batch
            .applied
            .extend(awaited.map(|id| AppliedProposal { id, term, outcomes }));
        batch.responders.extend(responder);
        Ok(())
    }

    /// Off the runtime's threads: the state before has to be let go of, key by key.
    async fn install(&self, meta: &SnapshotMeta, received: Received) -> io::Result<()> {
        self.installer().install(meta, received).await
    }

    /// Installs a state while nothing is applied: what openraft runs on its worker may not borrow the adapter.
    pub(crate) fn installer(&self) -> Installer {
        Installer {
            machine: Arc::clone(&self.machine),
            durable: self.durable.clone(),
            progress: Arc::clone(&self.progress),
            waiters: Arc::clone(&self.waiters),
            workers: self.workers.clone(),
        }
    }

    /// Lets other tasks run, and waits while so much is unstaged that memory would grow. It waits
    /// here and not in `finish_batch`, which holds the machine and a thread of the runtime.
    async fn persister_keeps_up(&self) {
        tokio::task::yield_now().await;
        while self.machine.lock().state.is_behind() {
            self.durable.persister.room().await;
            let mut machine = self.machine.lock();
            if let Err(error) = machine.state.finish_batch() {
                self.durable.fatal.set(Fatal::Apply(Arc::new(error)));
                return;
            }
        }
    }

    /// Tells everybody that the state is broken.
    fn broken(&self, error: apply::Fatal) -> io::Error {
        self.durable.broken(error)
    }
}

impl Installer {
    /// The last entry that was applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.machine.lock().applied
    }

    /// How far the log is committed and applied.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Puts a received state in the place of this one, here and on the disk. The entries up to its own are
    /// not applied again.
    pub(crate) async fn install(&self, meta: &SnapshotMeta, received: Received) -> io::Result<()> {
        let (machine, new) = (Arc::clone(&self.machine), meta.clone());
        let installed = self.workers.run(move || {
            let mut machine = machine.lock();
            machine.state.install(received)?;
            machine.applied = new.last_log_id;
            machine.membership = new.last_membership;
            Ok(())
        });
        match installed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.durable.broken(error)),
            Err(panic) => return Err(io::Error::other(panic)),
        }
        let index = crate::progress::from_one(meta.last_log_id);
        self.durable.persister.stands_at(index);
        self.progress.apply(meta.last_log_id);
        let term = meta.last_log_id.map_or(0, |id| id.leader_id.term);
        self.waiters.skipped(term);
        let durable = self.durable.persister.durable().await;
        durable.map_err(|error| self.durable.broken(error))
    }
}

impl Drop for Adapter {
    /// A worker that ends in the middle has panicked.
    fn drop(&mut self) {
        if self.is_applying {
            let part = "the task that applies entries";
            self.durable.fatal.set(Fatal::Panicked { part });
        }
    }
}

impl RaftStateMachine<TypeConfig> for Adapter {
    type SnapshotData = DurableState;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let machine = self.machine.lock();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        self.is_applying = true;
        let mut batch = Batch::default();
        while let Some(entry) = entries.try_next().await? {
            self.apply_one(entry, &mut batch)
                .map_err(|error| self.broken(error))?;
            if batch.commands >= APPLY_BATCH_COMMANDS_MAX {
                self.finish(&mut batch)
                    .map_err(|error| self.broken(error))?;
                self.persister_keeps_up().await;
            }
        }
        if batch.commands > 0 {
            self.finish(&mut batch)
                .map_err(|error| self.broken(error))?;
            self.persister_keeps_up().await;
        }
        self.is_applying = false;
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            machine: Arc::clone(&self.machine),
            durable: self.durable.clone(),
        }
    }

    /// Readers have the new state at once; on return it is on the disk.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: DurableState,
    ) -> io::Result<()> {
        let Some(received) = snapshot.received else {
            let text = "there is no state to install";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        };
        self.is_applying = true;
        self.install(meta, received).await?;
        *self.durable.last.lock() = Some(meta.clone());
        self.is_applying = false;
        tracing::info!(
            index = meta.last_log_id.map(|id| id.index + 1),
            "applied database snapshot"
        );
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let last = self.durable.last.lock().clone();
        let oldest = last
            .as_ref()
            .and_then(|last| self.durable.transfers.oldest(last));
        Ok(oldest.or(last).map(|meta| Snapshot {
            meta,
            snapshot: DurableState::default(),
        }))
    }
}

impl DurableStates {
    /// Tells everybody that the state is broken.
    fn broken(&self, error: apply::Fatal) -> io::Error {
        let error = Arc::new(error);
        self.fatal.set(Fatal::Apply(Arc::clone(&error)));
        io::Error::other(error)
    }

    /// Stages everything that is applied, and waits until it survives a loss of power.
    async fn make(&self, machine: &Mutex<Machine>) -> Result<SnapshotMeta, Fatal> {
        let made = self.stage_and_wait(machine).await;
        made.map_err(|error| {
            let fatal = Fatal::Persist(Arc::new(error));
            self.fatal.set(fatal.clone());
            fatal
        })
    }

    async fn stage_and_wait(&self, machine: &Mutex<Machine>) -> Result<SnapshotMeta, apply::Fatal> {
        let meta = loop {
            self.persister.room().await;
            let mut machine = machine.lock();
            if !machine.state.has_room() {
                // A batch that was applied meanwhile has taken it.
                continue;
            }
            let at = machine.state.stage_all()?;
            debug_assert_eq!(at.map(|at| at.index), machine.applied.map(|id| id.index));
            break SnapshotMeta {
                last_log_id: at.map(|at| log_id(at.term, at.index)),
                last_membership: machine.membership.clone(),
            };
        };
        self.persister.durable().await?;
        let mut last = self.last.lock();
        if last
            .as_ref()
            .is_none_or(|last| last.last_log_id <= meta.last_log_id)
        {
            *last = Some(meta.clone());
        }
        Ok(meta)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = DurableState;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta = self
            .durable
            .make(&self.machine)
            .await
            .map_err(io::Error::other)?;
        tracing::debug!(index = ?meta.last_log_id.map(|id| id.index), "the state is durable");
        Ok(Snapshot {
            meta,
            snapshot: DurableState::default(),
        })
    }
}

impl MachineHandle {
    /// What applying has come to so far.
    pub(crate) fn applications(&self) -> Applications {
        self.counts.read()
    }

    /// Counts leases that have expired and are revoked.
    pub(crate) fn leases_expired(&self, leases: usize) {
        self.counts.expired(leases);
    }

    /// Does what the state wants done from time to time, also without traffic.
    pub(crate) async fn run_clockwork(
        self: Arc<Self>,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) {
        let mut look_at = Instant::now();
        // The last entry at a look that left nothing to be done.
        let mut done_at = None;
        loop {
            let next = async {
                if let Some(index) = done_at.take() {
                    progress
                        .wait_applied_within(index + 1, CLOCKWORK_REST_MAX)
                        .await;
                }
                tokio::time::sleep_until(look_at).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = next => {}
            }
            let applied = progress.applied();
            look_at = Instant::now() + CLOCKWORK_BUSY_INTERVAL;
            // While an entry is applied there is nothing to do here, and a thread of the runtime is
            // not to wait for it.
            let Some(mut machine) = self.machine.try_lock() else {
                continue;
            };
            if machine.state.needs_tick()
                && let Err(error) = machine.state.tick()
            {
                self.durable.fatal.set(Fatal::Persist(Arc::new(error)));
                return;
            }
            look_at = Instant::now() + machine.state.tick_interval();
            done_at = (!machine.state.is_compacting()).then_some(applied);
        }
    }

    /// Holds the state of now, to be read; `None` before the first entry.
    pub(crate) async fn pin(&self) -> Result<Option<Pinned>, Fatal> {
        let persister = &self.durable.persister;
        let pinned = loop {
            persister.room().await;
            let mut machine = self.machine.lock();
            if machine.state.has_room() {
                break machine.state.pin();
            }
        };
        let pinned = pinned.map_err(|error| Fatal::Persist(Arc::new(error)))?;
        let written = persister.written().await;
        written.map_err(|error| Fatal::Persist(Arc::new(error)))?;
        Ok(pinned)
    }

    /// The last entry that was applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.machine.lock().applied
    }

    /// The states that are held for peers.
    pub(crate) fn transfers(&self) -> Arc<Transfers> {
        Arc::clone(&self.durable.transfers)
    }

    /// Waits until openraft has let go of the state machine, then makes everything durable.
    pub(crate) async fn close(&self) -> Result<(), Fatal> {
        if let Some(worker) = self.worker.lock().await.take() {
            let ended = worker.await;
            debug_assert!(ended.is_err(), "the adapter only ever drops its end");
        }
        self.durable.make(&self.machine).await.map(|_meta| ())
    }
}

#[cfg(test)]
impl MachineHandle {
    /// What a snapshot of a state without keys would make of an empty machine.
    pub(crate) async fn become_empty_at(&self, meta: &SnapshotMeta) -> io::Result<()> {
        {
            let mut machine = self.machine.lock();
            machine.membership = meta.last_membership.clone();
            let raw = membership::encode_stored(&machine.membership);
            let members = membership::members(meta.last_membership.membership());
            let last = meta.last_log_id.unwrap();
            machine.state.set_membership(position(last), members, raw);
            machine.applied = Some(last);
        }
        self.durable
            .make(&self.machine)
            .await
            .map(|_meta| ())
            .map_err(io::Error::other)
    }
}

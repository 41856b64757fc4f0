//! One command at a time, and what is to be done between them.
//!
//! ```text
//!             apply, apply, ...                finish_batch                    (enough together)
//!  the log ───────────────────────> writers ─────────────────> watchers, views ─────────────────> persister
//! ```
//!
//! * `apply` changes the writers' own copies. Nobody sees them, nobody waits for them.
//! * `finish_batch` publishes: events to watchers first, then the new state to readers; then replies
//!   may be sent. A client that has its answer finds its write in every read that follows.
//! * Staging takes everything that has changed since the last time, with the position in the log it
//!   belongs to, in one batch: after a crash the state is exactly that of some entry, and the log is
//!   replayed from the next one on.
//!
//! Deterministic: what `apply` answers and changes depends on the commands before it and on nothing
//! else; not on batches, staging, time or chance. Three things look at the member's own state and
//! change nothing replicated: a lease granted while this member leads begins to run on its clock,
//! what does not fit the member's quota is noted, and staging happens when the persister has room.
//!
//! What this is not: durable. That is the log's work; see [`Persister`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backend::{Backend, Batch, Reader};
use bytes::Bytes;
use types::Clock;

use crate::alarm::AlarmStore;
use crate::applier::Applier;
use crate::cluster::MemberStore;
use crate::compaction_counts::{CompactionCounter, Work};
use crate::hashing::Hashing;
use crate::persister::{self, Beside, Staged, Stager};
use crate::quota::{Usage, version_bytes};
use crate::scrub_pace::{ScrubPace, ScrubSteps};
use crate::storage::{self, Meta};
use crate::versions::VersionStore;
use crate::{
    Alarms, Cluster, Command, Compactions, Fatal, Member, OpenError, Persister, Quota, Rejection,
    Reply, Request, Room, Versions, Workers,
};

/// Stage when so many bytes of versions have come together: a full segment.
const STAGE_BYTES: usize = 64 * 1024;
/// Stage when so many commands have come together.
const STAGE_COMMANDS: usize = 256;
/// While the persister is behind, so many bytes may come together before it is waited for.
const UNSTAGED_BYTES_MAX: usize = 1024 * 1024;
/// How long there is between two ticks, while nothing is compacted.
const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// How long at least and at most, while something is: a step is bounded in more than revisions, so that a long rest's
/// have room for several.
const COMPACT_INTERVAL_MIN: Duration = Duration::from_millis(1);
const COMPACT_INTERVAL_MAX: Duration = Duration::from_millis(10);

/// The log entry a command came from. `index` counts from 0, as openraft does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The leader's term.
    pub term: u64,
    /// The leader's id, if the log has it; else 0.
    pub leader: u64,
    /// The entry's index.
    pub index: u64,
}

/// How to open the state.
#[derive(Clone)]
pub struct Config {
    /// This member's quota, for [`Views::room`]; the state itself never asks it.
    pub quota: Quota,
    /// For leases' expiry; the state itself never asks it.
    pub clock: Arc<dyn Clock>,
    /// This member's tokens; the state itself never asks them.
    pub tokens: auth::Tokens,
    /// The store's bounds.
    pub mvcc: mvcc::Config,
    /// How fast compactions remove history from the disk.
    pub scrub: ScrubSteps,
    /// Where the persister runs.
    pub workers: Workers,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("quota", &self.quota)
            .field("mvcc", &self.mvcc)
            .field("scrub", &self.scrub)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Everything that may be read of the state. Cheap to clone; nothing in it can write.
#[derive(Clone, Debug)]
pub struct Views {
    /// The revisioned store.
    pub store: mvcc::Store,
    /// The leases.
    pub leases: lease::Leases,
    /// The leases' expiry: only the leader uses it.
    pub renewer: lease::Renewer,
    /// Users and roles.
    pub auth: auth::Auth,
    /// The alarms.
    pub alarms: Alarms,
    /// The members.
    pub cluster: Cluster,
    /// The cluster's version.
    pub versions: Versions,
    /// What compactions have come to on this member.
    pub compactions: Compactions,
    /// What this member's quota leaves.
    pub room: Room,
}

/// The state machine. Dropping it waits until what is staged is committed.
#[derive(Debug)]
pub struct StateMachine {
    applier: Applier,
    applied: Option<LogPosition>,
    membership: Option<Bytes>,
    unstaged_membership: Option<Bytes>,
    /// The entry as of which the state was received from another member.
    installed: Option<LogPosition>,
    /// Commands and other entries since the last staging.
    unstaged: usize,
    /// A compaction's physical work was going on when the last batch was staged.
    is_scrubbing: bool,
    scrub_pace: ScrubPace,
    compactions: CompactionCounter,
    /// A command could not be carried out: nothing may be shown or staged any more.
    is_halted: bool,
    hashing: Hashing,
    stager: Stager,
}

/// Loads the state as of its last persisted batch. The log has to be replayed from the entry after
/// [`StateMachine::applied`].
pub fn open(
    state: Backend,
    config: &Config,
) -> Result<(StateMachine, Views, Persister), OpenError> {
    let loaded = Loaded::load(&state.reader)?;
    debug_assert_eq!(
        loaded.check_usage(),
        Ok(()),
        "the usage was stored with these keys"
    );
    let (store, store_writer) = mvcc::open_loaded(loaded.store, &config.mvcc);
    let clock = Arc::clone(&config.clock);
    let (leases, lease_writer, renewer) = lease::open_loaded(loaded.leases, clock);
    let (auth, auth_writer) = auth::open_loaded(loaded.auth, config.tokens.clone());
    let applier = Applier {
        store: store_writer,
        leases: lease_writer,
        auth: auth_writer,
        alarms: loaded.alarms,
        members: loaded.members,
        versions: loaded.versions,
        room: Room::new(config.quota, store.clone()),
        usage: loaded.meta.usage,
    };
    let compactions = CompactionCounter::new(Arc::clone(&config.clock));
    let views = Views {
        compactions: compactions.view(),
        store: store.clone(),
        leases,
        renewer,
        auth,
        alarms: applier.alarms.view(),
        cluster: applier.members.view(),
        versions: applier.versions.view(),
        room: applier.room.clone(),
    };
    let (stager, persister) =
        persister::start(state, store, &config.workers).map_err(OpenError::Thread)?;
    let machine = StateMachine {
        is_scrubbing: applier.store.is_scrubbing(),
        scrub_pace: ScrubPace::new(config.scrub, Arc::clone(&config.clock)),
        compactions,
        applier,
        applied: loaded.meta.applied,
        membership: loaded.meta.membership,
        installed: loaded.meta.installed,
        unstaged_membership: None,
        unstaged: 0,
        is_halted: false,
        hashing: Hashing::new(config.workers.clone()),
        stager,
    };
    Ok((machine, views, persister))
}

/// A state that was loaded and is not in use yet.
#[derive(Debug)]
pub(crate) struct Loaded {
    meta: Meta,
    store: mvcc::Loaded,
    leases: lease::Loaded,
    auth: auth::Loaded,
    alarms: AlarmStore,
    members: MemberStore,
    versions: VersionStore,
    /// Bytes of the live keys.
    live: u64,
}

impl Loaded {
    pub(crate) fn load(reader: &Reader) -> Result<Self, OpenError> {
        Self::load_beside(reader, storage::open(reader)?)
    }

    /// Loads a state that is being made, and that nobody else may load yet.
    pub(crate) fn load_incoming(reader: &Reader) -> Result<Self, OpenError> {
        Self::load_beside(reader, Meta::default())
    }

    fn load_beside(reader: &Reader, meta: Meta) -> Result<Self, OpenError> {
        let store = mvcc::load(reader.clone())?;
        let mut leases = lease::load(reader)?;
        let live = reattach(&store, &mut leases);
        Ok(Self {
            meta,
            store,
            leases,
            auth: auth::load(reader)?,
            alarms: AlarmStore::open(reader)?,
            members: MemberStore::open(reader)?,
            versions: VersionStore::open(reader)?,
            live,
        })
    }

    pub(crate) fn applied(&self) -> Option<LogPosition> {
        self.meta.applied
    }

    /// What the live keys are counted as.
    pub(crate) fn counted(&self) -> Usage {
        let mut usage = Usage::default();
        usage.add(self.live);
        usage
    }

    /// Whether the live keys are those that were counted; else how many bytes were, and are.
    pub(crate) fn check_usage(&self) -> Result<(), (u64, u64)> {
        let counted = self.meta.usage.live();
        if counted == self.live {
            Ok(())
        } else {
            Err((counted, self.live))
        }
    }
}

/// Gives the leases their keys back, from the live keys. Returns how many bytes those are.
fn reattach(store: &mvcc::Loaded, leases: &mut lease::Loaded) -> u64 {
    let mut live = 0;
    store.for_each(|kv| {
        live += version_bytes(kv.key(), kv.value());
        let Some(id) = kv.lease() else { return };
        let key = Bytes::copy_from_slice(kv.key());
        if let Err(lease::NotFound) = leases.attach(id, key) {
            tracing::error!(lease = %id, "a key has a lease that is not there");
        }
    });
    live
}

impl StateMachine {
    /// The last entry that was applied, if any, and the bytes that were stored with the last
    /// membership (see [`StateMachine::set_membership`]).
    #[must_use]
    pub fn applied(&self) -> (Option<LogPosition>, Option<Bytes>) {
        (self.applied, self.membership.clone())
    }

    /// The entry as of which the state was received from another member, if it was: the log may end
    /// before it, when the member was stopped between the two.
    #[must_use]
    pub fn installed(&self) -> Option<LogPosition> {
        self.installed
    }

    /// Carries out one command. Its effects show in [`Views`] only after
    /// [`StateMachine::finish_batch`]; send no reply before that.
    ///
    /// An entry may hold several commands: apply all of them, with the same position, before
    /// [`StateMachine::finish_batch`]; a position stands for all of its commands.
    pub fn apply(
        &mut self,
        at: LogPosition,
        request: &Request,
    ) -> Result<Result<Reply, Rejection>, Fatal> {
        self.check()?;
        // Rights are published before keys, so that keys are not read by older rights. Nor may those that
        // are gone be read by newer ones: what was done before rights change is seen before they do.
        if matches!(request.command, Command::Auth(_)) {
            self.publish();
        }
        self.advance(at);
        // Until it has gone well: a panic must not leave half a command to be staged.
        self.is_halted = true;
        let outcome = self.applier.apply(at, request);
        self.is_halted = outcome.is_err();
        outcome
    }

    /// Notes an entry that holds no command (a new leader's blank entry).
    pub fn skip(&mut self, at: LogPosition) {
        self.advance(at);
    }

    /// Notes a change of membership: the members it names (peer urls and learner flag are taken,
    /// names and client urls kept where they are known), and `raw`, which Raft wants back after a
    /// restart.
    pub fn set_membership(&mut self, at: LogPosition, members: Vec<Member>, raw: Bytes) {
        self.advance(at);
        self.applier.members.set(members);
        self.membership = Some(raw.clone());
        self.unstaged_membership = Some(raw);
    }

    fn advance(&mut self, at: LogPosition) {
        debug_assert!(
            self.applied.is_none_or(|applied| applied.index <= at.index),
            "entry {at:?} after {:?}",
            self.applied
        );
        self.applied = Some(at);
        self.unstaged += 1;
    }

    /// Makes everything applied so far visible, and hands it to the persister when enough has come
    /// together and the persister has room. Never waits; see [`StateMachine::is_behind`].
    pub fn finish_batch(&mut self) -> Result<(), Fatal> {
        self.check()?;
        self.publish();
        let bytes = self.applier.store.unstaged_bytes();
        let is_enough = bytes >= STAGE_BYTES
            || self.unstaged >= STAGE_COMMANDS
            || self.has_compacted()
            || (self.unstaged > 0 && self.stager.is_due());
        if is_enough && self.stager.has_room() {
            self.stage()?;
        }
        Ok(())
    }

    /// Whether so much waits for the persister that no more should be applied: wait for
    /// [`Persister::room`], and call [`StateMachine::finish_batch`] again.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.applier.store.unstaged_bytes() >= UNSTAGED_BYTES_MAX && !self.stager.has_room()
    }

    /// Whether [`StateMachine::stage_all`] would not wait for the persister.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.stager.has_room()
    }

    /// Whether [`StateMachine::tick`] has something to do: a compaction's physical work, or changes
    /// that have waited long for more.
    #[must_use]
    pub fn needs_tick(&self) -> bool {
        (self.has_compacting_to_do() && self.may_scrub())
            || (self.unstaged > 0 && self.stager.is_due())
    }

    /// Whether a compaction's physical work is going on, or waits for those who hold the store: until it is over, a
    /// tick may be needed at any time.
    #[must_use]
    pub fn is_compacting(&self) -> bool {
        self.applier.store.is_compacting() || self.is_scrubbing
    }

    /// Whether a compaction has something to do that waits for nobody, or to stage that it has done it.
    fn has_compacting_to_do(&self) -> bool {
        self.applier.store.is_scrubbing() || self.is_scrubbing
    }

    /// Whether a compaction may go on now.
    fn may_scrub(&self) -> bool {
        !self.applier.store.only_scrubs() || self.scrub_pace.is_due()
    }

    /// Goes on with that, one bounded step; never waits. Call it each [`StateMachine::tick_interval`] while
    /// [`StateMachine::needs_tick`], between batches. Changes nothing that is replicated.
    pub fn tick(&mut self) -> Result<(), Fatal> {
        self.check()?;
        if self.needs_tick() && self.stager.is_idle() {
            self.publish();
            self.stage()?;
        }
        Ok(())
    }

    /// How long until the next tick. While something is compacted that is the rest between two steps, or less, so that
    /// the work goes on though nothing else is staged.
    #[must_use]
    pub fn tick_interval(&self) -> Duration {
        match self.has_compacting_to_do() {
            true => self
                .scrub_pace
                .rest()
                .clamp(COMPACT_INTERVAL_MIN, COMPACT_INTERVAL_MAX),
            false => TICK_INTERVAL,
        }
    }

    /// Stages everything applied so far, and says which entry it ends with: once
    /// [`Persister::durable`] has returned, the log is not needed up to there. Waits if the
    /// persister is behind.
    pub fn stage_all(&mut self) -> Result<Option<LogPosition>, Fatal> {
        self.check()?;
        self.publish();
        if self.unstaged > 0 {
            self.stage()?;
        }
        Ok(self.applied)
    }

    /// Adds everything but the store to `batch`, as of now, and says what Raft wants back with it.
    pub(crate) fn stage_small(&mut self, batch: &mut Batch) -> Bytes {
        debug_assert_eq!(self.unstaged, 0, "else a change would be staged only here");
        let Applier {
            leases,
            auth,
            alarms,
            members,
            versions,
            usage,
            ..
        } = &mut self.applier;
        leases.restage();
        leases.stage(batch);
        auth.restage();
        auth.stage(batch);
        alarms.restage();
        alarms.stage(batch);
        members.restage();
        members.stage(batch);
        versions.restage();
        versions.stage(batch);
        storage::stage(batch, self.applied, usage);
        if let Some(raw) = self.membership.clone() {
            storage::stage_membership(batch, raw);
        }
        self.membership.clone().unwrap_or_default()
    }

    pub(crate) fn pin_store(&self) -> mvcc::Pinned {
        self.applier.store.pin()
    }

    /// Goes on with a state that was loaded from `backend`, here at once and on the disk when the
    /// persister has come to it.
    pub(crate) fn replace(
        &mut self,
        backend: Backend,
        loaded: Loaded,
        beside: Beside,
    ) -> Result<(), Fatal> {
        self.check()?;
        debug_assert!(self.applied <= loaded.applied(), "the log does not go back");
        self.stager.take_over(backend, beside)?;
        let applier = &mut self.applier;
        applier.usage = loaded.meta.usage;
        applier.members.install(loaded.members);
        applier.versions.install(&loaded.versions);
        applier.alarms.install(loaded.alarms);
        let Applier {
            auth,
            leases,
            store,
            ..
        } = applier;
        auth.install(loaded.auth, || {
            leases.install(loaded.leases);
            store.install(loaded.store);
        });
        self.applied = loaded.meta.applied;
        self.installed = loaded.meta.installed;
        self.membership = loaded.meta.membership;
        self.unstaged_membership = None;
        self.unstaged = 0;
        self.is_scrubbing = self.applier.store.is_scrubbing();
        Ok(())
    }

    fn check(&self) -> Result<(), Fatal> {
        if self.is_halted {
            return Err(Fatal::Halted);
        }
        self.stager.check()
    }

    /// Whether a compaction has come since the last batch was staged. It does not wait for more:
    /// somebody may wait for its physical work.
    fn has_compacted(&self) -> bool {
        self.applier.store.is_scrubbing() && !self.is_scrubbing
    }

    fn publish(&mut self) {
        // Before the keys: whoever reads them must not do so by older rights.
        self.applier.auth.publish();
        self.applier.store.publish();
        self.applier.alarms.publish();
        self.applier.members.publish();
        self.applier.versions.publish();
        for job in self.applier.store.take_hash_jobs() {
            self.hashing.begin(job);
        }
    }

    fn stage(&mut self) -> Result<(), Fatal> {
        let mut batch = Batch::new();
        let finished_before = self.applier.store.finished_compaction();
        let revision = self.stage_store(&mut batch)?;
        self.is_scrubbing = self.applier.store.is_scrubbing();
        self.applier.leases.stage(&mut batch);
        self.applier.auth.stage(&mut batch);
        self.applier.alarms.stage(&mut batch);
        self.applier.members.stage(&mut batch);
        self.applier.versions.stage(&mut batch);
        storage::stage(&mut batch, self.applied, &self.applier.usage);
        if let Some(raw) = self.unstaged_membership.take() {
            storage::stage_membership(&mut batch, raw);
        }
        self.unstaged = 0;
        let finished = self.applier.store.finished_compaction();
        let finished_compaction = (finished > finished_before).then_some(finished);
        if finished_compaction.is_some() {
            self.compactions.finished();
        }
        let applied = self.applied.map_or(0, |at| at.index + 1);
        self.stager.stage(Staged {
            batch,
            applied,
            revision,
            finished_compaction,
        })
    }

    /// Stages the store, with as much of a compaction's work as it is time for.
    fn stage_store(&mut self, batch: &mut Batch) -> Result<i64, Fatal> {
        let store = &mut self.applier.store;
        let forgets = store.is_scrubbing() && !store.only_scrubs();
        let begun = self.compactions.now();
        let staged = store.stage_scrubbing(batch, self.scrub_pace.allowance());
        let scrubbed = store.take_scrubbed();
        self.scrub_pace.spend(scrubbed.revisions);
        let work = match scrubbed.revisions {
            0 if forgets => Work::Forgot,
            0 => Work::Nothing,
            _ => Work::Scrubbed(scrubbed.removed),
        };
        self.compactions.step(begun, work);
        Ok(staged.inspect_err(|_| self.is_halted = true)?)
    }

    /// Waits until no hash is being made any more, for which the physical work of compactions stands still.
    #[cfg(test)]
    pub(crate) fn wait_for_hashes(&mut self) {
        self.hashing.wait();
    }

    #[cfg(test)]
    pub(crate) fn usage(&self) -> &Usage {
        &self.applier.usage
    }
}

//! The leader's half: when each lease expires.
//!
//! Only the leader's clock counts. A member that begins to lead cannot know how long each lease
//! had left, so it gives every lease its full TTL again and the election timeout on top: a lease
//! may live longer than granted, never shorter. What a long lease has left is brought into the log from
//! time to time ([`Renewer::checkpoints`]), so that it does not begin from the start with every
//! leader; a checkpoint is taken back before the lease is renewed, for it must not live shorter either.
//! What this is not: a timer. The member asks [`Renewer::expired`] on its own beat, and proposes
//! revocations as fast as it likes.
// Differs from etcd: checkpoints are always on and persistent; there they are behind feature gates.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use types::{Clock, LeaseId};

use crate::table::{Entry, Table};
use crate::{NotPrimary, RenewError};

/// A lease that has expired is offered again after this, if it has not been revoked by then.
const EXPIRED_RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// How many leases a member can revoke in a second beside its other work. After a change of leader,
/// expiries are spread so that no more than three quarters of it fall into one second.
const REVOKE_RATE: usize = 10_000;
/// A lease that is not renewed for this long is checkpointed, if it has more than that left; as in etcd
/// (`defaultLeaseCheckpointInterval`).
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// For TTLs that the clock cannot add: longer than any member runs.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Time added to a TTL.
pub(crate) type Extend = Duration;

/// The leader's clockwork. Cheap to clone.
#[derive(Clone)]
pub struct Renewer {
    table: Arc<RwLock<Table>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewer").finish_non_exhaustive()
    }
}

impl Renewer {
    pub(crate) fn new(table: Arc<RwLock<Table>>, clock: Arc<dyn Clock>) -> Self {
        Self { table, clock }
    }

    /// This member leads now: every lease gets its TTL, or what was left of it at its last checkpoint, and
    /// `extend` on top. Leases that would
    /// expire together in greater numbers than can be revoked are spread over the following
    /// seconds. Promoting a leader again starts over.
    pub fn promote(&self, extend: Duration) {
        let mut table = self.table.write();
        table.promote();
        let now = self.clock.now();
        let mut expiries: Vec<(Instant, LeaseId)> = table
            .iter()
            .map(|(id, entry)| (expiry(now, entry.left_s(), extend), id))
            .collect();
        expiries.sort_unstable();
        if expiries.len() >= REVOKE_RATE {
            spread(&mut expiries);
        }
        for (at, id) in expiries {
            run_until(&mut table, id, now, at);
        }
    }

    /// This member does not lead any more: nothing expires here.
    pub fn demote(&self) {
        self.table.write().demote();
    }

    /// Whether this member leads, as far as leases are concerned.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.table.read().is_primary()
    }

    /// Gives a lease its full TTL again; returns it in seconds.
    ///
    /// A lease that has expired is as good as gone: its revocation is being proposed.
    // Differs from etcd: etcd holds the answer back until that revocation has been applied.
    pub fn renew(&self, id: LeaseId) -> Result<i64, RenewError> {
        let mut table = self.table.write();
        if !table.is_primary() {
            return Err(RenewError::NotPrimary);
        }
        let now = self.clock.now();
        let entry = table.get(id).ok_or(RenewError::NotFound)?;
        if entry.expiry.is_some_and(|at| at <= now) {
            return Err(RenewError::NotFound);
        }
        if entry.remaining_s.is_some() || entry.is_checkpointing {
            return Err(RenewError::Checkpointed);
        }
        let ttl_s = entry.ttl_s;
        run_until(&mut table, id, now, expiry(now, ttl_s, Extend::ZERO));
        Ok(ttl_s)
    }

    /// Whole seconds left, rounded down, or `None` when there is no such lease; negative never.
    pub fn remaining_ttl_s(&self, id: LeaseId) -> Result<Option<i64>, NotPrimary> {
        let table = self.table.read();
        if !table.is_primary() {
            return Err(NotPrimary);
        }
        let now = self.clock.now();
        let left = table.get(id).map(|entry| left_of(entry, now));
        Ok(left.map(seconds))
    }

    /// Up to `max` leases that are to be checkpointed, with the seconds that each has left, and a
    /// little more. Those that are returned come again after a while, whatever becomes of the checkpoint.
    #[must_use]
    pub fn checkpoints(&self, max: usize) -> Vec<(LeaseId, i64)> {
        let now = self.clock.now();
        if !self.table.read().has_checkpoint(now) {
            return Vec::new();
        }
        let mut table = self.table.write();
        let mut due = Vec::new();
        while due.len() < max
            && let Some(id) = table.next_checkpoint(now)
        {
            let mut left = Duration::ZERO;
            if let Some(entry) = table.get_mut(id) {
                left = left_of(entry, now);
                entry.is_checkpointing = true;
                // Rounded up: nothing left would be all of it.
                due.push((id, seconds(left).saturating_add(1)));
            }
            table.checkpoint_at(id, next_checkpoint(now, left));
        }
        due
    }

    /// Up to `max` leases that have expired and were not returned in the last few seconds, those
    /// that expired first before the others. Takes time for what it returns, not for what there is.
    #[must_use]
    pub fn expired(&self, max: usize) -> Vec<LeaseId> {
        let now = self.clock.now();
        {
            // The usual answer, without keeping others out.
            let table = self.table.read();
            if !table.has_expired(now) {
                return Vec::new();
            }
        }
        let mut table = self.table.write();
        let again_at = now + EXPIRED_RETRY_INTERVAL;
        std::iter::from_fn(|| table.next_expired(now, again_at))
            .take(max)
            .collect()
    }
}

/// Lets a lease run until then.
pub(crate) fn run_until(table: &mut Table, id: LeaseId, now: Instant, expiry: Instant) {
    table.expire_at(id, expiry);
    let left = expiry.saturating_duration_since(now);
    table.checkpoint_at(id, next_checkpoint(now, left));
}

/// When a lease that has so much left is checkpointed.
fn next_checkpoint(now: Instant, left: Duration) -> Option<Instant> {
    (left > CHECKPOINT_INTERVAL).then(|| now + CHECKPOINT_INTERVAL)
}

fn left_of(entry: &Entry, now: Instant) -> Duration {
    let left = entry.expiry.map(|at| at.saturating_duration_since(now));
    left.unwrap_or_default()
}

fn seconds(left: Duration) -> i64 {
    i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
}

/// When a lease expires that gets its full TTL now.
pub(crate) fn expiry(now: Instant, ttl_s: i64, extend: Extend) -> Instant {
    let ttl = Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0));
    now.checked_add(ttl.saturating_add(extend))
        .unwrap_or_else(|| now + FOREVER)
}

/// Moves expiries, which are sorted, so that no second holds more than can be revoked in it with
/// room to spare. A lease only ever gets later, and their order stays.
fn spread(expiries: &mut [(Instant, LeaseId)]) {
    let per_second = 3 * REVOKE_RATE / 4;
    // The lease `per_second` places before this one frees the place a second later.
    for i in per_second..expiries.len() {
        let earliest = expiries[i - per_second].0 + Duration::from_secs(1);
        if expiries[i].0 < earliest {
            expiries[i].0 = earliest;
        }
    }
}

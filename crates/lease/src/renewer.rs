//! The leader's half: when each lease expires.
//!
//! Only the leader's clock counts. A member that begins to lead cannot know how long each lease
//! had left, so it gives every lease its full TTL again and the election timeout on top: a lease
//! may live longer than granted, never shorter. What this is not: a timer. The member asks
//! [`Renewer::expired`] on its own beat, and proposes revocations as fast as it likes.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use types::{Clock, LeaseId};

use crate::RenewError;
use crate::table::Table;

/// A lease that has expired is offered again after this, if it has not been revoked by then.
const EXPIRED_RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// How many leases a member can revoke in a second. After a change of leader, expiries are spread so
/// that no more than three quarters of it fall into one second.
const REVOKE_RATE: usize = 1000;
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

    /// This member leads now: every lease gets its full TTL, and `extend` on top. Leases that would
    /// expire together in greater numbers than can be revoked are spread over the following
    /// seconds. Promoting a leader again starts over.
    pub fn promote(&self, extend: Duration) {
        let mut table = self.table.write();
        table.promote();
        let now = self.clock.now();
        let mut expiries: Vec<(Instant, LeaseId)> = table
            .iter()
            .map(|(id, entry)| (expiry(now, entry.ttl_s, extend), id))
            .collect();
        expiries.sort_unstable();
        if expiries.len() >= REVOKE_RATE {
            spread(&mut expiries);
        }
        for (at, id) in expiries {
            table.expire_at(id, at);
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
        let ttl_s = entry.ttl_s;
        table.expire_at(id, expiry(now, ttl_s, Extend::ZERO));
        Ok(ttl_s)
    }

    /// Whole seconds left, rounded down, or `None` when there is no such lease; negative never.
    /// Where this member does not lead, no lease runs: the granted TTL.
    #[must_use]
    pub fn remaining_ttl_s(&self, id: LeaseId) -> Option<i64> {
        let table = self.table.read();
        let entry = table.get(id)?;
        let Some(expiry) = entry.expiry else {
            return Some(entry.ttl_s);
        };
        let left = expiry.saturating_duration_since(self.clock.now());
        Some(i64::try_from(left.as_secs()).unwrap_or(i64::MAX))
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

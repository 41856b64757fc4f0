//! Leases, the keys attached to them, and when they expire.
//!
//! Two halves that must not be mixed: what is replicated ([`Writer`], [`Leases`]: ids, granted TTLs,
//! attached keys; the same on every member), and what only the leader knows ([`Renewer`]: when each
//! one expires). The renewer never removes a lease: it says which have expired, and the member
//! proposes their revocation through the log.

use std::sync::Arc;

use bytes::Bytes;
use types::{Clock, LeaseId};

/// Reads leases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leases {}

/// Changes leases. There is one; `apply` holds it.
#[derive(Debug)]
pub struct Writer {}

/// The leader's clockwork.
#[derive(Clone, Debug)]
pub struct Renewer {}

/// A lease, as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The TTL that was granted, in seconds.
    pub granted_ttl_s: i64,
    /// The keys attached to it, sorted.
    pub keys: Vec<Bytes>,
}

/// A lease was refused.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There is a lease of that id.
    #[error("lease already exists")]
    Exists,
}

/// There is no such lease.
#[derive(Debug, thiserror::Error)]
#[error("lease not found")]
pub struct NotFound;

/// Loads the leases. Attachments are not stored: `apply` gives them back with
/// [`Writer::attach`] from the live keys.
pub fn open(
    _reader: &backend::Reader,
    _clock: Arc<dyn Clock>,
) -> Result<(Leases, Writer, Renewer), backend::ReadError> {
    todo!()
}

impl Leases {
    /// One lease with its keys.
    #[must_use]
    pub fn get(&self, _id: LeaseId) -> Option<Lease> {
        todo!()
    }
    /// Every lease's id, oldest expiry first as far as this member knows.
    #[must_use]
    pub fn list(&self) -> Vec<LeaseId> {
        todo!()
    }
}

impl Writer {
    /// Adds a lease.
    pub fn grant(&mut self, _id: LeaseId, _ttl_s: i64) -> Result<(), GrantError> {
        todo!()
    }
    /// Removes a lease and says which keys were attached to it, sorted.
    pub fn revoke(&mut self, _id: LeaseId) -> Result<Vec<Bytes>, NotFound> {
        todo!()
    }
    /// Whether there is such a lease.
    #[must_use]
    pub fn contains(&self, _id: LeaseId) -> bool {
        todo!()
    }
    /// Attaches a key.
    pub fn attach(&mut self, _id: LeaseId, _key: Bytes) {
        todo!()
    }
    /// Detaches a key.
    pub fn detach(&mut self, _id: LeaseId, _key: &[u8]) {
        todo!()
    }
    /// Adds to `batch` all that has changed since the last call.
    pub fn stage(&mut self, _batch: &mut backend::Batch) {
        todo!()
    }
}

impl Renewer {
    /// This member leads now: every lease gets its full TTL, and `extend` on top.
    pub fn promote(&self, _extend: std::time::Duration) {
        todo!()
    }
    /// This member does not lead any more: nothing expires here.
    pub fn demote(&self) {
        todo!()
    }
    /// Gives a lease its full TTL again; returns it in seconds.
    pub fn renew(&self, _id: LeaseId) -> Result<i64, NotFound> {
        todo!()
    }
    /// Seconds left, or `None` when there is no such lease; negative never.
    #[must_use]
    pub fn remaining_ttl_s(&self, _id: LeaseId) -> Option<i64> {
        todo!()
    }
    /// Up to `max` leases that have expired and were not returned in the last few seconds.
    #[must_use]
    pub fn expired(&self, _max: usize) -> Vec<LeaseId> {
        todo!()
    }
}

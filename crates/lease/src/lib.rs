//! Leases, the keys attached to them, and when they expire (`server/lease/lessor.go`).
//!
//! Two halves that must not be mixed:
//!
//! - what is replicated ([`Writer`], [`Leases`]): ids, granted TTLs, checkpoints, attached keys; the same on
//!   every member, changed only by `apply`, and free of time;
//! - what only the leader knows ([`Renewer`]): when each lease expires. It starts with
//!   [`Renewer::promote`], ends with [`Renewer::demote`], and nothing of it is stored.
//!
//! What this is not: it never removes a lease by itself. The renewer says which leases have expired,
//! the member proposes their revocation through the log, and the log's answer removes them.

mod error;
mod renewer;
mod table;
mod writer;

use std::sync::Arc;

use backend::{Bucket, schema};
use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message;
use types::{Clock, LeaseId};

pub use error::{GrantError, NotFound, NotPrimary, OpenError, RenewError};
pub use renewer::Renewer;
pub use writer::Writer;

use table::Table;

/// Reads leases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leases {
    table: Arc<RwLock<Table>>,
}

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

/// Leases that were loaded and are not in use yet.
#[derive(Debug, Default)]
pub struct Loaded {
    table: Table,
}

impl Loaded {
    /// Attaches a key, and says whether there is such a lease to attach it to.
    pub fn attach(&mut self, id: LeaseId, key: Bytes) -> Result<(), NotFound> {
        self.table.attach(id, key)
    }
}

/// Loads the leases. Attachments are not stored: `apply` gives them back with
/// [`Loaded::attach`] from the live keys.
pub fn load(reader: &backend::Reader) -> Result<Loaded, OpenError> {
    let mut table = Table::default();
    for record in reader.scan(Bucket::Lease, &[], None) {
        let (key, value) = record?;
        let id = schema::lease::decode(&key)?;
        let message = api::leasepb::Lease::decode(value)
            .map_err(|source| OpenError::Decode { id, source })?;
        if message.id != id.0 {
            return Err(OpenError::Misplaced {
                id,
                found: LeaseId(message.id),
            });
        }
        let remaining = Some(message.remaining_ttl).filter(|left| *left > 0);
        table.insert(id, message.ttl, remaining);
    }
    Ok(Loaded { table })
}

/// Loads the leases; see [`load`].
pub fn open(
    reader: &backend::Reader,
    clock: Arc<dyn Clock>,
) -> Result<(Leases, Writer, Renewer), OpenError> {
    Ok(open_loaded(load(reader)?, clock))
}

/// The leases that were loaded.
#[must_use]
pub fn open_loaded(loaded: Loaded, clock: Arc<dyn Clock>) -> (Leases, Writer, Renewer) {
    let table = Arc::new(RwLock::new(loaded.table));
    let writer = Writer::new(Arc::clone(&table), Arc::clone(&clock));
    let renewer = Renewer::new(Arc::clone(&table), clock);
    (Leases { table }, writer, renewer)
}

impl Leases {
    /// One lease with its keys.
    #[must_use]
    pub fn get(&self, id: LeaseId) -> Option<Lease> {
        let table = self.table.read();
        let entry = table.get(id)?;
        let keys = entry.keys.iter().cloned().collect();
        Some(Lease {
            id,
            granted_ttl_s: entry.ttl_s,
            keys,
        })
    }

    /// The TTL that was granted to a lease, in seconds; cheaper than [`Leases::get`].
    #[must_use]
    pub fn granted_ttl_s(&self, id: LeaseId) -> Option<i64> {
        self.table.read().get(id).map(|entry| entry.ttl_s)
    }

    /// Every lease's id, oldest expiry first as far as this member knows: a member that does not
    /// lead knows none, and lists by id.
    #[must_use]
    pub fn list(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> = {
            let table = self.table.read();
            table
                .iter()
                .map(|(id, entry)| (entry.expiry.is_none(), entry.expiry, id))
                .collect()
        };
        leases.sort_unstable();
        leases.into_iter().map(|(_, _, id)| id).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;

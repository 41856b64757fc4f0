//! The replicated half: changes that come out of the log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use backend::{Batch, Bucket, schema};
use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message;
use types::{Clock, LeaseId};

use crate::renewer::{self, Extend};
use crate::table::Table;
use crate::{GrantError, Loaded, NotFound};

/// Changes leases. There is one; `apply` holds it. Changes show in [`crate::Leases`] at once.
pub struct Writer {
    table: Arc<RwLock<Table>>,
    /// Only for the leader-local half: a lease granted while this member leads begins to run.
    clock: Arc<dyn Clock>,
    /// What to store (the TTL and what is left of it) or remove (`None`) with the next batch.
    unstaged: BTreeMap<LeaseId, Option<(i64, i64)>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("unstaged", &self.unstaged)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(table: Arc<RwLock<Table>>, clock: Arc<dyn Clock>) -> Self {
        Self {
            table,
            clock,
            unstaged: BTreeMap::new(),
        }
    }

    /// Adds a lease.
    pub fn grant(&mut self, id: LeaseId, ttl_s: i64) -> Result<(), GrantError> {
        let mut table = self.table.write();
        if table.get(id).is_some() {
            return Err(GrantError::Exists);
        }
        table.insert(id, ttl_s, None);
        if table.is_primary() {
            let now = self.clock.now();
            let expiry = renewer::expiry(now, ttl_s, Extend::ZERO);
            renewer::run_until(&mut table, id, now, expiry);
        }
        self.unstaged.insert(id, Some((ttl_s, 0)));
        Ok(())
    }

    /// Notes what is left of a lease for whoever leads next; 0: its full TTL, as after a renewal.
    /// Nothing happens if there is no such lease: it may have been revoked.
    pub fn checkpoint(&mut self, id: LeaseId, remaining_s: i64) {
        let mut table = self.table.write();
        let Some(entry) = table.get_mut(id) else {
            return;
        };
        entry.remaining_s = Some(remaining_s).filter(|left| *left > 0);
        entry.is_checkpointing = false;
        self.unstaged
            .insert(id, Some((entry.ttl_s, remaining_s.max(0))));
    }

    /// Removes a lease and says which keys were attached to it, sorted.
    pub fn revoke(&mut self, id: LeaseId) -> Result<Vec<Bytes>, NotFound> {
        let entry = self.table.write().remove(id).ok_or(NotFound)?;
        self.unstaged.insert(id, None);
        Ok(entry.keys.into_iter().collect())
    }

    /// Whether there is such a lease.
    #[must_use]
    pub fn contains(&self, id: LeaseId) -> bool {
        self.table.read().get(id).is_some()
    }

    /// The keys attached to a lease, sorted; none if it is not there.
    #[must_use]
    pub fn keys(&self, id: LeaseId) -> Vec<Bytes> {
        let table = self.table.read();
        let keys = table.get(id).map(|entry| &entry.keys);
        keys.into_iter().flatten().cloned().collect()
    }

    /// Every lease's id.
    #[must_use]
    pub fn list(&self) -> Vec<LeaseId> {
        self.table.read().iter().map(|(id, _)| id).collect()
    }

    /// Attaches a key, and says whether there is such a lease to attach it to.
    pub fn attach(&mut self, id: LeaseId, key: Bytes) -> Result<(), NotFound> {
        self.table.write().attach(id, key)
    }

    /// Puts other leases in the place of these, with readers and all. No lease runs then: only a member
    /// that does not lead gets another's state.
    pub fn install(&mut self, loaded: Loaded) {
        *self.table.write() = loaded.table;
        self.unstaged.clear();
    }

    /// Everything is to be staged, not only what has changed.
    pub fn restage(&mut self) {
        let table = self.table.read();
        let leases = table.iter().map(|(id, entry)| {
            let remaining_s = entry.remaining_s.unwrap_or(0);
            (id, Some((entry.ttl_s, remaining_s)))
        });
        self.unstaged = leases.collect();
    }

    /// Detaches a key. Nothing happens if it is not attached: the lease may have been revoked.
    pub fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(entry) = self.table.write().get_mut(id) {
            entry.keys.remove(key);
        }
    }

    /// Whether [`Writer::stage`] would add something.
    #[must_use]
    pub fn has_unstaged(&self) -> bool {
        !self.unstaged.is_empty()
    }

    /// Adds to `batch` all that has changed since the last call.
    pub fn stage(&mut self, batch: &mut Batch) {
        for (id, stored) in std::mem::take(&mut self.unstaged) {
            let key = Bytes::copy_from_slice(&schema::lease::encode(id));
            match stored {
                Some((ttl, remaining_ttl)) => {
                    let message = api::leasepb::Lease {
                        id: id.0,
                        ttl,
                        remaining_ttl,
                    };
                    batch.put(Bucket::Lease, key, message.encode_to_vec());
                }
                None => batch.delete(Bucket::Lease, key),
            }
        }
    }
}

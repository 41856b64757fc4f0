//! The table both halves look at: one entry a lease, and the queues of what expires and of what is to
//! be checkpointed next.
//!
//! What this is not: it does not know what time it is. Whoever calls says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use types::LeaseId;

use crate::NotFound;

/// One lease.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The granted TTL. Replicated.
    pub(crate) ttl_s: i64,
    /// What was left of it at its last checkpoint, in seconds; `None`: all of it. Replicated.
    pub(crate) remaining_s: Option<i64>,
    /// The attached keys. Replicated.
    pub(crate) keys: BTreeSet<Bytes>,
    /// When it expires, on the leader; `None` elsewhere: never.
    pub(crate) expiry: Option<Instant>,
    /// Its place in the queue: when it expires, or when to offer it again if it already has.
    offer_at: Option<Instant>,
    /// Its place in the queue of checkpoints, on the leader.
    checkpoint_at: Option<Instant>,
    /// A checkpoint of it is on its way through the log, or was.
    pub(crate) is_checkpointing: bool,
}

impl Entry {
    /// What a new leader gives it.
    pub(crate) fn left_s(&self) -> i64 {
        self.remaining_s
            .map_or(self.ttl_s, |left| left.min(self.ttl_s))
    }
}

/// All leases. Every operation but iteration takes logarithmic time.
#[derive(Debug, Default)]
pub(crate) struct Table {
    leases: BTreeMap<LeaseId, Entry>,
    /// The expiry queue: exactly the leases that have an `offer_at`.
    queue: BTreeSet<(Instant, LeaseId)>,
    /// Exactly the leases that have a `checkpoint_at`.
    checkpoints: BTreeSet<(Instant, LeaseId)>,
    primary: bool,
}

impl Table {
    pub(crate) fn get(&self, id: LeaseId) -> Option<&Entry> {
        self.leases.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: LeaseId) -> Option<&mut Entry> {
        self.leases.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Entry)> {
        self.leases.iter().map(|(id, entry)| (*id, entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.primary
    }

    /// Adds a lease that is not there yet.
    pub(crate) fn insert(&mut self, id: LeaseId, ttl_s: i64, remaining_s: Option<i64>) {
        let entry = Entry {
            ttl_s,
            remaining_s,
            keys: BTreeSet::new(),
            expiry: None,
            offer_at: None,
            checkpoint_at: None,
            is_checkpointing: false,
        };
        let before = self.leases.insert(id, entry);
        debug_assert!(before.is_none(), "lease {id} was there already");
    }

    /// Attaches a key.
    pub(crate) fn attach(&mut self, id: LeaseId, key: Bytes) -> Result<(), NotFound> {
        let entry = self.leases.get_mut(&id).ok_or(NotFound)?;
        entry.keys.insert(key);
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Entry> {
        let entry = self.leases.remove(&id)?;
        if let Some(at) = entry.offer_at {
            let was_queued = self.queue.remove(&(at, id));
            debug_assert!(was_queued, "lease {id} was not in the queue");
        }
        if let Some(at) = entry.checkpoint_at {
            self.checkpoints.remove(&(at, id));
        }
        Some(entry)
    }

    /// Sets when a lease expires, and so its place in the queue.
    pub(crate) fn expire_at(&mut self, id: LeaseId, expiry: Instant) {
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.expiry = Some(expiry);
        }
        self.offer_at(id, expiry);
    }

    fn offer_at(&mut self, id: LeaseId, at: Instant) {
        let Some(entry) = self.leases.get_mut(&id) else {
            return;
        };
        if let Some(before) = entry.offer_at.replace(at) {
            self.queue.remove(&(before, id));
        }
        self.queue.insert((at, id));
    }

    /// Whether [`Table::next_expired`] would return one.
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.queue.first().is_some_and(|(at, _)| *at <= now)
    }

    /// The next lease to offer, if its time has come; it goes back into the queue at `again_at`.
    pub(crate) fn next_expired(&mut self, now: Instant, again_at: Instant) -> Option<LeaseId> {
        debug_assert!(now < again_at, "a lease must not be offered twice at once");
        let &(at, id) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.offer_at(id, again_at);
        Some(id)
    }

    /// Sets when a lease is to be checkpointed, if at all.
    pub(crate) fn checkpoint_at(&mut self, id: LeaseId, at: Option<Instant>) {
        let Some(entry) = self.leases.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut entry.checkpoint_at, at) {
            self.checkpoints.remove(&(before, id));
        }
        self.checkpoints.extend(at.map(|at| (at, id)));
    }

    /// Whether [`Table::next_checkpoint`] would return one.
    pub(crate) fn has_checkpoint(&self, now: Instant) -> bool {
        self.checkpoints.first().is_some_and(|(at, _)| *at <= now)
    }

    /// The next lease to checkpoint, if its time has come.
    pub(crate) fn next_checkpoint(&mut self, now: Instant) -> Option<LeaseId> {
        let (_, id) = self.checkpoints.first().filter(|(at, _)| *at <= now)?;
        Some(*id)
    }

    pub(crate) fn promote(&mut self) {
        self.primary = true;
    }

    /// Forgets every expiry.
    pub(crate) fn demote(&mut self) {
        self.primary = false;
        self.queue.clear();
        self.checkpoints.clear();
        for entry in self.leases.values_mut() {
            entry.expiry = None;
            entry.offer_at = None;
            entry.checkpoint_at = None;
            entry.is_checkpointing = false;
        }
    }
}

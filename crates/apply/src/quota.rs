//! How much may be stored, and how much is (`server/storage/quota.go`).
//!
//! What is counted is what etcd counts: the pages that a store of its kind would have been allocated
//! (`mvcc::Store::size`), which fall when the store is written anew. They are each member's own, as
//! the quota is, so no command is refused for them here: what is in the log is carried out. Whoever
//! proposes asks [`Room`] before; and a member that applies what does not fit its own quota notes it
//! there, so that it raises the alarm in its own name, through the log. The alarm then refuses, on all
//! members alike.
//!
//! [`Usage`] is another thing: the bytes of the live keys, stored with the state, by which a state that
//! was received or opened is checked.
//!
//! What this is not: the size of anything on the disk; `Persister::size_on_disk` is that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::internalpb as pb;

use crate::{Command, Op, Put, PutValue, Txn};

/// How much may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// So many bytes; above it writes are refused and NOSPACE is raised.
    Bytes(u64),
    /// Whatever the disk holds.
    Unlimited,
}

/// What etcd charges for a key-value beside its key and value, before it is written.
const KV_OVERHEAD: u64 = 256;
/// What etcd charges for a lease.
const LEASE_OVERHEAD: u64 = 64;
/// What a version takes beside its key and value once it is there.
const VERSION_OVERHEAD: u64 = 64;

/// What a command is charged; 0 if it cannot add anything.
pub(crate) fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => cost_of_put(put),
        Command::Txn(txn) => cost_of_txn(txn),
        Command::LeaseGrant { .. } => LEASE_OVERHEAD,
        _ => 0,
    }
}

fn cost_of_put(put: &Put) -> u64 {
    let value = match &put.value {
        PutValue::New(value) => value.len(),
        PutValue::Keep => 0,
    };
    KV_OVERHEAD + (put.key.len() + value) as u64
}

/// The dearer branch, whichever will run. Nested transactions count, as they do in etcd from 3.5.33
/// on; before that a transaction could hide its puts in another one.
fn cost_of_txn(txn: &Txn) -> u64 {
    let branch = |ops: &[Op]| -> u64 {
        ops.iter()
            .map(|op| match op {
                Op::Put(put) => cost_of_put(put),
                Op::Txn(txn) => cost_of_txn(txn),
                Op::Range(_) | Op::DeleteRange(_) => 0,
            })
            .sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

impl Quota {
    /// Whether it lets `cost` more bytes in where there are `bytes`.
    fn fits(self, bytes: u64, cost: u64) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Bytes(max) => cost == 0 || bytes.saturating_add(cost) < max,
        }
    }

    /// Whether `bytes` leave a tenth of it.
    fn is_roomy(self, bytes: u64) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Bytes(max) => bytes < max - max / 10,
        }
    }
}

/// What this member's quota leaves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    shared: Arc<SharedRoom>,
}

#[derive(Debug)]
struct SharedRoom {
    quota: Quota,
    store: mvcc::Store,
    is_exceeded: AtomicBool,
}

impl Room {
    pub(crate) fn new(quota: Quota, store: mvcc::Store) -> Self {
        let shared = SharedRoom {
            quota,
            store,
            is_exceeded: false.into(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether the command fits in now. What is on its way is not counted, as in etcd: so much may
    /// come on top of the quota.
    #[must_use]
    pub fn is_for(&self, command: &Command) -> bool {
        let bytes = self.shared.store.size();
        self.shared.quota.fits(bytes, cost(command))
    }

    /// Whether a command has been applied that did not fit, since this was asked last.
    #[must_use]
    pub fn take_exceeded(&self) -> bool {
        self.shared.is_exceeded.swap(false, Ordering::Relaxed)
    }

    /// Whether so little is in use that writes would fit again once the store is written anew.
    #[must_use]
    pub fn is_worth_defragmenting(&self) -> bool {
        let store = &self.shared.store;
        !self.shared.quota.is_roomy(store.size()) && self.shared.quota.is_roomy(store.size_in_use())
    }

    /// Whether there is clearly room again, and not only for the next write.
    #[must_use]
    pub fn is_back(&self) -> bool {
        self.shared.quota.is_roomy(self.shared.store.size())
    }

    /// Notes a command that is applied where there are `bytes`.
    pub(crate) fn note(&self, bytes: u64, cost: u64) {
        if !self.shared.quota.fits(bytes, cost) {
            self.shared.is_exceeded.store(true, Ordering::Relaxed);
        }
    }
}

/// Bytes that the newest versions of all keys take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    live: u64,
}

/// Bytes of one version.
pub(crate) fn version_bytes(key: &[u8], value: &[u8]) -> u64 {
    VERSION_OVERHEAD + (key.len() + value.len()) as u64
}

impl Usage {
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// A version was written.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.live += bytes;
    }

    /// A version was superseded by another one or by a deletion.
    pub(crate) fn remove(&mut self, bytes: u64) {
        debug_assert!(
            bytes <= self.live,
            "{bytes} bytes removed of {} that live",
            self.live
        );
        self.live = self.live.saturating_sub(bytes);
    }

    /// As it is stored.
    pub(crate) fn to_message(&self) -> pb::Usage {
        pb::Usage { live: self.live }
    }

    pub(crate) fn from_message(message: pb::Usage) -> Self {
        Self { live: message.live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_txn_costs_its_dearer_branch_with_what_nests_in_it() {
        let put = |len: usize| {
            Op::Put(Put {
                key: "k".into(),
                value: PutValue::New(vec![0; len].into()),
                lease: crate::PutLease::Detach,
                prev_kv: false,
            })
        };
        let nested = Txn {
            success: vec![put(1000)],
            ..Txn::default()
        };
        let txn = Txn {
            success: vec![put(10)],
            failure: vec![Op::Txn(nested)],
            compare: vec![],
        };
        assert_eq!(cost_of_txn(&txn), 256 + 1 + 1000);
    }
}

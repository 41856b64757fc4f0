//! How much may be stored, and how much is (`server/storage/quota.go`).
//!
//! Usage is the same on every member and in every replay, so it is not about files: [`Usage`] counts
//! what the log has put into the store, version by version, and what compactions have taken out
//! again. It is stored with the state. The quota is each member's own, so no command is refused for
//! it here: what is in the log is carried out. Whoever proposes asks [`Room`] before; and a member
//! that applies what does not fit its own quota notes it there, so that it raises the alarm in its own
//! name, through the log. The alarm then refuses, on all members alike.
//!
//! What this is not: the size of anything on the disk; `Persister::size_on_disk` is that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
/// Superseded versions are counted together for so many revisions, and go together when all of
/// these are compacted.
const REVISIONS_PER_BUCKET: i64 = 4096;

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
}

/// What this member's quota leaves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    shared: Arc<SharedRoom>,
}

#[derive(Debug)]
struct SharedRoom {
    quota: Quota,
    /// The usage that readers see.
    bytes: AtomicU64,
    is_exceeded: AtomicBool,
}

impl Room {
    pub(crate) fn new(quota: Quota, usage: &Usage) -> Self {
        let shared = SharedRoom {
            quota,
            bytes: usage.bytes().into(),
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
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        self.shared.quota.fits(bytes, cost(command))
    }

    /// Whether a command has been applied that did not fit, since this was asked last.
    #[must_use]
    pub fn take_exceeded(&self) -> bool {
        self.shared.is_exceeded.swap(false, Ordering::Relaxed)
    }

    /// Notes a command that is applied.
    pub(crate) fn note(&self, usage: &Usage, cost: u64) {
        if !self.shared.quota.fits(usage.bytes(), cost) {
            self.shared.is_exceeded.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn publish(&self, usage: &Usage) {
        self.shared.bytes.store(usage.bytes(), Ordering::Relaxed);
    }
}

/// Bytes that all versions of all keys take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The newest version of each key.
    live: u64,
    /// The others, by the revision that superseded them, in buckets of [`REVISIONS_PER_BUCKET`].
    superseded: BTreeMap<i64, u64>,
    /// The sum of `superseded`.
    superseded_sum: u64,
}

/// Bytes of one version.
pub(crate) fn version_bytes(key: &[u8], value: &[u8]) -> u64 {
    VERSION_OVERHEAD + (key.len() + value.len()) as u64
}

impl Usage {
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.live + self.superseded_sum
    }

    /// A version was written.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.live += bytes;
    }

    /// A version was superseded by another one or by a deletion at `revision`.
    pub(crate) fn supersede(&mut self, bytes: u64, revision: i64) {
        debug_assert!(
            bytes <= self.live,
            "{bytes} bytes superseded of {} that live",
            self.live
        );
        self.live = self.live.saturating_sub(bytes);
        self.add_superseded(bytes, revision);
    }

    /// A deletion itself takes room in history, until it is compacted.
    pub(crate) fn add_superseded(&mut self, bytes: u64, revision: i64) {
        self.add_superseded_in(Self::bucket(revision), bytes);
    }

    /// Which superseded versions this one is counted with.
    pub(crate) fn bucket(revision: i64) -> i64 {
        revision / REVISIONS_PER_BUCKET
    }

    /// The same, where the bucket is known.
    pub(crate) fn add_superseded_in(&mut self, bucket: i64, bytes: u64) {
        if bytes > 0 {
            *self.superseded.entry(bucket).or_default() += bytes;
            self.superseded_sum += bytes;
        }
    }

    /// History up to `revision` is gone.
    pub(crate) fn compact(&mut self, revision: i64) {
        let kept = self
            .superseded
            .split_off(&((revision + 1) / REVISIONS_PER_BUCKET));
        let gone = std::mem::replace(&mut self.superseded, kept);
        self.superseded_sum -= gone.values().sum::<u64>();
    }

    /// As it is stored.
    pub(crate) fn to_message(&self) -> pb::Usage {
        let superseded = self.superseded.iter();
        let superseded = superseded
            .map(|(&bucket, &bytes)| pb::usage::Superseded { bucket, bytes })
            .collect();
        pb::Usage {
            live: self.live,
            superseded,
        }
    }

    pub(crate) fn from_message(message: pb::Usage) -> Self {
        let superseded: BTreeMap<i64, u64> = message
            .superseded
            .into_iter()
            .map(|entry| (entry.bucket, entry.bytes))
            .collect();
        let superseded_sum = superseded.values().sum();
        Self {
            live: message.live,
            superseded,
            superseded_sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_frees_what_was_superseded_before_it() {
        let mut usage = Usage::default();
        usage.add(100);
        usage.add(100);
        usage.supersede(100, 3);
        usage.add_superseded(70, 3);
        assert_eq!(usage.bytes(), 270);
        usage.compact(REVISIONS_PER_BUCKET - 2);
        assert_eq!(usage.bytes(), 270, "the bucket is not over yet");
        usage.compact(REVISIONS_PER_BUCKET - 1);
        assert_eq!(usage.bytes(), 100);
        assert_eq!(Usage::from_message(usage.to_message()), usage);
    }

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

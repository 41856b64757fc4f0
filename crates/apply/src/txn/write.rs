//! The writing operations, alone or inside a transaction.

use bytes::Bytes;
use mvcc::{RangeError, StoredKv, WriteTxn};

use super::compare::Branch;
use super::range::execute_range;
use crate::quota::{Usage, version_bytes};
use crate::{
    DeleteRange, DeleteRangeReply, Op, OpReply, Put, PutLease, PutReply, PutValue, TxnReply,
};

/// Everything an operation may change.
pub(crate) struct Target<'a, 'w> {
    pub(crate) txn: &'a mut WriteTxn<'w>,
    pub(crate) leases: &'a mut lease::Writer,
    pub(crate) usage: &'a mut Usage,
}

impl Target<'_, '_> {
    /// Carries out a branch that has passed all checks.
    pub(crate) fn execute(&mut self, branch: &Branch<'_>) -> Result<TxnReply, RangeError> {
        let mut nested = branch.nested.iter();
        let mut responses = Vec::with_capacity(branch.ops.len());
        for op in branch.ops {
            responses.push(match op {
                Op::Range(op) => {
                    let reply = execute_range(self.txn, op)?;
                    (self.txn.revision(), OpReply::Range(reply))
                }
                Op::Put(op) => {
                    let reply = self.put(op);
                    (self.txn.revision(), OpReply::Put(reply))
                }
                Op::DeleteRange(op) => {
                    let reply = self.delete_range(op);
                    (self.txn.revision(), OpReply::DeleteRange(reply))
                }
                Op::Txn(_) => {
                    let branch = nested
                        .next()
                        .expect("there is a branch for every nested txn");
                    // etcd leaves the header of a nested answer empty.
                    (0, OpReply::Txn(self.execute(branch)?))
                }
            });
        }
        Ok(TxnReply {
            succeeded: branch.succeeded,
            responses,
        })
    }

    pub(crate) fn put(&mut self, put: &Put) -> PutReply {
        let keeps = put.value == PutValue::Keep || put.lease == PutLease::Keep;
        let kept = if keeps { self.txn.get(&put.key) } else { None };
        // The checks have seen to it that there is a key to keep from; they look at the store before
        // the transaction, and no valid transaction deletes what it puts. Should one do so after
        // all, nothing is kept: the same on every member.
        let value = match &put.value {
            PutValue::New(value) => value,
            PutValue::Keep => kept.as_ref().map_or(&[][..], StoredKv::value),
        };
        let lease = match put.lease {
            PutLease::Detach => None,
            PutLease::Attach(id) => Some(id),
            PutLease::Keep => kept.as_ref().and_then(StoredKv::lease),
        };
        self.usage.add(version_bytes(&put.key, value));
        let prev = self.txn.put(mvcc::Put {
            key: &put.key,
            value,
            lease,
        });
        if let Some(prev) = &prev {
            self.usage.remove(version_bytes(prev.key(), prev.value()));
        }
        let attached = prev.as_ref().and_then(StoredKv::lease);
        if attached != lease {
            self.attach(put, attached, lease);
        }
        PutReply {
            prev_kv: prev.filter(|_| put.prev_kv),
        }
    }

    fn attach(&mut self, put: &Put, before: Option<types::LeaseId>, now: Option<types::LeaseId>) {
        if let Some(id) = before {
            self.leases.detach(id, &put.key);
        }
        let Some(id) = now else { return };
        // A copy, because the key is part of the log entry, and would keep all of it in memory.
        let key = Bytes::copy_from_slice(&put.key);
        if let Err(lease::NotFound) = self.leases.attach(id, key) {
            tracing::error!(lease = %id, "a key was put with a lease that is not there");
        }
    }

    pub(crate) fn delete_range(&mut self, delete: &DeleteRange) -> DeleteRangeReply {
        let deleted = self.txn.delete_range(&delete.keys);
        for kv in deleted.iter().map(|deleted| &deleted.prev) {
            self.usage.remove(version_bytes(kv.key(), kv.value()));
            if let Some(id) = kv.lease() {
                self.leases.detach(id, kv.key());
            }
        }
        let count = deleted.len();
        let prev_kvs = match delete.prev_kv {
            true => deleted.into_iter().map(|deleted| deleted.prev).collect(),
            false => Vec::new(),
        };
        DeleteRangeReply {
            deleted: count,
            prev_kvs,
        }
    }
}

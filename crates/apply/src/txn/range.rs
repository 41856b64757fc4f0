//! Ranges as clients ask for them: filtered, sorted, cut (`server/etcdserver/txn/range.go`).
//!
//! The same code answers a range outside the log and one inside a transaction.

mod pdqsort;

use std::cmp::Ordering;

use mvcc::{RangeError, RangeResult, ReadView, StoredKv, WriteTxn};
use types::KeyRange;

use crate::{RangeOp, RangeReply, SortOrder, SortTarget};

/// What can be read: a [`ReadView`], or a [`WriteTxn`] that shows its own changes.
pub trait RangeSource {
    /// Reads a range.
    fn range(&self, range: &mvcc::Range) -> Result<RangeResult, RangeError>;

    /// The newest version of one key.
    fn newest(&self, key: &bytes::Bytes) -> Result<Option<StoredKv>, RangeError> {
        let keys = KeyRange::Single(key.clone());
        let range = mvcc::Range {
            keys,
            at: None,
            limit: None,
            count_only: false,
        };
        Ok(self.range(&range)?.kvs.pop())
    }
}

impl RangeSource for ReadView {
    fn range(&self, range: &mvcc::Range) -> Result<RangeResult, RangeError> {
        Self::range(self, range)
    }
}

impl RangeSource for WriteTxn<'_> {
    fn range(&self, range: &mvcc::Range) -> Result<RangeResult, RangeError> {
        Self::range(self, range)
    }

    fn newest(&self, key: &bytes::Bytes) -> Result<Option<StoredKv>, RangeError> {
        Ok(self.get(key))
    }
}

/// Answers a range. `count` is the number of keys in it, whatever filters and limit leave of them.
///
/// A revision that is not positive stands for the current one, and a limit of 0 for none.
pub fn execute_range(source: &impl RangeSource, op: &RangeOp) -> Result<RangeReply, RangeError> {
    let limit = op.limit.filter(|&limit| limit > 0);
    // With an order or a filter everything has to be looked at. With a target but no order it does
    // not, although the answer is sorted then: etcd takes the first keys and sorts those.
    let looks_at_all = op.sort_order != SortOrder::None || has_filters(op);
    let range = mvcc::Range {
        keys: op.keys.clone(),
        at: op.at.filter(|&revision| revision > 0),
        // One more than asked for says whether there are more.
        limit: if looks_at_all {
            None
        } else {
            limit.map(|limit| limit.saturating_add(1))
        },
        count_only: op.count_only,
    };
    let RangeResult { mut kvs, count } = source.range(&range)?;
    if has_filters(op) {
        kvs.retain(|kv| passes_filters(op, kv));
    }
    sort(&mut kvs, op.sort_target, op.sort_order);
    let more = limit.is_some_and(|limit| kvs.len() > limit);
    if let Some(limit) = limit {
        kvs.truncate(limit);
    }
    Ok(RangeReply {
        kvs,
        keys_only: op.keys_only,
        more,
        count,
    })
}

/// 0 is no filter, as on the wire.
fn filter(revision: Option<i64>) -> Option<i64> {
    revision.filter(|&revision| revision != 0)
}

fn has_filters(op: &RangeOp) -> bool {
    [
        op.min_mod_revision,
        op.max_mod_revision,
        op.min_create_revision,
        op.max_create_revision,
    ]
    .into_iter()
    .any(|revision| filter(revision).is_some())
}

fn passes_filters(op: &RangeOp, kv: &StoredKv) -> bool {
    let (modified, created) = (kv.mod_revision().main, kv.create_revision());
    filter(op.min_mod_revision).is_none_or(|min| modified >= min)
        && filter(op.max_mod_revision).is_none_or(|max| modified <= max)
        && filter(op.min_create_revision).is_none_or(|min| created >= min)
        && filter(op.max_create_revision).is_none_or(|max| created <= max)
}

/// Sorts what came in key order, and leaves equals in the order in which etcd leaves them.
fn sort(kvs: &mut Vec<StoredKv>, target: SortTarget, order: SortOrder) {
    match (target, order) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => {}
        // Keys have no equals.
        (SortTarget::Key, SortOrder::Descend) => kvs.reverse(),
        (_, SortOrder::None | SortOrder::Ascend) => {
            let less = |i: usize, j: usize| compare(&kvs[i], &kvs[j], target).is_lt();
            *kvs = pick(kvs, &pdqsort::order(kvs.len(), less));
        }
        (_, SortOrder::Descend) => {
            let less = |i: usize, j: usize| compare(&kvs[j], &kvs[i], target).is_lt();
            *kvs = pick(kvs, &pdqsort::order(kvs.len(), less));
        }
    }
}

fn compare(a: &StoredKv, b: &StoredKv, target: SortTarget) -> Ordering {
    match target {
        SortTarget::Key => a.key().cmp(b.key()),
        SortTarget::Version => a.version().cmp(&b.version()),
        SortTarget::Create => a.create_revision().cmp(&b.create_revision()),
        SortTarget::Mod => a.mod_revision().main.cmp(&b.mod_revision().main),
        SortTarget::Value => a.value().cmp(b.value()),
    }
}

fn pick(kvs: &[StoredKv], order: &[usize]) -> Vec<StoredKv> {
    order.iter().map(|&place| kvs[place].clone()).collect()
}

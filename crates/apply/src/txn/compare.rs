//! Compares, and the branches they choose.

use std::cmp::Ordering;

use mvcc::{RangeError, StoredKv};
use types::KeyRange;

use super::range::RangeSource;
use crate::{Compare, CompareOperator, CompareTarget, Op, Txn};

/// The branch of a transaction that runs, and of those nested in it.
#[derive(Debug)]
pub(crate) struct Branch<'t> {
    pub(crate) succeeded: bool,
    pub(crate) ops: &'t [Op],
    /// One for each [`Op::Txn`] of `ops`, in order.
    pub(crate) nested: Vec<Branch<'t>>,
}

impl<'t> Branch<'t> {
    /// Evaluates the compares of the transaction and, in the branch they choose, of those nested
    /// in it. All of them see the same store.
    pub(crate) fn choose(source: &impl RangeSource, txn: &'t Txn) -> Result<Self, RangeError> {
        let succeeded = all_hold(source, &txn.compare)?;
        let ops = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let mut nested = Vec::new();
        for op in ops {
            if let Op::Txn(txn) = op {
                nested.push(Self::choose(source, txn)?);
            }
        }
        Ok(Self {
            succeeded,
            ops,
            nested,
        })
    }
}

fn all_hold(source: &impl RangeSource, compares: &[Compare]) -> Result<bool, RangeError> {
    for compare in compares {
        if !holds(source, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a compare holds for every key of its range. Where there is no key at all, numbers are
/// compared with 0, and a value with nothing: that never holds, whatever the operator.
fn holds(source: &impl RangeSource, compare: &Compare) -> Result<bool, RangeError> {
    if let KeyRange::Single(key) = &compare.keys {
        return Ok(match source.newest(key)? {
            Some(kv) => holds_for(compare, &kv),
            None => holds_for_nothing(compare),
        });
    }
    let range = mvcc::Range {
        keys: compare.keys.clone(),
        at: None,
        limit: None,
        count_only: false,
    };
    let kvs = source.range(&range)?.kvs;
    if kvs.is_empty() {
        return Ok(holds_for_nothing(compare));
    }
    Ok(kvs.iter().all(|kv| holds_for(compare, kv)))
}

fn holds_for(compare: &Compare, kv: &StoredKv) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => kv.version().cmp(version),
        CompareTarget::Create(revision) => kv.create_revision().cmp(revision),
        CompareTarget::Mod(revision) => kv.mod_revision().main.cmp(revision),
        CompareTarget::Value(value) => kv.value().cmp(value.as_ref()),
        CompareTarget::Lease(lease) => kv.lease().map_or(0, |id| id.0).cmp(lease),
    };
    matches(compare.operator, ordering)
}

fn holds_for_nothing(compare: &Compare) -> bool {
    match &compare.target {
        CompareTarget::Value(_) => false,
        CompareTarget::Version(number)
        | CompareTarget::Create(number)
        | CompareTarget::Mod(number)
        | CompareTarget::Lease(number) => matches(compare.operator, 0.cmp(number)),
    }
}

fn matches(operator: CompareOperator, ordering: Ordering) -> bool {
    match operator {
        CompareOperator::Equal => ordering.is_eq(),
        CompareOperator::Greater => ordering.is_gt(),
        CompareOperator::Less => ordering.is_lt(),
        CompareOperator::NotEqual => ordering.is_ne(),
    }
}

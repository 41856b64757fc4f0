//! Where protobuf stops: requests become commands, in etcd's order of checks
//! (`server/etcdserver/api/v3rpc/key.go`), or are refused with etcd's errors.
//!
//! What this is not: anything that needs the store. Whether a lease or a revision exists is decided
//! when the command is applied.

use std::collections::HashSet;

use api::encoded::etcdserverpb::compare::{
    CompareResult, CompareTarget as WireTarget, TargetUnion as WireValue,
};
use api::encoded::etcdserverpb::range_request::{SortOrder as WireOrder, SortTarget as WireSort};
use api::encoded::etcdserverpb::request_op::Request as WireOp;
use api::encoded::etcdserverpb::{
    Compare as WireCompare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use api::rpctypes::ErrorCode;
use apply::{
    Compare, CompareOperator, CompareTarget, DeleteRange, Op, Put, PutLease, PutValue, RangeOp,
    SortOrder, SortTarget, Txn,
};
use bytes::Bytes;
use types::{KeyRange, LeaseId};

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Everything that was committed before the request shows.
    Linearizable,
    /// Whatever this member has.
    Serializable,
}

/// What has to happen to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TxnAccess {
    /// It is read here, not logged.
    Read(Consistency),
    /// It goes through the log.
    Write,
}

/// Checks a range.
pub(crate) fn range(request: RangeRequest) -> Result<(RangeOp, Consistency), ErrorCode> {
    if request.key.is_empty() {
        return Err(ErrorCode::EmptyKey);
    }
    let sort_order = sort_order(request.sort_order)?;
    let sort_target = sort_target(request.sort_target)?;
    let consistency = consistency(&request);
    let range = RangeOp {
        keys: KeyRange::from_wire(request.key, request.range_end),
        at: not_zero(request.revision),
        limit: usize::try_from(request.limit)
            .ok()
            .filter(|&limit| limit > 0),
        sort_target,
        sort_order,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: not_zero(request.min_mod_revision),
        max_mod_revision: not_zero(request.max_mod_revision),
        min_create_revision: not_zero(request.min_create_revision),
        max_create_revision: not_zero(request.max_create_revision),
    };
    Ok((range, consistency))
}

/// Checks a put.
pub(crate) fn put(request: PutRequest) -> Result<Put, ErrorCode> {
    if request.key.is_empty() {
        return Err(ErrorCode::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ErrorCode::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ErrorCode::LeaseProvided);
    }
    let value = if request.ignore_value {
        PutValue::Keep
    } else {
        PutValue::New(request.value)
    };
    let lease = match request.lease {
        _ if request.ignore_lease => PutLease::Keep,
        0 => PutLease::Detach,
        id => PutLease::Attach(LeaseId(id)),
    };
    Ok(Put {
        key: request.key,
        value,
        lease,
        prev_kv: request.prev_kv,
    })
}

/// Checks a delete.
pub(crate) fn delete_range(request: DeleteRangeRequest) -> Result<DeleteRange, ErrorCode> {
    if request.key.is_empty() {
        return Err(ErrorCode::EmptyKey);
    }
    let keys = KeyRange::from_wire(request.key, request.range_end);
    Ok(DeleteRange {
        keys,
        prev_kv: request.prev_kv,
    })
}

/// Checks a transaction: first every request in it, then whether its writes are apart.
pub(crate) fn txn(request: TxnRequest, ops_max: usize) -> Result<(Txn, TxnAccess), ErrorCode> {
    let access = txn_access(&request);
    let txn = checked_txn(request, ops_max)?;
    check_intervals(&txn.success)?;
    check_intervals(&txn.failure)?;
    Ok((txn, access))
}

fn checked_txn(request: TxnRequest, ops_max: usize) -> Result<Txn, ErrorCode> {
    let ops = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(ops_left) = ops_max.checked_sub(ops) else {
        return Err(ErrorCode::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(ErrorCode::EmptyKey);
    }
    let compare = request.compare.into_iter().map(compare).collect();
    let checked = |ops: Vec<RequestOp>| -> Result<Vec<Op>, ErrorCode> {
        ops.into_iter().map(|it| op(it, ops_left)).collect()
    };
    Ok(Txn {
        compare,
        success: checked(request.success)?,
        failure: checked(request.failure)?,
    })
}

fn op(op: RequestOp, ops_max: usize) -> Result<Op, ErrorCode> {
    Ok(match op.request {
        Some(WireOp::RequestRange(request)) => Op::Range(range(request)?.0),
        Some(WireOp::RequestPut(request)) => Op::Put(put(request)?),
        Some(WireOp::RequestDeleteRange(request)) => Op::DeleteRange(delete_range(request)?),
        Some(WireOp::RequestTxn(request)) => Op::Txn(checked_txn(request, ops_max)?),
        // etcd's answer to an operation that is none.
        None => return Err(ErrorCode::KeyNotFound),
    })
}

/// A transaction is read where it is only if it has ranges and nothing else, not even transactions.
fn txn_access(request: &TxnRequest) -> TxnAccess {
    let mut strictest = Consistency::Serializable;
    for op in request.success.iter().chain(&request.failure) {
        let Some(WireOp::RequestRange(range)) = &op.request else {
            return TxnAccess::Write;
        };
        if consistency(range) == Consistency::Linearizable {
            strictest = Consistency::Linearizable;
        }
    }
    TxnAccess::Read(strictest)
}

fn consistency(request: &RangeRequest) -> Consistency {
    if request.serializable {
        Consistency::Serializable
    } else {
        Consistency::Linearizable
    }
}

fn not_zero(revision: i64) -> Option<i64> {
    Some(revision).filter(|&revision| revision != 0)
}

fn sort_order(order: i32) -> Result<SortOrder, ErrorCode> {
    match WireOrder::try_from(order) {
        Ok(WireOrder::None) => Ok(SortOrder::None),
        Ok(WireOrder::Ascend) => Ok(SortOrder::Ascend),
        Ok(WireOrder::Descend) => Ok(SortOrder::Descend),
        Err(_) => Err(ErrorCode::InvalidSortOption),
    }
}

fn sort_target(target: i32) -> Result<SortTarget, ErrorCode> {
    match WireSort::try_from(target) {
        Ok(WireSort::Key) => Ok(SortTarget::Key),
        Ok(WireSort::Version) => Ok(SortTarget::Version),
        Ok(WireSort::Create) => Ok(SortTarget::Create),
        Ok(WireSort::Mod) => Ok(SortTarget::Mod),
        Ok(WireSort::Value) => Ok(SortTarget::Value),
        Err(_) => Err(ErrorCode::InvalidSortOption),
    }
}

/// The condition. One that always holds is one all the same: its keys have to be readable.
///
/// etcd does not check the enums of a compare: with a target it does not know everything is equal,
/// and with a result it does not know every existing key fits. A value of another target than the
/// one that is named counts as none.
fn compare(request: WireCompare) -> Compare {
    let target = match WireTarget::try_from(request.target) {
        Ok(target) => Some(compare_target(target, request.target_union)),
        Err(_) => None,
    };
    let operator = match CompareResult::try_from(request.result) {
        Ok(CompareResult::Equal) => Some(CompareOperator::Equal),
        Ok(CompareResult::Greater) => Some(CompareOperator::Greater),
        Ok(CompareResult::Less) => Some(CompareOperator::Less),
        Ok(CompareResult::NotEqual) => Some(CompareOperator::NotEqual),
        Err(_) => None,
    };
    let (operator, target) = match (operator, target) {
        (Some(operator), Some(target)) => (operator, target),
        // A missing key has no value, whatever it is compared with.
        (None, Some(CompareTarget::Value(_))) => {
            (CompareOperator::Greater, CompareTarget::Version(0))
        }
        // No version is below 0: always true.
        (None, _) | (Some(CompareOperator::Equal), None) => {
            (CompareOperator::Greater, CompareTarget::Version(-1))
        }
        // Equal things are neither greater, nor less, nor not equal: never true.
        (Some(_), None) => (CompareOperator::Less, CompareTarget::Version(0)),
    };
    Compare {
        keys: KeyRange::from_wire(request.key, request.range_end),
        operator,
        target,
    }
}

fn compare_target(target: WireTarget, value: Option<WireValue>) -> CompareTarget {
    match (target, value) {
        (WireTarget::Version, Some(WireValue::Version(version))) => CompareTarget::Version(version),
        (WireTarget::Version, _) => CompareTarget::Version(0),
        (WireTarget::Create, Some(WireValue::CreateRevision(it))) => CompareTarget::Create(it),
        (WireTarget::Create, _) => CompareTarget::Create(0),
        (WireTarget::Mod, Some(WireValue::ModRevision(revision))) => CompareTarget::Mod(revision),
        (WireTarget::Mod, _) => CompareTarget::Mod(0),
        (WireTarget::Value, Some(WireValue::Value(value))) => CompareTarget::Value(value),
        (WireTarget::Value, _) => CompareTarget::Value(Bytes::new()),
        (WireTarget::Lease, Some(WireValue::Lease(lease))) => CompareTarget::Lease(lease),
        (WireTarget::Lease, _) => CompareTarget::Lease(0),
    }
}

/// The writes of a list of operations, nested ones included.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Adds a put, unless a put or delete of the same key is there already.
    fn add_put(&mut self, key: &'a [u8]) -> Result<(), ErrorCode> {
        if self.deletes(key) || !self.puts.insert(key) {
            return Err(ErrorCode::DuplicateKey);
        }
        Ok(())
    }

    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes
            .iter()
            .any(|range| deletes_for_etcd(range, key))
    }
}

/// Whether etcd's check sees `key` in a deleted range. It takes an end of one zero byte for a key,
/// so that a delete without end is apart from everything.
fn deletes_for_etcd(range: &KeyRange, key: &[u8]) -> bool {
    match range {
        KeyRange::From(_) => false,
        KeyRange::Single(_) | KeyRange::Range { .. } => range.contains(key),
    }
}

/// Refuses two puts of one key and a put of a key that is deleted, where both may happen: the two
/// branches of a nested transaction exclude each other.
fn check_intervals(ops: &[Op]) -> Result<Writes<'_>, ErrorCode> {
    let mut writes = Writes::default();
    writes.deletes.extend(ops.iter().filter_map(|op| match op {
        Op::DeleteRange(delete) => Some(&delete.keys),
        _ => None,
    }));
    for op in ops {
        let Op::Txn(nested) = op else { continue };
        let success = check_intervals(&nested.success)?;
        let failure = check_intervals(&nested.failure)?;
        for key in &success.puts {
            writes.add_put(key)?;
        }
        for key in &failure.puts {
            if !success.puts.contains(key) {
                writes.add_put(key)?;
            } else if writes.deletes(key) {
                return Err(ErrorCode::DuplicateKey);
            }
        }
        writes.deletes.extend(success.deletes);
        writes.deletes.extend(failure.deletes);
    }
    for op in ops {
        if let Op::Put(put) = op {
            writes.add_put(&put.key)?;
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests;

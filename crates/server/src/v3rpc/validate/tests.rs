//! The order of checks, and what etcd lets pass.

use super::*;

fn put_of(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn put_op(key: &str) -> RequestOp {
    RequestOp {
        request: Some(WireOp::RequestPut(put_of(key))),
    }
}

fn delete_op(key: &str, end: &str) -> RequestOp {
    let request = DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    };
    RequestOp {
        request: Some(WireOp::RequestDeleteRange(request)),
    }
}

fn range_op(key: &str, serializable: bool) -> RequestOp {
    let request = RangeRequest {
        key: key.to_owned().into(),
        serializable,
        ..Default::default()
    };
    RequestOp {
        request: Some(WireOp::RequestRange(request)),
    }
}

fn txn_op(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    RequestOp {
        request: Some(WireOp::RequestTxn(txn_of(success, failure))),
    }
}

fn txn_of(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        compare: Vec::new(),
        success,
        failure,
    }
}

fn outcome(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Result<TxnAccess, ErrorCode> {
    txn(txn_of(success, failure), 128).map(|(_, access)| access)
}

#[test]
fn a_put_is_checked_for_key_then_value_then_lease() {
    let mut wrong = PutRequest {
        value: "v".into(),
        lease: 1,
        ignore_value: true,
        ignore_lease: true,
        ..Default::default()
    };
    assert_eq!(put(wrong.clone()), Err(ErrorCode::EmptyKey));
    wrong.key = "k".into();
    assert_eq!(put(wrong.clone()), Err(ErrorCode::ValueProvided));
    wrong.value.clear();
    assert_eq!(put(wrong.clone()), Err(ErrorCode::LeaseProvided));
    wrong.lease = 0;
    let right = put(wrong).unwrap();
    assert_eq!((right.value, right.lease), (PutValue::Keep, PutLease::Keep));
}

#[test]
fn a_range_is_checked_for_key_then_order_then_target() {
    let mut wrong = RangeRequest {
        sort_order: 3,
        sort_target: 5,
        ..Default::default()
    };
    assert_eq!(range(wrong.clone()), Err(ErrorCode::EmptyKey));
    wrong.key = "k".into();
    assert_eq!(range(wrong.clone()), Err(ErrorCode::InvalidSortOption));
    wrong.sort_order = 2;
    assert_eq!(range(wrong.clone()), Err(ErrorCode::InvalidSortOption));
    wrong.sort_target = 4;
    assert!(range(wrong).is_ok());
}

#[test]
fn nothing_and_negative_numbers_mean_what_etcd_makes_of_them() {
    let request = RangeRequest {
        key: "k".into(),
        limit: -1,
        revision: -1,
        max_mod_revision: -1,
        ..Default::default()
    };
    let (range, consistency) = range(request).unwrap();
    assert_eq!(
        (range.limit, range.at, range.min_mod_revision),
        (None, Some(-1), None)
    );
    assert_eq!(range.max_mod_revision, Some(-1));
    assert_eq!(consistency, Consistency::Linearizable);
}

#[test]
fn a_txn_counts_its_longest_list_first() {
    let empty = || RequestOp::default();
    let too_many = txn_of(vec![empty(), empty(), empty()], vec![]);
    assert_eq!(txn(too_many, 2).unwrap_err(), ErrorCode::TooManyOps);
    let compare = vec![WireCompare::default()];
    let no_key = TxnRequest {
        compare,
        success: vec![empty()],
        failure: vec![],
    };
    assert_eq!(txn(no_key, 2).unwrap_err(), ErrorCode::EmptyKey);
    assert_eq!(outcome(vec![empty()], vec![]), Err(ErrorCode::KeyNotFound));
}

#[test]
fn nested_txns_share_the_budget() {
    let nested = |ops: usize| txn_of(vec![txn_op(vec![put_op("a"); ops], vec![])], vec![]);
    assert_eq!(txn(nested(3), 3).unwrap_err(), ErrorCode::TooManyOps);
    // Within the budget, and only then, the puts are compared.
    assert_eq!(txn(nested(2), 3).unwrap_err(), ErrorCode::DuplicateKey);
    assert!(txn(nested(1), 2).is_ok());
}

#[test]
fn writes_of_one_branch_must_be_apart() {
    let duplicate = Err(ErrorCode::DuplicateKey);
    let fine = Ok(TxnAccess::Write);
    assert_eq!(outcome(vec![put_op("a"), put_op("a")], vec![]), duplicate);
    assert_eq!(outcome(vec![put_op("a")], vec![put_op("a")]), fine);
    assert_eq!(
        outcome(vec![put_op("b"), delete_op("a", "c")], vec![]),
        duplicate
    );
    assert_eq!(
        outcome(vec![put_op("c"), delete_op("a", "c")], vec![]),
        fine
    );
    assert_eq!(
        outcome(vec![delete_op("a", "c"), delete_op("a", "")], vec![]),
        fine
    );
    // etcd does not see that this deletes "b".
    assert_eq!(
        outcome(vec![put_op("b"), delete_op("a", "\0")], vec![]),
        fine
    );
}

#[test]
fn the_branches_of_a_nested_txn_exclude_each_other() {
    let duplicate = Err(ErrorCode::DuplicateKey);
    let fine = Ok(TxnAccess::Write);
    let both = || txn_op(vec![put_op("a")], vec![put_op("a")]);
    assert_eq!(outcome(vec![both()], vec![]), fine);
    assert_eq!(outcome(vec![both(), put_op("a")], vec![]), duplicate);
    assert_eq!(outcome(vec![both(), both()], vec![]), duplicate);
    assert_eq!(outcome(vec![both(), delete_op("a", "")], vec![]), duplicate);
    // A nested delete counts for the puts around it.
    let deleted = txn_op(vec![delete_op("a", "c")], vec![]);
    assert_eq!(outcome(vec![deleted, put_op("b")], vec![]), duplicate);
}

#[test]
fn only_ranges_make_a_txn_a_read() {
    let linearizable = Ok(TxnAccess::Read(Consistency::Linearizable));
    let serializable = Ok(TxnAccess::Read(Consistency::Serializable));
    assert_eq!(outcome(vec![], vec![]), serializable);
    assert_eq!(
        outcome(vec![range_op("a", true)], vec![range_op("a", true)]),
        serializable
    );
    assert_eq!(
        outcome(vec![range_op("a", true)], vec![range_op("a", false)]),
        linearizable
    );
    assert_eq!(
        outcome(vec![txn_op(vec![range_op("a", true)], vec![])], vec![]),
        Ok(TxnAccess::Write)
    );
}

#[test]
fn unknown_compares_hold_or_not_as_in_etcd() {
    let with = |result, target| {
        let compare = compare(WireCompare {
            result,
            target,
            key: "k".into(),
            ..Default::default()
        });
        (compare.operator, compare.target)
    };
    let never = (CompareOperator::Less, CompareTarget::Version(0));
    let exists = (CompareOperator::Greater, CompareTarget::Version(0));
    let always = (CompareOperator::Greater, CompareTarget::Version(-1));
    assert_eq!(with(0, 9), always);
    assert_eq!(with(3, 9), never);
    assert_eq!(with(9, 0), always);
    assert_eq!(with(9, WireTarget::Value as i32), exists);
    let mismatched = WireCompare {
        target: WireTarget::Version as i32,
        target_union: Some(WireValue::ModRevision(7)),
        key: "k".into(),
        ..Default::default()
    };
    assert_eq!(compare(mismatched).target, CompareTarget::Version(0));
}

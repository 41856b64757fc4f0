use super::*;

fn compare(keys: KeyRange, operator: CompareOperator, target: CompareTarget) -> Compare {
    Compare {
        keys,
        operator,
        target,
    }
}

use CompareOperator::{Equal, Greater, Less, NotEqual};
use CompareTarget::{Create, Lease, Mod, Value, Version};

fn holds(b: &mut Bench, keys: KeyRange, operator: CompareOperator, target: CompareTarget) -> bool {
    let compare = vec![compare(keys, operator, target)];
    b.txn(Txn {
        compare,
        ..Txn::default()
    })
    .unwrap()
    .1
    .succeeded
}

#[test]
fn an_empty_txn_succeeds_and_moves_nothing() {
    let mut b = bench();
    let (revision, reply) = b.txn(Txn::default()).unwrap();
    assert!(reply.succeeded && reply.responses.is_empty() && revision == 1);
}

#[test]
fn every_target_compares_in_every_way() {
    let mut b = bench();
    b.grant(5);
    b.put("a", "m");
    b.run(&Command::Put(Put {
        lease: PutLease::Attach(LeaseId(5)),
        ..put("a", "m")
    }))
    .unwrap();
    type Target = fn(i64) -> CompareTarget;
    let targets: [(Target, i64); 5] = [
        (Version, 2),
        (Create, 2),
        (Mod, 3),
        (Lease, 5),
        (
            |n| {
                Value(
                    if n < 0 {
                        "l"
                    } else if n == 0 {
                        "m"
                    } else {
                        "n"
                    }
                    .into(),
                )
            },
            0,
        ),
    ];
    for (target, is) in targets {
        let mut ask = |operator, with| holds(&mut b, one("a"), operator, target(with));
        let below = [
            ask(Equal, is - 1),
            ask(Greater, is - 1),
            ask(Less, is - 1),
            ask(NotEqual, is - 1),
        ];
        assert_eq!(below, [false, true, false, true], "{:?}", target(is));
        let same = [
            ask(Equal, is),
            ask(Greater, is),
            ask(Less, is),
            ask(NotEqual, is),
        ];
        assert_eq!(same, [true, false, false, false], "{:?}", target(is));
        let above = [
            ask(Equal, is + 1),
            ask(Greater, is + 1),
            ask(Less, is + 1),
            ask(NotEqual, is + 1),
        ];
        assert_eq!(above, [false, false, true, true], "{:?}", target(is));
    }
}

#[test]
fn a_missing_key_compares_as_zero_and_its_value_never() {
    let mut b = bench();
    for keys in [one("x"), span("x", "z"), span("z", "x"), KeyRange::all()] {
        for target in [Version, Create, Mod, Lease] {
            assert!(holds(&mut b, keys.clone(), Equal, target(0)));
            assert!(holds(&mut b, keys.clone(), Less, target(1)));
            assert!(holds(&mut b, keys.clone(), Greater, target(-1)));
            assert!(!holds(&mut b, keys.clone(), NotEqual, target(0)));
        }
        for operator in [Equal, NotEqual, Less, Greater] {
            assert!(!holds(&mut b, keys.clone(), operator, Value("".into())));
        }
    }
}

#[test]
fn a_ranged_compare_holds_for_all_keys_or_not() {
    let mut b = bench();
    b.put("a", "1");
    b.put("b", "1");
    b.put("b", "2");
    assert!(holds(&mut b, span("a", "c"), Greater, Version(0)));
    assert!(!holds(&mut b, span("a", "c"), Equal, Version(1)));
    assert!(holds(&mut b, span("a", "b"), Equal, Version(1)));
    assert!(!holds(&mut b, KeyRange::all(), Equal, Value("1".into())));
}

#[test]
fn compares_are_joined_by_and_and_choose_the_branch() {
    let mut b = bench();
    let yes = compare(one("a"), Equal, Version(0));
    let no = compare(one("a"), Equal, Version(1));
    let txn = Txn {
        compare: vec![yes, no],
        success: vec![Op::Put(put("a", "then"))],
        failure: vec![Op::Put(put("a", "else"))],
    };
    let (revision, reply) = b.txn(txn).unwrap();
    assert!(!reply.succeeded && revision == 2);
    assert_eq!(b.views.store.view().get(b"a").unwrap().value(), b"else");
}

#[test]
fn operations_see_those_before_them_and_share_a_revision() {
    let mut b = bench();
    b.put("a", "0");
    let all = || Op::Range(range(KeyRange::all()));
    let ops = vec![
        all(),
        Op::Put(put("b", "1")),
        all(),
        Op::DeleteRange(delete(one("a"))),
        all(),
        Op::DeleteRange(delete(one("nothing"))),
        Op::Range(RangeOp {
            at: Some(2),
            ..range(KeyRange::all())
        }),
    ];
    let (revision, reply) = b
        .txn(Txn {
            success: ops,
            ..Txn::default()
        })
        .unwrap();
    assert_eq!(revision, 3);
    let seen: Vec<_> = reply
        .responses
        .iter()
        .map(|(header, op)| match op {
            OpReply::Range(reply) => (*header, keys(&reply.kvs).join("")),
            OpReply::DeleteRange(reply) => (*header, reply.deleted.to_string()),
            _ => (*header, String::new()),
        })
        .collect();
    let expected = [
        (2, "a"),
        (3, ""),
        (3, "ab"),
        (3, "1"),
        (3, "b"),
        (3, "0"),
        (3, "a"),
    ];
    assert_eq!(
        seen,
        expected.map(|(header, seen)| (header, seen.to_owned()))
    );
    let kv = b.views.store.view().get(b"b").unwrap();
    assert_eq!(kv.mod_revision(), types::Revision::new(3, 0));
}

#[test]
fn nested_txns_compare_with_the_store_before_the_whole_txn() {
    let mut b = bench();
    let inner = Txn {
        compare: vec![compare(one("a"), Greater, Version(0))],
        success: vec![Op::Put(put("seen", "yes"))],
        failure: vec![Op::Put(put("seen", "no"))],
    };
    let outer = Txn {
        success: vec![Op::Put(put("a", "1")), Op::Txn(inner)],
        ..Txn::default()
    };
    let (revision, reply) = b.txn(outer).unwrap();
    assert_eq!(revision, 2);
    let (0, OpReply::Txn(inner)) = &reply.responses[1] else {
        panic!("{reply:?}")
    };
    assert!(!inner.succeeded && inner.responses[0].0 == 2);
    assert_eq!(b.views.store.view().get(b"seen").unwrap().value(), b"no");
}

/// Operations that cannot be carried out when a is there, 3 is compacted and 4 the newest.
fn refused_ops() -> [(Op, Rejection); 6] {
    let at = |at| {
        Op::Range(RangeOp {
            at: Some(at),
            ..range(one("a"))
        })
    };
    let lease = |lease| {
        Op::Put(Put {
            lease,
            ..put("c", "")
        })
    };
    let keep = |key| {
        Op::Put(Put {
            value: PutValue::Keep,
            ..put(key, "")
        })
    };
    [
        (at(5), Rejection::FutureRevision),
        (at(2), Rejection::Compacted),
        (at(-1), Rejection::Compacted),
        (
            lease(PutLease::Attach(LeaseId(1))),
            Rejection::LeaseNotFound,
        ),
        (lease(PutLease::Keep), Rejection::KeyNotFound),
        // Not even a key that the transaction itself has made before.
        (keep("b"), Rejection::KeyNotFound),
    ]
}

#[test]
fn a_refused_txn_leaves_no_trace() {
    let mut b = bench();
    for value in ["0", "1", "2"] {
        b.put("a", value);
    }
    b.run(&Command::Compact { revision: 3 }).unwrap();
    for (op, rejection) in refused_ops() {
        let nested = Txn {
            success: vec![op.clone()],
            ..Txn::default()
        };
        for op in [op, Op::Txn(nested)] {
            let before = b.state();
            let ops = vec![
                Op::Put(put("b", "1")),
                Op::DeleteRange(delete(one("a"))),
                op,
            ];
            let txn = Txn {
                success: ops,
                ..Txn::default()
            };
            assert_eq!(b.txn(txn).unwrap_err(), rejection);
            assert_eq!(b.state(), before);
        }
    }
}

#[test]
fn what_the_other_branch_holds_refuses_nothing() {
    let mut b = bench();
    let bad = Op::Range(RangeOp {
        at: Some(99),
        ..range(one("a"))
    });
    b.txn(Txn {
        failure: vec![bad],
        ..Txn::default()
    })
    .unwrap();
}

#[test]
fn puts_are_checked_before_ranges() {
    let mut b = bench();
    let range = Op::Range(RangeOp {
        at: Some(99),
        ..range(one("a"))
    });
    let put = Op::Put(Put {
        lease: PutLease::Attach(LeaseId(1)),
        ..put("c", "")
    });
    let txn = Txn {
        success: vec![range, put],
        ..Txn::default()
    };
    assert_eq!(b.txn(txn).unwrap_err(), Rejection::LeaseNotFound);
    // And in a put, the key before the lease: the other way around than in a put alone.
    let put = Put {
        value: PutValue::Keep,
        lease: PutLease::Attach(LeaseId(1)),
        ..super::put("c", "")
    };
    let txn = Txn {
        success: vec![Op::Put(put)],
        ..Txn::default()
    };
    assert_eq!(b.txn(txn).unwrap_err(), Rejection::KeyNotFound);
}

#[test]
fn a_read_only_txn_needs_no_log() {
    let mut b = bench();
    b.put("a", "1");
    b.put("b", "2");
    let txn = Txn {
        compare: vec![compare(one("a"), Equal, Value("1".into()))],
        success: vec![
            Op::Range(range(KeyRange::all())),
            Op::Range(RangeOp {
                at: Some(2),
                ..range(KeyRange::all())
            }),
        ],
        failure: vec![Op::Range(RangeOp {
            at: Some(99),
            ..range(KeyRange::all())
        })],
    };
    assert!(txn.is_read_only());
    let view = b.views.store.view();
    let outside = execute_read_only_txn(&view, &txn).unwrap();
    let (revision, inside) = b.txn(txn).unwrap();
    assert_eq!(revision, 3);
    assert_eq!(format!("{outside:?}"), format!("{inside:?}"));
    let bad = Op::Range(RangeOp {
        at: Some(99),
        ..range(KeyRange::all())
    });
    let bad = Txn {
        success: vec![bad],
        ..Txn::default()
    };
    assert!(matches!(
        execute_read_only_txn(&view, &bad),
        Err(mvcc::RangeError::FutureRevision)
    ));
    let nested = Txn {
        success: vec![Op::Txn(Txn::default())],
        ..Txn::default()
    };
    assert!(!nested.is_read_only());
}

#[test]
fn deep_nesting_reads_back_from_the_log() {
    let mut txn = Txn {
        success: vec![Op::Put(put("deep", "1"))],
        ..Txn::default()
    };
    for _ in 0..127 {
        txn = Txn {
            success: vec![Op::Txn(txn)],
            ..Txn::default()
        };
    }
    let mut b = bench();
    assert_eq!(b.txn(txn).unwrap().0, 2);
}

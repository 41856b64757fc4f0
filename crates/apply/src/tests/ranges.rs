use super::*;

/// a (rev 2, 5), b (3), c (4); values 3, 2, 1.
fn filled() -> Bench {
    let mut b = bench();
    b.put("a", "0");
    b.put("b", "2");
    b.put("c", "1");
    b.put("a", "3");
    b
}

fn ask(b: &Bench, op: &RangeOp) -> (String, usize, bool) {
    let reply = execute_range(&b.views.store.view(), op).unwrap();
    (keys(&reply.kvs).join(""), reply.count, reply.more)
}

fn sorted(target: SortTarget, order: SortOrder) -> RangeOp {
    RangeOp {
        sort_target: target,
        sort_order: order,
        ..range(KeyRange::all())
    }
}

#[test]
fn targets_and_orders() {
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    let b = filled();
    let expected = [
        (Key, "abc", "cba"),
        (Version, "bca", "abc"),
        (Create, "abc", "cba"),
        (Mod, "bca", "acb"),
        (Value, "cba", "abc"),
    ];
    for (target, up, down) in expected {
        assert_eq!(ask(&b, &sorted(target, None)).0, up, "{target:?}");
        assert_eq!(ask(&b, &sorted(target, Ascend)).0, up, "{target:?}");
        assert_eq!(ask(&b, &sorted(target, Descend)).0, down, "{target:?}");
    }
}

#[test]
fn the_limit_cuts_after_sorting_and_count_is_of_all() {
    let b = filled();
    let limited = |op: RangeOp, limit| {
        ask(
            &b,
            &RangeOp {
                limit: Some(limit),
                ..op
            },
        )
    };
    assert_eq!(limited(range(KeyRange::all()), 2), ("ab".into(), 3, true));
    assert_eq!(limited(range(KeyRange::all()), 3), ("abc".into(), 3, false));
    assert_eq!(limited(range(KeyRange::all()), 0), ("abc".into(), 3, false));
    assert_eq!(
        limited(range(KeyRange::all()), usize::MAX),
        ("abc".into(), 3, false)
    );
    let by_mod = sorted(SortTarget::Mod, SortOrder::Ascend);
    assert_eq!(limited(by_mod, 1), ("b".into(), 3, true));
    // Without an order, etcd takes the first keys (and one more) and sorts those.
    let by_value = sorted(SortTarget::Value, SortOrder::None);
    assert_eq!(limited(by_value, 1), ("b".into(), 3, true));
}

#[test]
fn filters_are_inclusive_and_leave_the_count_alone() {
    let b = filled();
    let all = || range(KeyRange::all());
    let min_mod = RangeOp {
        min_mod_revision: Some(4),
        ..all()
    };
    assert_eq!(ask(&b, &min_mod), ("ac".into(), 3, false));
    let max_mod = RangeOp {
        max_mod_revision: Some(4),
        ..all()
    };
    assert_eq!(ask(&b, &max_mod), ("bc".into(), 3, false));
    let min_create = RangeOp {
        min_create_revision: Some(3),
        ..all()
    };
    assert_eq!(ask(&b, &min_create), ("bc".into(), 3, false));
    let max_create = RangeOp {
        max_create_revision: Some(3),
        limit: Some(1),
        ..all()
    };
    assert_eq!(ask(&b, &max_create), ("a".into(), 3, true));
    let none = RangeOp {
        min_mod_revision: Some(0),
        ..all()
    };
    assert_eq!(ask(&b, &none), ("abc".into(), 3, false));
}

#[test]
fn count_only_and_keys_only() {
    let b = filled();
    let counted = RangeOp {
        count_only: true,
        limit: Some(1),
        ..range(KeyRange::all())
    };
    assert_eq!(ask(&b, &counted), (String::new(), 3, false));
    let bare = RangeOp {
        keys_only: true,
        ..range(one("a"))
    };
    assert!(
        execute_range(&b.views.store.view(), &bare)
            .unwrap()
            .keys_only
    );
}

#[test]
fn a_revision_that_is_not_positive_is_the_current_one() {
    let b = filled();
    for at in [Some(0), Some(-5), None, Some(5)] {
        let kvs = execute_range(
            &b.views.store.view(),
            &RangeOp {
                at,
                ..range(one("a"))
            },
        );
        assert_eq!(kvs.unwrap().kvs[0].value(), b"3");
    }
    let old = RangeOp {
        at: Some(2),
        ..range(KeyRange::all())
    };
    assert_eq!(ask(&b, &old), ("a".into(), 1, false));
}

#[test]
fn an_inverted_range_is_empty() {
    let b = filled();
    assert_eq!(ask(&b, &range(span("c", "a"))), (String::new(), 0, false));
    assert_eq!(ask(&b, &range(span("a", "c"))), ("ab".into(), 2, false));
    assert_eq!(
        ask(&b, &range(KeyRange::From("b".into()))),
        ("bc".into(), 2, false)
    );
}

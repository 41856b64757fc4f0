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

/// What stock etcd 3.5.30 answered: how many keys, how many different values, the order, and the
/// FNV-1a hash of the keys in the order they came.
const ETCDS_ORDER_OF_EQUALS: [(u64, u64, SortOrder, u64); 36] = [
    (12, 2, SortOrder::Ascend, 0x2d1c_a2f5_453c_5605),
    (12, 2, SortOrder::Descend, 0xdc8c_32ee_7407_7605),
    (12, 5, SortOrder::Ascend, 0x6c9f_0e87_6f26_d135),
    (12, 5, SortOrder::Descend, 0x890b_000c_5f0f_04d5),
    (12, 40, SortOrder::Ascend, 0xb65e_60d9_200b_ac85),
    (12, 40, SortOrder::Descend, 0x8d86_6586_63b8_c785),
    (13, 2, SortOrder::Ascend, 0x0b5a_59c1_fbe9_6c92),
    (13, 2, SortOrder::Descend, 0xc15d_fd46_10de_d65a),
    (13, 5, SortOrder::Ascend, 0x8c32_c559_56b1_3e32),
    (13, 5, SortOrder::Descend, 0x8fb4_03e1_d3a3_f2c2),
    (13, 40, SortOrder::Ascend, 0x1084_0f7a_dc1b_db1e),
    (13, 40, SortOrder::Descend, 0x219b_d3dc_8b7a_69ca),
    (49, 2, SortOrder::Ascend, 0xb694_781a_3963_74f5),
    (49, 2, SortOrder::Descend, 0x6f01_89b4_940f_28b9),
    (49, 5, SortOrder::Ascend, 0xacbd_b326_f361_3f6d),
    (49, 5, SortOrder::Descend, 0xaf18_7eae_48bf_9db5),
    (49, 40, SortOrder::Ascend, 0xa2c0_5716_7ad2_5bb5),
    (49, 40, SortOrder::Descend, 0x0989_1ab0_708d_6e75),
    (50, 2, SortOrder::Ascend, 0x74c3_f373_9ffa_785e),
    (50, 2, SortOrder::Descend, 0x7c55_71e3_b49e_3e3e),
    (50, 5, SortOrder::Ascend, 0x9f7a_66b9_ad54_9632),
    (50, 5, SortOrder::Descend, 0xa6b4_07c7_3944_f23e),
    (50, 40, SortOrder::Ascend, 0x7905_c99b_f902_be62),
    (50, 40, SortOrder::Descend, 0x3994_1ca6_6fdf_a416),
    (100, 2, SortOrder::Ascend, 0x5f66_b61f_2f7a_de5d),
    (100, 2, SortOrder::Descend, 0x9a6c_bc05_1dc3_55bd),
    (100, 5, SortOrder::Ascend, 0x8ac5_822b_c1e5_2455),
    (100, 5, SortOrder::Descend, 0x757e_a896_cb13_3f51),
    (100, 40, SortOrder::Ascend, 0xcc5f_bdb8_36d5_812d),
    (100, 40, SortOrder::Descend, 0x38ea_9c35_2f31_de9d),
    (1000, 2, SortOrder::Ascend, 0x1764_07e2_a1a4_1ef5),
    (1000, 2, SortOrder::Descend, 0x1cae_6824_53d1_9a29),
    (1000, 5, SortOrder::Ascend, 0x12f3_1401_f1d4_1ead),
    (1000, 5, SortOrder::Descend, 0xb7cb_56c0_5bac_cb69),
    (1000, 40, SortOrder::Ascend, 0x29b8_8a5c_a18f_7521),
    (1000, 40, SortOrder::Descend, 0x8abb_456d_31f3_843d),
];

/// The value of key `i`: the same as when etcd was asked.
fn scattered(i: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

#[test]
fn equals_come_in_etcds_order() {
    let mut b = bench();
    for (len, values, sort_order, expected) in ETCDS_ORDER_OF_EQUALS {
        b.run(&Command::DeleteRange(delete(KeyRange::all())))
            .unwrap();
        for i in 0..len {
            let value = format!("{:02}", scattered(i + len * values) % values);
            b.apply(&Command::Put(put(&format!("{i:04}"), &value)))
                .unwrap();
        }
        b.machine.finish_batch().unwrap();
        let found = ask(&b, &sorted(SortTarget::Value, sort_order)).0;
        let hash = found
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        assert_eq!(
            hash, expected,
            "{len} keys, {values} values, {sort_order:?}"
        );
    }
}

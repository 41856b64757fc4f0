//! The tree against a sorted map of the standard library, its shape, and what a copy shares.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::*;

/// A key and a number; odd numbers are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair(std::sync::Arc<(Vec<u8>, u32)>);

impl Pair {
    fn new(key: &[u8], number: u32) -> Self {
        Self(std::sync::Arc::new((key.to_vec(), number)))
    }

    fn is_odd(&self) -> bool {
        self.0.1 % 2 == 1
    }
}

/// How many, and how many odd ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    all: usize,
    odd: usize,
}

impl Sum for Counts {
    fn and(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            odd: self.odd + other.odd,
        }
    }
}

impl Item for Pair {
    type Sum = Counts;

    fn key(&self) -> &[u8] {
        &self.0.0
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.key())
    }

    fn sum(&self) -> Counts {
        Counts {
            all: 1,
            odd: usize::from(self.is_odd()),
        }
    }
}

type Model = BTreeMap<Vec<u8>, u32>;

/// Checks a subtree, of which all keys are within these, and says how deep it is.
fn check(node: &Node<Pair>, from: &[u8], until: Option<&[u8]>, is_root: bool) -> usize {
    assert!(is_root || node.len() > 0, "an empty node is left out");
    match node {
        Node::Leaf(items) => {
            let keys: Vec<&[u8]> = items.iter().map(Item::key).collect();
            assert!(keys.is_sorted_by(|left, right| left < right));
            let is_within = |key: &&[u8]| *key >= from && until.is_none_or(|until| *key < until);
            assert!(keys.iter().all(is_within), "{keys:?} {from:?} {until:?}");
            1
        }
        Node::Inner(inner) => {
            assert!(!is_root || inner.children.len() > 1);
            assert_eq!(inner.bounds.iter().count() + 1, inner.children.len());
            let mut depths = Vec::new();
            for (place, child) in inner.children.iter().enumerate() {
                assert_eq!(child.sum, child.node.sum());
                let from = if place == 0 {
                    from
                } else {
                    inner.bounds.get(place - 1)
                };
                let is_last = place + 1 == inner.children.len();
                let until = if is_last {
                    until
                } else {
                    Some(inner.bounds.get(place))
                };
                depths.push(check(&child.node, from, until, false));
            }
            assert!(depths.iter().all(|depth| *depth == depths[0]));
            depths[0] + 1
        }
    }
}

fn check_against(tree: &BTree<Pair>, model: &Model) {
    check(&tree.root.node, &[], None, true);
    let found = tree.iter().map(|pair| (pair.0.0.clone(), pair.0.1));
    assert_eq!(
        found.collect::<Vec<_>>(),
        model.clone().into_iter().collect::<Vec<_>>()
    );
    let odd = model.values().filter(|number| **number % 2 == 1).count();
    assert_eq!(
        tree.sum(),
        Counts {
            all: model.len(),
            odd
        }
    );
}

fn check_range(tree: &BTree<Pair>, model: &Model, start: &[u8], end: Option<&[u8]>) {
    if end.is_some_and(|end| end < start) {
        assert_eq!(tree.range(start, end, |_| true).count(), 0);
        assert_eq!(tree.count(Some(start), end, &|_| None, &|_| 1), 0);
        return;
    }
    let bounds = (
        Bound::Included(start),
        end.map_or(Bound::Unbounded, Bound::Excluded),
    );
    let expected: Vec<&Vec<u8>> = model.range::<[u8], _>(bounds).map(|(key, _)| key).collect();
    let found: Vec<&[u8]> = tree.range(start, end, |_| true).map(Item::key).collect();
    assert_eq!(found, expected);
    let odd = model
        .range::<[u8], _>(bounds)
        .filter(|(_, number)| **number % 2 == 1);
    let odd = odd.map(|(key, _)| &key[..]);
    let wanted = tree
        .range(start, end, |counts| counts.odd > 0)
        .filter(|pair| pair.is_odd());
    assert_eq!(
        wanted.map(Item::key).collect::<Vec<_>>(),
        odd.clone().collect::<Vec<_>>()
    );
    let counted = tree.count(
        (!start.is_empty()).then_some(start),
        end,
        &|counts| Some(counts.odd),
        &|pair| usize::from(pair.is_odd()),
    );
    assert_eq!(counted, odd.count());
}

/// A few letters, so that keys meet again and have beginnings in common.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"ab\x00\xff".to_vec()), 0..8)
}

#[derive(Clone, Debug)]
enum Step {
    Change(Vec<u8>, u32),
    Remove(Vec<u8>),
    RemoveFrom(Vec<u8>, usize),
    Ascend(Vec<u8>, u8),
    Copy,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (key(), 0..100u32).prop_map(|(key, number)| Step::Change(key, number)),
        3 => key().prop_map(Step::Remove),
        1 => (key(), 1..60usize).prop_map(|(key, count)| Step::RemoveFrom(key, count)),
        1 => (key(), 1..100u8).prop_map(|(key, count)| Step::Ascend(key, count)),
        1 => Just(Step::Copy),
    ]
}

fn take(tree: &mut BTree<Pair>, model: &mut Model, key: &[u8], number: u32) {
    let known = model.insert(key.to_vec(), number);
    tree.change(key, |before| {
        assert_eq!(before.map(|before| before.0.1), known);
        Pair::new(key, number)
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn it_is_a_sorted_map_and_copies_stay_as_they_were(
        steps in prop::collection::vec(step(), 1..400),
        ranges in prop::collection::vec((key(), prop::option::of(key())), 10),
        gets in prop::collection::vec(key(), 20),
    ) {
        let (mut tree, mut model) = (BTree::default(), Model::new());
        let mut copies = Vec::new();
        for step in steps {
            match step {
                Step::Change(key, number) => take(&mut tree, &mut model, &key, number),
                Step::Remove(key) => {
                    model.remove(&key);
                    tree.remove(&key);
                }
                Step::RemoveFrom(start, count) => {
                    let keys = model.range(start..).take(count).map(|(key, _)| key.clone());
                    for key in keys.collect::<Vec<_>>() {
                        model.remove(&key);
                        tree.remove(&key);
                    }
                }
                Step::Ascend(start, count) => {
                    for last in 0..count {
                        let key = [&start[..], &[last]].concat();
                        take(&mut tree, &mut model, &key, u32::from(last));
                    }
                }
                Step::Copy => copies.push((tree.clone(), model.clone())),
            }
            check(&tree.root.node, &[], None, true);
        }
        copies.push((tree, model));
        for (tree, model) in &copies {
            check_against(tree, model);
            for (start, end) in &ranges {
                check_range(tree, model, start, end.as_deref());
            }
            for key in &gets {
                prop_assert_eq!(tree.get(key).map(|pair| pair.0.1), model.get(key).copied());
            }
        }
    }
}

fn numbered(number: u32) -> Vec<u8> {
    format!("/registry/pods/default/pod-{number:06}").into_bytes()
}

fn of_numbers(numbers: impl Iterator<Item = u32>) -> BTree<Pair> {
    let mut tree = BTree::default();
    for number in numbers {
        let key = numbered(number);
        tree.change(&key, |_| Pair::new(&key, number));
    }
    tree
}

fn leaves(node: &Node<Pair>) -> usize {
    match node {
        Node::Leaf(_) => 1,
        Node::Inner(inner) => inner.children.iter().map(|child| leaves(&child.node)).sum(),
    }
}

#[test]
fn leaves_are_full_when_keys_come_in_order_and_two_thirds_full_when_they_do_not() {
    const KEYS: u32 = 20_000;
    let in_order = of_numbers(0..KEYS);
    assert_eq!(leaves(&in_order.root.node), KEYS as usize / LEAF_MAX + 1);
    let mixed = of_numbers((0..KEYS).map(|number| number * 7919 % KEYS));
    let full = KEYS as f64 / (leaves(&mixed.root.node) * LEAF_MAX) as f64;
    assert!((0.6..0.8).contains(&full), "{full}");
    assert!(check(&mixed.root.node, &[], None, true) <= 5);
}

#[test]
fn what_is_emptied_gives_its_nodes_back() {
    let mut tree = of_numbers(0..20_000);
    for number in (0..20_000).filter(|number| number % 50 != 0) {
        tree.remove(&numbered(number));
    }
    check(&tree.root.node, &[], None, true);
    assert_eq!(tree.sum().all, 400);
    assert!(
        leaves(&tree.root.node) < 400 / 4,
        "{}",
        leaves(&tree.root.node)
    );
    // Every second leaf is thinned out while its neighbours are full, and then those are.
    let mut thinned = of_numbers(0..15_000);
    for odd in [0, 1] {
        let of_leaf = |number: &u32| number / 15 % 2 == odd && number % 15 > 4 * odd;
        for number in (0..15_000).filter(of_leaf) {
            thinned.remove(&numbered(number));
        }
    }
    assert_eq!(thinned.sum().all, 1_000 * (1 + 5) / 2);
    assert!(
        leaves(&thinned.root.node) <= 500,
        "{}",
        leaves(&thinned.root.node)
    );
    for number in 0..20_000 {
        tree.remove(&numbered(number));
    }
    assert!(matches!(&tree.root.node, Node::Leaf(items) if items.is_empty()));
}

#[test]
fn counting_looks_only_at_the_ends_of_a_range() {
    let tree = of_numbers(0..20_000);
    let looked_at = std::cell::Cell::new(0);
    let (start, end) = (numbered(777), numbered(19_222));
    let counted = tree.count(
        Some(&start),
        Some(&end),
        &|counts| Some(counts.all),
        &|_| {
            looked_at.set(looked_at.get() + 1);
            1
        },
    );
    assert_eq!(counted, 19_222 - 777);
    assert!(looked_at.get() <= 2 * LEAF_MAX, "{}", looked_at.get());
}

#[test]
fn a_change_copies_its_way_and_only_when_it_is_shared() {
    let mut tree = of_numbers(0..20_000);
    let key = numbered(10_000);
    let ways = |tree: &BTree<Pair>| {
        let mut ways = Vec::new();
        let mut nodes = vec![&tree.root.node];
        while let Some(node) = nodes.pop() {
            match node {
                Node::Leaf(items) => ways.push(items.as_ptr() as usize),
                Node::Inner(inner) => {
                    ways.push(inner.children.as_ptr() as usize);
                    nodes.extend(inner.children.iter().map(|child| &child.node));
                }
            }
        }
        ways.sort_unstable();
        ways
    };
    let before = ways(&tree);
    tree.change(&key, |_| Pair::new(&key, 1));
    assert_eq!(ways(&tree), before, "nobody else has it");
    let copy = tree.clone();
    tree.change(&key, |_| Pair::new(&key, 2));
    let after = ways(&tree);
    let copied = after
        .iter()
        .filter(|node| before.binary_search(node).is_err());
    assert_eq!(copied.count(), check(&tree.root.node, &[], None, true));
    assert_eq!(copy.get(&key).map(|pair| pair.0.1), Some(1));
}

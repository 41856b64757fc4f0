//! Which ranges hold a key, when ranges come and go all the time.
//!
//! A treap: a search tree by start of the range, balanced by priorities that look random, in which
//! every node knows the greatest end below it (its reach). A subtree whose reach is not after the
//! key holds no range with the key, so asking costs O(log n) and one step per range found.
//!
//! It is not a map of watchers: [`super::index::RangeIndex`] is, with one node per distinct range.

use std::cmp::Ordering;

use bytes::Bytes;

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere. (Greater than every other end: the order of the variants says so.)
    Open,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Open => true,
        }
    }
}

/// The ranges, each with a number of the caller's.
#[derive(Debug, Default)]
pub(super) struct RangeTree {
    root: Link,
    inserted: u64,
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: End,
    reach: End,
    priority: u64,
    value: usize,
    left: Link,
    right: Link,
}

impl RangeTree {
    /// Adds a range that is not in the tree yet.
    pub(super) fn insert(&mut self, start: Bytes, end: End, value: usize) {
        self.inserted += 1;
        let node = Box::new(Node {
            reach: end.clone(),
            priority: scramble(self.inserted),
            start,
            end,
            value,
            left: None,
            right: None,
        });
        self.root = Some(insert(self.root.take(), node));
    }

    /// Removes a range; `false` when it is not there.
    pub(super) fn remove(&mut self, start: &[u8], end: &End) -> bool {
        let (root, removed) = remove(self.root.take(), start, end);
        self.root = root;
        removed
    }

    /// Calls `found` with the number of every range that holds `key`.
    pub(super) fn stab(&self, key: &[u8], found: &mut impl FnMut(usize)) {
        stab(&self.root, key, found);
    }
}

impl Node {
    fn order(&self, start: &[u8], end: &End) -> Ordering {
        (start, end).cmp(&(self.start.as_ref(), &self.end))
    }

    /// Sets the reach again after a child was exchanged.
    fn pull(mut self: Box<Self>) -> Box<Self> {
        let mut reach = &self.end;
        for child in [&self.left, &self.right].into_iter().flatten() {
            reach = reach.max(&child.reach);
        }
        self.reach = reach.clone();
        self
    }
}

fn insert(link: Link, new: Box<Node>) -> Box<Node> {
    let Some(mut node) = link else { return new };
    if new.priority > node.priority {
        let mut new = new;
        (new.left, new.right) = split(Some(node), &new.start, &new.end);
        return new.pull();
    }
    let order = node.order(&new.start, &new.end);
    debug_assert_ne!(order, Ordering::Equal, "the range is in the tree already");
    if order == Ordering::Less {
        node.left = Some(insert(node.left.take(), new));
    } else {
        node.right = Some(insert(node.right.take(), new));
    }
    node.pull()
}

/// What is before the range, and what is after it.
fn split(link: Link, start: &[u8], end: &End) -> (Link, Link) {
    let Some(mut node) = link else {
        return (None, None);
    };
    if node.order(start, end) == Ordering::Less {
        let (before, after) = split(node.left.take(), start, end);
        node.left = after;
        (before, Some(node.pull()))
    } else {
        let (before, after) = split(node.right.take(), start, end);
        node.right = before;
        (Some(node.pull()), after)
    }
}

/// One tree of two, of which the first is wholly before the second.
fn merge(before: Link, after: Link) -> Link {
    match (before, after) {
        (None, one) | (one, None) => one,
        (Some(mut before), Some(mut after)) => Some(if before.priority > after.priority {
            before.right = merge(before.right.take(), Some(after));
            before.pull()
        } else {
            after.left = merge(Some(before), after.left.take());
            after.pull()
        }),
    }
}

fn remove(link: Link, start: &[u8], end: &End) -> (Link, bool) {
    let Some(mut node) = link else {
        return (None, false);
    };
    let removed = match node.order(start, end) {
        Ordering::Equal => return (merge(node.left.take(), node.right.take()), true),
        Ordering::Less => {
            let (left, removed) = remove(node.left.take(), start, end);
            node.left = left;
            removed
        }
        Ordering::Greater => {
            let (right, removed) = remove(node.right.take(), start, end);
            node.right = right;
            removed
        }
    };
    (Some(node.pull()), removed)
}

fn stab(link: &Link, key: &[u8], found: &mut impl FnMut(usize)) {
    let Some(node) = link else { return };
    if !node.reach.is_after(key) {
        return;
    }
    stab(&node.left, key, found);
    if node.start.as_ref() <= key {
        if node.end.is_after(key) {
            found(node.value);
        }
        stab(&node.right, key, found);
    }
}

/// Priorities without a random source: the finishing steps of splitmix64 over a counter.
fn scramble(counter: u64) -> u64 {
    let mut x = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn depth(link: &Link) -> usize {
        link.as_ref()
            .map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    fn key(number: u16) -> Bytes {
        Bytes::from(format!("{number:05}"))
    }

    #[test]
    fn ordered_insertion_does_not_make_a_list() {
        let mut tree = RangeTree::default();
        for i in 0..10_000 {
            tree.insert(key(i), End::Before(key(i + 1)), usize::from(i));
        }
        assert!(depth(&tree.root) < 60, "{}", depth(&tree.root));
        let mut found = Vec::new();
        tree.stab(b"04711x", &mut |value| found.push(value));
        assert_eq!(found, [4711]);
        for i in 0..10_000 {
            assert!(tree.remove(&key(i), &End::Before(key(i + 1))));
        }
        assert!(tree.root.is_none());
    }

    proptest! {
        #[test]
        fn finds_exactly_the_ranges_that_hold_the_key(
            steps in proptest::collection::vec((0u16..60, 0u16..61, any::<bool>()), 1..200),
        ) {
            let mut tree = RangeTree::default();
            let mut model: BTreeMap<(Bytes, End), usize> = BTreeMap::new();
            for (i, (start, end, add)) in steps.into_iter().enumerate() {
                let range = (key(start), if end == 60 { End::Open } else { End::Before(key(end)) });
                if add && !model.contains_key(&range) {
                    tree.insert(range.0.clone(), range.1.clone(), i);
                    model.insert(range, i);
                } else {
                    prop_assert_eq!(tree.remove(&range.0, &range.1), model.remove(&range).is_some());
                }
                let asked = key(end.wrapping_mul(7) % 60);
                let mut found = Vec::new();
                tree.stab(&asked, &mut |value| found.push(value));
                let wanted: Vec<usize> = model
                    .iter()
                    .filter(|((start, end), _)| *start <= asked && end.is_after(&asked))
                    .map(|(_, value)| *value)
                    .collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}

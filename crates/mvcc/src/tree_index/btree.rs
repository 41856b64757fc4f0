//! A persistent B+tree that knows sums: the ordered map under the index of keys (etcd's `treeIndex` stands
//! on a B-tree as well).
//!
//! *Persistent*: a copy costs one count and stays as it is. A change copies the nodes on its way down that
//! another copy still holds, and works in place on those that none does, so that the first change after a
//! copy pays for the way and the next ones do not.
//!
//! *Sums*: beside each child stands the [`Sum`] of everything below it. A question about a range ("how many
//! keys exist?", "which of them have a past?") goes into a subtree only where the sum does not answer it:
//! O(log n) for what would otherwise look at every key.
//!
//! ```text
//!                     bounds:        "g"          "p"
//!   inner        children:  (node, sum) (node, sum) (node, sum)
//!                               |            |            |
//!   leaves            a  c  e       g  k  m      p  t  z          items in the order of their keys
//! ```
//!
//! Bounds are as short as they can be, and packed: a search compares in one piece of memory for each inner node.
//! They are shared by a node's copies, because only a split or a merge changes them.

mod bounds;
mod fingerprint;
mod range;

use std::cmp::Ordering;

use arrayvec::ArrayVec;
use triomphe::Arc;

use bounds::Bounds;
pub(crate) use fingerprint::Fingerprint;
pub(crate) use range::Range;

/// Items of a leaf, at most. What a change copies, and so counts once more, grows with it; what a leaf
/// takes beside its items shrinks with it.
const LEAF_MAX: usize = 15;
/// Children of an inner node, at most.
const INNER_MAX: usize = 15;
/// What a merged node has at most, so that the next insertion does not split it again.
const MERGED_MAX: usize = 12;
/// A node with less looks for a neighbour to merge with. Of any two neighbours that have less, the one that
/// was cut last finds that they fit together.
const FEW: usize = MERGED_MAX / 2 + 1;

/// What is in the tree: something with a key.
pub(crate) trait Item: Clone {
    /// What is added up.
    type Sum: Sum;

    /// Its place. Does not change while it is in the tree.
    fn key(&self) -> &[u8];

    /// Its key's.
    fn fingerprint(&self) -> Fingerprint;

    /// What it adds.
    fn sum(&self) -> Self::Sum;
}

/// What is known of many items together.
pub(crate) trait Sum: Copy + Default {
    /// Of these and those.
    #[must_use]
    fn and(self, other: Self) -> Self;
}

/// The tree. Cloning it costs nothing.
#[derive(Clone)]
pub(crate) struct BTree<T: Item> {
    root: Subtree<T>,
}

/// A node, and the sum of everything below it.
#[derive(Clone)]
struct Subtree<T: Item> {
    node: Node<T>,
    sum: T::Sum,
}

#[derive(Clone)]
enum Node<T: Item> {
    Leaf(Arc<Leaf<T>>),
    Inner(Arc<Inner<T>>),
}

type Leaf<T> = ArrayVec<T, LEAF_MAX>;

#[derive(Clone)]
struct Inner<T: Item> {
    /// One between each two children.
    bounds: Bounds,
    children: ArrayVec<Subtree<T>, INNER_MAX>,
}

/// The right half of a node that was full.
struct Split<T: Item> {
    bound: Box<[u8]>,
    right: Node<T>,
}

impl<T: Item> Default for BTree<T> {
    fn default() -> Self {
        Self {
            root: Subtree::default(),
        }
    }
}

impl<T: Item> BTree<T> {
    /// Of all items.
    pub(crate) fn sum(&self) -> T::Sum {
        self.root.sum
    }

    /// The item of this key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        let mut node = &self.root.node;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.bounds.place(key)].node,
                Node::Leaf(items) => {
                    let place = find(items, key).ok()?;
                    return items.get(place);
                }
            }
        }
    }

    /// Puts what `make` makes of this key's item, if there is one, in its place. It has to have this key.
    pub(crate) fn change(&mut self, key: &[u8], make: impl FnOnce(Option<&T>) -> T) {
        if let Some(split) = self.root.change(key, true, make) {
            let left = std::mem::take(&mut self.root);
            self.root = Subtree::new(Node::Inner(Arc::new(Inner {
                bounds: [&*split.bound].into_iter().collect(),
                children: [left, Subtree::new(split.right)].into_iter().collect(),
            })));
        }
    }

    /// Removes the item of this key, if there is one.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if self.get(key).is_none() {
            return;
        }
        self.root.remove(key);
        while let Node::Inner(inner) = &self.root.node {
            let root = match &inner.children[..] {
                [] => Subtree::default(),
                [only] => only.clone(),
                _ => break,
            };
            self.root = root;
        }
    }

    /// The items from `start` on and before `end`, in order, without those of subtrees of which `is_wanted`
    /// says no. Items that are not wanted do come: those beside wanted ones, and those of the first leaf.
    pub(crate) fn range<'a, P: Fn(&T::Sum) -> bool>(
        &'a self,
        start: &[u8],
        end: Option<&'a [u8]>,
        is_wanted: P,
    ) -> Range<'a, T, P> {
        Range::new(self, start, end, is_wanted)
    }

    /// All items in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.range(&[], None, |_| true)
    }

    /// Counts in the items from `start` on and before `end`: what `of_sum` says of whole subtrees, and where
    /// it says nothing, what `of_item` says of each.
    pub(crate) fn count(
        &self,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        of_sum: &impl Fn(&T::Sum) -> Option<usize>,
        of_item: &impl Fn(&T) -> usize,
    ) -> usize {
        self.root.count(start, end, of_sum, of_item)
    }
}

impl<T: Item> Default for Subtree<T> {
    fn default() -> Self {
        Self::new(Node::Leaf(Arc::new(Leaf::new())))
    }
}

impl<T: Item> Subtree<T> {
    fn new(node: Node<T>) -> Self {
        Self {
            sum: node.sum(),
            node,
        }
    }

    /// `is_last`: no other node of this height is behind it.
    fn change(
        &mut self,
        key: &[u8],
        is_last: bool,
        make: impl FnOnce(Option<&T>) -> T,
    ) -> Option<Split<T>> {
        let split = self.node.change(key, is_last, make);
        self.sum = self.node.sum();
        split
    }

    fn remove(&mut self, key: &[u8]) {
        self.node.remove(key);
        self.sum = self.node.sum();
    }

    fn count(
        &self,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        of_sum: &impl Fn(&T::Sum) -> Option<usize>,
        of_item: &impl Fn(&T) -> usize,
    ) -> usize {
        let is_whole = start.is_none() && end.is_none();
        if let Some(known) = is_whole.then(|| of_sum(&self.sum)).flatten() {
            return known;
        }
        match &self.node {
            Node::Leaf(items) => {
                let from = start.map_or(0, |start| first_at_or_after(items, start));
                let until = end.map_or(items.len(), |end| first_at_or_after(items, end));
                let within = items.get(from..until).unwrap_or_default();
                within.iter().map(of_item).sum()
            }
            Node::Inner(inner) => {
                let first = start.map_or(0, |start| inner.bounds.place(start));
                let last = inner.children.len().saturating_sub(1);
                let last = end.map_or(last, |end| inner.bounds.place(end));
                let count = |place: usize| {
                    let start = start.filter(|_| place == first);
                    let end = end.filter(|_| place == last);
                    inner.children[place].count(start, end, of_sum, of_item)
                };
                (first..=last).map(count).sum()
            }
        }
    }
}

impl<T: Item> Node<T> {
    fn sum(&self) -> T::Sum {
        match self {
            Self::Leaf(items) => add_up(items.iter().map(Item::sum)),
            Self::Inner(inner) => add_up(inner.children.iter().map(|child| child.sum)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    fn change(
        &mut self,
        key: &[u8],
        is_last: bool,
        make: impl FnOnce(Option<&T>) -> T,
    ) -> Option<Split<T>> {
        match self {
            Self::Leaf(items) => change_leaf(Arc::make_mut(items), key, is_last, make),
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let place = inner.bounds.place(key);
                let is_last = is_last && place + 1 == inner.children.len();
                let split = inner.children[place].change(key, is_last, make);
                split.and_then(|split| inner.insert_after(place, split, is_last))
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        match self {
            Self::Leaf(items) => {
                let items = Arc::make_mut(items);
                if let Ok(place) = find(items, key) {
                    items.remove(place);
                }
            }
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let place = inner.bounds.place(key);
                inner.children[place].remove(key);
                inner.merge_around(place);
            }
        }
    }

    /// All of `right`, which comes after `bound`, goes into this one, and has to fit.
    fn append(&mut self, bound: &[u8], right: &Self) {
        match (self, right) {
            (Self::Leaf(items), Self::Leaf(right)) => {
                Arc::make_mut(items).extend(right.iter().cloned());
            }
            (Self::Inner(inner), Self::Inner(right)) => {
                let inner = Arc::make_mut(inner);
                let bounds = inner.bounds.iter().chain([bound]);
                inner.bounds = bounds.chain(right.bounds.iter()).collect();
                inner.children.extend(right.children.iter().cloned());
            }
            _ => unreachable!("all leaves are equally deep"),
        }
    }
}

impl<T: Item> Inner<T> {
    /// The child at `place` was split: its right half goes behind it. Splits this node if it is full.
    fn insert_after(&mut self, place: usize, split: Split<T>, is_last: bool) -> Option<Split<T>> {
        let bounds = |from: usize, until: usize| self.bounds.iter().take(until).skip(from);
        let with_new = bounds(0, place)
            .chain([&*split.bound])
            .chain(bounds(place, usize::MAX));
        let new = Subtree::new(split.right);
        if !self.children.is_full() {
            let with_new = with_new.collect();
            self.children.insert(place + 1, new);
            self.bounds = with_new;
            return None;
        }
        let with_new: Vec<&[u8]> = with_new.collect();
        let left_len = left_len(INNER_MAX, place + 1, is_last);
        // The bound between the halves goes up.
        let (left, right) = with_new.split_at(left_len - 1);
        let (up, right) = right.split_first().expect("as many bounds as children");
        let up = Box::from(*up);
        let (left, right): (Bounds, Bounds) = (
            left.iter().copied().collect(),
            right.iter().copied().collect(),
        );
        let children = insert_and_split(&mut self.children, place + 1, new, left_len);
        self.bounds = left;
        Some(Split {
            bound: up,
            right: Node::Inner(Arc::new(Self {
                bounds: right,
                children,
            })),
        })
    }

    /// Merges the child at `place` with a neighbour if it has few, and leaves it out if it has nothing.
    fn merge_around(&mut self, place: usize) {
        let len = self.children[place].node.len();
        if len >= FEW {
            return;
        }
        if len == 0 {
            self.children.remove(place);
            self.remove_bound(place.saturating_sub(1));
            return;
        }
        let fits = |left: usize| {
            let pair = self.children.get(left..=left + 1)?;
            let together = pair.iter().map(|child| child.node.len()).sum::<usize>();
            (together <= MERGED_MAX).then_some(left)
        };
        let left = fits(place).or_else(|| place.checked_sub(1).and_then(fits));
        let Some(left) = left else {
            return;
        };
        let right = self.children.remove(left + 1);
        let bound = self.bounds.get(left);
        let child = &mut self.children[left];
        child.node.append(bound, &right.node);
        child.sum = child.sum.and(right.sum);
        self.remove_bound(left);
    }

    fn remove_bound(&mut self, place: usize) {
        let (before, after) = (self.bounds.iter().take(place), self.bounds.iter());
        self.bounds = before.chain(after.skip(place + 1)).collect();
    }
}

fn change_leaf<T: Item>(
    items: &mut Leaf<T>,
    key: &[u8],
    is_last: bool,
    make: impl FnOnce(Option<&T>) -> T,
) -> Option<Split<T>> {
    let place = match find(items, key) {
        Ok(place) => {
            let made = make(Some(&items[place]));
            debug_assert_eq!(made.key(), key);
            items[place] = made;
            return None;
        }
        Err(place) => place,
    };
    let made = make(None);
    debug_assert_eq!(made.key(), key);
    if !items.is_full() {
        items.insert(place, made);
        return None;
    }
    let left_len = left_len(LEAF_MAX, place, is_last);
    let right = insert_and_split(items, place, made, left_len);
    let (last, first) = (items.last(), right.first());
    let bound = last
        .zip(first)
        .map(|(last, first)| between(last.key(), first.key()));
    Some(Split {
        bound: Box::from(bound.expect("both halves have something")),
        right: Node::Leaf(Arc::new(right)),
    })
}

/// How much of a full node stays when something is added at `place`: half of it, and all of it when
/// keys come in their order. Then the nodes behind fill up, and those before are full.
fn left_len(max: usize, place: usize, is_last: bool) -> usize {
    if is_last && place == max {
        max
    } else {
        max.div_ceil(2)
    }
}

/// Adds to a full node, and splits it; returns the right half.
fn insert_and_split<E, const MAX: usize>(
    full: &mut ArrayVec<E, MAX>,
    place: usize,
    new: E,
    left_len: usize,
) -> ArrayVec<E, MAX> {
    if place < left_len {
        let right = full.drain(left_len - 1..).collect();
        full.insert(place, new);
        right
    } else {
        let mut right: ArrayVec<E, MAX> = full.drain(left_len..).collect();
        right.insert(place - left_len, new);
        right
    }
}

/// The shortest bound between two neighbours: after `left`, and not after `right`.
fn between<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    debug_assert!(left < right);
    let common = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    &right[..=common]
}

/// Where the item of this key is, or belongs. Fingerprints are in the leaf itself, keys are not: each of a key's
/// neighbours that is looked at is some memory that was not looked at for long.
fn find<T: Item>(items: &[T], key: &[u8]) -> Result<usize, usize> {
    let fingerprint = Fingerprint::of(key);
    let is_it = |item: &T| item.fingerprint() == fingerprint && item.key() == key;
    let found = items.iter().position(is_it);
    found.ok_or_else(|| first_at_or_after(items, key))
}

fn first_at_or_after<T: Item>(items: &[T], key: &[u8]) -> usize {
    items.partition_point(|item| item.key().cmp(key) == Ordering::Less)
}

fn add_up<S: Sum>(sums: impl Iterator<Item = S>) -> S {
    sums.fold(S::default(), S::and)
}

impl<T: Item> std::fmt::Debug for BTree<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BTree").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

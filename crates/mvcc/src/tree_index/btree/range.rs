//! Walking over a part of the tree.

use std::slice;

use super::{BTree, Item, Node, Subtree, first_at_or_after};

/// The items of a range in order, without those of subtrees behind the first leaf that are not wanted.
pub(crate) struct Range<'a, T: Item, P> {
    /// What is left of the nodes on the way to where it is, the lowest last.
    way: Vec<slice::Iter<'a, Subtree<T>>>,
    /// What is left of the leaf where it is.
    leaf: slice::Iter<'a, T>,
    end: Option<&'a [u8]>,
    is_wanted: P,
}

impl<'a, T: Item, P: Fn(&T::Sum) -> bool> Range<'a, T, P> {
    pub(super) fn new(
        tree: &'a BTree<T>,
        start: &[u8],
        end: Option<&'a [u8]>,
        is_wanted: P,
    ) -> Self {
        let mut range = Self {
            way: Vec::new(),
            leaf: [].iter(),
            end,
            is_wanted,
        };
        let mut node = &tree.root.node;
        while let Node::Inner(inner) = node {
            let mut children = inner.children[inner.bounds.place(start)..].iter();
            let Some(first) = children.next() else {
                break;
            };
            range.way.push(children);
            node = &first.node;
        }
        if let Node::Leaf(items) = node {
            range.enter(&items[first_at_or_after(items, start)..]);
        }
        range
    }

    /// Goes on in this leaf, as far as the range goes.
    fn enter(&mut self, items: &'a [T]) {
        let mut within = items;
        if let (Some(end), Some(last)) = (self.end, items.last())
            && last.key() >= end
        {
            within = &items[..first_at_or_after(items, end)];
            self.way.clear();
        }
        self.leaf = within.iter();
    }

    /// Goes on in the next subtree that is wanted; whether there is one.
    fn advance(&mut self) -> bool {
        while let Some(children) = self.way.last_mut() {
            match children.next() {
                None => {
                    self.way.pop();
                }
                Some(child) if !(self.is_wanted)(&child.sum) => {}
                Some(child) => match &child.node {
                    Node::Inner(inner) => self.way.push(inner.children.iter()),
                    Node::Leaf(items) => {
                        self.enter(items);
                        return true;
                    }
                },
            }
        }
        false
    }
}

impl<'a, T: Item, P: Fn(&T::Sum) -> bool> Iterator for Range<'a, T, P> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(item) = self.leaf.next() {
                return Some(item);
            }
            if !self.advance() {
                return None;
            }
        }
    }
}

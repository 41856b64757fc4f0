//! Who wants to hear of a key.
//!
//! Members are numbers of the caller's; those with the same range share a group, so that a
//! thousand watchers of one prefix are one range to look for, and ten thousand watchers of a key
//! each are one look into a map.

use std::collections::HashMap;

use bytes::Bytes;
use slab::Slab;
use types::KeyRange;

use super::range_tree::{End, RangeTree};

/// Members by the ranges they want.
#[derive(Debug, Default)]
pub(crate) struct RangeIndex {
    groups: Slab<Group>,
    singles: HashMap<Bytes, usize>,
    ranges: HashMap<(Bytes, End), usize>,
    tree: RangeTree,
}

#[derive(Debug)]
struct Group {
    range: KeyRange,
    members: Vec<usize>,
}

/// Where a member stands in the index; needed to remove it in constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    group: usize,
    position: usize,
}

impl RangeIndex {
    /// Adds a member that wants the keys of `range`, which is not empty.
    pub(crate) fn insert(&mut self, range: &KeyRange, member: usize) -> Place {
        debug_assert!(!range.is_empty(), "an empty range would never be found");
        let group = self.group(range);
        let members = &mut self.groups[group].members;
        members.push(member);
        Place {
            group,
            position: members.len() - 1,
        }
    }

    /// Removes the member at `place`. Returns the member that stands there now, if another one had
    /// to move.
    pub(crate) fn remove(&mut self, place: Place) -> Option<usize> {
        let group = &mut self.groups[place.group];
        group.members.swap_remove(place.position);
        let moved = group.members.get(place.position).copied();
        if group.members.is_empty() {
            let range = self.groups.remove(place.group).range;
            self.forget(&range);
        }
        moved
    }

    /// Whether there is no member.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Calls `found` with every member that wants `key`, once each.
    pub(crate) fn matches(&self, key: &[u8], mut found: impl FnMut(usize)) {
        let mut visit = |group: usize| self.groups[group].members.iter().for_each(|m| found(*m));
        if let Some(group) = self.singles.get(key) {
            visit(*group);
        }
        self.tree.stab(key, &mut visit);
    }

    fn group(&mut self, range: &KeyRange) -> usize {
        let known = match bounds(range) {
            None => self.singles.get(range.start()),
            Some(bounds) => self.ranges.get(&bounds),
        };
        if let Some(group) = known {
            return *group;
        }
        let group = self.groups.insert(Group {
            range: range.clone(),
            members: Vec::new(),
        });
        match bounds(range) {
            None => {
                self.singles.insert(range.start().clone(), group);
            }
            Some((start, end)) => {
                self.tree.insert(start.clone(), end.clone(), group);
                self.ranges.insert((start, end), group);
            }
        }
        group
    }

    fn forget(&mut self, range: &KeyRange) {
        match bounds(range) {
            None => {
                self.singles.remove(range.start());
            }
            Some(bounds) => {
                let removed = self.tree.remove(&bounds.0, &bounds.1);
                debug_assert!(removed, "a group's range is in the tree");
                self.ranges.remove(&bounds);
            }
        }
    }
}

/// Start and end, or `None` for a single key.
fn bounds(range: &KeyRange) -> Option<(Bytes, End)> {
    match range {
        KeyRange::Single(_) => None,
        KeyRange::From(start) => Some((start.clone(), End::Open)),
        KeyRange::Range { start, end } => Some((start.clone(), End::Before(end.clone()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &RangeIndex, key: &str) -> Vec<usize> {
        let mut members = Vec::new();
        index.matches(key.as_bytes(), |member| members.push(member));
        members.sort_unstable();
        members
    }

    #[test]
    fn members_of_every_kind_of_range_are_found_and_removed() {
        let mut index = RangeIndex::default();
        let prefix = KeyRange::from_wire("a", "b");
        let places = [
            index.insert(&KeyRange::from_wire("a1", ""), 0),
            index.insert(&prefix, 1),
            index.insert(&prefix, 2),
            index.insert(&prefix, 3),
            index.insert(&KeyRange::all(), 4),
        ];
        assert_eq!(found(&index, "a1"), [0, 1, 2, 3, 4]);
        assert_eq!(found(&index, "a2"), [1, 2, 3, 4]);
        assert_eq!(found(&index, "b"), [4]);
        assert_eq!(
            index.remove(places[1]),
            Some(3),
            "the last of the group takes the place"
        );
        assert_eq!(index.remove(places[0]), None);
        assert_eq!(found(&index, "a1"), [2, 3, 4]);
        for place in [places[2], places[1], places[4]] {
            index.remove(place);
        }
        assert!(found(&index, "a1").is_empty() && index.groups.is_empty());
        assert!(index.singles.is_empty() && index.ranges.is_empty());
    }
}

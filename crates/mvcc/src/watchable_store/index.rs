//! Who wants to hear of a key.
//!
//! Members are numbers of the caller's; those with the same range share a group, so that a
//! thousand watchers of one prefix are one range to look for, and ten thousand watchers of a key
//! each are one look into a map.

use std::collections::HashMap;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use super::range_tree::{End, RangeTree};
use super::watched_range::{RangeEnd, SingleKey, WatchedRange};

/// Members by the ranges they want.
#[derive(Debug, Default)]
pub(crate) struct RangeIndex {
    groups: Slab<Group>,
    singles: HashMap<SingleKey, u32>,
    ranges: HashMap<WatchedRange, u32>,
    tree: RangeTree,
}

#[derive(Debug)]
pub(super) struct Group {
    range: WatchedRange,
    /// Most keys that somebody watches are watched by one or two.
    members: SmallVec<[u32; 4]>,
}

/// Where a member stands in the index; needed to remove it in constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    group: u32,
    position: u32,
}

impl RangeIndex {
    /// Adds a member that wants the keys of `range`, which is not empty.
    pub(crate) fn insert(&mut self, range: &WatchedRange, member: usize) -> Place {
        let group = self.group(range);
        let members = &mut self.groups[group as usize].members;
        members.push(small(member));
        Place {
            group,
            position: small(members.len() - 1),
        }
    }

    /// Removes the member at `place`. Returns the member that stands there now, if another one had
    /// to move.
    pub(crate) fn remove(&mut self, place: Place) -> Option<usize> {
        let group = &mut self.groups[place.group as usize];
        let position = place.position as usize;
        group.members.swap_remove(position);
        let moved = group.members.get(position).map(|moved| *moved as usize);
        if group.members.is_empty() {
            let range = self.groups.remove(place.group as usize).range;
            self.forget(range);
        }
        moved
    }

    /// Whether there is no member.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Calls `found` with every member that wants `key`, once each.
    pub(crate) fn matches(&self, key: &[u8], mut found: impl FnMut(usize)) {
        let mut visit = |group: usize| {
            let members = &self.groups[group].members;
            members.iter().for_each(|member| found(*member as usize));
        };
        if let Some(group) = self.singles.get(key) {
            visit(*group as usize);
        }
        self.tree.stab(key, &mut visit);
    }

    fn group(&mut self, range: &WatchedRange) -> u32 {
        let known = match range.end() {
            None => self.singles.get(range.start()),
            Some(_) => self.ranges.get(range),
        };
        if let Some(group) = known {
            return *group;
        }
        let number = self.groups.insert(Group {
            range: range.clone(),
            members: SmallVec::new(),
        });
        let group = small(number);
        match range.end() {
            None => {
                self.singles.insert(SingleKey(range.clone()), group);
            }
            Some(end) => {
                let start = Bytes::copy_from_slice(range.start());
                self.tree.insert(start, to_end(end), number);
                self.ranges.insert(range.clone(), group);
            }
        }
        group
    }

    fn forget(&mut self, range: WatchedRange) {
        match range.end() {
            None => {
                self.singles.remove(range.start());
            }
            Some(end) => {
                let removed = self.tree.remove(range.start(), &to_end(end));
                debug_assert!(removed, "a group's range is in the tree");
                self.ranges.remove(&range);
            }
        }
    }
}

fn to_end(end: RangeEnd<'_>) -> End {
    match end {
        RangeEnd::Open => End::Open,
        RangeEnd::Before(key) => End::Before(Bytes::copy_from_slice(key)),
    }
}

/// Numbers of watchers take four bytes wherever there is one for each of them.
pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).expect("there is no memory for four billion watchers")
}

#[cfg(test)]
mod tests {
    use types::KeyRange;

    use super::*;

    fn range(start: &'static str, end: &'static str) -> WatchedRange {
        WatchedRange::from(&KeyRange::from_wire(start, end))
    }

    fn found(index: &RangeIndex, key: &str) -> Vec<usize> {
        let mut members = Vec::new();
        index.matches(key.as_bytes(), |member| members.push(member));
        members.sort_unstable();
        members
    }

    #[test]
    fn members_of_every_kind_of_range_are_found_and_removed() {
        let mut index = RangeIndex::default();
        let prefix = range("a", "b");
        let places = [
            index.insert(&range("a1", ""), 0),
            index.insert(&prefix, 1),
            index.insert(&prefix, 2),
            index.insert(&prefix, 3),
            index.insert(&range("", "\0"), 4),
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

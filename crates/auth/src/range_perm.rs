//! What all roles of a user together allow (`server/auth/range_perm_cache.go`).

use std::collections::BTreeMap;
use std::ops::Bound;

use api::authpb::permission::Type;
use api::authpb::{Permission, Role};
use types::KeyRange;

/// Key ranges that may be read, and that may be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangePermissions {
    read: Intervals,
    write: Intervals,
}

/// Neighbouring ranges are one; each begins at a key, and ends before another or never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Intervals(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl RangePermissions {
    pub(crate) fn of<'a>(roles: impl Iterator<Item = &'a Role>) -> Self {
        let mut permissions = Self::default();
        for permission in roles.flat_map(|role| &role.key_permission) {
            // A type that nobody knows allows nothing.
            let Ok(kind) = Type::try_from(permission.perm_type) else {
                continue;
            };
            if matches!(kind, Type::Read | Type::Readwrite) {
                permissions.read.add(permission);
            }
            if matches!(kind, Type::Write | Type::Readwrite) {
                permissions.write.add(permission);
            }
        }
        permissions
    }

    pub(crate) fn may_read(&self, keys: &KeyRange) -> bool {
        self.read.cover(keys)
    }

    pub(crate) fn may_write(&self, keys: &KeyRange) -> bool {
        self.write.cover(keys)
    }
}

impl Intervals {
    fn add(&mut self, permission: &Permission) {
        let begin = &permission.key;
        if begin.is_empty() {
            // etcd before 3.5.8 let such a permission in; it is of no key.
            return;
        }
        let end = match permission.range_end.as_slice() {
            [] => Some([begin.as_slice(), &[0]].concat()),
            [0] => None,
            end => Some(end.to_vec()),
        };
        if end.as_ref().is_some_and(|end| end <= begin) {
            return;
        }
        self.merge(begin.clone(), end);
    }

    fn merge(&mut self, mut begin: Vec<u8>, mut end: Option<Vec<u8>>) {
        // The one before it, if it reaches as far as this.
        if let Some((before, reach)) = self.0.range(..=begin.clone()).next_back()
            && reach.as_ref().is_none_or(|reach| *reach >= begin)
        {
            begin = before.clone();
            end = later(end, reach.clone());
        }
        // Those that begin within it.
        let within: Vec<Vec<u8>> = (self.0.range(begin.clone()..))
            .map(|(start, _)| start)
            .take_while(|start| end.as_ref().is_none_or(|end| *start <= end))
            .cloned()
            .collect();
        for start in within {
            if let Some(reach) = self.0.remove(&start) {
                end = later(end, reach);
            }
        }
        // What they reached may begin others.
        match self.0.range(begin.clone()..).next() {
            Some((start, _)) if end.as_ref().is_none_or(|end| start <= end) => {
                self.merge(begin, end);
            }
            _ => {
                self.0.insert(begin, end);
            }
        }
    }

    /// Whether every key of the range is in one of these. An empty range is where it begins.
    fn cover(&self, keys: &KeyRange) -> bool {
        let start = keys.start().as_ref();
        let Some((_, reach)) = (self.0)
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(start)))
            .next_back()
        else {
            return false;
        };
        let Some(reach) = reach else { return true };
        match keys {
            KeyRange::Single(_) => reach.as_slice() > start,
            KeyRange::From(_) => false,
            KeyRange::Range { end, .. } => {
                reach.as_slice() > start && reach.as_slice() >= end.as_ref()
            }
        }
    }
}

/// The later of two ends; none is the latest.
fn later(a: Option<Vec<u8>>, b: Option<Vec<u8>>) -> Option<Vec<u8>> {
    Some(a?.max(b?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permission(kind: Type, key: &[u8], range_end: &[u8]) -> Permission {
        Permission {
            perm_type: kind.into(),
            key: key.to_vec(),
            range_end: range_end.to_vec(),
        }
    }

    fn of(permissions: Vec<Permission>) -> RangePermissions {
        let role = Role {
            name: b"r".to_vec(),
            key_permission: permissions,
        };
        RangePermissions::of(std::iter::once(&role))
    }

    fn range(key: &[u8], end: &[u8]) -> KeyRange {
        KeyRange::from_wire(key.to_vec(), end.to_vec())
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let both = of(vec![
            permission(Type::Read, b"a", b"c"),
            permission(Type::Read, b"c", b"e"),
            permission(Type::Write, b"a", b"b"),
            permission(Type::Readwrite, b"x", &[0]),
        ]);
        assert!(both.may_read(&range(b"a", b"e")));
        assert!(!both.may_read(&range(b"a", b"e\0")));
        assert!(!both.may_read(&range(b"a", &[0])));
        assert!(both.may_read(&range(b"x", &[0])));
        assert!(both.may_write(&range(b"a", b"")));
        assert!(!both.may_write(&range(b"b", b"")));
        assert!(both.may_write(&range(b"zz", b"")));
    }

    #[test]
    fn a_permission_of_no_key_allows_nothing() {
        for (key, end) in [(b"".as_slice(), [0].as_slice()), (b"b", b"a"), (b"", b"")] {
            let nothing = of(vec![permission(Type::Readwrite, key, end)]);
            assert!(!nothing.may_read(&range(b"a", b"")));
            assert!(!nothing.may_read(&range(&[0], &[0])));
        }
        let unknown = of(vec![Permission {
            perm_type: 7,
            key: b"a".to_vec(),
            range_end: vec![],
        }]);
        assert!(!unknown.may_read(&range(b"a", b"")));
        assert!(!unknown.may_write(&range(b"a", b"")));
    }

    proptest! {
        /// Against the plain meaning, key by key, of an alphabet of three-letter keys.
        #[test]
        fn a_range_is_allowed_when_all_its_keys_are(
            granted in prop::collection::vec((0u8..12, 0u8..12, 0u8..3), 0..6),
            key in 0u8..12, end in 0u8..12, shape in 0u8..3,
        ) {
            let bytes = |n: u8| vec![b'a' + n];
            let end_of = |shape: u8, end: u8| match shape {
                0 => vec![],
                1 => vec![0],
                _ => bytes(end),
            };
            let permissions = of(granted
                .iter()
                .map(|(key, end, shape)| permission(Type::Read, &bytes(*key), &end_of(*shape, *end)))
                .collect());
            // Every letter stands for itself and, with a zero, for what is behind it.
            let mut keys = Vec::new();
            for n in 0..13 {
                keys.push(bytes(n));
                keys.push([bytes(n), vec![0]].concat());
            }
            let wanted = range(&bytes(key), &end_of(shape, end));
            prop_assume!(!wanted.is_empty());
            let allowed = |key: &Vec<u8>| granted.iter().any(|(from, end, shape)| {
                range(&bytes(*from), &end_of(*shape, *end)).contains(key)
            });
            let all = keys.iter().filter(|key| wanted.contains(key)).all(allowed);
            prop_assert_eq!(permissions.may_read(&wanted), all);
        }
    }
}

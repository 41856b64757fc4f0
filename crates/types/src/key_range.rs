//! A set of neighbouring keys, without etcd's magic values for "one key" and "no end".

use std::fmt;

use bytes::Bytes;

/// Which keys a request is about.
///
/// On the wire this is a `key` and a `range_end` in which nothing and a zero byte have a meaning
/// of their own; [`KeyRange::from_wire`] is the one place that knows them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// Exactly this key.
    Single(Bytes),
    /// Every key at or after this one.
    From(Bytes),
    /// Every key at or after `start` and before `end`; empty when `end <= start`.
    Range {
        /// The first key.
        start: Bytes,
        /// The first key that is not in the range any more.
        end: Bytes,
    },
}

impl KeyRange {
    /// The range that etcd's `key` and `range_end` stand for.
    #[must_use]
    pub fn from_wire(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Self {
        let (key, end) = (key.into(), range_end.into());
        match end.as_ref() {
            [] => Self::Single(key),
            [0] => Self::From(key),
            _ => Self::Range { start: key, end },
        }
    }

    /// Every key there is.
    #[must_use]
    pub const fn all() -> Self {
        Self::From(Bytes::new())
    }

    /// The `key` and `range_end` that stand for this range on the wire.
    #[must_use]
    pub fn to_wire(&self) -> (Bytes, Bytes) {
        match self {
            Self::Single(key) => (key.clone(), Bytes::new()),
            Self::From(key) => (key.clone(), Bytes::from_static(&[0])),
            Self::Range { start, end } => (start.clone(), end.clone()),
        }
    }

    /// The first key that may be in the range.
    #[must_use]
    pub const fn start(&self) -> &Bytes {
        match self {
            Self::Single(key) | Self::From(key) => key,
            Self::Range { start, .. } => start,
        }
    }

    /// Whether no key can be in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Range { start, end } if end <= start)
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(single) => single == key,
            Self::From(start) => key >= start.as_ref(),
            Self::Range { start, end } => key >= start.as_ref() && key < end.as_ref(),
        }
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(key) => write!(f, "{key:?}"),
            Self::From(start) => write!(f, "[{start:?}, end)"),
            Self::Range { start, end } => write!(f, "[{start:?}, {end:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_end_is_one_key() {
        let range = KeyRange::from_wire("a", "");
        assert!(range.contains(b"a") && !range.contains(b"aa"));
    }

    #[test]
    fn a_zero_end_is_open() {
        let range = KeyRange::from_wire("b", &b"\0"[..]);
        assert!(range.contains(b"b") && range.contains(b"\xff\xff") && !range.contains(b"a"));
        assert!(KeyRange::from_wire(&b"\0"[..], &b"\0"[..]).contains(b"\0"));
    }

    #[test]
    fn an_end_at_or_before_the_start_is_empty() {
        for end in ["b", "a"] {
            let range = KeyRange::from_wire("b", end);
            assert!(range.is_empty() && !range.contains(b"b"));
        }
    }
}

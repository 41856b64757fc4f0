//! The keys of a watcher. There are tens of thousands of watchers, most of them idle: what each is about is one piece of
//! memory that its stream and the index share.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use triomphe::ThinArc;
use types::KeyRange;

/// A [`KeyRange`] that takes little. Cloning it costs a count.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct WatchedRange(ThinArc<Head, u8>);

/// What the bytes are: the first key, and behind it where the range ends.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Head {
    start_bytes: u32,
    end: EndKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum EndKind {
    /// With the first key.
    Single,
    /// Nowhere.
    Open,
    /// Before the key whose bytes are there.
    Before,
}

/// Where a range of more than one key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RangeEnd<'a> {
    /// Nowhere.
    Open,
    /// Before this key.
    Before(&'a [u8]),
}

impl WatchedRange {
    /// The first key that may be in it.
    pub(super) fn start(&self) -> &[u8] {
        &self.0.slice[..self.start_bytes()]
    }

    /// Where it ends; `None` if it is one key.
    pub(super) fn end(&self) -> Option<RangeEnd<'_>> {
        match self.0.header.header.end {
            EndKind::Single => None,
            EndKind::Open => Some(RangeEnd::Open),
            EndKind::Before => Some(RangeEnd::Before(&self.0.slice[self.start_bytes()..])),
        }
    }

    fn start_bytes(&self) -> usize {
        self.0.header.header.start_bytes as usize
    }
}

impl From<&KeyRange> for WatchedRange {
    fn from(range: &KeyRange) -> Self {
        let start = range.start();
        let (end, end_bytes): (_, &[u8]) = match range {
            KeyRange::Single(_) => (EndKind::Single, &[]),
            KeyRange::From(_) => (EndKind::Open, &[]),
            KeyRange::Range { end, .. } => (EndKind::Before, end),
        };
        let start_bytes = u32::try_from(start.len()).expect("a request has less than 4 GiB");
        let bytes = [start.as_ref(), end_bytes].concat();
        Self(ThinArc::from_header_and_slice(
            Head { start_bytes, end },
            &bytes,
        ))
    }
}

impl fmt::Debug for WatchedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut range = f.debug_struct("WatchedRange");
        range.field("start", &self.start().escape_ascii().to_string());
        range.field("end", &self.end()).finish()
    }
}

/// A range of one key, that a map finds by the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SingleKey(pub(super) WatchedRange);

impl Borrow<[u8]> for SingleKey {
    fn borrow(&self) -> &[u8] {
        self.0.start()
    }
}

impl Hash for SingleKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.start().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_it_was_made_of() {
        let range = |start: &'static str, end: &'static str| {
            WatchedRange::from(&KeyRange::from_wire(start, end))
        };
        let (single, open, bounded) = (range("ab", ""), range("ab", "\0"), range("a", "b"));
        assert_eq!((single.start(), single.end()), (&b"ab"[..], None));
        assert_eq!(
            (open.start(), open.end()),
            (&b"ab"[..], Some(RangeEnd::Open))
        );
        assert_eq!(
            (bounded.start(), bounded.end()),
            (&b"a"[..], Some(RangeEnd::Before(b"b")))
        );
        assert!(single != open && single != bounded && open != bounded);
        assert_eq!(bounded, range("a", "b"));
    }
}

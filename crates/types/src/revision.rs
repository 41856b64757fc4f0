//! A point in the history of the store.

use std::fmt;

/// The place of one change in the store's history: the transaction's revision and the change's
/// place in that transaction (`server/storage/mvcc/revision.go`).
///
/// Order is history's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision {
    /// The revision of the transaction; the first one that writes gets 2.
    pub main: i64,
    /// The place of the change in its transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The change number `sub` of the transaction at revision `main`.
    #[must_use]
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.main, self.sub)
    }
}

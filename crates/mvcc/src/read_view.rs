//! The store at one moment: consistent, and never in a writer's way.

use types::KeyRange;

use crate::{RangeError, StoredKv};

/// The store as it was when the view was taken. Later writes do not show.
#[derive(Clone, Debug)]
pub struct ReadView {}

/// What to read.
#[derive(Clone, Debug)]
pub struct Range {
    /// Which keys.
    pub keys: KeyRange,
    /// At which revision; `None` for the view's own.
    pub at: Option<i64>,
    /// At most so many key-values, in key order; `None` for all. `count` does not depend on it.
    pub limit: Option<usize>,
    /// Only count, return no key-values.
    pub count_only: bool,
}

/// What a range found.
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    /// The key-values in key order, at most `limit`.
    pub kvs: Vec<StoredKv>,
    /// How many keys the range holds at that revision, whatever the limit.
    pub count: usize,
}

impl ReadView {
    /// The revision of the view.
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// History up to here is gone; -1 when nothing was compacted yet.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }
    /// Reads a range.
    pub fn range(&self, _range: &Range) -> Result<RangeResult, RangeError> {
        todo!()
    }
}

//! One transaction: its changes share a main revision.

use bytes::Bytes;
use types::{KeyRange, LeaseId};

use crate::{Range, RangeError, RangeResult, StoredKv};

/// A transaction in progress. It sees its own changes; nobody else does before
/// [`crate::Writer::publish`]. Dropping it without [`WriteTxn::end`] is a bug in the caller.
#[derive(Debug)]
pub struct WriteTxn<'w> {
    _writer: &'w mut crate::Writer,
}

/// A key to write.
#[derive(Clone, Debug)]
pub struct Put {
    /// The key; never empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach it to.
    pub lease: Option<LeaseId>,
}

/// A key that was deleted.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its last version.
    pub prev: StoredKv,
}

impl WriteTxn<'_> {
    /// Reads through the transaction: its own changes show when `at` is `None`.
    pub fn range(&self, _range: &Range) -> Result<RangeResult, RangeError> {
        todo!()
    }
    /// The newest version of one key, the transaction's own changes included.
    #[must_use]
    pub fn get(&self, _key: &[u8]) -> Option<StoredKv> {
        todo!()
    }
    /// Writes a key, and returns the version that it replaces.
    pub fn put(&mut self, _put: Put) -> Option<StoredKv> {
        todo!()
    }
    /// Deletes every key of the range, in key order.
    pub fn delete_range(&mut self, _keys: &KeyRange) -> Vec<Deleted> {
        todo!()
    }
    /// Whether anything was changed so far.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        todo!()
    }
    /// The revision that responses from inside the transaction show: the store's, plus one as soon
    /// as something was changed.
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// Ends the transaction; returns the store's revision, which moved by one if something changed.
    pub fn end(self) -> i64 {
        todo!()
    }
}

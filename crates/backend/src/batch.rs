//! Changes that are applied together or not at all.

use bytes::Bytes;

use crate::Bucket;

/// Changes that are applied together or not at all. The last change of a key wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) changes: Vec<(Bucket, Bytes, Option<Bytes>)>,
}

impl Batch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`, of any size.
    pub fn put(&mut self, bucket: Bucket, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.push((bucket, key.into(), Some(value.into())));
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, bucket: Bucket, key: impl Into<Bytes>) {
        self.changes.push((bucket, key.into(), None));
    }

    /// What is set, in the order in which it was.
    pub fn into_puts(self) -> impl Iterator<Item = (Bucket, Bytes, Bytes)> {
        let changes = self.changes.into_iter();
        changes.filter_map(|(bucket, key, value)| Some((bucket, key, value?)))
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_change = |(_, key, value): &(_, Bytes, Option<Bytes>)| {
            key.len() + value.as_ref().map_or(0, Bytes::len)
        };
        self.changes.iter().map(of_change).sum()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

//! The store's single values in bucket `Meta`.

use backend::schema::meta::{self, MetaKey};
use backend::{Batch, Bucket, Reader};

use crate::StoreError;

pub(crate) const CURRENT_REVISION: MetaKey = MetaKey::CurrentRevision;
pub(crate) const SCHEDULED_COMPACT: MetaKey = MetaKey::ScheduledCompact;
pub(crate) const ALLOCATED: MetaKey = MetaKey::Allocated;
pub(crate) const FINISHED_COMPACT: MetaKey = MetaKey::FinishedCompact;

pub(crate) fn put(batch: &mut Batch, key: MetaKey, revision: i64) {
    batch.put(
        Bucket::Meta,
        meta::encode(key),
        revision.to_be_bytes().to_vec(),
    );
}

pub(crate) fn get(reader: &Reader, key: MetaKey) -> Result<Option<i64>, StoreError> {
    let Some(value) = reader.get(Bucket::Meta, meta::encode(key))? else {
        return Ok(None);
    };
    match value.as_ref().try_into() {
        Ok(bytes) => Ok(Some(i64::from_be_bytes(bytes))),
        Err(_other_length) => Err(StoreError::Meta {
            name: key.name(),
            len: value.len(),
        }),
    }
}

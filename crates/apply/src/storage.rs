//! The part of the state that has no bucket of its own: where it stands in the log, the membership
//! that Raft wants back, and what the quota counts. All of it in bucket `Meta`.

use backend::schema::meta::{self, MetaKey};
use backend::{Batch, Bucket, Reader};
use bytes::Bytes;
use prost::Message;

use crate::quota::Usage;
use crate::{LogPosition, OpenError};

/// What [`open`] finds.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: Option<Bytes>,
    pub(crate) usage: Usage,
}

pub(crate) fn open(reader: &Reader) -> Result<Meta, OpenError> {
    let membership = reader.get(Bucket::Meta, meta::encode(MetaKey::Membership))?;
    let key = meta::encode(MetaKey::Applied);
    let Some(bytes) = reader.get(Bucket::Meta, key)? else {
        return Ok(Meta {
            membership,
            ..Meta::default()
        });
    };
    let message = api::internalpb::Applied::decode(bytes).map_err(|source| OpenError::Decode {
        bucket: Bucket::Meta,
        key: Bytes::from_static(key),
        source,
    })?;
    let position = LogPosition {
        term: message.term,
        leader: message.leader,
        index: message.index,
    };
    let applied = message.any.then_some(position);
    Ok(Meta {
        applied,
        membership,
        usage: Usage::from_message(message.usage.unwrap_or_default()),
    })
}

/// The position and the usage, in one record: they belong to the same moment.
pub(crate) fn stage(batch: &mut Batch, applied: Option<LogPosition>, usage: &Usage) {
    let LogPosition {
        term,
        leader,
        index,
    } = applied.unwrap_or_default();
    let usage = Some(usage.to_message());
    let message = api::internalpb::Applied {
        term,
        leader,
        index,
        any: applied.is_some(),
        usage,
    };
    batch.put(
        Bucket::Meta,
        meta::encode(MetaKey::Applied),
        message.encode_to_vec(),
    );
}

pub(crate) fn stage_membership(batch: &mut Batch, raw: Bytes) {
    batch.put(Bucket::Meta, meta::encode(MetaKey::Membership), raw);
}

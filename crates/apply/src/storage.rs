//! The part of the state that has no bucket of its own: where it stands in the log, the membership
//! that Raft wants back, and what the quota counts. All of it in bucket `Meta`.

use api::internalpb as pb;
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
    /// The entry as of which the store was received from another member.
    pub(crate) installed: Option<LogPosition>,
}

pub(crate) fn open(reader: &Reader) -> Result<Meta, OpenError> {
    let get = |key| reader.get(Bucket::Meta, meta::encode(key));
    if get(MetaKey::Incoming)?.is_some() {
        return Err(OpenError::Unfinished);
    }
    let membership = get(MetaKey::Membership)?;
    let (installed, _) = read(reader, MetaKey::Installed)?;
    let (applied, usage) = read(reader, MetaKey::Applied)?;
    Ok(Meta {
        applied,
        membership,
        usage,
        installed,
    })
}

fn read(reader: &Reader, key: MetaKey) -> Result<(Option<LogPosition>, Usage), OpenError> {
    let key = meta::encode(key);
    let Some(bytes) = reader.get(Bucket::Meta, key)? else {
        return Ok((None, Usage::default()));
    };
    let message = pb::Applied::decode(bytes).map_err(|source| OpenError::Decode {
        bucket: Bucket::Meta,
        key: Bytes::from_static(key),
        source,
    })?;
    let position = LogPosition {
        term: message.term,
        leader: message.leader,
        index: message.index,
    };
    let usage = Usage::from_message(message.usage.unwrap_or_default());
    Ok((message.any.then_some(position), usage))
}

/// The position and the usage, in one record: they belong to the same moment.
pub(crate) fn stage(batch: &mut Batch, applied: Option<LogPosition>, usage: &Usage) {
    let usage = Some(usage.to_message());
    put(batch, MetaKey::Applied, applied, usage);
}

/// The store was received as of this entry.
pub(crate) fn stage_installed(batch: &mut Batch, at: LogPosition) {
    put(batch, MetaKey::Installed, Some(at), None);
}

fn put(batch: &mut Batch, key: MetaKey, applied: Option<LogPosition>, usage: Option<pb::Usage>) {
    let LogPosition {
        term,
        leader,
        index,
    } = applied.unwrap_or_default();
    let message = pb::Applied {
        term,
        leader,
        index,
        any: applied.is_some(),
        usage,
    };
    batch.put(Bucket::Meta, meta::encode(key), message.encode_to_vec());
}

pub(crate) fn stage_membership(batch: &mut Batch, raw: Bytes) {
    batch.put(Bucket::Meta, meta::encode(MetaKey::Membership), raw);
}

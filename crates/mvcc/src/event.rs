//! What watchers see.

use std::sync::OnceLock;

use prost::encoding::{encode_varint, encoded_len_varint};
use smallvec::SmallVec;

use crate::StoredKv;
use crate::key_index::Version;

/// All changes of one revision, in order. Shared by the event log and every watcher.
#[derive(Debug)]
pub struct RevisionEvents {
    /// The main revision of the transaction.
    pub revision: i64,
    /// Its changes, by sub revision; never empty.
    pub events: Events,
}

/// The changes of a revision: nearly always one.
pub type Events = SmallVec<[Event; 1]>;

/// Whether a key was written or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Written.
    Put,
    /// Deleted.
    Delete,
}

/// Whether an event carries the key-value that it replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrevKv {
    /// Without it.
    Omit,
    /// With it, where there was one and history still has it.
    Include,
}

/// One change of one key.
#[derive(Debug)]
pub struct Event {
    /// Written or deleted.
    pub kind: EventKind,
    /// The version written; for a delete, one that has only key and mod revision.
    pub kv: StoredKv,
    /// The version before, if there was one and it is still known.
    pub prev: Option<StoredKv>,
    plain: OnceLock<Box<[u8]>>,
    with_prev: OnceLock<Box<[u8]>>,
}

/// What an event takes in memory beyond its key-values' bytes; roughly.
const EVENT_OVERHEAD_BYTES: usize = size_of::<Event>() + 64;

// The tags of `mvccpb.Event`: field number and wire type.
const TYPE: u8 = 1 << 3;
const KV: u8 = 2 << 3 | 2;
const PREV_KV: u8 = 3 << 3 | 2;
const TYPE_DELETE: u8 = 1;

impl Event {
    /// A change.
    #[must_use]
    pub fn new(kind: EventKind, kv: StoredKv, prev: Option<StoredKv>) -> Self {
        Self {
            kind,
            kv,
            prev,
            plain: OnceLock::new(),
            with_prev: OnceLock::new(),
        }
    }

    /// The message `mvccpb.Event`, encoded once for all watchers that ask alike.
    #[must_use]
    pub fn encoded(&self, prev: PrevKv) -> &[u8] {
        match (prev, &self.prev) {
            (PrevKv::Include, Some(prev)) => self.with_prev.get_or_init(|| self.encode(Some(prev))),
            _ => self.plain.get_or_init(|| self.encode(None)),
        }
    }

    fn encode(&self, prev: Option<&StoredKv>) -> Box<[u8]> {
        let message_len =
            |kv: &StoredKv| 1 + encoded_len_varint(kv.encoded().len() as u64) + kv.encoded().len();
        let kind: &[u8] = match self.kind {
            EventKind::Put => &[],
            EventKind::Delete => &[TYPE, TYPE_DELETE],
        };
        let len = kind.len() + message_len(&self.kv) + prev.map_or(0, message_len);
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(kind);
        for (tag, kv) in [(KV, Some(&self.kv)), (PREV_KV, prev)] {
            if let Some(kv) = kv {
                out.push(tag);
                encode_varint(kv.encoded().len() as u64, &mut out);
                out.extend_from_slice(kv.encoded());
            }
        }
        out.into_boxed_slice()
    }

    /// The change's place in history.
    pub(crate) fn version(&self) -> Version {
        let is_delete = self.kind == EventKind::Delete;
        Version::new(self.kv.mod_revision(), self.stored().len(), is_delete)
    }

    /// The bytes that the disk holds for this change: for a delete, of the key alone.
    pub(crate) fn stored(&self) -> &[u8] {
        match self.kind {
            EventKind::Put => self.kv.encoded(),
            EventKind::Delete => self.kv.encoded_key_only(),
        }
    }
}

impl RevisionEvents {
    /// About what these events take in memory.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.events
            .iter()
            .map(|event| {
                let prev = event.prev.as_ref().map_or(0, |prev| prev.encoded().len());
                EVENT_OVERHEAD_BYTES + event.kv.encoded().len() + prev
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use api::mvccpb;
    use prost::Message;
    use types::Revision;

    use super::*;
    use crate::KvParts;

    fn kv(value: &[u8]) -> StoredKv {
        StoredKv::new(&KvParts {
            key: b"k",
            value,
            mod_revision: Revision::new(3, 0),
            create_revision: 2,
            version: 2,
            lease: None,
        })
    }

    fn decode(bytes: &[u8]) -> mvccpb::Event {
        let event = mvccpb::Event::decode(bytes).unwrap();
        assert_eq!(event.encode_to_vec(), bytes, "not canonical");
        event
    }

    #[test]
    fn a_put_is_encoded_as_prost_does_with_and_without_the_replaced_value() {
        let event = Event::new(EventKind::Put, kv(b"new"), Some(kv(b"old")));
        let plain = decode(event.encoded(PrevKv::Omit));
        assert_eq!((plain.r#type, plain.prev_kv.is_none()), (0, true));
        assert_eq!(&plain.kv.unwrap().value[..], b"new");
        let full = decode(event.encoded(PrevKv::Include));
        assert_eq!(&full.prev_kv.unwrap().value[..], b"old");
    }

    #[test]
    fn a_delete_says_key_and_revision() {
        let tombstone = StoredKv::tombstone(b"k", Revision::new(9, 1));
        let event = Event::new(EventKind::Delete, tombstone, None);
        let message = decode(event.encoded(PrevKv::Include));
        assert_eq!(message.r#type, 1);
        let kv = message.kv.unwrap();
        assert_eq!(
            (&kv.key[..], kv.mod_revision, kv.create_revision),
            (&b"k"[..], 9, 0)
        );
        assert_eq!(StoredKv::parse_key(event.stored()).unwrap(), b"k");
    }
}

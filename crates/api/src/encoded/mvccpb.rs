//! A key-value as the store holds it and the server sends it: encoded already.

use std::hash::{Hash, Hasher};

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};
use triomphe::ThinArc;

use crate::mvccpb;

/// The bytes of an [`mvccpb::KeyValue`], and what the store notes beside them, in one shared allocation.
pub type Shared = ThinArc<Head, u8>;

/// What the store (`mvcc::StoredKv`) notes of a key-value, for itself. It is not sent.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The main revision at which it was written.
    pub main: i64,
    /// Its place in the transaction.
    pub sub: u32,
    /// Bytes of its key.
    pub key_len: u32,
}

/// An [`mvccpb::KeyValue`] that is encoded already. As a field of a message it is written as it is.
#[derive(Clone, Debug)]
pub enum KeyValue {
    /// As the store holds it.
    Stored(Shared),
    /// As something else made it.
    Made(Bytes),
}

impl KeyValue {
    /// The message, encoded.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        match self {
            Self::Stored(shared) => &shared.slice,
            Self::Made(bytes) => bytes,
        }
    }
}

impl From<&mvccpb::KeyValue> for KeyValue {
    fn from(typed: &mvccpb::KeyValue) -> Self {
        Self::Made(typed.encode_to_vec().into())
    }
}

/// The message, encoded; it is not copied.
impl From<KeyValue> for Bytes {
    fn from(kv: KeyValue) -> Self {
        struct Owned(Shared);
        impl AsRef<[u8]> for Owned {
            fn as_ref(&self) -> &[u8] {
                &self.0.slice
            }
        }
        match kv {
            KeyValue::Stored(shared) => Self::from_owner(Owned(shared)),
            KeyValue::Made(bytes) => bytes,
        }
    }
}

impl Default for KeyValue {
    fn default() -> Self {
        Self::Made(Bytes::new())
    }
}

impl PartialEq for KeyValue {
    fn eq(&self, other: &Self) -> bool {
        self.encoded() == other.encoded()
    }
}

impl Eq for KeyValue {}

impl Hash for KeyValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.encoded().hash(state);
    }
}

impl Message for KeyValue {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(self.encoded());
    }

    fn encoded_len(&self) -> usize {
        self.encoded().len()
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Servers do not receive key-values; this is for whoever decodes what they sent.
        let mut typed = mvccpb::KeyValue::decode(self.encoded())?;
        typed.merge_field(tag, wire_type, buffer, context)?;
        *self = Self::from(&typed);
        Ok(())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encoded, etcdserverpb};

    #[test]
    fn a_response_is_the_same_bytes_as_the_typed_one_and_back() {
        let typed = mvccpb::KeyValue {
            key: b"key".to_vec().into(),
            value: vec![b'v'; 300].into(),
            create_revision: 2,
            mod_revision: 5,
            version: 3,
            lease: -7,
        };
        let head = Head {
            main: 5,
            sub: 0,
            key_len: 3,
        };
        let stored = Shared::from_header_and_slice(head, &typed.encode_to_vec());
        let response = encoded::etcdserverpb::RangeResponse {
            kvs: vec![KeyValue::Stored(stored), KeyValue::from(&typed)],
            count: 2,
            ..Default::default()
        };
        let expected = etcdserverpb::RangeResponse {
            kvs: vec![typed.clone(), typed],
            count: 2,
            ..Default::default()
        };
        let bytes = response.encode_to_vec();
        assert_eq!(bytes, expected.encode_to_vec());
        let back = encoded::etcdserverpb::RangeResponse::decode(&bytes[..]).unwrap();
        assert_eq!(back, response);
    }
}

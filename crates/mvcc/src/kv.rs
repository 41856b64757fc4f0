//! A stored key-value: encoded once, when it is applied, and never changed again.

use bytes::Bytes;
use types::{LeaseId, Revision};

/// One version of one key. `encoded` is the canonical protobuf of `mvccpb.KeyValue`, byte for byte
/// what etcd would store; the rest is what kvorum needs to look at without decoding.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct StoredKv {
    _encoded: Bytes,
}

impl StoredKv {
    /// The message `mvccpb.KeyValue`, encoded.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        todo!()
    }
    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        todo!()
    }
    /// The value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        todo!()
    }
    /// When this version was written.
    #[must_use]
    pub fn mod_revision(&self) -> Revision {
        todo!()
    }
    /// The main revision at which the key began to exist.
    #[must_use]
    pub fn create_revision(&self) -> i64 {
        todo!()
    }
    /// How often the key has been written since then, from 1.
    #[must_use]
    pub fn version(&self) -> i64 {
        todo!()
    }
    /// The lease it is attached to.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        todo!()
    }
    /// The same version without its value (for `keys_only`), encoded.
    #[must_use]
    pub fn encoded_without_value(&self) -> Bytes {
        todo!()
    }
}

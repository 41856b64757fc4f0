//! A stored key-value: encoded once, when it is applied, and never changed again.

use api::encoded::mvccpb::{Head, KeyValue, Shared};
use bytes::{BufMut, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use types::{LeaseId, Revision};

/// One version of one key: the canonical protobuf of `mvccpb.KeyValue`, byte for byte what etcd would
/// store, and before it only what is looked at for many keys in a row, or not in it. All of that is one
/// allocation, and the only one that a key without a past has.
///
/// Cloning is cheap.
#[derive(Clone)]
pub struct StoredKv(Shared);

/// The fields of a key-value, decoded.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    key_len: usize,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
    /// Both are 0 for an empty value, which has no field.
    value_at: usize,
    value_len: usize,
}

impl Fields {
    fn decode(stored: &[u8]) -> Result<Self, ParseKvError> {
        let mut fields = Self::default();
        let mut rest = stored;
        let mut last_tag = 0;
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let known = u8::try_from(tag).ok().filter(|&tag| tag > last_tag);
            match known {
                Some(KEY) => {
                    fields.key_len = skip_bytes(&mut rest)?;
                    // Where the key begins follows from its length.
                    if stored.len() - rest.len() != bytes_field_len(fields.key_len) {
                        return Err(ParseKvError::Key);
                    }
                }
                Some(CREATE_REVISION) => fields.create_revision = int(&mut rest)?,
                Some(MOD_REVISION) => fields.mod_revision = int(&mut rest)?,
                Some(VERSION) => fields.version = int(&mut rest)?,
                Some(VALUE) => {
                    fields.value_len = skip_bytes(&mut rest)?;
                    fields.value_at = stored.len() - rest.len() - fields.value_len;
                }
                Some(LEASE) => fields.lease = int(&mut rest)?,
                _ => return Err(ParseKvError::Tag { tag }),
            }
            last_tag = known.unwrap_or(last_tag);
        }
        Ok(fields)
    }
}

/// What a new version is made of.
#[derive(Clone, Copy, Debug)]
pub struct KvParts<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// When it is written.
    pub mod_revision: Revision,
    /// The main revision at which the key began to exist.
    pub create_revision: i64,
    /// How often the key has been written since then, this one included.
    pub version: i64,
    /// The lease it is attached to.
    pub lease: Option<LeaseId>,
}

/// Bytes are not the canonical encoding of a `mvccpb.KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKvError {
    /// They end in the middle of a field.
    #[error("a key-value ends early")]
    Truncated,
    /// A field is unknown, out of order, or of another type.
    #[error("a key-value has an unexpected field tag {tag:#x}")]
    Tag {
        /// The tag that was found.
        tag: u64,
    },
    /// The key's length is not written as protobuf writes it, or a key of no bytes is written out.
    #[error("a key-value has a malformed key")]
    Key,
    /// It belongs to another revision than the record that holds it.
    #[error("a key-value of revision {found} is stored at revision {expected}")]
    Revision {
        /// The record's main revision.
        expected: i64,
        /// The key-value's.
        found: i64,
    },
}

// The tags of `mvccpb.KeyValue`: field number and wire type.
const KEY: u8 = 1 << 3 | 2;
const CREATE_REVISION: u8 = 2 << 3;
const MOD_REVISION: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;

impl StoredKv {
    /// Encodes a version, in memory of its own: request buffers are not kept alive by it.
    #[must_use]
    pub fn new(parts: &KvParts<'_>) -> Self {
        let lease = parts.lease.map_or(0, |lease| lease.0);
        let len = bytes_field_len(parts.key.len())
            + int_len(parts.create_revision)
            + int_len(parts.mod_revision.main)
            + int_len(parts.version)
            + bytes_field_len(parts.value.len())
            + int_len(lease);
        let mut out = Vec::with_capacity(len);
        put_bytes(&mut out, KEY, parts.key);
        put_int(&mut out, CREATE_REVISION, parts.create_revision);
        put_int(&mut out, MOD_REVISION, parts.mod_revision.main);
        put_int(&mut out, VERSION, parts.version);
        put_bytes(&mut out, VALUE, parts.value);
        put_int(&mut out, LEASE, lease);
        debug_assert_eq!(
            out.len(),
            len,
            "the length is computed as the fields are written"
        );
        Self::of(&out, parts.key.len(), parts.mod_revision)
    }

    fn of(encoded: &[u8], key_len: usize, revision: Revision) -> Self {
        let head = Head {
            main: revision.main,
            sub: sub_u32(revision.sub),
            // The key is found without decoding: a search in the index compares many.
            key_len: u32::try_from(key_len).expect("a request has less than 4 GiB"),
        };
        Self(Shared::from_header_and_slice(head, encoded))
    }

    fn head(&self) -> Head {
        self.0.header.header
    }

    /// What an event says about a deleted key: its name, and when it was deleted.
    #[must_use]
    pub fn tombstone(key: &[u8], revision: Revision) -> Self {
        Self::new(&KvParts {
            key,
            value: &[],
            mod_revision: revision,
            create_revision: 0,
            version: 0,
            lease: None,
        })
    }

    /// A version as it was stored at `revision`: the bytes that [`StoredKv::encoded`] gave.
    /// They are copied.
    pub fn parse(stored: &[u8], revision: Revision) -> Result<Self, ParseKvError> {
        let key = Self::check(stored, revision)?;
        Ok(Self::of(stored, key.len(), revision))
    }

    /// The key of what [`StoredKv::parse`] takes; empty if it has none.
    pub(crate) fn check(stored: &[u8], revision: Revision) -> Result<&[u8], ParseKvError> {
        let fields = Fields::decode(stored)?;
        if fields.mod_revision != revision.main {
            return Err(ParseKvError::Revision {
                expected: revision.main,
                found: fields.mod_revision,
            });
        }
        Ok(key_in(stored, fields.key_len))
    }

    fn fields(&self) -> Fields {
        // They were encoded here, or decoded before they were taken.
        Fields::decode(self.encoded()).unwrap_or_default()
    }

    /// The key in the bytes of a stored version or tombstone; no key is empty.
    pub(crate) fn parse_key(stored: &[u8]) -> Result<&[u8], ParseKvError> {
        let mut rest = stored;
        let tag = varint(&mut rest)?;
        if tag != u64::from(KEY) {
            return Err(ParseKvError::Tag { tag });
        }
        let after_tag = rest;
        let len = skip_bytes(&mut rest)?;
        let key_end = after_tag.len() - rest.len();
        Ok(&after_tag[key_end - len..key_end])
    }

    /// The message `mvccpb.KeyValue`, encoded.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0.slice
    }

    /// The message with nothing but the key: what a tombstone is on the disk.
    #[must_use]
    pub(crate) fn encoded_key_only(&self) -> &[u8] {
        let key_len = self.head().key_len as usize;
        &self.encoded()[..bytes_field_len(key_len)]
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        key_in(self.encoded(), self.head().key_len as usize)
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        let Fields {
            value_at,
            value_len,
            ..
        } = self.fields();
        &self.encoded()[value_at..value_at + value_len]
    }

    /// When this version was written.
    #[must_use]
    pub fn mod_revision(&self) -> Revision {
        let Head { main, sub, .. } = self.head();
        Revision::new(main, i64::from(sub))
    }

    /// The main revision at which the key began to exist.
    #[must_use]
    pub fn create_revision(&self) -> i64 {
        self.fields().create_revision
    }

    /// How often the key has been written since then, from 1.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.fields().version
    }

    /// [`StoredKv::create_revision`] and [`StoredKv::version`], decoded once.
    pub(crate) fn lineage(&self) -> (i64, i64) {
        let fields = self.fields();
        (fields.create_revision, fields.version)
    }

    /// The lease it is attached to.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        let lease = self.fields().lease;
        (lease != 0).then_some(LeaseId(lease))
    }

    /// The message without its value (for `keys_only`).
    #[must_use]
    pub fn to_message_without_value(&self) -> KeyValue {
        let (fields, encoded) = (self.fields(), self.encoded());
        if fields.value_len == 0 {
            return self.clone().into();
        }
        let value_end = fields.value_at + fields.value_len;
        let value_field_at = value_end - bytes_field_len(fields.value_len);
        let mut out = BytesMut::with_capacity(value_field_at + encoded.len() - value_end);
        out.put_slice(&encoded[..value_field_at]);
        out.put_slice(&encoded[value_end..]);
        KeyValue::Made(out.freeze())
    }
}

/// As a field of a response.
impl From<StoredKv> for KeyValue {
    fn from(kv: StoredKv) -> Self {
        Self::Stored(kv.0)
    }
}

impl std::fmt::Debug for StoredKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKv")
            .field("key", &self.key().escape_ascii().to_string())
            .field("value_len", &self.value().len())
            .field("mod_revision", &self.mod_revision())
            .field("create_revision", &self.create_revision())
            .field("version", &self.version())
            .field("lease", &self.lease())
            .finish()
    }
}

fn sub_u32(sub: i64) -> u32 {
    u32::try_from(sub).expect("a transaction has fewer than 2^32 changes")
}

/// Revisions are i64 in protobuf, and i64 is encoded as the u64 of the same bits.
#[expect(clippy::cast_sign_loss, reason = "protobuf's own encoding of i64")]
fn to_wire(value: i64) -> u64 {
    value as u64
}

#[expect(clippy::cast_possible_wrap, reason = "protobuf's own encoding of i64")]
fn from_wire(value: u64) -> i64 {
    value as i64
}

fn int_len(value: i64) -> usize {
    if value == 0 {
        0
    } else {
        1 + encoded_len_varint(to_wire(value))
    }
}

/// A field of so many bytes with its tag and length; an empty one is left out.
fn bytes_field_len(len: usize) -> usize {
    if len == 0 {
        0
    } else {
        1 + encoded_len_varint(len as u64) + len
    }
}

/// The key of a message in which it is so long: the first field.
fn key_in(encoded: &[u8], key_len: usize) -> &[u8] {
    let end = bytes_field_len(key_len);
    &encoded[end - key_len..end]
}

fn put_int(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        out.push(tag);
        encode_varint(to_wire(value), out);
    }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, ParseKvError> {
    // prost says no more than that it is malformed.
    decode_varint(rest).or(Err(ParseKvError::Truncated))
}

fn int(rest: &mut &[u8]) -> Result<i64, ParseKvError> {
    varint(rest).map(from_wire)
}

/// Steps over a length-delimited field, and says how long it was.
fn skip_bytes(rest: &mut &[u8]) -> Result<usize, ParseKvError> {
    let len = varint(rest)?;
    let len = usize::try_from(len).ok().filter(|&len| len <= rest.len());
    let len = len.ok_or(ParseKvError::Truncated)?;
    *rest = &rest[len..];
    Ok(len)
}

#[cfg(test)]
mod tests {
    use api::mvccpb;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn message(kv: &StoredKv) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: kv.key().to_vec().into(),
            value: kv.value().to_vec().into(),
            create_revision: kv.create_revision(),
            mod_revision: kv.mod_revision().main,
            version: kv.version(),
            lease: kv.lease().map_or(0, |lease| lease.0),
        }
    }

    proptest! {
        #[test]
        fn the_bytes_are_what_prost_writes_and_parse_back(
            key in prop::collection::vec(any::<u8>(), 1..200),
            value in prop::collection::vec(any::<u8>(), 0..300),
            (main, create, version) in (1..i64::MAX, 1..i64::MAX, 1..i64::MAX),
            lease in prop::option::of(1..i64::MAX),
        ) {
            let kv = StoredKv::new(&KvParts {
                key: &key, value: &value, mod_revision: Revision::new(main, 3),
                create_revision: create, version, lease: lease.map(LeaseId),
            });
            let message = message(&kv);
            prop_assert_eq!(&message.key[..], &key[..]);
            prop_assert_eq!(&message.value[..], &value[..]);
            prop_assert_eq!(&message.encode_to_vec()[..], kv.encoded());
            let without = mvccpb::KeyValue { value: Default::default(), ..message.clone() };
            prop_assert_eq!(without.encode_to_vec(), kv.to_message_without_value().encode_to_vec());
            let shared = KeyValue::from(kv.clone());
            prop_assert_eq!(shared.encoded(), kv.encoded());
            let only = mvccpb::KeyValue { key: message.key.clone(), ..Default::default() };
            prop_assert_eq!(&only.encode_to_vec()[..], kv.encoded_key_only());
            let parsed = StoredKv::parse(kv.encoded(), kv.mod_revision()).unwrap();
            prop_assert_eq!(format!("{parsed:?}"), format!("{kv:?}"));
            prop_assert_eq!(parsed.value(), kv.value());
            prop_assert_eq!(StoredKv::parse_key(kv.encoded()).unwrap(), &key[..]);
        }

        #[test]
        fn garbage_is_refused_or_parsed_but_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let revision = Revision::new(7, 0);
            if let Ok(kv) = StoredKv::parse(&bytes, revision) {
                prop_assert!(kv.key().len() + kv.value().len() <= bytes.len());
            }
            if let Ok(key) = StoredKv::parse_key(&bytes) {
                prop_assert!(key.len() < bytes.len());
            }
        }
    }

    #[test]
    fn a_version_stored_under_another_revision_is_refused() {
        let kv = StoredKv::tombstone(b"k", Revision::new(5, 0));
        let refused = StoredKv::parse(kv.encoded(), Revision::new(6, 0));
        assert_eq!(
            refused.unwrap_err(),
            ParseKvError::Revision {
                expected: 6,
                found: 5
            }
        );
    }
}

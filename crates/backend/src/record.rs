//! How a value becomes engine records: its checksum, and the pieces of a large one. It knows the
//! bytes, not where they come from.
//!
//! Engine keys (one flat keyspace, so that one batch over many buckets is one engine batch):
//!
//! | bytes | what |
//! |---|---|
//! | `00`, `format` | the format version: CRC-32C (4, big endian), version (4, big endian) |
//! | bucket (1), key | a record of a small bucket, below |
//! | `40` + bucket (1), key | a record of a packed bucket (`key`, `raft_log`), below |
//! | `80` + bucket (1), key's length (4, big endian), key, piece's number (4, big endian) | a piece |
//!
//! A record is one of
//!
//! | bytes | what |
//! |---|---|
//! | `00`, CRC-32C (4, big endian), value | a value of up to [`PIECE_BYTES`] |
//! | `01`, CRC-32C (4), value's length (8), piece's length (4), all big endian | a larger value: its pieces follow each other, all of that length but the last |
//!
//! The checksum covers the bucket, the key's length (4, big endian), the key and the whole value,
//! so that a record that turns up under another key is found out too.

use bytes::Bytes;

use crate::engine::{self, Change};
use crate::{Bucket, ReadError, RecordProblem};

/// The largest value that stays in one record, and the length of the pieces of larger ones. Values of
/// any size work; a packer does best just below this.
///
/// sled writes whole leaves of up to about twenty records, and one that takes more than a quarter of
/// a segment goes to a blob file that is never synced (`engine/sled.rs`): twenty of these are well
/// below that.
pub const PIECE_BYTES: usize = 64 << 10;

const KIND_WHOLE: u8 = 0;
const KIND_SPLIT: u8 = 1;
const PACKED: u8 = engine::PACKED_FROM;
const PIECES: u8 = engine::PIECES_FROM;
const FORMAT_KEY: &[u8] = b"\x00format";

/// What stands at a record's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The value.
    Whole(Bytes),
    /// Where the value is.
    Split(Split),
}

/// A value in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    checksum: u32,
    len: u64,
    piece_len: u32,
}

impl Split {
    /// How many pieces there are.
    pub(crate) fn pieces(self) -> u32 {
        u32::try_from(self.len.div_ceil(u64::from(self.piece_len)))
            .expect("decode has checked that the pieces can be counted")
    }

    /// How long piece `number` is.
    fn len_of(self, number: u32) -> usize {
        let before = u64::from(number) * u64::from(self.piece_len);
        let rest = self.len.saturating_sub(before);
        usize::try_from(rest.min(u64::from(self.piece_len)))
            .expect("a piece's length is a u32, and usize holds it")
    }

    /// Puts the value together; `piece` gets a piece by its engine key.
    pub(crate) fn assemble(
        self,
        bucket: Bucket,
        key: &Bytes,
        piece: impl Fn(&[u8]) -> Result<Option<Bytes>, ReadError>,
    ) -> Result<Bytes, ReadError> {
        let malformed = |problem| malformed(bucket, key, problem);
        // The length is not to be trusted before the pieces have been seen.
        let mut value = Vec::new();
        for number in 0..self.pieces() {
            let piece = piece(&piece_key(bucket, key, number))?
                .ok_or_else(|| malformed(RecordProblem::PieceMissing { number }))?;
            let expected = self.len_of(number);
            if piece.len() != expected {
                let found = piece.len();
                return Err(malformed(RecordProblem::PieceLength {
                    number,
                    expected,
                    found,
                }));
            }
            value.extend_from_slice(&piece);
        }
        check(bucket, key, self.checksum, &value)?;
        Ok(value.into())
    }
}

/// What the engine keys of a bucket's records begin with.
const fn prefix(bucket: Bucket) -> u8 {
    match bucket {
        Bucket::Key | Bucket::RaftLog => PACKED | bucket as u8,
        Bucket::Meta
        | Bucket::Lease
        | Bucket::Alarm
        | Bucket::Members
        | Bucket::RaftMeta
        | Bucket::MembersRemoved
        | Bucket::Auth
        | Bucket::AuthUsers
        | Bucket::AuthRoles => bucket as u8,
    }
}

/// The engine key of a record.
pub(crate) fn record_key(bucket: Bucket, key: &[u8]) -> Bytes {
    let mut engine_key = Vec::with_capacity(1 + key.len());
    engine_key.push(prefix(bucket));
    engine_key.extend_from_slice(key);
    engine_key.into()
}

/// The first engine key after all records of `bucket`.
pub(crate) fn bucket_end(bucket: Bucket) -> Bytes {
    vec![prefix(bucket) + 1].into()
}

/// The key within its bucket of the record at `engine_key`.
pub(crate) fn key_of(bucket: Bucket, engine_key: &Bytes) -> Result<Bytes, ReadError> {
    match engine_key.first() {
        Some(&first) if first == prefix(bucket) => Ok(engine_key.slice(1..)),
        _ => Err(ReadError::Malformed {
            bucket,
            key: engine_key.clone(),
            problem: RecordProblem::Key,
        }),
    }
}

/// The engine keys of all pieces, from and before.
pub(crate) const fn piece_range() -> (&'static [u8], &'static [u8]) {
    (&[PIECES], &[0xff])
}

fn piece_key(bucket: Bucket, key: &[u8], number: u32) -> Bytes {
    let mut engine_key = Vec::with_capacity(9 + key.len());
    engine_key.push(PIECES | bucket as u8);
    engine_key.extend_from_slice(&key_len(key));
    engine_key.extend_from_slice(key);
    engine_key.extend_from_slice(&number.to_be_bytes());
    engine_key.into()
}

fn key_len(key: &[u8]) -> [u8; 4] {
    u32::try_from(key.len())
        .expect("a key of 4 GiB fits into no memory of ours")
        .to_be_bytes()
}

/// What a record's value is checked by.
pub(crate) fn checksum(bucket: Bucket, key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&[bucket as u8]);
    let crc = crc32c::crc32c_append(crc, &key_len(key));
    let crc = crc32c::crc32c_append(crc, key);
    crc32c::crc32c_append(crc, value)
}

fn check(bucket: Bucket, key: &Bytes, expected: u32, value: &[u8]) -> Result<(), ReadError> {
    let found = checksum(bucket, key, value);
    if found == expected {
        return Ok(());
    }
    Err(ReadError::Corrupt {
        bucket,
        key: key.clone(),
        expected,
        found,
    })
}

/// Adds to `changes` what sets `key` to `value` where a value of `old_pieces` pieces stood, and
/// says in how many pieces it stands then (0: in the record itself).
pub(crate) fn put(
    changes: &mut Vec<Change>,
    (bucket, key): (Bucket, &[u8]),
    value: &Bytes,
    old_pieces: u32,
) -> u32 {
    let checksum = checksum(bucket, key, value);
    if value.len() <= PIECE_BYTES {
        let mut record = Vec::with_capacity(5 + value.len());
        record.push(KIND_WHOLE);
        record.extend_from_slice(&checksum.to_be_bytes());
        record.extend_from_slice(value);
        changes.push((record_key(bucket, key), Some(record.into())));
        drop_pieces(changes, bucket, key, 0..old_pieces);
        return 0;
    }
    let piece_len = u32::try_from(PIECE_BYTES).expect("a piece is far below 4 GiB");
    let mut record = Vec::with_capacity(17);
    record.push(KIND_SPLIT);
    record.extend_from_slice(&checksum.to_be_bytes());
    record.extend_from_slice(&(value.len() as u64).to_be_bytes());
    record.extend_from_slice(&piece_len.to_be_bytes());
    changes.push((record_key(bucket, key), Some(record.into())));
    let mut pieces = 0;
    for piece in value.chunks(PIECE_BYTES) {
        changes.push((piece_key(bucket, key, pieces), Some(value.slice_ref(piece))));
        pieces += 1;
    }
    drop_pieces(changes, bucket, key, pieces..old_pieces);
    pieces
}

/// Adds to `changes` what removes `key` where a value of `old_pieces` pieces stood.
pub(crate) fn delete(changes: &mut Vec<Change>, bucket: Bucket, key: &[u8], old_pieces: u32) {
    changes.push((record_key(bucket, key), None));
    drop_pieces(changes, bucket, key, 0..old_pieces);
}

fn drop_pieces(
    changes: &mut Vec<Change>,
    bucket: Bucket,
    key: &[u8],
    numbers: std::ops::Range<u32>,
) {
    changes.extend(numbers.map(|number| (piece_key(bucket, key, number), None)));
}

/// Reads a record, and checks its value if it is in there.
pub(crate) fn decode(bucket: Bucket, key: &Bytes, record: &Bytes) -> Result<Record, ReadError> {
    match parse(record).map_err(|problem| malformed(bucket, key, problem))? {
        Parsed::Whole { checksum, value } => {
            check(bucket, key, checksum, value)?;
            Ok(Record::Whole(record.slice_ref(value)))
        }
        Parsed::Split(split) => Ok(Record::Split(split)),
    }
}

/// In how many pieces a record's value is (0: in the record itself, which is not checked).
pub(crate) fn decode_pieces(bucket: Bucket, key: &Bytes, record: &[u8]) -> Result<u32, ReadError> {
    match parse(record).map_err(|problem| malformed(bucket, key, problem))? {
        Parsed::Whole { .. } => Ok(0),
        Parsed::Split(split) => Ok(split.pieces()),
    }
}

enum Parsed<'a> {
    Whole { checksum: u32, value: &'a [u8] },
    Split(Split),
}

fn parse(record: &[u8]) -> Result<Parsed<'_>, RecordProblem> {
    let short = RecordProblem::Short { len: record.len() };
    let (kind, rest) = record.split_first().ok_or(short)?;
    let (checksum, rest) = rest.split_first_chunk().ok_or(short)?;
    let checksum = u32::from_be_bytes(*checksum);
    match *kind {
        KIND_WHOLE => Ok(Parsed::Whole {
            checksum,
            value: rest,
        }),
        KIND_SPLIT => {
            let (len, rest) = rest.split_first_chunk().ok_or(short)?;
            let piece_len = rest.try_into().or(Err(short))?;
            let (len, piece_len) = (u64::from_be_bytes(*len), u32::from_be_bytes(piece_len));
            if piece_len == 0 || len.div_ceil(u64::from(piece_len)) > u64::from(u32::MAX) {
                return Err(RecordProblem::Sizes { len, piece_len });
            }
            Ok(Parsed::Split(Split {
                checksum,
                len,
                piece_len,
            }))
        }
        kind => Err(RecordProblem::Kind { kind }),
    }
}

fn malformed(bucket: Bucket, key: &Bytes, problem: RecordProblem) -> ReadError {
    ReadError::Malformed {
        bucket,
        key: key.clone(),
        problem,
    }
}

/// The record of the format version.
pub(crate) fn format_record(version: u32) -> Change {
    let version = version.to_be_bytes();
    let mut record = crc32c::crc32c(&version).to_be_bytes().to_vec();
    record.extend_from_slice(&version);
    (Bytes::from_static(FORMAT_KEY), Some(record.into()))
}

/// The engine key of the format version.
pub(crate) const fn format_key() -> &'static [u8] {
    FORMAT_KEY
}

/// Reads the record of the format version.
pub(crate) fn decode_format(record: &Bytes) -> Result<u32, ReadError> {
    let key = Bytes::from_static(FORMAT_KEY);
    let fields = (record.first_chunk::<4>(), record.last_chunk::<4>());
    let (Some(expected), Some(version), 8) = (fields.0, fields.1, record.len()) else {
        let problem = RecordProblem::Short { len: record.len() };
        return Err(ReadError::Malformed {
            bucket: Bucket::Meta,
            key,
            problem,
        });
    };
    let (expected, found) = (u32::from_be_bytes(*expected), crc32c::crc32c(version));
    if found != expected {
        return Err(ReadError::Corrupt {
            bucket: Bucket::Meta,
            key,
            expected,
            found,
        });
    }
    Ok(u32::from_be_bytes(*version))
}

//! etcd's write-ahead log: the entries that its database does not have yet (`server/storage/wal`).
//!
//! Files of records, one behind the other:
//!
//! | bytes | what |
//! |---|---|
//! | 8, little endian | the record's length in the lower 56 bits; the highest bit says that bytes follow it that do not count, and the three lowest bits of that byte how many; 0: the file ends here |
//! | that many | a `Record` |
//!
//! The checksum of a record covers the data of all records before it; a file begins with the checksum so
//! far. What comes last may be torn: etcd drops it when it starts, and so does this.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use types::{ClusterId, MemberId};

mod message;
#[cfg(test)]
mod tests;

pub use message::{
    Attributes, ConfChange, ConfChangeKind, InternalRaftRequest, MemberAttributes, RequestHeader,
    V2Request,
};
use message::{ConfChangeV2, Entry as WireEntry, HardState, Metadata, Record, Snapshot};

/// A record that is longer is none: etcd's requests are far shorter.
const RECORD_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a sector: what a torn write leaves is whole sectors of nothing.
const SECTOR_BYTES: u64 = 512;

/// A log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no file of a log.
    #[error("there is no log in {}", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A file between two others is missing.
    #[error("file {missing:016x} of the log in {} is missing", path.display())]
    FileMissing {
        /// The directory.
        path: PathBuf,
        /// The number of the file.
        missing: u64,
    },
    /// A record is damaged.
    #[error("the record at {offset} of {} {problem}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The log begins too late for its database.
    #[error("the log begins with entry {found}, and the database ends with entry {index}")]
    Gap {
        /// The first entry of the log.
        found: u64,
        /// The last one of the database.
        index: u64,
    },
    /// It does not say whose it is.
    #[error("the log does not say whose it is")]
    NoMetadata,
    /// An entry is none.
    #[error("entry {index} of the log cannot be decoded")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        #[source]
        source: prost::DecodeError,
    },
}

/// What a log says beside its entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Wal {
    /// Whose it is.
    pub member: MemberId,
    /// Whose cluster's.
    pub cluster: ClusterId,
    /// The last term it has seen.
    pub term: u64,
    /// The last entry that is known to be committed.
    pub commit: u64,
    /// The entry at which the database ends, if the log still has it: its term.
    pub base_term: Option<u64>,
    /// The entries behind the database, by index.
    pub entries: Vec<Entry>,
    /// Entries that were left out of them, because nobody knows that they are committed.
    pub uncommitted: usize,
    /// Whether what came last was torn, and dropped.
    pub is_torn: bool,
}

/// An entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The term of its leader.
    pub term: u64,
    /// Its index, from 1.
    pub index: u64,
    /// What is in it.
    pub payload: Payload,
}

/// What is in an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Nothing: a leader has begun.
    Nothing,
    /// A change of the members.
    Members(Vec<ConfChange>),
    /// A request.
    Request(Box<InternalRaftRequest>),
}

/// Reads the log in a directory from entry `index` on.
///
/// # Errors
/// When it is damaged, or begins later.
pub fn read(directory: &Path, index: u64) -> Result<Wal, WalError> {
    let files = files(directory)?;
    let first = files.iter().rposition(|file| file.index <= index + 1);
    let Some(first) = first else {
        let found = files.first().map_or(0, |file| file.index);
        return Err(WalError::Gap { found, index });
    };
    let files = files.get(first..).unwrap_or_default();
    let mut reading = Reading::default();
    for (place, file) in files.iter().enumerate() {
        let is_last = place + 1 == files.len();
        reading.file(&file.path, is_last)?;
    }
    reading.finish(index)
}

/// A file of a log.
#[derive(Debug)]
struct WalFile {
    path: PathBuf,
    number: u64,
    /// The first entry in it.
    index: u64,
}

fn files(directory: &Path) -> Result<Vec<WalFile>, WalError> {
    let failed = |source| WalError::Io {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let numbers = name.and_then(|name| name.strip_suffix(".wal")?.split_once('-'));
        let hex = |text| u64::from_str_radix(text, 16).ok();
        if let Some((number, index)) = numbers
            && let (Some(number), Some(index)) = (hex(number), hex(index))
        {
            files.push(WalFile {
                path,
                number,
                index,
            });
        }
    }
    files.sort_by_key(|file| file.number);
    let Some(first) = files.first() else {
        return Err(WalError::Empty {
            path: directory.to_owned(),
        });
    };
    for (expected, file) in (first.number..).zip(&files) {
        if file.number != expected {
            return Err(WalError::FileMissing {
                path: directory.to_owned(),
                missing: expected,
            });
        }
    }
    Ok(files)
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Reading {
    crc: u32,
    metadata: Option<Metadata>,
    state: HardState,
    entries: BTreeMap<u64, WireEntry>,
    /// The last snapshot of the log itself.
    snapshot: Snapshot,
    is_torn: bool,
}

impl Reading {
    fn file(&mut self, path: &Path, is_last: bool) -> Result<(), WalError> {
        let failed = |source| WalError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut records = Records {
            reader: BufReader::new(file),
            left: len,
            offset: 0,
        };
        loop {
            let offset = records.offset;
            let problem = match records.next().map_err(failed)? {
                Next::End => return Ok(()),
                Next::Torn => "is cut off",
                Next::Data(data) => match self.record(&data) {
                    Ok(()) => continue,
                    Err(problem) if is_last && is_torn(&data, offset) => problem,
                    Err(problem) => return Err(damaged(path, offset, problem)),
                },
            };
            if !is_last {
                return Err(damaged(path, offset, problem));
            }
            self.is_torn = true;
            return Ok(());
        }
    }

    fn record(&mut self, bytes: &Bytes) -> Result<(), &'static str> {
        let record = Record::decode(bytes.clone()).map_err(|_no_message| "cannot be decoded")?;
        const METADATA: i64 = 1;
        const ENTRY: i64 = 2;
        const STATE: i64 = 3;
        const CRC: i64 = 4;
        const SNAPSHOT: i64 = 5;
        if record.kind == CRC {
            if self.crc != 0 && record.crc != self.crc {
                return Err("does not go on with the checksum of the file before");
            }
            self.crc = record.crc;
            return Ok(());
        }
        let crc = crc32c::crc32c_append(self.crc, &record.data);
        if crc != record.crc {
            return Err("has a wrong checksum");
        }
        self.crc = crc;
        let data = record.data;
        let broken = |_no_message| "holds what cannot be decoded";
        match record.kind {
            METADATA => self.metadata = Some(Metadata::decode(data).map_err(broken)?),
            STATE => self.state = HardState::decode(data).map_err(broken)?,
            SNAPSHOT => self.snapshot = Snapshot::decode(data).map_err(broken)?,
            ENTRY => {
                let entry = WireEntry::decode(data).map_err(broken)?;
                // A later leader's takes the place of what was there, and of all behind it.
                self.entries.split_off(&entry.index);
                self.entries.insert(entry.index, entry);
            }
            _ => return Err("is of an unknown kind"),
        }
        Ok(())
    }

    fn finish(mut self, index: u64) -> Result<Wal, WalError> {
        let metadata = self.metadata.ok_or(WalError::NoMetadata)?;
        let base_term = self.entries.get(&index).map(|entry| entry.term);
        let base_term = base_term.or((self.snapshot.index == index).then_some(self.snapshot.term));
        let behind = self.entries.split_off(&(index + 1));
        let mut entries = Vec::with_capacity(behind.len());
        for (expected, (found, entry)) in (index + 1..).zip(behind) {
            if found != expected {
                let index = expected - 1;
                return Err(WalError::Gap { found, index });
            }
            entries.push(decode(entry)?);
        }
        Ok(Wal {
            member: MemberId(metadata.node_id),
            cluster: ClusterId(metadata.cluster_id),
            term: self.state.term,
            commit: self.state.commit,
            base_term,
            entries,
            uncommitted: 0,
            is_torn: self.is_torn,
        })
    }
}

fn damaged(path: &Path, offset: u64, problem: &'static str) -> WalError {
    WalError::Record {
        path: path.to_owned(),
        offset,
        problem,
    }
}

fn decode(entry: WireEntry) -> Result<Entry, WalError> {
    const NORMAL: i32 = 0;
    const CONF_CHANGE: i32 = 1;
    let WireEntry {
        kind,
        term,
        index,
        data,
    } = entry;
    let broken = |source| WalError::Entry { index, source };
    let payload = match kind {
        _ if data.is_empty() => Payload::Nothing,
        NORMAL => Payload::Request(Box::new(
            InternalRaftRequest::decode(data.clone())
                // Before 3.0 all, and later a few requests were of the old store.
                .or_else(|_other| {
                    V2Request::decode(data).map(|v2| InternalRaftRequest {
                        v2: Some(v2),
                        ..InternalRaftRequest::default()
                    })
                })
                .map_err(broken)?,
        )),
        CONF_CHANGE => Payload::Members(vec![ConfChange::decode(data).map_err(broken)?]),
        _ => Payload::Members(ConfChangeV2::decode(data).map_err(broken)?.into_changes()),
    };
    Ok(Entry {
        term,
        index,
        payload,
    })
}

/// The records of a file.
struct Records {
    reader: BufReader<File>,
    left: u64,
    offset: u64,
}

enum Next {
    /// Nothing more was written.
    End,
    /// It begins, and does not end.
    Torn,
    Data(Bytes),
}

impl Records {
    fn next(&mut self) -> io::Result<Next> {
        if self.left == 0 {
            return Ok(Next::End);
        }
        if self.left < 8 {
            return Ok(Next::Torn);
        }
        let mut head = [0; 8];
        self.reader.read_exact(&mut head)?;
        let head = u64::from_le_bytes(head);
        if head == 0 {
            return Ok(Next::End);
        }
        let bytes = head & ((1 << 56) - 1);
        let padding = match head >> 63 {
            0 => 0,
            _ => (head >> 56) & 0x7,
        };
        let whole = bytes + padding;
        if whole > self.left - 8 || bytes > RECORD_BYTES_MAX {
            return Ok(Next::Torn);
        }
        let len = usize::try_from(whole).map_err(io::Error::other)?;
        let mut data = vec![0; len];
        self.reader.read_exact(&mut data)?;
        data.truncate(usize::try_from(bytes).map_err(io::Error::other)?);
        self.left -= 8 + whole;
        self.offset += 8 + whole;
        Ok(Next::Data(data.into()))
    }
}

/// Whether a whole sector of a record at `offset` was never written.
fn is_torn(data: &[u8], offset: u64) -> bool {
    let mut at = offset + 8;
    let mut rest = data;
    while !rest.is_empty() {
        let to_sector = SECTOR_BYTES - at % SECTOR_BYTES;
        let len = usize::try_from(to_sector).map_or(rest.len(), |len| len.min(rest.len()));
        let (sector, behind) = rest.split_at(len);
        if sector.iter().all(|byte| *byte == 0) {
            return true;
        }
        at += len as u64;
        rest = behind;
    }
    false
}

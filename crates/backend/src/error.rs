//! What can go wrong with a store.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::Bucket;
use crate::engine::EngineError;

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its files are damaged.
    #[error(
        "the store in {} is corrupt: restore this member from a snapshot, or remove it from the \
         cluster and let it rejoin with an empty data directory",
        path.display()
    )]
    Corrupt {
        /// The store's directory.
        path: PathBuf,
        /// What the engine ran into.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Somebody else has it open.
    #[error("the store in {} is in use", path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// Its files could not be read or written.
    #[error("cannot open the store in {}", path.display())]
    Io {
        /// The store's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its engine was made with other parameters, or by another version of it.
    #[error("the store in {} cannot be opened by this version: {problem}", path.display())]
    Unsupported {
        /// The store's directory.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// A later version of kvorum wrote it.
    #[error(
        "the store has format version {found}, and this version of kvorum reads only up to \
         {supported}: use the version that wrote it, or a later one"
    )]
    Newer {
        /// The version in the store.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },
    /// It holds records but does not say in which format.
    #[error("the store holds records but no format version")]
    NoFormat,
    /// Its format version could not be read or written.
    #[error("cannot access the store's format version")]
    Engine(#[source] EngineError),
    /// Its format version could not be understood.
    #[error("cannot read the store's format version")]
    Read(#[source] ReadError),
}

/// A record could not be read. Reading it again will not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes are not those that were written.
    #[error(
        "record {} of bucket {bucket} is corrupt: it was written with checksum {expected:08x} and \
         read with {found:08x}",
        Hex(key)
    )]
    Corrupt {
        /// The record's bucket.
        bucket: Bucket,
        /// The record's key.
        key: Bytes,
        /// The checksum that was stored with it.
        expected: u32,
        /// The checksum of what is there now.
        found: u32,
    },
    /// The record has not the form of a record.
    #[error("record {} of bucket {bucket} is corrupt: {problem}", Hex(key))]
    Malformed {
        /// The record's bucket.
        bucket: Bucket,
        /// The record's key.
        key: Bytes,
        /// What is wrong.
        problem: RecordProblem,
    },
    /// The engine failed.
    #[error("cannot read the store")]
    Engine(#[source] EngineError),
}

/// What is wrong with a record that has not the form of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// It ends within its header.
    #[error("{len} bytes are too few")]
    Short {
        /// How long it is.
        len: usize,
    },
    /// Its first byte is not a kind of record.
    #[error("there is no kind {kind} of record")]
    Kind {
        /// That byte.
        kind: u8,
    },
    /// Its header names sizes that cannot be.
    #[error("{len} bytes in pieces of {piece_len} cannot be")]
    Sizes {
        /// Bytes of the whole value.
        len: u64,
        /// Bytes of one piece.
        piece_len: u32,
    },
    /// A piece of a large value is not there.
    #[error("piece {number} is missing")]
    PieceMissing {
        /// The piece's number, from 0.
        number: u32,
    },
    /// A piece of a large value has the wrong length.
    #[error("piece {number} has {found} bytes instead of {expected}")]
    PieceLength {
        /// The piece's number, from 0.
        number: u32,
        /// Bytes it should have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// The engine returned a key from outside of the bucket.
    #[error("its key belongs to no bucket")]
    Key,
}

/// A write or flush failed. The store refuses every write from then on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The engine did not apply a batch.
    #[error("cannot commit a batch")]
    Commit(#[source] Arc<EngineError>),
    /// What a batch replaces could not be read.
    #[error("cannot read what a batch replaces")]
    Replace(#[source] Arc<ReadError>),
    /// The engine could not make it durable.
    #[error("cannot make the store durable")]
    Flush(#[source] Arc<EngineError>),
    /// The engine could not take back room.
    #[error("cannot take back the room of what is gone")]
    Reclaim(#[source] Arc<EngineError>),
    /// It could not take the place of another one.
    #[error("cannot put the store in the place of another one")]
    TakeOver(#[source] Arc<io::Error>),
    /// A panic left an earlier write unfinished.
    #[error("a write was cut short by a panic")]
    Interrupted,
    /// An earlier write failed, and nobody knows what is on the disk.
    #[error("the store takes no writes since one failed")]
    Poisoned {
        /// The failure that did it.
        #[source]
        first: Arc<WriteError>,
    },
}

/// Bytes in hex, as errors name keys.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

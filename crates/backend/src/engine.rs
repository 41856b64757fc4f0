//! What a storage engine owes us, and the engines that keep it. An engine knows one flat, ordered
//! keyspace of short records; buckets, checksums and large values are [`crate::Reader`]'s and
//! [`crate::Writer`]'s business.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

#[cfg(any(test, feature = "test-util"))]
mod faulty;
#[cfg(any(test, feature = "test-util"))]
mod faulty_disk;
mod memory;
mod sled;

#[cfg(any(test, feature = "test-util"))]
pub use faulty::{FaultyEngine, Loss, Promise};
#[cfg(any(test, feature = "test-util"))]
pub use faulty_disk::FaultyDisk;
pub use memory::MemoryEngine;
pub(crate) use sled::SledEngine;

/// Keys that begin with this byte or a greater one are of packed records and pieces, large and
/// written once; those below are of small records, some of which change with every batch. An engine
/// may keep the two apart: sled writes a whole leaf anew when its records have changed a few times,
/// and would write large neighbours again and again.
pub const PACKED_FROM: u8 = 0x40;

/// Keys from here on are of pieces; between this and [`PACKED_FROM`] are the packed records, which are appended.
pub const PIECES_FROM: u8 = 0x80;

/// One change of one record: `None` removes it.
pub type Change = (Bytes, Option<Bytes>);

/// The records of a range, from either end. It owns what it needs.
pub type EngineScan =
    Box<dyn DoubleEndedIterator<Item = Result<(Bytes, Bytes), EngineError>> + Send>;

/// An ordered map from bytes to bytes that outlives the process.
///
/// # What every engine keeps
///
/// * **Order.** Keys are ordered as bytes, shorter first where one is a prefix of the other.
/// * **Atomic batches.** [`Engine::apply`] makes all its changes or none, also when the process is
///   killed or the power fails in the middle of it. After a crash the engine holds the changes of
///   the first *n* batches for some *n*: never a later batch without the ones before it.
/// * **Visible on return.** Once `apply` has returned `Ok`, every [`Engine::get`] and every
///   [`Engine::scan`] begun afterwards sees the whole batch. While it runs, a `get` sees either
///   side.
/// * **Durable after a flush only.** [`Engine::flush_durable`] returns `Ok` when every batch that
///   was applied before the call survives a loss of power. A batch that was not flushed may
///   survive or not.
/// * **One writer.** `apply` and `flush_durable` are called by one thread at a time. Reads come
///   from any thread, at any time.
/// * **An error is final.** After an `Err` of `apply` or `flush_durable` nobody knows what is on
///   the disk: the caller must not write again, and does not ([`crate::WriteError::Poisoned`]).
///   Opening the store anew gives an *n* as above, at least that of the last flush that
///   succeeded.
///
/// # What it may leave open
///
/// A scan is not a snapshot. While somebody writes, each record comes as it was at some moment
/// since the scan began; a record nobody touches comes exactly once and in order.
///
/// Keys are at most a few hundred bytes and values at most [`crate::engine::VALUE_BYTES_MAX`].
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// The value at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Every record from key `from` on and before key `to`.
    fn scan(&self, from: &[u8], to: &[u8]) -> EngineScan;

    /// Makes all `changes` or none. No key is in it twice.
    fn apply(&self, changes: Vec<Change>) -> Result<(), EngineError>;

    /// Makes all `changes`, of a store that nobody uses before it is whole: neither is the batch atomic in a
    /// crash, nor is it seen whole.
    fn fill(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.apply(changes)
    }

    /// Returns when everything applied so far survives a loss of power.
    fn flush_durable(&self) -> Result<(), EngineError>;

    /// Takes back some of the room of what is gone, in the measure in which records have come since the last time.
    /// That is work, and of no use to a store in which little is gone.
    fn reclaim(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// What it holds is not needed any more: its files go when it is dropped.
    fn retire(&self) {}

    /// The same, but somebody else removes its files when it is dropped: says where they are, if there are some.
    fn leave(&self) -> Option<PathBuf> {
        None
    }

    /// Bytes of the engine's files.
    fn size_on_disk(&self) -> Result<u64, EngineError>;
}

/// The largest value an engine is given, in bytes: a piece of a large value, and its header.
pub const VALUE_BYTES_MAX: usize = crate::record::PIECE_BYTES + 64;

/// An engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the storage engine cannot {operation}")]
pub struct EngineError {
    operation: &'static str,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

impl EngineError {
    /// `operation` completes the sentence "the storage engine cannot …".
    pub fn new(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            operation,
            source: source.into(),
        }
    }
}

//! The whole state, on its way to another member.
//!
//! Sending: [`StateMachine::pin`] holds the state of one entry without copying it. Its records are
//! what the state's store holds of it, in an order in which another store can take them; the physical
//! work of compactions waits while a pin lives, everything else goes on.
//!
//! Receiving: [`Incoming`] writes the records into a store of their own, beside the one in use. A
//! finished one is put in the place of the other in one step ([`StateMachine::install`]): after a crash
//! either the one or the other is there, whole.

use std::path::PathBuf;

use backend::Bucket;
use bytes::Bytes;

use crate::{Fatal, LogPosition, OpenError, StateMachine};

/// A record of the state's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its bucket.
    pub bucket: Bucket,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// The state of one entry, held still. Cheap to clone; the last one lets it go.
#[derive(Clone, Debug)]
pub struct Pinned {}

impl Pinned {
    /// The entry.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        todo!()
    }

    /// What Raft wants back with it (see [`StateMachine::set_membership`]).
    #[must_use]
    pub fn membership(&self) -> Bytes {
        todo!()
    }

    /// About how many bytes its records are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        todo!()
    }

    /// Its records. Reads the disk, so it blocks.
    pub fn records(
        &self,
    ) -> impl Iterator<Item = Result<Record, backend::ReadError>> + Send + use<> {
        std::iter::empty()
    }
}

/// A state that is being received, in a store of its own. Dropped unfinished, it stays on the disk, and
/// [`Incoming::resume`] finds it.
#[derive(Debug)]
pub struct Incoming {}

impl Incoming {
    /// Begins a state in `directory`; what was there goes. Blocks on the disk.
    pub fn create(_directory: PathBuf) -> Result<Self, OpenError> {
        todo!()
    }

    /// Adds the records of a chunk; they survive a crash of the process on return. Blocks on the disk.
    pub fn add(&mut self, _records: Vec<Record>) -> Result<(), Fatal> {
        todo!()
    }

    /// The state is complete: checks it, and makes it survive a loss of power. Blocks on the disk.
    pub fn finish(self) -> Result<Received, OpenError> {
        todo!()
    }
}

/// A complete state in a store of its own.
#[derive(Debug)]
pub struct Received {}

impl StateMachine {
    /// Holds the state as of the last entry applied. Stages it first, so the persister must have room.
    pub fn pin(&mut self) -> Result<Pinned, Fatal> {
        todo!()
    }

    /// Puts a received state in the place of this one, here and on the disk. Readers and watchers go
    /// on with the new one; watchers that it is too new for are told that their revision is compacted.
    pub fn install(&mut self, _received: Received) -> Result<(), Fatal> {
        todo!()
    }
}

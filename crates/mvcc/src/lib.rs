//! The revisioned store: every change makes a revision, every revision can be read until it is
//! compacted, and every change is an event that watchers see.

mod compaction;
mod error;
mod event;
mod event_log;
mod hash;
mod history;
mod kv;
mod read_view;
mod store;
mod watchable_store;
mod write_txn;

pub use error::{CompactError, HashError, OpenError, RangeError, StoreError};
pub use event::{Event, EventKind, PrevKv, RevisionEvents};
pub use hash::HashKv;
pub use kv::StoredKv;
pub use read_view::{Range, RangeResult, ReadView};
pub use store::{Config, Store, Writer, open};
pub use watchable_store::{
    CreateWatchError, EventFilter, WatchBatch, WatchEvents, WatchRequest, WatchStream,
};
pub use write_txn::{Deleted, Put, WriteTxn};

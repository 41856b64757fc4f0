//! The revisioned store: every change makes a revision, every revision can be read until it is
//! compacted, and every change is an event that watchers see.

mod catch_up;
mod compaction;
mod config;
mod error;
mod event;
mod event_log;
#[cfg(test)]
mod fixture;
mod hash;
mod history;
mod install;
mod key_index;
mod kv;
mod meta;
mod read_view;
mod records;
mod restore;
mod segment;
mod shared;
mod size;
mod store;
#[cfg(test)]
mod testscripts;
mod tree_index;
mod watchable_store;
mod watcher;
mod write_txn;

pub use compaction::Scrubbed;
pub use config::Config;
pub use error::{CompactError, HashError, OpenError, RangeError, SegmentProblem, StoreError};
pub use event::{Event, EventKind, Events, PrevKv, RevisionEvents};
pub use hash::{CompactionHash, HashJob, HashKv};
pub use install::{Hold, Loaded, Pinned};
pub use kv::{KvParts, ParseKvError, StoredKv};
pub use read_view::{PageSize, Range, RangeResult, ReadView};
pub use records::{PackedSegment, SegmentPacker, VersionRecord};
pub use restore::{load, open, open_loaded};
pub use store::{Store, Writer};
pub use watchable_store::{
    CreateWatchError, EventFilter, Places, Revisions, WatchBatch, WatchCounts, WatchEvents,
    WatchRequest, WatchStream,
};
pub use write_txn::{Deleted, Put, WriteTxn};

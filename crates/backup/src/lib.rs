//! Backups: when they are due, how they are written, verified and thinned out, and the archive of changes
//! between them, with which a store is restored as of any revision.
//!
//! ```text
//!  etcd-snapshot-m1-1700000000.zst        an etcd's snapshot, compressed: unzstd, then etcdutl reads it
//!  etcd-snapshot-m1-1700000000.zst.json   what is in it; without this it is not finished, and not ours
//!  kvorum-archive-<chain>-<from>-<to>-….zst   changes after revision <from> up to <to>: the same kind of
//!                                         file with only that part of history
//! ```
//!
//! * [`Schedule`] says when.
//! * [`Store`]: where; a directory, or a bucket of whatever speaks S3.
//! * [`take`]: a pinned state becomes a backup; [`retain`] removes old ones.
//! * [`archive`]: what has changed since becomes a segment.
//! * [`plan`]: which backup and which segments lead to a revision or a time.
//!
//! What this is not: it knows no members and starts nothing; who takes a backup is `kvorum`'s to decide.
//! Everything here blocks.

mod archive;
mod compression;
mod error;
mod metadata;
mod name;
mod plan;
mod schedule;
mod store;
mod take;

pub use archive::{Archived, Position, archive, latest};
pub use compression::{Compression, is_packed, unpack};
pub use error::BackupError;
pub use metadata::Metadata;
pub use name::{Named, SegmentName, backup_name};
pub use plan::{Plan, PlanError, Target, UntilTime, plan};
pub use schedule::{Schedule, ScheduleError, read_time};
pub use store::{BucketConfig, Location, Store};
pub use take::{Origin, Request, newest, retain, take};

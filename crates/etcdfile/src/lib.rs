//! etcd's own files, to and from our state: snapshots (`etcdctl snapshot save`), and what is in the data
//! directory of an etcd (`member/snap/db`, `member/wal`).
//!
//! * [`Image`]: a pinned state as an etcd's database, written from its first byte to its last.
//!   An increment holds of history only what came after a revision; that is how changes are archived.
//! * [`EtcdFile`]: a database or a snapshot that is read, checked and taken apart.
//! * [`Status`]: what `etcdutl snapshot status` says of one.
//! * [`wal`]: the entries of a log that its database does not have yet.
//!
//! What this is not: a member. It opens no state and starts nothing; commands and programs are `kvorum`'s.
//! It is a crate beside `raft` and not part of `apply`, because the state machine has no business with the
//! files of another program.

// What is in a file is not to be trusted: no slice is indexed without looking (tests do as they
// like).
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod digest;
mod error;
mod export;
mod file;
mod import;
mod marks;
pub mod schema;
mod status;
#[cfg(test)]
mod tests;
mod version;
pub mod wal;

pub use digest::Sha256Sink;
pub use error::{ExportError, FileError, RecordProblem};
pub use export::Image;
pub use file::{EtcdFile, HashCheck};
pub use import::{Contents, Imported, RevisionBump, Within};
pub use marks::{TimeMark, Tip};
pub use schema::storage_version;
pub use status::Status;
pub use version::StorageVersionError;

//! Files of bbolt, the store under etcd: reads any, and writes new ones from sorted input.
//!
//! [`BoltFile`] reads with positioned reads, one page at a time, and trusts nothing: a file that is
//! cut, damaged or made up is an [`Error`] that names the page, and costs a bounded time and memory.
//! [`Writer`] writes a file from its first byte to its last, so that it can be sent while it is
//! made; what has to be known for that beforehand comes from a first pass that writes nothing.
//!
//! What this is not: a store. No file is ever changed, and nothing here knows etcd.
//!
//! No crate that exists would do: the one port of bbolt that is complete maps the file into memory
//! with `unsafe`, takes a transaction's pages into memory before it writes any, and panics on pages
//! that cannot be.

// What is in a file is not to be trusted: no slice is indexed without looking (tests do as they
// like).
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod check;
mod entries;
mod error;
mod file;
mod meta;
mod page;
#[cfg(test)]
mod tests;
mod window;
mod writer;

pub use check::Checked;
pub use entries::{Entries, Entry, Value};
pub use error::{Error, MetaProblem, PageProblem, WriteError};
pub use file::{BoltFile, Bucket};
pub use writer::{PAGE_BYTES, Plan, Writer};

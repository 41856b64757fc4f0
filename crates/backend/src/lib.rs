//! Ordered durable storage with atomic batches and a real durable flush. The only crate that names
//! sled.
//!
//! What this is not: it knows buckets and bytes, not revisions or requests.

// What is on the disk is not to be trusted: no slice is indexed without looking (tests do as they
// like).
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod backend;
mod batch;
mod data_dir;
pub mod engine;
mod error;
mod leftover;
mod record;
mod scan;
pub mod schema;
mod site;
#[cfg(any(test, feature = "test-util"))]
pub mod suite;

pub use backend::{Backend, Config, Reader, Writer};
pub use batch::Batch;
pub use data_dir::{DataDir, DataDirError};
pub use error::{OpenError, ReadError, RecordProblem, WriteError};
pub use leftover::Leftover;
pub use record::PIECE_BYTES;
pub use scan::Scan;
pub use schema::Bucket;
pub use site::Site;

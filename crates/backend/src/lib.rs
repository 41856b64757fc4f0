//! Ordered durable storage with atomic batches and a real durable flush. The only crate that names
//! sled.
//!
//! What this is not: it knows buckets and bytes, not revisions or requests.

mod backend;
mod batch;
mod data_dir;
pub mod engine;
mod error;
pub mod schema;

pub use backend::{Backend, Config, Reader, Scan, Writer};
pub use batch::Batch;
pub use data_dir::{DataDir, DataDirError};
pub use error::{OpenError, ReadError, WriteError};
pub use schema::Bucket;

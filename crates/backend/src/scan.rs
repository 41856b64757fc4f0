//! Walking over a range of a bucket.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::Shared;
use crate::engine::{EngineError, EngineScan};
use crate::{Bucket, ReadError};

/// The records of a range of one bucket, in key order (or backwards: it is double-ended).
///
/// Not a snapshot: while somebody writes, each record comes as it was at some moment since the
/// scan began; a record nobody touches comes exactly once. A record that is corrupt comes as an
/// error, and the scan goes on behind it; after a failure of the engine it ends.
pub struct Scan {
    /// `None` when the engine has failed. Before `shared`, and so dropped before it: who closes the store is the last one.
    records: Option<EngineScan>,
    shared: Arc<Shared>,
    bucket: Bucket,
}

impl Scan {
    pub(crate) fn new(shared: Arc<Shared>, bucket: Bucket, records: Option<EngineScan>) -> Self {
        Self {
            shared,
            bucket,
            records,
        }
    }

    /// What the caller sees of a record; nothing when it has been removed since.
    fn visit(
        &mut self,
        record: Result<(Bytes, Bytes), EngineError>,
    ) -> Option<Result<(Bytes, Bytes), ReadError>> {
        match record {
            Ok((engine_key, record)) => self
                .shared
                .read_scanned(self.bucket, &engine_key, &record)
                .transpose(),
            Err(error) => {
                self.records = None;
                Some(Err(ReadError::Engine(error)))
            }
        }
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = self.records.as_mut()?.next()?;
            if let Some(item) = self.visit(record) {
                return Some(item);
            }
        }
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let record = self.records.as_mut()?.next_back()?;
            if let Some(item) = self.visit(record) {
                return Some(item);
            }
        }
    }
}

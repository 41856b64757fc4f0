//! An engine in memory, for tests. Nothing survives it, so its flush has nothing to do.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::engine::{Change, Engine, EngineError, EngineScan};

type Records = Arc<RwLock<BTreeMap<Bytes, Bytes>>>;

/// Keeps the records in a `BTreeMap`.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    records: Records,
}

impl MemoryEngine {
    /// No records yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[cfg(any(test, feature = "test-util"))]
impl MemoryEngine {
    /// An engine that holds `records`.
    pub(super) fn with_records(records: BTreeMap<Bytes, Bytes>) -> Self {
        Self {
            records: Arc::new(RwLock::new(records)),
        }
    }

    /// All records as they are now.
    pub(super) fn records(&self) -> BTreeMap<Bytes, Bytes> {
        self.records.read().clone()
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.records.read().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> EngineScan {
        Box::new(MemoryScan {
            records: Arc::clone(&self.records),
            from: Bound::Included(Bytes::copy_from_slice(from)),
            to: Bytes::copy_from_slice(to),
        })
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut records = self.records.write();
        for (key, value) in changes {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        Ok(())
    }

    fn flush_durable(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        let records = self.records.read();
        Ok(records
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum())
    }
}

/// Two cursors that move towards each other. It looks each record up as it goes, so that it
/// promises no more than sled's scan does.
struct MemoryScan {
    records: Records,
    from: Bound<Bytes>,
    to: Bytes,
}

impl MemoryScan {
    /// `BTreeMap::range` panics on bounds that have met.
    fn is_done(&self) -> bool {
        match &self.from {
            Bound::Included(from) | Bound::Excluded(from) => *from >= self.to,
            Bound::Unbounded => false,
        }
    }

    fn step(&self, end: End) -> Option<(Bytes, Bytes)> {
        if self.is_done() {
            return None;
        }
        let records = self.records.read();
        let mut range = records.range((self.from.clone(), Bound::Excluded(self.to.clone())));
        let record = match end {
            End::Front => range.next(),
            End::Back => range.next_back(),
        };
        record.map(|(key, value)| (key.clone(), value.clone()))
    }
}

#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

impl Iterator for MemoryScan {
    type Item = Result<(Bytes, Bytes), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.step(End::Front)?;
        self.from = Bound::Excluded(key.clone());
        Some(Ok((key, value)))
    }
}

impl DoubleEndedIterator for MemoryScan {
    fn next_back(&mut self) -> Option<Self::Item> {
        let (key, value) = self.step(End::Back)?;
        self.to = key.clone();
        Some(Ok((key, value)))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Backend, suite};

    #[test]
    fn the_suite_passes() {
        suite::run(Backend::in_memory);
    }
}

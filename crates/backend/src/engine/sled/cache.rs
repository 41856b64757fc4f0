//! What makes sled keep to the capacity of its cache.
//!
//! sled 0.34 notes each use of a page in the queue of the page's shard, of which there are 256, and looks at what
//! the shard holds only when 64 uses have come together there (its `lru.rs`). That is soon where pages are small
//! and many. Here a page holds about ten packed records, half a megabyte, and so gigabytes of pages stay in memory
//! before anybody looks. More uses make it look: a tree of nothing has pages in all shards, and each
//! time so many bytes of packed records have come or gone each of its pages is used once.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

const TREE: &[u8] = b"cache";

/// Records in the tree. They were put in order, so a leaf has half of the sixteen that it may have, and there are
/// two leaves for each shard.
const RECORDS: u32 = 4096;
const RECORDS_PER_LEAF: usize = 8;

/// Rounds after which every shard has looked, if each leaf is used once in a round and there are two for a shard.
const ROUNDS_MAX: u64 = 64;

/// Bytes of packed records after which there is a round, at least. A round is hundreds of reads.
const ROUND_BYTES_MIN: u64 = 1 << 20;

/// Packed records of so many bytes may pass without that: small stores do without the tree.
const FREE_BYTES: u64 = 16 << 20;

/// See above.
#[derive(Debug)]
pub(super) struct CacheLimit {
    db: sled::Db,
    /// None until it is needed.
    tree: Mutex<Option<sled::Tree>>,
    /// Bytes of packed records that have been read or written.
    bytes: AtomicU64,
    /// Bytes of packed records after which there is a round: so many that every shard looks before half of
    /// the capacity has passed.
    round_bytes: u64,
}

impl CacheLimit {
    pub(super) fn new(db: sled::Db, capacity: u64) -> Self {
        let (tree, bytes) = (Mutex::default(), AtomicU64::new(0));
        let round_bytes = (capacity / ROUNDS_MAX).max(ROUND_BYTES_MIN);
        Self {
            db,
            tree,
            bytes,
            round_bytes,
        }
    }

    /// Notes that packed records of so many bytes were read or written.
    pub(super) fn passed(&self, bytes: usize) -> sled::Result<()> {
        let len = bytes as u64;
        let before = self.bytes.fetch_add(len, Ordering::Relaxed);
        let after = before.wrapping_add(len);
        let rounds = (after / self.round_bytes).saturating_sub(before / self.round_bytes);
        if after < FREE_BYTES || rounds == 0 {
            return Ok(());
        }
        let mut tree = self.tree.lock();
        let tree = match &mut *tree {
            Some(tree) => tree,
            none => none.insert(self.make()?),
        };
        for _ in 0..rounds.min(ROUNDS_MAX) {
            for number in (0..RECORDS).step_by(RECORDS_PER_LEAF) {
                tree.get(number.to_be_bytes())?;
            }
        }
        Ok(())
    }

    fn make(&self) -> sled::Result<sled::Tree> {
        let tree = self.db.open_tree(TREE)?;
        if tree.get((RECORDS - 1).to_be_bytes())?.is_none() {
            for number in 0..RECORDS {
                tree.insert(number.to_be_bytes(), &[])?;
            }
        }
        Ok(tree)
    }
}

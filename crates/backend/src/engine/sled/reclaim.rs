//! What makes sled take back the room of what is gone.
//!
//! A segment of which half is dead is to be emptied: sled moves what lives there, one page each time that it writes
//! another page anew (its `pagecache::replace`), or in a thread that flushes from time to time. That thread, which
//! syncs even when nothing was written, is not there; and the leaves of packed records are hardly ever written anew
//! ([`super::places`]). So the files came to be eight times what lived in them. Here a page of nothing is written anew as
//! often as pages are to be moved.
//!
//! What this is not: a copy of the store (`apply::persister::rewrite`), which gives room back to the disk. With this,
//! less is asked of the disk.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where nothing is written, in the engine's own tree.
const KEY: &[u8] = b"turn";

/// How often a page is changed until it is written anew: more than sled's `PAGE_CONSOLIDATION_THRESHOLD`.
const CHANGES: u64 = 12;

/// Bytes of packed records that come in the time in which a page is moved. Most of the pages that are moved are
/// smaller than the leaves that come.
const BYTES_PER_PAGE: u64 = 8 * 1024;

/// Pages that are moved at once, at most: leaves among them have up to 256 KiB each. What is left is for the next times,
/// up to so much.
const PAGES_MAX: u64 = 4;
const BACKLOG_BYTES_MAX: u64 = 1 << 20;

/// See above.
#[derive(Debug)]
pub(super) struct Reclaim {
    tree: sled::Tree,
    /// Bytes of packed records that have come, and no page was moved for them.
    bytes: AtomicU64,
}

impl Reclaim {
    /// The tree may have other records in it.
    pub(super) const fn new(tree: sled::Tree) -> Self {
        let bytes = AtomicU64::new(0);
        Self { tree, bytes }
    }

    /// Notes that packed records of so many bytes were written.
    pub(super) fn written(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Moves as many pages as there should be for what has been written. Says about how many bytes that are: what is to
    /// be moved is half of a segment at most, and so not more than what has come.
    pub(super) fn run(&self) -> sled::Result<usize> {
        // There is one writer.
        let bytes = self.bytes.load(Ordering::Relaxed).min(BACKLOG_BYTES_MAX);
        let pages = (bytes / BYTES_PER_PAGE).min(PAGES_MAX);
        let used = pages * BYTES_PER_PAGE;
        self.bytes.store(bytes - used, Ordering::Relaxed);
        for change in 0..CHANGES * pages {
            // What changes nothing is not written.
            self.tree.insert(KEY, &[u8::from(change % 2 == 0)])?;
        }
        Ok(usize::try_from(used).unwrap_or(usize::MAX))
    }
}

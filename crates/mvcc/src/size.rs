//! The store's size as etcd's users know it.
//!
//! etcd keeps its records in pages of a file (`dbSize`) that grows by pages when none is free, and
//! shrinks only when it is defragmented; `dbSizeInUse` is the file without its free pages. Quotas,
//! alerts and dashboards are built on the two, so that is what is counted here: the pages that etcd
//! would use for the same history, and the most that were in use since the store was last written
//! anew.
//!
//! What this is not: the size of any file; `backend::Reader::size_on_disk` is that.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::key_index::Version;

const PAGE_BYTES: u64 = 4096;
/// A page's own header.
const PAGE_HEADER_BYTES: u64 = 16;
/// etcd fills a page of the bucket `key` so far before it begins the next one.
const PAGE_FILLED_BYTES: u64 = PAGE_BYTES * 9 / 10;
/// A record's place in its page, and its key.
const RECORD_BYTES: u64 = 16 + 17;
/// Records that a page has at least, however large they are.
const RECORDS_PER_PAGE_MIN: u64 = 2;
/// What an empty database uses: the other buckets, the roots.
const EMPTY_BYTES: u64 = 6 * PAGE_BYTES;
/// What it keeps free beside that.
const SPARE_BYTES: u64 = 2 * PAGE_BYTES;

/// What a version takes of etcd's pages.
pub(crate) fn paged(version: Version) -> u64 {
    let record = RECORD_BYTES + version.stored_len();
    let records = (PAGE_FILLED_BYTES / record).max(RECORDS_PER_PAGE_MIN);
    let pages = (PAGE_HEADER_BYTES + records * record).div_ceil(PAGE_BYTES);
    pages * PAGE_BYTES / records
}

/// The two sizes, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// What the versions take.
    paged: AtomicU64,
    allocated: AtomicU64,
}

impl Sizes {
    pub(crate) fn in_use(&self) -> u64 {
        in_use(self.paged.load(Ordering::Relaxed))
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.allocated_with(self.paged.load(Ordering::Relaxed))
    }

    /// What is allocated if the versions take so much.
    pub(crate) fn allocated_with(&self, paged: u64) -> u64 {
        let allocated = self.allocated.load(Ordering::Relaxed);
        allocated.max(in_use(paged) + SPARE_BYTES)
    }

    pub(crate) fn set_in_use(&self, paged: u64) {
        self.paged.store(paged, Ordering::Relaxed);
        let needed = in_use(paged) + SPARE_BYTES;
        self.allocated.fetch_max(needed, Ordering::Relaxed);
    }

    /// It was allocated so much in an earlier run.
    pub(crate) fn set_allocated(&self, bytes: u64) {
        self.allocated.store(bytes, Ordering::Relaxed);
    }

    /// What is not in use is given back.
    pub(crate) fn free(&self) {
        self.set_allocated(0);
        self.set_in_use(self.paged.load(Ordering::Relaxed));
    }
}

fn in_use(paged: u64) -> u64 {
    EMPTY_BYTES + paged.next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use types::Revision;

    use super::*;

    fn of(count: u64, stored_len: usize) -> u64 {
        in_use(count * paged(Version::new(Revision::new(2, 0), stored_len, false)))
    }

    /// What a real etcd 3.5.30 says of 2,000 and 4,000 versions of 1,000 bytes, and of 2,000 of one byte.
    #[test]
    fn sizes_are_about_those_of_etcd() {
        for (ours, etcds) in [
            (of(0, 0), 24_576),
            (of(2000, 1024), 2_793_472),
            (of(4000, 1024), 5_586_944),
            (of(2000, 25), 258_048 - 110_592),
        ] {
            let ratio = ours as f64 / f64::from(etcds);
            assert!((0.8..1.25).contains(&ratio), "{ours} {etcds}");
        }
    }

    #[test]
    fn what_was_allocated_stays_until_it_is_freed() {
        let sizes = Sizes::default();
        sizes.set_in_use(1 << 20);
        let full = sizes.allocated();
        sizes.set_in_use(0);
        assert_eq!(sizes.allocated(), full);
        assert_eq!(sizes.in_use(), EMPTY_BYTES);
        sizes.free();
        assert_eq!(sizes.allocated(), EMPTY_BYTES + SPARE_BYTES);
    }
}

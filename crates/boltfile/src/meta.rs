//! The two pages that a file begins with. bbolt writes them in turns, so that one is always whole;
//! the valid one of the later transaction counts.
//!
//! | bytes | what (all numbers little endian) |
//! |---|---|
//! | 0..4 | magic, `ed0cdaed` |
//! | 4..8 | version, 2 |
//! | 8..12 | bytes of a page |
//! | 12..16 | flags, unused |
//! | 16..24, 24..32 | the root bucket: its root page and its sequence |
//! | 32..40 | the page with the list of free pages; all bits set: there is none |
//! | 40..48 | the number of pages |
//! | 48..56 | the transaction |
//! | 56..64 | FNV-64a of the bytes before |

use crate::error::MetaProblem;
use crate::page::{self, HEADER_BYTES};

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// Bytes of a meta, without its page's header.
const BYTES: usize = 64;
/// Bytes that the checksum covers.
const CHECKED_BYTES: usize = 56;
/// What is read to see a meta page.
pub(crate) const READ_BYTES: usize = HEADER_BYTES + BYTES;
/// Where the list of free pages is when there is none.
pub(crate) const NO_FREELIST: u64 = u64::MAX;
/// The page sizes that systems have.
pub(crate) const PAGE_SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_bytes: u32,
    /// The root page of the bucket of buckets.
    pub(crate) root: u64,
    pub(crate) freelist: u64,
    /// How many pages there are.
    pub(crate) pages: u64,
    pub(crate) transaction: u64,
}

impl Meta {
    /// Reads a meta page, header included.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MetaProblem> {
        let meta = bytes.get(HEADER_BYTES..).ok_or(MetaProblem::Missing)?;
        let u32_at = |at| page::u32_at(meta, at).ok_or(MetaProblem::Missing);
        let u64_at = |at| page::u64_at(meta, at).ok_or(MetaProblem::Missing);
        if u32_at(0)? != MAGIC {
            return Err(MetaProblem::Magic);
        }
        match u32_at(4)? {
            VERSION => {}
            other => return Err(MetaProblem::Version(other)),
        }
        let checked = meta.get(..CHECKED_BYTES).ok_or(MetaProblem::Missing)?;
        if fnv64a(checked) != u64_at(CHECKED_BYTES)? {
            return Err(MetaProblem::Checksum);
        }
        let page_bytes = u32_at(8)?;
        if !PAGE_SIZES.contains(&page_bytes) {
            return Err(MetaProblem::PageSize(page_bytes));
        }
        Ok(Self {
            page_bytes,
            root: u64_at(16)?,
            freelist: u64_at(32)?,
            pages: u64_at(40)?,
            transaction: u64_at(48)?,
        })
    }

    /// The meta, without its page's header.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        for number in [MAGIC, VERSION, self.page_bytes, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.root, 0, self.freelist, self.pages, self.transaction] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = fnv64a(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }
}

fn fnv64a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv_64a() {
        // From the algorithm's own list of examples.
        assert_eq!(fnv64a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv64a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}

//! One page of a tree, or a small bucket that lies inside one.
//!
//! | bytes | what (all numbers little endian) |
//! |---|---|
//! | 0..8 | its number |
//! | 8..10 | its kind |
//! | 10..12 | how many elements it has |
//! | 12..16 | how many pages it goes on for |
//! | then 16 for each element | branch: where its key is (4, counted from the element), the key's length (4), the child (8); leaf: flags (4), where its key is (4), the key's length (4), the value's length (4) |
//! | then | keys, and in a leaf each with its value behind it |

use bytes::Bytes;

use crate::error::PageProblem;

/// Bytes of a page's head.
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes of the head of an element.
pub(crate) const ELEMENT_BYTES: usize = 16;

pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREELIST: u16 = 0x10;

/// The flag of a leaf's element that is a bucket.
pub(crate) const IS_BUCKET: u32 = 0x01;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u16::from_le_bytes(*number))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*number))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u64::from_le_bytes(*number))
}

/// What a page begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) kind: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, 0)?,
            kind: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }

    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let (id, rest) = out.split_at_mut(8);
        id.copy_from_slice(&self.id.to_le_bytes());
        let (kind, rest) = rest.split_at_mut(2);
        kind.copy_from_slice(&self.kind.to_le_bytes());
        let (count, overflow) = rest.split_at_mut(2);
        count.copy_from_slice(&self.count.to_le_bytes());
        overflow.copy_from_slice(&self.overflow.to_le_bytes());
        out
    }
}

/// A branch or a leaf, with everything that it goes on for.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) header: Header,
    bytes: Bytes,
}

/// An element of a leaf.
#[derive(Clone, Debug)]
pub(crate) struct LeafElement {
    pub(crate) is_bucket: bool,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

impl Page {
    pub(crate) fn new(header: Header, bytes: Bytes) -> Self {
        Self { header, bytes }
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.header.kind == LEAF
    }

    pub(crate) fn count(&self) -> u16 {
        self.header.count
    }

    /// The key and the child of element `at` of a branch.
    pub(crate) fn branch(&self, at: u16) -> Result<(Bytes, u64), PageProblem> {
        let element = self.element(at)?;
        let outside = PageProblem::Element(at);
        let key = self.slice(at, u32_at(element, 0), u32_at(element, 4), 0)?;
        let child = u64_at(element, 8).ok_or(outside)?;
        Ok((key, child))
    }

    /// Element `at` of a leaf.
    pub(crate) fn leaf(&self, at: u16) -> Result<LeafElement, PageProblem> {
        let element = self.element(at)?;
        let outside = PageProblem::Element(at);
        let flags = u32_at(element, 0).ok_or(outside)?;
        let (place, key_len) = (u32_at(element, 4), u32_at(element, 8));
        let key = self.slice(at, place, key_len, 0)?;
        let value = self.slice(at, place, u32_at(element, 12), key.len())?;
        Ok(LeafElement {
            is_bucket: flags & IS_BUCKET != 0,
            key,
            value,
        })
    }

    fn element(&self, at: u16) -> Result<&[u8], PageProblem> {
        let start = HEADER_BYTES + ELEMENT_BYTES * usize::from(at);
        self.bytes
            .get(start..start + ELEMENT_BYTES)
            .ok_or(PageProblem::Element(at))
    }

    /// `len` bytes, `skip` behind the place that element `at` says.
    fn slice(
        &self,
        at: u16,
        place: Option<u32>,
        len: Option<u32>,
        skip: usize,
    ) -> Result<Bytes, PageProblem> {
        let slice = || {
            let element = HEADER_BYTES + ELEMENT_BYTES * usize::from(at);
            let start = element
                .checked_add(usize::try_from(place?).ok()?)?
                .checked_add(skip)?;
            let end = start.checked_add(usize::try_from(len?).ok()?)?;
            // Not over the heads either: bbolt would take them for keys.
            let heads = HEADER_BYTES + ELEMENT_BYTES * usize::from(self.header.count);
            let is_inside = start >= heads && end <= self.bytes.len();
            is_inside.then(|| self.bytes.slice(start..end))
        };
        slice().ok_or(PageProblem::Element(at))
    }
}

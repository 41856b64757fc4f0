//! A file that is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::entries::{Entries, Entry, Value};
use crate::error::{Error, MetaProblem, PageProblem};
use crate::meta::{self, Meta};
use crate::page::{BRANCH, HEADER_BYTES, Header, LEAF, Page};
use crate::window::Window;

/// A leaf with more bytes is refused, and not taken into memory: etcd's largest request is far below.
const LEAF_BYTES_MAX: u64 = 256 << 20;
/// The same for a branch: its keys are 32 KiB at most.
const BRANCH_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a bucket's head in the value of its element: its root page and its sequence.
const BUCKET_HEAD_BYTES: usize = 16;

/// A bolt file, open for reading.
#[derive(Debug)]
pub struct BoltFile {
    file: File,
    pub(crate) meta: Meta,
}

/// A bucket of a file.
#[derive(Clone, Debug)]
pub struct Bucket<'f> {
    pub(crate) file: &'f BoltFile,
    pub(crate) root: Root,
}

/// Where a bucket is.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    /// In a tree of its own.
    Page(u64),
    /// Inside a page of the bucket that it is in.
    Inline { page: Page, within: u64 },
}

impl BoltFile {
    /// Reads the meta pages of a file of which the first `len` bytes count.
    ///
    /// # Errors
    /// When it is no bolt file, or a shorter one than it says.
    pub fn open(file: File, len: u64) -> Result<Self, Error> {
        let meta = newest_meta(&file, len)?;
        let expected = meta.pages.saturating_mul(u64::from(meta.page_bytes));
        if meta.pages < 3 || expected > len {
            return Err(Error::Truncated {
                expected,
                found: len,
            });
        }
        Ok(Self { file, meta })
    }

    /// The bucket that all others are in.
    #[must_use]
    pub fn root(&self) -> Bucket<'_> {
        Bucket {
            file: self,
            root: Root::Page(self.meta.root),
        }
    }

    /// Bytes of all its pages; the file may be longer.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// A branch or a leaf, as page `id`.
    pub(crate) fn page(&self, id: u64, window: &mut Window) -> Result<Page, Error> {
        let problem = |problem| Error::Page { page: id, problem };
        self.is_inside(id)?;
        let first = window.read(self, self.offset(id), self.meta.page_bytes as usize)?;
        let header = self.checked_header(id, &first)?;
        let bytes_max = match header.kind {
            BRANCH => BRANCH_BYTES_MAX,
            LEAF => LEAF_BYTES_MAX,
            other => return Err(problem(PageProblem::Kind(other))),
        };
        let bytes = (u64::from(header.overflow) + 1) * u64::from(self.meta.page_bytes);
        let len = usize::try_from(bytes).ok().filter(|_| bytes <= bytes_max);
        let len = len.ok_or_else(|| problem(PageProblem::TooLarge(bytes)))?;
        if len == first.len() {
            return Ok(Page::new(header, first));
        }
        let read = window.read(self, self.offset(id), len)?;
        // Again: the file is not locked.
        let header = Header::decode(&read).ok_or_else(|| problem(PageProblem::OutOfBounds))?;
        if header.id != id || !matches!(header.kind, BRANCH | LEAF) {
            return Err(problem(PageProblem::Id(header.id)));
        }
        Ok(Page::new(header, read))
    }

    /// The head of page `id`, which is inside the file with everything that it goes on for.
    pub(crate) fn header(&self, id: u64) -> Result<Header, Error> {
        self.is_inside(id)?;
        let head = self.read_at(self.offset(id), HEADER_BYTES)?;
        self.checked_header(id, &head)
    }

    fn is_inside(&self, id: u64) -> Result<(), Error> {
        if id < 2 || id >= self.meta.pages {
            return Err(Error::Page {
                page: id,
                problem: PageProblem::OutOfBounds,
            });
        }
        Ok(())
    }

    /// The head at the beginning of what was read of page `id`.
    fn checked_header(&self, id: u64, read: &[u8]) -> Result<Header, Error> {
        let problem = |problem| Error::Page { page: id, problem };
        let header = Header::decode(read).ok_or_else(|| problem(PageProblem::OutOfBounds))?;
        if header.id != id {
            return Err(problem(PageProblem::Id(header.id)));
        }
        if u64::from(header.overflow) >= self.meta.pages - id {
            return Err(problem(PageProblem::Overflow(header.overflow)));
        }
        Ok(header)
    }

    /// Bytes at `skip` behind the beginning of a page.
    pub(crate) fn read(&self, page: u64, skip: u64, len: usize) -> Result<Bytes, Error> {
        self.read_at(self.offset(page) + skip, len)
    }

    /// Bytes of the file.
    pub(crate) fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Error> {
        read_at(&self.file, offset, len)
    }

    fn offset(&self, page: u64) -> u64 {
        page * u64::from(self.meta.page_bytes)
    }
}

impl<'f> Bucket<'f> {
    /// Its entries, in the order of their keys.
    #[must_use]
    pub fn entries(&self) -> Entries<'f> {
        Entries::new(self.clone())
    }

    /// The value of a key, if there is such a key and it is no bucket.
    ///
    /// # Errors
    /// When a page on the way is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.find(key)?.and_then(|entry| match entry.value {
            Value::Bytes(value) => Some(value),
            Value::Bucket(_) => None,
        }))
    }

    /// A bucket in it, if it is there.
    ///
    /// # Errors
    /// When a page on the way is damaged.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Self>, Error> {
        Ok(self.find(name)?.and_then(|entry| match entry.value {
            Value::Bucket(bucket) => Some(bucket),
            Value::Bytes(_) => None,
        }))
    }

    fn find(&self, key: &[u8]) -> Result<Option<Entry<'f>>, Error> {
        let first = Entries::from(self.clone(), key).next().transpose()?;
        Ok(first.filter(|entry| entry.key == key))
    }

    /// The bucket that an element of a leaf holds.
    pub(crate) fn within(
        file: &'f BoltFile,
        page: u64,
        at: u16,
        value: &Bytes,
    ) -> Result<Self, Error> {
        let broken = || Error::Page {
            page,
            problem: PageProblem::Bucket(at),
        };
        let root = crate::page::u64_at(value, 0).ok_or_else(broken)?;
        if value.len() < BUCKET_HEAD_BYTES {
            return Err(broken());
        }
        let root = match root {
            0 => {
                let inline = value.slice(BUCKET_HEAD_BYTES..);
                let header = Header::decode(&inline).ok_or_else(broken)?;
                // Always a leaf, and one whose buckets are elsewhere.
                if header.kind != LEAF || header.overflow != 0 {
                    return Err(broken());
                }
                Root::Inline {
                    page: Page::new(header, inline),
                    within: page,
                }
            }
            root => Root::Page(root),
        };
        Ok(Self { file, root })
    }
}

fn newest_meta(file: &File, len: u64) -> Result<Meta, Error> {
    let first = meta_at(file, len, 0)?;
    let second = match &first {
        Ok(first) => meta_at(file, len, u64::from(first.page_bytes))?,
        // The size of a page is in the one that is broken.
        Err(_) => second_meta(file, len)?,
    };
    match (first, second) {
        (Ok(first), Ok(second)) if second.transaction > first.transaction => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(_), Ok(second)) => Ok(second),
        (Err(first), Err(second)) => Err(Error::NoMeta { first, second }),
    }
}

fn second_meta(file: &File, len: u64) -> Result<Result<Meta, MetaProblem>, Error> {
    let mut problem = MetaProblem::Missing;
    for page_bytes in meta::PAGE_SIZES {
        match meta_at(file, len, u64::from(page_bytes))? {
            Ok(meta) if meta.page_bytes == page_bytes => return Ok(Ok(meta)),
            Ok(_) => {}
            Err(found) => problem = found,
        }
    }
    Ok(Err(problem))
}

fn meta_at(file: &File, len: u64, offset: u64) -> Result<Result<Meta, MetaProblem>, Error> {
    if offset + meta::READ_BYTES as u64 > len {
        return Ok(Err(MetaProblem::Missing));
    }
    Ok(Meta::decode(&read_at(file, offset, meta::READ_BYTES)?))
}

fn read_at(file: &File, offset: u64, len: usize) -> Result<Bytes, Error> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|source: io::Error| Error::Io {
            offset,
            bytes: len as u64,
            source,
        })?;
    Ok(bytes.into())
}

//! Whether a file is whole: what `bbolt check` looks at.

use crate::entries::Value;
use crate::error::{Error, PageProblem};
use crate::file::{BoltFile, Bucket, Root};
use crate::meta::NO_FREELIST;
use crate::page::{self, FREELIST, HEADER_BYTES, Header};
use crate::window::Window;

/// Numbers of free pages that are read at a time.
const FREE_AT_A_TIME: usize = 4096;
/// A list of free pages with so many says elsewhere how many there are.
const MANY_FREE: u16 = u16::MAX;
/// Buckets in buckets in buckets: more than this is none that anybody has made.
const NESTING_MAX: usize = 16;

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Pages that are used.
    pub used: u64,
    /// Pages that are free.
    pub free: u64,
    /// Entries that are no buckets.
    pub entries: u64,
}

/// A bit for each page.
struct Pages {
    bits: Vec<u64>,
}

impl Pages {
    fn new(pages: u64) -> Self {
        let words = usize::try_from(pages / 64 + 1).expect("a file of that length was opened");
        Self {
            bits: vec![0; words],
        }
    }

    fn place(page: u64) -> (usize, u64) {
        let word = usize::try_from(page / 64).expect("the page is one of the file");
        (word, 1 << (page % 64))
    }

    fn has(&self, page: u64) -> bool {
        let (word, bit) = Self::place(page);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Says whether it was not there.
    fn add(&mut self, page: u64) -> bool {
        let (word, bit) = Self::place(page);
        let Some(bits) = self.bits.get_mut(word) else {
            return false;
        };
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }
}

struct Check<'f> {
    file: &'f BoltFile,
    used: Pages,
    counted: Checked,
}

impl BoltFile {
    /// Looks at every page: each is used once or free, and every key is in its place.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<Checked, Error> {
        let mut check = Check {
            file: self,
            used: Pages::new(self.meta.pages),
            counted: Checked::default(),
        };
        check.bucket(&self.root(), 0)?;
        check.free()?;
        Ok(check.counted)
    }
}

impl Check<'_> {
    fn use_page(&mut self, id: u64) -> Result<Header, Error> {
        let header = self.file.header(id)?;
        for page in id..=id + u64::from(header.overflow) {
            if !self.used.add(page) {
                return Err(Error::Page {
                    page,
                    problem: PageProblem::UsedTwice,
                });
            }
            self.counted.used += 1;
        }
        Ok(header)
    }

    fn bucket(&mut self, bucket: &Bucket<'_>, nesting: usize) -> Result<(), Error> {
        if let Root::Page(root) = bucket.root {
            if nesting > NESTING_MAX {
                return Err(Error::Page {
                    page: root,
                    problem: PageProblem::TooDeep,
                });
            }
            self.tree(root)?;
        }
        for entry in bucket.entries() {
            match entry?.value {
                Value::Bytes(_) => self.counted.entries += 1,
                Value::Bucket(inner) => self.bucket(&inner, nesting + 1)?,
            }
        }
        Ok(())
    }

    /// Counts the pages of a tree. Each of them only once, so that this ends.
    fn tree(&mut self, root: u64) -> Result<(), Error> {
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            if self.use_page(id)?.kind != page::BRANCH {
                continue;
            }
            let branch = self.file.page(id, &mut Window::default())?;
            for at in 0..branch.count() {
                let (_, child) = branch
                    .branch(at)
                    .map_err(|problem| Error::Page { page: id, problem })?;
                waiting.push(child);
            }
        }
        Ok(())
    }

    fn free(&mut self) -> Result<(), Error> {
        let list = self.file.meta.freelist;
        if list == NO_FREELIST {
            // Whoever opens the file for writing takes what is not used for free.
            self.counted.free = self.file.meta.pages - 2 - self.counted.used;
            return Ok(());
        }
        let header = self.use_page(list)?;
        let free = self.read_free(list, header)?;
        for page in 2..self.file.meta.pages {
            let problem = match (self.used.has(page), free.has(page)) {
                (true, true) => PageProblem::UsedAndFree,
                (false, false) => PageProblem::Lost,
                _ => continue,
            };
            return Err(Error::Page { page, problem });
        }
        Ok(())
    }

    fn read_free(&mut self, list: u64, header: Header) -> Result<Pages, Error> {
        let problem = |page, problem| Error::Page { page, problem };
        if header.kind != FREELIST {
            return Err(problem(list, PageProblem::Kind(header.kind)));
        }
        let mut skip = HEADER_BYTES as u64;
        let mut left = u64::from(header.count);
        if header.count == MANY_FREE {
            let count = self.file.read(list, skip, 8)?;
            left = page::u64_at(&count, 0).unwrap_or_default();
            skip += 8;
        }
        let bytes = (u64::from(header.overflow) + 1) * u64::from(self.file.meta.page_bytes);
        if left > (bytes - skip) / 8 {
            return Err(problem(list, PageProblem::Element(header.count)));
        }
        let mut free = Pages::new(self.file.meta.pages);
        while left > 0 {
            let now = left.min(FREE_AT_A_TIME as u64);
            let len = usize::try_from(now * 8).expect("so many are read at a time");
            let numbers = self.file.read(list, skip, len)?;
            for number in numbers.chunks_exact(8) {
                let id = page::u64_at(number, 0).unwrap_or_default();
                let is_possible = id >= 2 && id < self.file.meta.pages;
                if !is_possible || !free.add(id) {
                    return Err(problem(id, PageProblem::FreeTwice));
                }
                self.counted.free += 1;
            }
            (left, skip) = (left - now, skip + now * 8);
        }
        Ok(free)
    }
}

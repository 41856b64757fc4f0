//! Walking over a bucket.
//!
//! Every key has to be after the one before, and no page of a tree but its root may be empty: so no
//! page is visited twice, whatever a file says, and every walk comes to its end.

use bytes::Bytes;

use crate::error::{Error, PageProblem};
use crate::file::{Bucket, Root};
use crate::page::{LeafElement, Page};
use crate::window::Window;

/// A tree that is deeper is none that bbolt has written: it would have more than 2^64 pages.
const DEPTH_MAX: usize = 64;

/// What is in a bucket.
#[derive(Clone, Debug)]
pub struct Entry<'f> {
    /// Its key.
    pub key: Bytes,
    /// What is there.
    pub value: Value<'f>,
}

/// What is at a key.
#[derive(Clone, Debug)]
pub enum Value<'f> {
    /// Bytes.
    Bytes(Bytes),
    /// Another bucket.
    Bucket(Bucket<'f>),
}

/// The entries of a bucket, in the order of their keys. It ends after the first error.
#[derive(Debug)]
pub struct Entries<'f> {
    bucket: Bucket<'f>,
    window: Window,
    /// The pages from the root to where the walk is.
    stack: Vec<Place>,
    state: State,
    /// The key before.
    last: Option<Bytes>,
    /// No key before this one.
    from: Bytes,
    /// What the branch above says that the next key is not before.
    low: Option<(Bytes, u64, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Going,
    Ended,
}

/// Where in a page the walk is.
#[derive(Debug)]
struct Place {
    id: u64,
    page: Page,
    /// The element that comes next.
    next: u16,
}

impl<'f> Entries<'f> {
    pub(crate) fn new(bucket: Bucket<'f>) -> Self {
        Self::from(bucket, &[])
    }

    /// Those from `key` on.
    pub(crate) fn from(bucket: Bucket<'f>, key: &[u8]) -> Self {
        Self {
            bucket,
            window: Window::default(),
            stack: Vec::new(),
            state: State::New,
            last: None,
            from: Bytes::copy_from_slice(key),
            low: None,
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        let (id, page) = match &self.bucket.root {
            Root::Page(root) => (*root, self.bucket.file.page(*root, &mut self.window)?),
            Root::Inline { page, within } => (*within, page.clone()),
        };
        self.push(id, page)
    }

    fn push(&mut self, id: u64, page: Page) -> Result<(), Error> {
        let problem = |problem| Error::Page { page: id, problem };
        let is_root = self.stack.is_empty();
        if page.count() == 0 && !(is_root && page.is_leaf()) {
            return Err(problem(PageProblem::Empty));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(problem(PageProblem::TooDeep));
        }
        let next = match self.from.is_empty() {
            true => 0,
            false => first_from(&page, &self.from).map_err(problem)?,
        };
        self.stack.push(Place { id, page, next });
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Entry<'f>>, Error> {
        if self.state == State::New {
            self.state = State::Going;
            self.begin()?;
        }
        while let Some(place) = self.stack.last_mut() {
            if place.next >= place.page.count() {
                self.stack.pop();
                // Only the first way down leads to it.
                self.from = Bytes::new();
                continue;
            }
            let at = place.next;
            place.next += 1;
            let id = place.id;
            let problem = |problem| Error::Page { page: id, problem };
            if place.page.is_leaf() {
                let element = place.page.leaf(at).map_err(problem)?;
                return self.entry(id, at, element).map(Some);
            }
            let (key, child) = place.page.branch(at).map_err(problem)?;
            if self.last.as_ref().is_some_and(|last| key <= *last) {
                return Err(problem(PageProblem::Order(at)));
            }
            self.low = Some((key, id, at));
            let page = self.bucket.file.page(child, &mut self.window)?;
            self.push(child, page)?;
        }
        Ok(None)
    }

    fn entry(&mut self, id: u64, at: u16, element: LeafElement) -> Result<Entry<'f>, Error> {
        let order = |page, at| Error::Page {
            page,
            problem: PageProblem::Order(at),
        };
        let LeafElement {
            is_bucket,
            key,
            value,
        } = element;
        if self.last.as_ref().is_some_and(|last| key <= *last) {
            return Err(order(id, at));
        }
        if let Some((low, branch, at)) = self.low.take()
            && key < low
        {
            return Err(order(branch, at));
        }
        self.last = Some(key.clone());
        let value = match is_bucket {
            true => Value::Bucket(Bucket::within(self.bucket.file, id, at, &value)?),
            false => Value::Bytes(value),
        };
        Ok(Entry { key, value })
    }
}

/// The first element that can lead to `from` or behind it.
fn first_from(page: &Page, from: &[u8]) -> Result<u16, PageProblem> {
    let (mut low, mut high) = (0, page.count());
    while low < high {
        let middle = low + (high - low) / 2;
        let is_before = match page.is_leaf() {
            true => page.leaf(middle)?.key < *from,
            false => page.branch(middle)?.0 <= *from,
        };
        if is_before {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(match page.is_leaf() {
        true => low,
        false => low.saturating_sub(1),
    })
}

impl<'f> Iterator for Entries<'f> {
    type Item = Result<Entry<'f>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        let entry = self.step().transpose();
        if !matches!(entry, Some(Ok(_))) {
            self.state = State::Ended;
        }
        entry
    }
}

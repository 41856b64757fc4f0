//! A file that is written, from its first byte to its last.
//!
//! Trees are built from the bottom: a leaf that is full goes out, and its first key and its number go
//! into the branch above, which goes out when it is full in its turn. So no more than one page of each
//! level is in memory, and the root of a bucket is the last of its pages. The pages of meta come first,
//! though, and say where the root of all is and how many pages there are: the input is therefore gone
//! through twice, and the first time nothing is written.
//!
//! ```text
//!  meta  meta  free | leaf leaf … branch leaf … branch root | leaf … root | … | the bucket of buckets
//!  0     1     2    | a bucket                              | another one |   |
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::error::WriteError;
use crate::meta::Meta;
use crate::page::{self, BRANCH, ELEMENT_BYTES, FREELIST, HEADER_BYTES, Header, IS_BUCKET, LEAF};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// bbolt's bounds.
const KEY_BYTES_MAX: usize = 32768;
const VALUE_BYTES_MAX: usize = (1 << 31) - 2;
/// The first page that is neither meta nor the list of free ones.
const FIRST_PAGE: u64 = 3;
const FREELIST_PAGE: u64 = 2;

/// What has to be known of a file before it can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    root: u64,
    pages: u64,
}

impl Plan {
    /// Bytes of the whole file.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

/// Writes a file. Buckets come in any order, the keys of each in theirs.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// `None` in the first pass.
    plan: Option<Plan>,
    /// The number of the next page.
    next: u64,
    tree: Option<Tree>,
    /// The buckets, and their root pages.
    buckets: BTreeMap<Vec<u8>, u64>,
}

/// The bucket that is being written.
#[derive(Debug)]
struct Tree {
    name: Vec<u8>,
    /// The leaf that is being filled, the branch above it, and so on.
    levels: Vec<Node>,
    last: Vec<u8>,
    keys: u64,
}

/// A page that is being filled.
#[derive(Debug, Default)]
struct Node {
    elements: Vec<Element>,
    /// Keys and values.
    data: Vec<u8>,
    /// Pages of this level that have gone out before.
    gone: u64,
}

#[derive(Debug)]
struct Element {
    /// Where its key is in the data.
    start: usize,
    key_len: usize,
    value_len: usize,
    /// Of a leaf.
    flags: u32,
    /// Of a branch.
    child: u64,
}

impl Writer<io::Sink> {
    /// The first pass: writes nothing.
    #[must_use]
    pub fn measure() -> Self {
        Self {
            out: io::sink(),
            plan: None,
            next: FIRST_PAGE,
            tree: None,
            buckets: BTreeMap::new(),
        }
    }
}

impl<W: Write> Writer<W> {
    /// The second pass, which has to get what the first one got.
    ///
    /// # Errors
    /// When `out` does not take what is written.
    pub fn new(mut out: W, plan: Plan) -> Result<Self, WriteError> {
        for number in 0..2 {
            let meta = Meta {
                page_bytes: 4096,
                root: plan.root,
                freelist: FREELIST_PAGE,
                pages: plan.pages,
                // The first one counts.
                transaction: 1 - number,
            };
            write_page(&mut out, number, page::META, &meta.encode())?;
        }
        write_page(&mut out, FREELIST_PAGE, FREELIST, &[])?;
        Ok(Self {
            out,
            plan: Some(plan),
            next: FIRST_PAGE,
            tree: None,
            buckets: BTreeMap::new(),
        })
    }

    /// Goes on with another bucket. Each comes once.
    ///
    /// # Errors
    /// When the one before cannot be written.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.end_bucket()?;
        debug_assert!(!self.buckets.contains_key(name), "each bucket comes once");
        self.tree = Some(Tree::new(name));
        Ok(())
    }

    /// Adds to the bucket. Keys come in their order.
    ///
    /// # Errors
    /// When they do not, when bbolt could not hold them, or when they cannot be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.add(key, value, 0)
    }

    fn add(&mut self, key: &[u8], value: &[u8], flags: u32) -> Result<(), WriteError> {
        let mut tree = self.tree.take().unwrap_or_else(|| Tree::new(&[]));
        tree.check(key, value)?;
        self.push(
            &mut tree.levels,
            0,
            Entry {
                key,
                value,
                flags,
                child: 0,
            },
        )?;
        self.tree = Some(tree);
        Ok(())
    }

    /// Adds to a level; what is full goes out first.
    fn push(
        &mut self,
        levels: &mut Vec<Node>,
        level: usize,
        entry: Entry<'_>,
    ) -> Result<(), WriteError> {
        if levels.len() <= level {
            levels.push(Node::default());
        }
        let is_full = levels
            .get(level)
            .is_some_and(|node| !node.has_room_for(&entry));
        if is_full {
            self.flush(levels, level)?;
        }
        if let Some(node) = levels.get_mut(level) {
            node.push(&entry);
        }
        Ok(())
    }

    /// Lets a page out, and notes it in the level above.
    fn flush(&mut self, levels: &mut Vec<Node>, level: usize) -> Result<(), WriteError> {
        let Some(node) = levels.get_mut(level) else {
            return Ok(());
        };
        let gone = node.gone + 1;
        let node = std::mem::replace(
            node,
            Node {
                gone,
                ..Node::default()
            },
        );
        let child = self.write(&node, level)?;
        let key = node.first_key().to_vec();
        let entry = Entry {
            key: &key,
            value: &[],
            flags: 0,
            child,
        };
        self.push(levels, level + 1, entry)
    }

    /// Writes a page, and says which one it is.
    fn write(&mut self, node: &Node, level: usize) -> Result<u64, WriteError> {
        let number = self.next;
        self.next += node.pages();
        if self.plan.is_some() {
            node.write(&mut self.out, number, level)?;
        }
        Ok(number)
    }

    fn end_bucket(&mut self) -> Result<(), WriteError> {
        if let Some(tree) = self.tree.take() {
            let name = tree.name.clone();
            let root = self.end_tree(tree)?;
            self.buckets.insert(name, root);
        }
        Ok(())
    }

    /// Lets out what is left, level by level; the last page is the root.
    fn end_tree(&mut self, mut tree: Tree) -> Result<u64, WriteError> {
        let mut level = 0;
        loop {
            let Some(node) = tree.levels.get(level) else {
                // A bucket without keys.
                return self.write(&Node::default(), 0);
            };
            if node.gone == 0 {
                return self.write(node, level);
            }
            // A level with pages has a page that is not out yet: it goes out only for another entry.
            self.flush(&mut tree.levels, level)?;
            level += 1;
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the rest cannot be written, or is not what was measured.
    pub fn finish(mut self) -> Result<Plan, WriteError> {
        self.end_bucket()?;
        self.tree = Some(Tree::new(&[]));
        for (name, root) in std::mem::take(&mut self.buckets) {
            let mut head = [0; 16];
            let (root_at, _sequence) = head.split_at_mut(8);
            root_at.copy_from_slice(&root.to_le_bytes());
            self.add(&name, &head, IS_BUCKET)?;
        }
        let tree = self.tree.take().unwrap_or_else(|| Tree::new(&[]));
        let root = self.end_tree(tree)?;
        let found = Plan {
            root,
            pages: self.next,
        };
        self.out.flush()?;
        if self.plan.is_some_and(|plan| plan != found) {
            return Err(WriteError::Plan);
        }
        Ok(found)
    }
}

/// What goes into a page.
struct Entry<'a> {
    key: &'a [u8],
    value: &'a [u8],
    flags: u32,
    child: u64,
}

impl Tree {
    fn new(name: &[u8]) -> Self {
        Self {
            name: name.to_vec(),
            levels: Vec::new(),
            last: Vec::new(),
            keys: 0,
        }
    }

    fn check(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let is_possible = !key.is_empty() && key.len() <= KEY_BYTES_MAX;
        if !is_possible || key <= self.last.as_slice() {
            return Err(WriteError::Key { key: self.keys });
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(WriteError::Value { bytes: value.len() });
        }
        self.keys += 1;
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }
}

impl Node {
    fn bytes(&self) -> usize {
        HEADER_BYTES + ELEMENT_BYTES * self.elements.len() + self.data.len()
    }

    fn pages(&self) -> u64 {
        self.bytes().div_ceil(PAGE_BYTES) as u64
    }

    fn has_room_for(&self, entry: &Entry<'_>) -> bool {
        let more = ELEMENT_BYTES + entry.key.len() + entry.value.len();
        self.elements.is_empty() || self.bytes() + more <= PAGE_BYTES
    }

    fn push(&mut self, entry: &Entry<'_>) {
        self.elements.push(Element {
            start: self.data.len(),
            key_len: entry.key.len(),
            value_len: entry.value.len(),
            flags: entry.flags,
            child: entry.child,
        });
        self.data.extend_from_slice(entry.key);
        self.data.extend_from_slice(entry.value);
    }

    fn first_key(&self) -> &[u8] {
        let first = self.elements.first();
        let key = first.and_then(|first| self.data.get(first.start..first.start + first.key_len));
        key.unwrap_or_default()
    }

    fn write(&self, out: &mut impl Write, number: u64, level: usize) -> Result<(), WriteError> {
        let overflow = u32::try_from(self.pages() - 1).map_err(|_too_many| WriteError::Plan)?;
        let count = u16::try_from(self.elements.len()).map_err(|_too_many| WriteError::Plan)?;
        let header = Header {
            id: number,
            kind: if level == 0 { LEAF } else { BRANCH },
            count,
            overflow,
        };
        let mut heads = Vec::with_capacity(HEADER_BYTES + ELEMENT_BYTES * self.elements.len());
        heads.extend_from_slice(&header.encode());
        let heads_len = ELEMENT_BYTES * self.elements.len();
        for (at, element) in self.elements.iter().enumerate() {
            // Counted from the element's own head.
            let place = to_u32(heads_len - ELEMENT_BYTES * at + element.start);
            let (key_len, value_len) = (to_u32(element.key_len), to_u32(element.value_len));
            let fields = match level {
                0 => [element.flags, place, key_len, value_len],
                _ => {
                    let (low, high) = halves(element.child);
                    [place, key_len, low, high]
                }
            };
            for field in fields {
                heads.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.write_all(&heads)?;
        out.write_all(&self.data)?;
        fill(out, self.bytes())
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).expect("keys and values are shorter than 2^31 bytes")
}

fn halves(number: u64) -> (u32, u32) {
    let bytes = number.to_le_bytes();
    let at = |place| page::u32_at(&bytes, place).expect("eight bytes have two halves");
    (at(0), at(4))
}

fn write_page(
    out: &mut impl Write,
    number: u64,
    kind: u16,
    content: &[u8],
) -> Result<(), WriteError> {
    let header = Header {
        id: number,
        kind,
        count: 0,
        overflow: 0,
    };
    out.write_all(&header.encode())?;
    out.write_all(content)?;
    fill(out, HEADER_BYTES + content.len())
}

/// Fills the rest of the last page.
fn fill(out: &mut impl Write, bytes: usize) -> Result<(), WriteError> {
    const NOTHING: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let rest = bytes.next_multiple_of(PAGE_BYTES) - bytes;
    out.write_all(NOTHING.get(..rest).unwrap_or_default())?;
    Ok(())
}

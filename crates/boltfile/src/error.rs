//! What can be wrong with a file.

use std::fmt;
use std::io;

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot read {bytes} bytes at {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Neither of its two meta pages is valid.
    #[error("it is no bolt file: the first meta page {first}, the second {second}")]
    NoMeta {
        /// What is wrong with the first.
        first: MetaProblem,
        /// What is wrong with the second.
        second: MetaProblem,
    },
    /// It is shorter than it says.
    #[error("it is truncated: {found} bytes instead of {expected}")]
    Truncated {
        /// What its pages need.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A page is not what it should be.
    #[error("page {page} {problem}")]
    Page {
        /// Which.
        page: u64,
        /// What is wrong.
        problem: PageProblem,
    },
    /// There is no such bucket.
    #[error("it has no bucket {name:?}")]
    NoBucket {
        /// Its name.
        name: String,
    },
}

/// What is wrong with a meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaProblem {
    /// The file ends before it.
    Missing,
    /// It does not begin as one.
    Magic,
    /// It is of another version of the format.
    Version(u32),
    /// Pages cannot have that size.
    PageSize(u32),
    /// Its checksum is another one.
    Checksum,
}

impl fmt::Display for MetaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there"),
            Self::Magic => f.write_str("does not begin as one"),
            Self::Version(version) => write!(f, "is of version {version}"),
            Self::PageSize(bytes) => write!(f, "says that a page has {bytes} bytes"),
            Self::Checksum => f.write_str("has a wrong checksum"),
        }
    }
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageProblem {
    /// There are not so many pages.
    OutOfBounds,
    /// It says that it is another one.
    Id(u64),
    /// It is of a kind that has no place there.
    Kind(u16),
    /// It goes on behind the last page.
    Overflow(u32),
    /// It has more bytes than this version takes into memory.
    TooLarge(u64),
    /// It is empty.
    Empty,
    /// One of its elements is outside of it.
    Element(u16),
    /// The key of one of its elements is not after the one before, or not where a search finds it.
    Order(u16),
    /// The tree is deeper than any can be.
    TooDeep,
    /// A bucket in it has no valid head.
    Bucket(u16),
    /// It is used twice.
    UsedTwice,
    /// It is neither used nor free.
    Lost,
    /// It is used, and free.
    UsedAndFree,
    /// It is on the list of free pages twice, or cannot be free.
    FreeTwice,
}

impl fmt::Display for PageProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds => f.write_str("does not exist and is referred to"),
            Self::Id(id) => write!(f, "says that it is page {id}"),
            Self::Kind(kind) => write!(f, "is of kind {kind:#x}, which has no place there"),
            Self::Overflow(pages) => write!(f, "goes on for {pages} pages, behind the last one"),
            Self::TooLarge(bytes) => write!(f, "has {bytes} bytes, which is too many"),
            Self::Empty => f.write_str("is empty"),
            Self::Element(at) => write!(f, "has an element, {at}, that is not inside it"),
            Self::Order(at) => write!(f, "has a key, {at}, in the wrong order"),
            Self::TooDeep => f.write_str("is deeper in the tree than any page can be"),
            Self::Bucket(at) => write!(f, "has a bucket, {at}, without a valid head"),
            Self::UsedTwice => f.write_str("is used twice"),
            Self::Lost => f.write_str("is neither used nor free"),
            Self::UsedAndFree => f.write_str("is used, and on the list of free pages"),
            Self::FreeTwice => f.write_str("is on the list of free pages and cannot be, or twice"),
        }
    }
}

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system, or whoever takes the bytes, refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A key that is not after the one before, or of a length that bbolt does not take.
    #[error("key {key} of a bucket is empty, too long, or not after the one before")]
    Key {
        /// Its place.
        key: u64,
    },
    /// A value that is too long for bbolt.
    #[error("a value of {bytes} bytes is too long")]
    Value {
        /// Its length.
        bytes: usize,
    },
    /// The second pass is not what the first one was.
    #[error("the file is not what was measured")]
    Plan,
}

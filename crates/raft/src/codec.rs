//! Plain bytes: big-endian integers and length-prefixed strings, read with every bound checked.

use bytes::Bytes;
use openraft::errors::MembershipError;

/// Bytes are not what this version writes.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("format version {found}, expected {expected}")]
    Version {
        /// What the bytes say.
        found: u8,
        /// What this version writes.
        expected: u8,
    },
    /// They end too early.
    #[error("cut off: {missing} bytes missing")]
    CutOff {
        /// How many.
        missing: usize,
    },
    /// They go on after the end.
    #[error("{bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A kind of entry that this version does not know.
    #[error("unknown kind {found}")]
    Kind {
        /// Which.
        found: u8,
    },
    /// Text that is not text.
    #[error("not utf-8")]
    Utf8(#[source] std::str::Utf8Error),
    /// A membership that cannot be.
    #[error("impossible membership")]
    Membership {
        /// Why not.
        #[source]
        source: MembershipError<u64>,
    },
    /// A command that is none.
    #[error("command {position} of the entry")]
    Command {
        /// Which of the entry's commands, from 0.
        position: usize,
        /// Why not.
        #[source]
        source: apply::DecodeError,
    },
    /// An entry in the wrong place.
    #[error("entry {found} where {expected} belongs")]
    Index {
        /// The index it says.
        found: u64,
        /// The index its place says.
        expected: u64,
    },
}

/// Writes bytes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// For so many bytes, or more.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A count or a length.
    pub(crate) fn len(&mut self, len: usize) {
        let len = u32::try_from(len).expect("requests are limited far below 4 GiB");
        self.out.extend_from_slice(&len.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn written(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn finish(self) -> Bytes {
        self.out.into()
    }
}

/// Reads bytes.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn version(&mut self, expected: u8) -> Result<(), DecodeError> {
        let found = self.u8()?;
        if found == expected {
            Ok(())
        } else {
            Err(DecodeError::Version { found, expected })
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let [value] = self.array()?;
        Ok(value)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A count or a length. A count is never larger than the bytes that are left, so a loop over
    /// it ends.
    pub(crate) fn len(&mut self) -> Result<usize, DecodeError> {
        let len = u32::from_be_bytes(self.array()?);
        let len = usize::try_from(len).expect("32 bits fit in a pointer of our platforms");
        match len.checked_sub(self.rest.len()) {
            Some(missing) if missing > 0 => Err(DecodeError::CutOff { missing }),
            _ => Ok(len),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.len()?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::CutOff {
            missing: len.saturating_sub(self.rest.len()),
        })?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        let text = std::str::from_utf8(self.bytes()?).map_err(DecodeError::Utf8)?;
        Ok(text.to_owned())
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::CutOff {
                missing: N.saturating_sub(self.rest.len()),
            })?;
        self.rest = rest;
        Ok(*array)
    }
}

//! The checksum at the end of a snapshot.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

/// Bytes of the checksum.
pub(crate) const BYTES: u64 = 32;

/// Hands bytes on, and computes their checksum.
#[derive(Debug)]
pub struct Sha256Sink<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Sha256Sink<W> {
    /// Around `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            hash: Sha256::new(),
        }
    }

    /// What the bytes went to, and their checksum.
    pub fn finish(self) -> (W, [u8; 32]) {
        (self.out, self.hash.finalize().into())
    }
}

impl<W: Write> Write for Sha256Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

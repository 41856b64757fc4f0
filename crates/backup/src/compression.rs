//! Compressed files, in the two forms that every system unpacks: gzip and zstd.
//!
//! Differs from k3s, which packs into a zip: a zip says how long it is at its end, so it cannot be unpacked
//! while it comes.

use std::fs::File;
use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// What gzip files begin with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What zstd files begin with.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// zstd's own default: faster than most disks, and small enough.
const ZSTD_LEVEL: i32 = 3;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// `gunzip` unpacks it.
    Gzip,
    /// `unzstd` unpacks it.
    Zstd,
}

impl Compression {
    /// What names of such files end with.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// How a file that begins so is compressed: its name may have been changed.
    fn of(head: &[u8]) -> Self {
        if head.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if head.starts_with(&ZSTD_MAGIC) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Whether a file that begins so is compressed.
#[must_use]
pub fn is_packed(head: &[u8]) -> bool {
    Compression::of(head) != Compression::None
}

/// Compresses what is written.
pub(crate) enum Packer<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W, form: Compression) -> io::Result<Self> {
        Ok(match form {
            Compression::None => Self::None(out),
            Compression::Gzip => Self::Gzip(GzEncoder::new(out, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Writes what is left, and gives back what it was written to.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(out) => out.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// Unpacks a file, whatever it is compressed with, into another one; copies one that is not compressed.
///
/// # Errors
/// When it is damaged, or the other one cannot be written.
pub fn unpack(mut packed: File, out: &mut impl Write) -> io::Result<u64> {
    let mut head = Vec::new();
    (&mut packed)
        .take(ZSTD_MAGIC.len() as u64)
        .read_to_end(&mut head)?;
    let form = Compression::of(&head);
    let mut whole = io::Cursor::new(head).chain(packed);
    match form {
        Compression::None => io::copy(&mut whole, out),
        Compression::Gzip => io::copy(&mut MultiGzDecoder::new(whole), out),
        Compression::Zstd => io::copy(&mut zstd::Decoder::new(whole)?, out),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    fn packed(bytes: &[u8], form: Compression) -> File {
        let mut packer = Packer::new(tempfile::tempfile().unwrap(), form).unwrap();
        packer.write_all(bytes).unwrap();
        let mut file = packer.finish().unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        for form in [Compression::None, Compression::Gzip, Compression::Zstd] {
            for bytes in [&bytes[..], b"", b"abc"] {
                let mut found = Vec::new();
                unpack(packed(bytes, form), &mut found).unwrap();
                assert_eq!(found, bytes, "{form:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for form in [Compression::Gzip, Compression::Zstd] {
            let file = packed(&[7; 100_000], form);
            file.set_len(file.metadata().unwrap().len() - 3).unwrap();
            unpack(file, &mut Vec::new()).unwrap_err();
        }
    }
}

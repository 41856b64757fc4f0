//! What remembers, outside of sled, how much sled has made durable.
//!
//! Where sled's recovery meets a damaged record it takes it for the torn end of its log, drops
//! everything behind it, and opens without a word: one flipped bit can take most of a store with
//! it. So every durable flush is numbered; the number is in sled, where it is lost with whatever is
//! lost before it, and in this file, which is written after the flush has succeeded. A store that
//! finds less in sled than in here has lost what it promised to keep.
//!
//! The file is not synced, which would cost a second fdatasync for each flush. After a loss of power
//! it may therefore be behind, and then says less than it could; it never says more than is true,
//! and so never refuses a store that is sound. The bytes are two slots of a sector each, written by
//! turns: CRC-32C (4, big endian) of the number, number (8, big endian).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const SECTOR_BYTES: u64 = 512;
const SLOTS: u64 = 2;

/// The file with the number of the last durable flush.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
}

impl Witness {
    /// Opens or makes the file in the store's directory, and reads the number: 0 when it has none.
    pub(super) fn open(store: &Path) -> io::Result<(Self, u64)> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(store.join("flushed"))?;
        let mut last = 0;
        for slot in 0..SLOTS {
            last = last.max(read_slot(&file, slot)?);
        }
        Ok((Self { file }, last))
    }

    /// Notes that flush `number` is durable.
    pub(super) fn note(&self, number: u64) -> io::Result<()> {
        let number_bytes = number.to_be_bytes();
        let mut bytes = crc32c::crc32c(&number_bytes).to_be_bytes().to_vec();
        bytes.extend_from_slice(&number_bytes);
        self.file
            .write_all_at(&bytes, number % SLOTS * SECTOR_BYTES)
    }
}

/// The number in a slot; a slot that is empty or torn has none.
fn read_slot(file: &File, slot: u64) -> io::Result<u64> {
    let mut bytes = [0; 12];
    match file.read_exact_at(&mut bytes, slot * SECTOR_BYTES) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        Err(error) => return Err(error),
    }
    let (crc, number) = bytes.split_at(4);
    if crc32c::crc32c(number).to_be_bytes() != *crc {
        return Ok(0);
    }
    let number = number.try_into().expect("twelve bytes less four are eight");
    Ok(u64::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        for last in 0..5 {
            let (witness, found) = Witness::open(dir.path()).unwrap();
            assert_eq!(found, last);
            witness.note(last + 1).unwrap();
        }
    }

    #[test]
    fn a_torn_number_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (witness, _) = Witness::open(dir.path()).unwrap();
        witness.note(6).unwrap();
        witness.note(7).unwrap();
        witness.file.write_all_at(&[0xff; 6], SECTOR_BYTES).unwrap();
        assert_eq!(Witness::open(dir.path()).unwrap().1, 6);
        witness.file.write_all_at(&[0xff; 6], 0).unwrap();
        assert_eq!(Witness::open(dir.path()).unwrap().1, 0);
    }
}

//! Reading pages in the order in which a walk comes to them, which is mostly the order of the file: a
//! stretch at a time. What it holds is as old as when it was read.

use bytes::Bytes;

use crate::error::Error;
use crate::file::BoltFile;

/// Bytes that are read at a time, when pages follow each other.
const STRETCH_BYTES: usize = 256 << 10;

/// What has been read of a file and may be asked for next.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Where the stretch begins.
    at: u64,
    stretch: Bytes,
    /// Where the last read ended that was elsewhere.
    elsewhere: u64,
}

impl Window {
    /// `len` bytes from `offset` on, of a file that has them.
    pub(crate) fn read(
        &mut self,
        file: &BoltFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, Error> {
        if let Some(bytes) = self.held(offset, len) {
            return Ok(bytes);
        }
        let follows = |end| offset >= end && offset - end < STRETCH_BYTES as u64;
        if !follows(self.at + self.stretch.len() as u64) && !follows(self.elsewhere) {
            // A branch, perhaps: the leaves go on where they were.
            self.elsewhere = offset + len as u64;
            return file.read_at(offset, len);
        }
        let left = usize::try_from(file.bytes().saturating_sub(offset)).unwrap_or(STRETCH_BYTES);
        self.stretch = file.read_at(offset, left.min(STRETCH_BYTES).max(len))?;
        self.at = offset;
        Ok(self.stretch.slice(..len))
    }

    fn held(&self, offset: u64, len: usize) -> Option<Bytes> {
        let skip = usize::try_from(offset.checked_sub(self.at)?).ok()?;
        let end = skip.checked_add(len)?;
        (end <= self.stretch.len()).then(|| self.stretch.slice(skip..end))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::Writer;

    fn written() -> (BoltFile, Vec<u8>) {
        let put = |writer: &mut Writer<&mut Vec<u8>>| {
            writer.bucket(b"b").unwrap();
            for number in 0..20_000_u32 {
                let value = number.to_le_bytes().repeat(20);
                writer.put(&number.to_be_bytes(), &value).unwrap();
            }
        };
        let mut measured = Writer::measure();
        measured.bucket(b"b").unwrap();
        for number in 0..20_000_u32 {
            measured.put(&number.to_be_bytes(), &[0; 80]).unwrap();
        }
        let plan = measured.finish().unwrap();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, plan).unwrap();
        put(&mut writer);
        writer.finish().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let len = bytes.len() as u64;
        (BoltFile::open(file, len).unwrap(), bytes)
    }

    #[test]
    fn what_is_read_is_what_is_there() {
        let (file, bytes) = written();
        assert!(bytes.len() > 4 * STRETCH_BYTES);
        let mut window = Window::default();
        let pages = bytes.len() / 4096;
        // Forwards, with gaps, to the very end; by turns with places elsewhere; and backwards.
        let forwards = (0..pages).filter(|page| page % 7 != 3);
        let by_turns = (0..pages).flat_map(|page| [page, (page * 31) % pages]);
        for page in forwards.chain(by_turns).chain((0..pages).rev()) {
            let len = [16, 4096, 3 * 4096][page % 3].min(bytes.len() - page * 4096);
            let found = window.read(&file, page as u64 * 4096, len).unwrap();
            assert!(found[..] == bytes[page * 4096..][..len], "page {page}");
        }
    }

    #[test]
    fn pages_that_follow_each_other_are_read_once() {
        let (file, bytes) = written();
        let mut window = Window::default();
        let mut stretches = 0;
        let mut last = None;
        for page in 0..bytes.len() as u64 / 4096 {
            window.read(&file, page * 4096, 4096).unwrap();
            stretches += usize::from(last != Some(window.at));
            last = Some(window.at);
        }
        assert_eq!(stretches, bytes.len().div_ceil(STRETCH_BYTES));
    }
}

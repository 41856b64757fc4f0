//! The JSON values of a body, one after another, as Go's `json.Decoder` finds them.

use bytes::{Buf, Bytes, BytesMut};

use super::scan::{Scanner, Step};

/// Whether more of a body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Input {
    MayGoOn,
    Ended,
}

/// Finds values in what it is fed. Each byte is looked at once.
pub(in super::super) struct Values {
    unread: BytesMut,
    /// Bytes of `unread` that the scanner has seen.
    scanned: usize,
    scanner: Scanner,
}

impl Values {
    pub(in super::super) fn new() -> Self {
        Self {
            unread: BytesMut::new(),
            scanned: 0,
            scanner: Scanner::new(),
        }
    }

    /// Takes more of the body.
    pub(in super::super) fn feed(&mut self, data: &[u8]) {
        self.unread.extend_from_slice(data);
    }

    /// Bytes that are no value yet.
    pub(in super::super) fn pending(&self) -> usize {
        self.unread.len()
    }

    /// The next value, if it is complete. An error is in `encoding/json`'s words.
    pub(in super::super) fn next(&mut self, input: Input) -> Result<Option<Bytes>, String> {
        while let Some(&byte) = self.unread.get(self.scanned) {
            match self.scanner.step(byte)? {
                Step::Continue => self.scanned += 1,
                Step::EndAfter => {
                    self.scanned += 1;
                    return Ok(Some(self.take()));
                }
                Step::EndBefore => return Ok(Some(self.take())),
            }
        }
        if input == Input::MayGoOn {
            return Ok(None);
        }
        // A number may end with the body.
        if matches!(self.scanner.step(b' '), Ok(Step::EndBefore)) {
            return Ok(Some(self.take()));
        }
        if self.unread.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        Err("unexpected EOF".to_owned())
    }

    fn take(&mut self) -> Bytes {
        let mut value = self.unread.split_to(self.scanned).freeze();
        let blank = value.iter().take_while(|byte| byte.is_ascii_whitespace());
        value.advance(blank.count());
        self.scanned = 0;
        self.scanner = Scanner::new();
        value
    }
}

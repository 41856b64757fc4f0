//! The heads of requests that came lately. Most clients ask for the same thing again and again, and what they write is
//! then the same to the byte: it need not be read and checked again.

use http::Request;

/// Heads that are kept.
const KNOWN_MAX: usize = 4;
/// Bytes of a block that is kept.
const BLOCK_BYTES_MAX: usize = 256;
/// Fields of a head that is kept: one byte of a block can name a large one.
const FIELDS_MAX: usize = 16;

/// A request without its body, and what it says of the body's length.
pub(super) type RequestHead = (Request<()>, Option<u64>);

/// The heads of a connection's requests.
#[derive(Default)]
pub(super) struct Heads {
    /// The oldest first.
    known: Vec<Known>,
}

struct Known {
    block: Box<[u8]>,
    /// [`Decoder::changes`](crate::hpack::Decoder::changes) when it was read.
    changes: u64,
    head: RequestHead,
}

impl Heads {
    /// What this block says, if it has been read since the table has changed.
    pub(super) fn find(&self, block: &[u8], changes: u64) -> Option<RequestHead> {
        let is_it = |known: &&Known| known.changes == changes && *known.block == *block;
        self.known
            .iter()
            .find(is_it)
            .map(|known| known.head.clone())
    }

    /// Keeps what a block said that has not changed the table.
    pub(super) fn keep(&mut self, block: &[u8], changes: u64, head: &RequestHead) {
        self.known.retain(|known| known.changes == changes);
        if block.len() > BLOCK_BYTES_MAX || head.0.headers().len() > FIELDS_MAX {
            return;
        }
        if self.known.len() == KNOWN_MAX {
            self.known.remove(0);
        }
        self.known.push(Known {
            block: block.into(),
            changes,
            head: head.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::frame::{END_HEADERS, END_STREAM, HEADERS, SETTINGS};
    use crate::hpack::Decoder;
    use crate::request::Fields;
    use crate::tests::{frame, options};
    use crate::wire::Wire;

    /// A request that is complete with one of these; two of them change the table.
    const BEGIN: &[u8] = b"\x82\x86";
    const PATHS: [&[u8]; 8] = [
        b"\x84",
        b"\x04\x02/a",
        b"\x14\x02/a",
        b"\x44\x02/b",
        b"\x44\x02/c",
        // The newest of the table, the one before it, and the last but one.
        b"\xbe",
        b"\xbf",
        b"\xc0",
    ];

    fn said(request: &http::Request<()>) -> String {
        format!("{request:?}")
    }

    proptest! {
        #[test]
        fn the_same_bytes_mean_what_they_mean_by_the_table(paths in prop::collection::vec(0..PATHS.len(), 1..60)) {
            let (mut wire, mut plain) = (Wire::new(&options()), Decoder::default());
            wire.receive(&frame(SETTINGS, 0, 0, b"")).unwrap();
            let filled = [3, 4, 3].into_iter().chain(paths);
            for (path, stream) in filled.zip((1..).step_by(2)) {
                let block = [BEGIN, PATHS[path]].concat();
                let mut fields = Fields::default();
                plain.decode(&block, |field| fields.add(field)).unwrap();
                wire.receive(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).unwrap();
                let expected = fields.into_request().map(|(request, _)| said(&request));
                let asked = wire.asked.pop().map(|asked| said(&asked.request));
                prop_assert_eq!(asked, expected.ok());
            }
        }
    }
}

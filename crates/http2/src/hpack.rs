//! Header compression (RFC 7541): the decoder of what clients send, and an encoder for the little that we send.

mod decoder;
mod encoder;
mod field;
mod huffman;
mod table;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;
pub(crate) use field::{Field, FieldName};

/// Why a header block cannot be read. The connection is of no use after it, since both ends keep a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HpackError {
    #[error("a header block ends early")]
    Short,
    #[error("a number in a header block is too large")]
    Number,
    #[error("a header block names entry {0}, which is not there")]
    Index(usize),
    #[error("a header block has a string that is not in the Huffman code")]
    Huffman,
    #[error("a header block changes the table's size where or to what it must not")]
    TableSize,
}

//! Writes the header blocks of answers.
//!
//! Nearly all answers have the same few fields. Those that come first are put into the client's table and named by
//! their number from then on; the table is never full, so that nothing leaves it and no number changes but by what
//! is added. All else is written out.

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, StatusCode};

use super::field::{ENTRY_BYTES, STATIC_FIELDS, static_name, static_status};
use super::table::TABLE_BYTES_MAX;

/// What our fields may take of the client's table, in bytes.
const USED_BYTES_MAX: usize = 1024;
/// The place of `:status: 200` in the static table.
const STATUS_OK: usize = 8;
/// Longer values are of one answer, a message for people say.
const VALUE_BYTES_MAX: usize = 64;

/// Writes the header blocks of one connection, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// What is in the client's table, the oldest first.
    known: Vec<(Box<str>, Box<[u8]>)>,
    used: usize,
    /// What has to be said of the table's size, if the client set one: the smallest since the last block, and the
    /// last (RFC 7541, 4.2).
    resize: Option<(usize, usize)>,
    /// The client's table is too small for us.
    knows_nothing: bool,
}

impl Encoder {
    /// Takes note of how large the client lets its table be.
    pub(crate) fn set_table_size(&mut self, bytes: usize) {
        if bytes < USED_BYTES_MAX {
            // Nothing is put in any more, and what was in it goes.
            self.knows_nothing = true;
            self.known.clear();
        }
        let bytes = match self.knows_nothing {
            true => 0,
            false => bytes.min(TABLE_BYTES_MAX),
        };
        let smallest = self
            .resize
            .map_or(bytes, |(smallest, _)| smallest.min(bytes));
        self.resize = Some((smallest, bytes));
    }

    /// Appends the block of an answer's head.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap, out: &mut BytesMut) {
        self.put_resize(out);
        match static_status(status) {
            Some(index) => put_number(0x80, 7, index, out),
            None => put_literal(
                static_name(":status"),
                ":status",
                status.as_str().as_bytes(),
                out,
            ),
        }
        self.fields(headers, out);
    }

    /// Appends the block of its trailers.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap, out: &mut BytesMut) {
        self.put_resize(out);
        self.fields(trailers, out);
    }

    /// Appends the block of a gRPC answer's head, as nearly all of them are.
    pub(crate) fn grpc_head(&mut self, out: &mut BytesMut) {
        self.put_resize(out);
        put_number(0x80, 7, STATUS_OK, out);
        self.field("content-type", b"application/grpc", out);
    }

    /// Appends the block of its trailers, if it went well.
    pub(crate) fn grpc_ok(&mut self, out: &mut BytesMut) {
        self.put_resize(out);
        self.field("grpc-status", b"0", out);
    }

    fn put_resize(&mut self, out: &mut BytesMut) {
        if let Some((smallest, last)) = self.resize.take() {
            put_number(0x20, 5, smallest, out);
            if last > smallest {
                put_number(0x20, 5, last, out);
            }
        }
    }

    fn fields(&mut self, headers: &HeaderMap, out: &mut BytesMut) {
        for (name, value) in headers {
            self.field(name.as_str(), value.as_bytes(), out);
        }
    }

    fn field(&mut self, name: &str, value: &[u8], out: &mut BytesMut) {
        let is_same = |(it, of): &(Box<str>, Box<[u8]>)| **of == *value && **it == *name;
        if let Some(at) = self.known.iter().position(is_same) {
            // The newest is the first after the static ones.
            return put_number(0x80, 7, STATIC_FIELDS.len() + self.known.len() - at, out);
        }
        let index = static_name(name);
        let size = name.len() + value.len() + ENTRY_BYTES;
        let is_kept = !self.knows_nothing
            && value.len() <= VALUE_BYTES_MAX
            && self.used + size <= USED_BYTES_MAX;
        if !is_kept {
            return put_literal(index, name, value, out);
        }
        self.used += size;
        self.known.push((name.into(), value.into()));
        put_number(0x40, 6, index.unwrap_or(0), out);
        if index.is_none() {
            put_string(name.as_bytes(), out);
        }
        put_string(value, out);
    }
}

/// A field that is not remembered.
fn put_literal(index: Option<usize>, name: &str, value: &[u8], out: &mut BytesMut) {
    put_number(0, 4, index.unwrap_or(0), out);
    if index.is_none() {
        put_string(name.as_bytes(), out);
    }
    put_string(value, out);
}

fn put_string(string: &[u8], out: &mut BytesMut) {
    put_number(0, 7, string.len(), out);
    out.put_slice(string);
}

/// A number in the lowest bits of a byte and, if there is not room for it, in more (RFC 7541, 5.1).
fn put_number(flags: u8, prefix_bits: u32, number: usize, out: &mut BytesMut) {
    let mask = (1_u8 << prefix_bits) - 1;
    let short = u8::try_from(number).ok().filter(|&number| number < mask);
    if let Some(number) = short {
        return out.put_u8(flags | number);
    }
    out.put_u8(flags | mask);
    let mut rest = number - usize::from(mask);
    while rest >= 0x80 {
        out.put_u8(0x80 | (rest & 0x7f).to_le_bytes()[0]);
        rest >>= 7;
    }
    out.put_u8(rest.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CONTENT_TYPE, HeaderName};

    use super::super::{Decoder, Field};
    use super::*;

    /// What the client makes of it: `Malformed` stands for a status, which no request has.
    fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let mut on_field = |field| match field {
            Field::Header(name, value) => {
                fields.push((name.to_string(), value.to_str().unwrap().to_owned()));
            }
            _ => fields.push((":status".to_owned(), String::new())),
        };
        decoder.decode(block, &mut on_field).unwrap();
        fields
    }

    fn headers(message: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let name = HeaderName::from_static("grpc-message");
        headers.insert(name, HeaderValue::from_str(message).unwrap());
        headers
    }

    fn written(encoder: &mut Encoder, message: &str) -> BytesMut {
        let mut block = BytesMut::new();
        encoder.head(StatusCode::OK, &headers(message), &mut block);
        block
    }

    #[test]
    fn what_comes_again_is_one_byte() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let first = written(&mut encoder, "short");
        assert_eq!(read(&mut decoder, &first).len(), 3);
        let again = written(&mut encoder, "short");
        assert_eq!(again.len(), 3);
        assert_eq!(
            read(&mut decoder, &again)[1..],
            [
                ("content-type".to_owned(), "application/grpc".to_owned()),
                ("grpc-message".to_owned(), "short".to_owned())
            ]
        );
    }

    #[test]
    fn many_values_do_not_fill_the_table() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for at in 0..1000 {
            let message = format!("message {at} {}", "long ".repeat(at / 10));
            let block = written(&mut encoder, &message);
            assert_eq!(read(&mut decoder, &block)[2].1, message);
        }
        assert!(encoder.used <= USED_BYTES_MAX);
    }

    #[test]
    fn a_client_may_have_a_small_table_or_none() {
        for bytes in [0, 100, 2000, 1_000_000] {
            let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
            read(&mut decoder, &written(&mut encoder, "before"));
            encoder.set_table_size(bytes);
            encoder.set_table_size(4096);
            for message in ["before", "after", "after"] {
                let block = written(&mut encoder, message);
                assert_eq!(read(&mut decoder, &block)[2].1, message, "{bytes}");
            }
        }
    }
}

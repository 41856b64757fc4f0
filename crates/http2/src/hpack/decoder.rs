//! Reads header blocks (RFC 7541, 6).

use bytes::Bytes;

use super::HpackError;
use super::field::{Field, FieldName};
use super::huffman;
use super::table::Table;

/// Fields that are kept though their client does not want them in the table.
const WRITTEN_MAX: usize = 4;
/// The largest of them, as it is written.
const WRITTEN_BYTES_MAX: usize = 128;

/// Reads the header blocks of one connection, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    table: Table,
    /// Fields that were written out lately, and how. Some clients (h2, and so tonic) write the path out each time, and
    /// it is nearly always one of a few.
    written: Vec<(Box<[u8]>, Field)>,
    changes: u64,
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl Decoder {
    /// Moves with each block that would not mean the same if it came again, and with each that nobody is to keep.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Hands over the fields of a block in their order.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        mut on_field: impl FnMut(Field),
    ) -> Result<(), HpackError> {
        let mut input = Input(block);
        let mut may_resize = true;
        while let Some(&first) = input.0.first() {
            if first & 0xe0 == 0x20 {
                if !may_resize {
                    return Err(HpackError::TableSize);
                }
                let bytes_max = input.number(5)?;
                self.table.resize(bytes_max)?;
                self.changes += 1;
                continue;
            }
            may_resize = false;
            if first & 0x80 != 0 {
                let index = input.number(7)?;
                on_field(self.table.get(index)?.clone());
            } else if first & 0x40 != 0 {
                let field = self.literal(&mut input, 6)?;
                self.table.add(field.clone());
                self.changes += 1;
                on_field(field);
            } else {
                on_field(self.written(&mut input, first)?);
            }
        }
        Ok(())
    }

    /// A field that is not for the table.
    fn written(&mut self, input: &mut Input<'_>, first: u8) -> Result<Field, HpackError> {
        let is_next = |(written, _): &&(Box<[u8]>, Field)| input.0.starts_with(written);
        if let Some((written, field)) = self.written.iter().find(is_next) {
            input.0 = &input.0[written.len()..];
            return Ok(field.clone());
        }
        let before = input.0;
        let field = self.literal(input, 4)?;
        let length = before.len() - input.0.len();
        let is_secret = first & 0x10 != 0;
        self.changes += u64::from(is_secret);
        // Not those that nobody is to keep; and only names that always have the same number.
        if (1..15).contains(&first) && length <= WRITTEN_BYTES_MAX {
            if self.written.len() == WRITTEN_MAX {
                self.written.remove(0);
            }
            self.written.push((before[..length].into(), field.clone()));
        }
        Ok(field)
    }

    fn literal(&self, input: &mut Input<'_>, prefix_bits: u32) -> Result<Field, HpackError> {
        let name = match input.number(prefix_bits)? {
            0 => FieldName::parse(&input.string()?),
            index => self.table.get(index)?.name(),
        };
        Ok(Field::parse(name, input.string()?))
    }
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, HpackError> {
        let (&first, rest) = self.0.split_first().ok_or(HpackError::Short)?;
        self.0 = rest;
        Ok(first)
    }

    /// A number that begins in the lowest bits of the next byte (RFC 7541, 5.1).
    fn number(&mut self, prefix_bits: u32) -> Result<usize, HpackError> {
        let mask = (1_u8 << prefix_bits) - 1;
        let first = self.byte()? & mask;
        let mut number = usize::from(first);
        if first < mask {
            return Ok(number);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(HpackError::Number)
    }

    /// A string, in the Huffman code or as it is (RFC 7541, 5.2).
    fn string(&mut self) -> Result<Bytes, HpackError> {
        let is_encoded = self.0.first().ok_or(HpackError::Short)? & 0x80 != 0;
        let length = self.number(7)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(HpackError::Short)?;
        self.0 = rest;
        if !is_encoded {
            return Ok(Bytes::copy_from_slice(string));
        }
        let mut decoded = Vec::with_capacity(length * 8 / 5 + 1);
        huffman::decode(string, &mut decoded)?;
        Ok(decoded.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
        let mut fields = Vec::new();
        decoder.decode(block, |field| fields.push(shown(&field)))?;
        Ok(fields)
    }

    fn shown(field: &Field) -> String {
        match field {
            Field::Authority(value) => format!(":authority: {value}"),
            Field::Method(value) => format!(":method: {value}"),
            Field::Path(value) => format!(":path: {value}"),
            Field::Scheme(value) => format!(":scheme: {value}"),
            Field::Header(name, value) => format!("{name}: {}", value.to_str().unwrap()),
            Field::Malformed(..) => "malformed".to_owned(),
        }
    }

    /// RFC 7541, C.3 and C.4: the same three requests, without and with the Huffman code.
    #[test]
    fn the_requests_of_the_rfc_are_read() {
        let plain: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x0fwww.example.com",
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
        ];
        let encoded: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
        ];
        let host = ":authority: www.example.com";
        for blocks in [plain, encoded] {
            let mut decoder = Decoder::default();
            let [first, second, third] = blocks.map(|block| fields(&mut decoder, block).unwrap());
            assert_eq!(first, [":method: GET", ":scheme: http", ":path: /", host]);
            assert_eq!(
                second,
                [
                    ":method: GET",
                    ":scheme: http",
                    ":path: /",
                    host,
                    "cache-control: no-cache"
                ]
            );
            assert_eq!(
                third,
                [
                    ":method: GET",
                    ":scheme: https",
                    ":path: /index.html",
                    host,
                    "custom-key: custom-value"
                ]
            );
        }
    }

    #[test]
    fn fields_that_are_written_out_each_time_are_what_is_written() {
        let mut decoder = Decoder::default();
        for at in 0..100 {
            // Some of them come again soon, others do not; one begins as another does, and one is nobody's to keep.
            for path in ["/a", "/ab", &format!("/{}", at / 3), &format!("/c{at}")] {
                for first in [0x04, 0x14] {
                    let mut block = vec![first, u8::try_from(path.len()).unwrap()];
                    block.extend(path.as_bytes());
                    let found = fields(&mut decoder, &block).unwrap();
                    assert_eq!(found, [format!(":path: {path}")]);
                }
            }
        }
        assert_eq!(decoder.written.len(), WRITTEN_MAX);
        let kept = decoder.written.iter().map(|(written, _)| written[0]);
        assert!(kept.eq([4; WRITTEN_MAX]));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let refused = |block: &[u8]| fields(&mut Decoder::default(), block).unwrap_err();
        assert_eq!(refused(b"\x80"), HpackError::Index(0));
        assert_eq!(refused(b"\xbe"), HpackError::Index(62));
        assert_eq!(refused(b"\x41"), HpackError::Short);
        assert_eq!(refused(b"\x41\x05abcd"), HpackError::Short);
        assert_eq!(refused(b"\xff\xff\xff\xff\xff\x01"), HpackError::Number);
        assert_eq!(refused(b"\x3f\xe2\x1f"), HpackError::TableSize);
        assert_eq!(refused(b"\x82\x20"), HpackError::TableSize);
        assert_eq!(refused(b"\x44\x81\x00"), HpackError::Huffman);
    }

    #[test]
    fn a_field_that_is_none_keeps_its_place_in_the_table() {
        let mut decoder = Decoder::default();
        assert_eq!(
            fields(&mut decoder, b"\x40\x03Bad\x01v").unwrap(),
            ["malformed"]
        );
        assert_eq!(fields(&mut decoder, b"\x40\x01k\x01v").unwrap(), ["k: v"]);
        assert_eq!(
            fields(&mut decoder, b"\xbe\xbf").unwrap(),
            ["k: v", "malformed"]
        );
    }
}

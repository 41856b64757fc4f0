//! HPACK's Huffman code (RFC 7541, Appendix B), for reading only: what we send is short, and known to its reader.
//!
//! The code is canonical: symbols in the order of their codes' lengths, and of their values where those are equal,
//! have codes one after the other. So the lengths are all that is written down here.

use std::sync::LazyLock;

use super::HpackError;

const SYMBOLS: usize = 257;
/// The symbol that must not occur; its beginning fills up the last byte.
const END: usize = 256;
const BITS_MAX: usize = 30;
/// Codes that are so short are found by one look into a table.
const SHORT_BITS: usize = 8;

/// How many bits the code of each byte has, and at last that of the end.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

static CODE: LazyLock<Code> = LazyLock::new(Code::new);

struct Code {
    /// By the next eight bits: a symbol and its length, if that is eight or less.
    short: [Option<(u8, u8)>; 1 << SHORT_BITS],
    /// By length: the first code, and where its symbol stands in `symbols`; and how many there are.
    first: [(u32, usize, u32); BITS_MAX + 1],
    /// In the order of their codes.
    symbols: Vec<usize>,
}

impl Code {
    fn new() -> Self {
        let mut symbols: Vec<usize> = (0..SYMBOLS).collect();
        symbols.sort_by_key(|&symbol| (LENGTHS[symbol], symbol));
        let mut code = Self {
            short: [None; 1 << SHORT_BITS],
            first: [(0, 0, 0); BITS_MAX + 1],
            symbols,
        };
        let (mut next, mut at) = (0, 0);
        for (bits, first) in code.first.iter_mut().enumerate().skip(1) {
            let of_length = |&&symbol: &&usize| usize::from(LENGTHS[symbol]) == bits;
            let count = code.symbols[at..].iter().take_while(of_length).count();
            *first = (next << 1, at, 0);
            for &symbol in &code.symbols[at..at + count] {
                let this = (next << 1) + first.2;
                first.2 += 1;
                if let (true, Ok(byte)) = (bits <= SHORT_BITS, u8::try_from(symbol)) {
                    let length = LENGTHS[symbol];
                    let free = SHORT_BITS - bits;
                    let begin = (this as usize) << free;
                    code.short[begin..begin + (1 << free)].fill(Some((byte, length)));
                }
            }
            next = (next << 1) + first.2;
            at += count;
        }
        code
    }

    /// The symbol that the `available` lowest bits of `bits` begin with, and its length.
    fn next(&self, bits: u64, available: usize) -> Option<(usize, usize)> {
        // What is missing counts as zeros; whether a code ends before is checked last.
        let short = match available.checked_sub(SHORT_BITS) {
            Some(rest) => bits >> rest,
            None => bits << (SHORT_BITS - available),
        };
        if let Some((byte, length)) = self.short[(short & 0xff) as usize] {
            let length = usize::from(length);
            return (length <= available).then_some((usize::from(byte), length));
        }
        (SHORT_BITS..=BITS_MAX.min(available)).find_map(|length| {
            let code = (bits >> (available - length)) & ((1 << length) - 1);
            let (first, at, count) = self.first[length];
            let index = usize::try_from(code.checked_sub(u64::from(first))?).ok()?;
            (index < count as usize).then(|| (self.symbols[at + index], length))
        })
    }
}

/// Appends what was encoded. Nothing grows by more than 8/5.
pub(super) fn decode(encoded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let (mut bits, mut available) = (0_u64, 0);
    let mut rest = encoded.iter();
    loop {
        while available <= 56
            && let Some(&byte) = rest.next()
        {
            bits = bits << 8 | u64::from(byte);
            available += 8;
        }
        match CODE.next(bits, available) {
            Some((END, _)) => return Err(HpackError::Huffman),
            Some((symbol, length)) => {
                out.push(u8::try_from(symbol).map_err(|_too_large| HpackError::Huffman)?);
                available -= length;
            }
            None => break,
        }
    }
    // The last byte is filled up with the beginning of the end's code, which is ones.
    let padding = (1_u64 << available.min(8)) - 1;
    if available < 8 && bits & padding == padding {
        Ok(())
    } else {
        Err(HpackError::Huffman)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(encoded, &mut out).map(|()| out)
    }

    /// The other direction, for tests: by the codes themselves.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let (mut bits, mut out) = (Vec::new(), Vec::new());
        for &byte in text {
            let length = usize::from(LENGTHS[usize::from(byte)]);
            let (first, at, _) = CODE.first[length];
            let symbols = &CODE.symbols[at..];
            let index = symbols
                .iter()
                .position(|&it| it == usize::from(byte))
                .unwrap();
            let code = first + u32::try_from(index).unwrap();
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(true);
        }
        for byte in bits.chunks(8) {
            out.push(byte.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit)));
        }
        out
    }

    /// RFC 7541, C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let host = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decoded(&host).unwrap(), b"www.example.com");
        assert_eq!(
            decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(),
            b"no-cache"
        );
        assert_eq!(decoded(&[0x64, 0x02]).unwrap(), b"302");
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b,
            0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(decoded(&date).unwrap(), b"Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn every_byte_is_read() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&all)).unwrap(), all);
        for byte in all {
            assert_eq!(decoded(&encoded(&[byte])).unwrap(), [byte], "{byte}");
        }
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn an_end_and_a_wrong_or_long_padding_are_refused() {
        // The code of the end, a byte of padding too many, zeros for padding.
        for wrong in [
            &[0xff, 0xff, 0xff, 0xff][..],
            &[0x64, 0x02, 0xff],
            &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xb8],
        ] {
            assert!(decoded(wrong).is_err(), "{wrong:x?}");
        }
    }
}

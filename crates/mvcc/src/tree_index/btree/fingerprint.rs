//! What tells most keys apart without looking at them.

/// Another key has the same one time in four thousand million, unless somebody made it for that, who gains nothing: a
/// leaf has few keys, and they are compared then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u32);

/// An odd number whose bits are in no order.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Fingerprint {
    pub(crate) fn of(key: &[u8]) -> Self {
        let add = |sum: u64, word: u64| {
            let product = (sum ^ word).wrapping_mul(MULTIPLIER);
            product ^ product >> 32
        };
        let (words, rest) = key.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let rest = rest
            .iter()
            .fold(0, |rest, &byte| rest << 8 | u64::from(byte));
        let sum = words.chain([rest]).fold(key.len() as u64, add);
        let [b0, b1, b2, b3, ..] = sum.to_le_bytes();
        Self(u32::from_le_bytes([b0, b1, b2, b3]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_that_are_alike_have_fingerprints_that_are_not() {
        let mut seen = HashSet::new();
        for number in 0..100_000 {
            for key in [
                format!("/registry/{number:05}"),
                format!("{number}"),
                format!(
                    "/registry/pods/namespace-{}/pod-{number}/status",
                    number % 7
                ),
            ] {
                seen.insert(Fingerprint::of(key.as_bytes()).0);
            }
        }
        assert!(seen.len() > 299_900, "{}", seen.len());
        assert_ne!(Fingerprint::of(b""), Fingerprint::of(b"\0"));
    }
}

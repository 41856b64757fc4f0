//! Prefixes of keys, as they are counted: what comes before the name of a single thing.

/// Bytes of a prefix that are kept.
const BYTES_MAX: usize = 48;
/// Parts of a path, after a slash at its beginning.
const PARTS: usize = 2;

/// The first parts of a key that end in a slash: `/registry/pods/` of `/registry/pods/default/web`. Nothing of a
/// key without slashes, so that what is shown is no key by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

impl Prefix {
    pub(super) fn of(key: &[u8]) -> Self {
        let begin = usize::from(key.first() == Some(&b'/'));
        let key = &key[..key.len().min(BYTES_MAX)];
        let mut slashes = key.iter().enumerate().skip(begin);
        let slashes = slashes.by_ref().filter(|(_, byte)| **byte == b'/');
        let len = slashes
            .take(PARTS)
            .last()
            .map_or(begin, |(place, _)| place + 1);
        let mut bytes = [0; BYTES_MAX];
        bytes[..len].copy_from_slice(&key[..len]);
        Self { bytes, len }
    }

    /// As text; empty for keys without slashes.
    pub(super) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes[..self.len]);
        let chars = text.chars();
        chars
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect()
    }
}

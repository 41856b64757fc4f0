//! What both sides remember of the fields that a client sent (RFC 7541, 2.3).

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;

use super::HpackError;
use super::field::{Field, FieldName, STATIC_FIELDS};

/// What the newest entries may take; we ask for nothing else.
pub(super) const TABLE_BYTES_MAX: usize = 4096;

static STATIC: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let field = |(name, value): &(&'static str, &'static str)| {
        let name = FieldName::parse(name.as_bytes());
        Field::parse(name, Bytes::from_static(value.as_bytes()))
    };
    STATIC_FIELDS.iter().map(field).collect()
});

/// The static table, and after it what was added, the newest first.
#[derive(Debug)]
pub(super) struct Table {
    added: VecDeque<Field>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            added: VecDeque::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES_MAX,
        }
    }
}

impl Table {
    /// An entry, from 1.
    pub(super) fn get(&self, index: usize) -> Result<&Field, HpackError> {
        let at = index.checked_sub(1).ok_or(HpackError::Index(index))?;
        let found = match STATIC.get(at) {
            Some(field) => Some(field),
            None => self.added.get(at - STATIC.len()),
        };
        found.ok_or(HpackError::Index(index))
    }

    /// Adds an entry; the oldest make room for it.
    pub(super) fn add(&mut self, field: Field) {
        let size = field.size();
        self.shrink(self.bytes_max.saturating_sub(size));
        if size <= self.bytes_max {
            self.bytes += size;
            self.added.push_front(field);
        }
    }

    /// Sets what the entries may take.
    pub(super) fn resize(&mut self, bytes_max: usize) -> Result<(), HpackError> {
        if bytes_max > TABLE_BYTES_MAX {
            return Err(HpackError::TableSize);
        }
        self.bytes_max = bytes_max;
        self.shrink(bytes_max);
        Ok(())
    }

    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.added.pop_back()
        {
            self.bytes -= oldest.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(value: &str) -> Field {
        let name = FieldName::parse(b"name");
        Field::parse(name, Bytes::copy_from_slice(value.as_bytes()))
    }

    #[test]
    fn the_oldest_make_room() {
        let mut table = Table::default();
        // 40 bytes each.
        table.resize(100).unwrap();
        for value in ["val1", "val2", "val3"] {
            table.add(field(value));
        }
        assert_eq!(table.get(62), Ok(&field("val3")));
        assert_eq!(table.get(63), Ok(&field("val2")));
        assert_eq!(table.get(64), Err(HpackError::Index(64)));
        assert_eq!(table.get(0), Err(HpackError::Index(0)));
        table.resize(40).unwrap();
        assert_eq!(table.get(63), Err(HpackError::Index(63)));
        // What is larger than all leaves nothing.
        table.add(field("too long"));
        assert_eq!(table.get(62), Err(HpackError::Index(62)));
        assert_eq!(
            table.resize(TABLE_BYTES_MAX + 1),
            Err(HpackError::TableSize)
        );
    }
}

//! The bounds between the children of an inner node.

/// Ascending byte strings, one behind the other in one piece of memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    /// Where each of them ends in `bytes`.
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Bounds {
    /// Which child holds this key: the one behind all bounds that are not after it.
    pub(super) fn place(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The bound between the children at `place` and behind it.
    pub(super) fn get(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[place] as usize]
    }

    /// All of them in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.ends.len()).map(|place| self.get(place))
    }
}

impl<'a> FromIterator<&'a [u8]> for Bounds {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(bounds: I) -> Self {
        let mut these = Self::default();
        for bound in bounds {
            these.bytes.extend_from_slice(bound);
            let end = u32::try_from(these.bytes.len());
            these
                .ends
                .push(end.expect("a node's keys have less than 4 GiB"));
        }
        these.bytes.shrink_to_fit();
        these.ends.shrink_to_fit();
        these
    }
}

//! The bounds between the children of an inner node.

use arrayvec::ArrayVec;
use triomphe::ThinArc;

use super::INNER_MAX;

/// Ascending byte strings, one behind the other in one piece of memory. Cloning them costs a count.
#[derive(Clone, Debug)]
pub(super) struct Bounds(ThinArc<Ends, u8>);

/// Where each of them ends.
type Ends = ArrayVec<u32, { INNER_MAX - 1 }>;

impl Bounds {
    /// Which child holds this key: the one behind all bounds that are not after it.
    pub(super) fn place(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.ends().len());
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
        let ends = self.ends();
        let start = place.checked_sub(1).map_or(0, |before| ends[before]);
        &self.0.slice[start as usize..ends[place] as usize]
    }

    /// All of them in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.ends().len()).map(|place| self.get(place))
    }

    fn ends(&self) -> &Ends {
        &self.0.header.header
    }
}

impl<'a> FromIterator<&'a [u8]> for Bounds {
    /// Of one bound less than a node has children, at most.
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(bounds: I) -> Self {
        let (mut ends, mut bytes) = (Ends::new(), Vec::new());
        for bound in bounds {
            bytes.extend_from_slice(bound);
            let end = u32::try_from(bytes.len());
            ends.push(end.expect("a node's keys have less than 4 GiB"));
        }
        Self(ThinArc::from_header_and_slice(ends, &bytes))
    }
}

//! Places: records without a value, made ahead of records that are appended, so that sled splits its leaves while they
//! are empty.
//!
//! A leaf that more than sixteen records have come into is split: both halves are written anew with all that is in them,
//! and a leaf that has changed ten times is written anew as well. Where records of up to 64 KiB are appended one after
//! the other, what comes to the disk is three times what was to be kept. With two places for each record to
//! come, the leaf that it comes into holds eight places and will hold four records: it was split before, when it was
//! a few hundred bytes, and does not change often enough to be written again.
//!
//! A place is nothing to a reader: it has no value, which no record lacks. It sorts behind every key that begins with
//! its number, so that no record has its key. Where places are not, because records are small or come in another order,
//! sled does what it always does. They go with the record before them.
//!
//! Records that fill a store ([`super::SledEngine::fill`]) come one behind the other as well, but not at its end, where
//! others are appended meanwhile: they have places of their own ([`Order::Filled`]). Of many at once the very keys are made first.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::engine::{Change, PACKED_FROM, PIECES_FROM};

/// So many places are ahead of the last record: half as many records can come in one batch before a leaf is split
/// that has one of them in it.
const AHEAD: usize = 64;
/// What a record has to have in its value to be worth two places: writing a smaller one three times costs less.
const WORTH_BYTES: usize = 1024;
/// Of a record's key, which bucket it is in and its number.
const NUMBERED_BYTES: usize = 9;
const PLACE_BYTES: usize = NUMBERED_BYTES + 9;
/// How many records the distance between two of them is an average of.
const AVERAGED: u64 = 8;
/// Places that are so many times as far from each other as they should be are of no use.
const SPREAD_MAX: u64 = 4;

type PlaceKey = [u8; PLACE_BYTES];

/// The places of all buckets that have some.
#[derive(Debug)]
pub(super) struct Places {
    order: Order,
    buckets: BTreeMap<u8, Ahead>,
}

/// Where the records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Behind all that are there.
    Appended,
    /// Behind each other.
    Filled,
}

/// What lies behind the last record of a bucket.
#[derive(Debug)]
struct Ahead {
    /// The last record's number: the first eight bytes of its key in the bucket.
    last: u64,
    /// Between two records, times [`AVERAGED`].
    distance: u64,
    /// Places that no record has passed, in order.
    keys: VecDeque<PlaceKey>,
}

impl Places {
    pub(super) const fn new(order: Order) -> Self {
        Self {
            order,
            buckets: BTreeMap::new(),
        }
    }

    /// Makes the places that the records of a batch leave too few of. Before the batch: who sees them sees nothing.
    pub(super) fn make(&mut self, tree: &sled::Tree, changes: &[Change]) -> sled::Result<()> {
        let mut numbered: Vec<(u8, u64, bool)> = Vec::new();
        for (key, value) in changes {
            if let (Some((bucket, number)), Some(value)) = (number(key), value) {
                numbered.push((bucket, number, value.len() >= WORTH_BYTES));
            }
        }
        // A batch has no order.
        numbered.sort_unstable();
        for &(bucket, number, _) in &numbered {
            let ahead = match self.buckets.get_mut(&bucket) {
                Some(ahead) => ahead,
                None => {
                    let ahead = match self.order {
                        Order::Appended => Ahead::find(tree, bucket)?,
                        Order::Filled => Ahead::default(),
                    };
                    self.buckets.entry(bucket).or_insert(ahead)
                }
            };
            ahead.pass(bucket, number);
        }
        for (bucket, _, _) in numbered.into_iter().filter(|(_, _, is_worth)| *is_worth) {
            if let Some(ahead) = self.buckets.get_mut(&bucket) {
                ahead.make(tree, bucket)?;
            }
        }
        Ok(())
    }

    /// Removes the places behind records that are gone. After the batch that removed them.
    pub(super) fn remove(&self, tree: &sled::Tree, mut gone: Vec<Bytes>) -> sled::Result<()> {
        gone.sort_unstable();
        let mut stale = Vec::new();
        let mut looked_to = sled::IVec::default();
        for key in gone {
            let Some((bucket, _)) = number(&key) else {
                continue;
            };
            // One look finds those behind all its neighbours that went with it.
            if *key < *looked_to {
                continue;
            }
            let ahead = self.buckets.get(&bucket).and_then(|it| it.keys.front());
            for record in tree.range(&key[..]..&[bucket + 1]) {
                let (place, value) = record?;
                looked_to = place;
                if !value.is_empty() || ahead.is_some_and(|ahead| *looked_to >= ahead[..]) {
                    break;
                }
                stale.push(looked_to.clone());
            }
        }
        for place in stale {
            tree.remove(place)?;
        }
        Ok(())
    }
}

impl Default for Ahead {
    /// Nothing yet.
    fn default() -> Self {
        Self {
            last: 0,
            distance: AVERAGED,
            keys: VecDeque::new(),
        }
    }
}

impl Ahead {
    /// What an earlier process has left.
    fn find(tree: &sled::Tree, bucket: u8) -> sled::Result<Self> {
        let mut keys = VecDeque::new();
        let mut last = 0;
        for record in tree.range([bucket]..[bucket + 1]).rev() {
            let (key, value) = record?;
            match PlaceKey::try_from(&key[..]) {
                Ok(place) if value.is_empty() => keys.push_front(place),
                _ => {
                    last = number(&key).map_or(0, |(_, number)| number);
                    break;
                }
            }
        }
        let distance = match (keys.front(), keys.back()) {
            (Some(first), Some(last)) => {
                (position(last) - position(first)) * AVERAGED / keys.len() as u64
            }
            _ => AVERAGED,
        };
        Ok(Self {
            last,
            distance,
            keys,
        })
    }

    /// A record comes.
    fn pass(&mut self, bucket: u8, number: u64) {
        // One that comes in another order makes no way.
        let Some(distance @ 1..) = number.checked_sub(self.last) else {
            return;
        };
        if self.last > 0 {
            // Once in a while there is a gap, which says little about what comes behind it: it counts for so many times
            // the average.
            let distance = distance.min(self.distance);
            self.distance = self.distance - self.distance / AVERAGED + distance;
        }
        self.last = number;
        let at = place(bucket, number.saturating_mul(2));
        while self.keys.front().is_some_and(|first| *first < at) {
            self.keys.pop_front();
        }
    }

    fn make(&mut self, tree: &sled::Tree, bucket: u8) -> sled::Result<()> {
        // Half of the distance between two records, in halves: two places for each of them.
        let step = (self.distance / AVERAGED).max(1);
        if let (Some(first), Some(last)) = (self.keys.front(), self.keys.back()) {
            // Made when records were farther from each other: all that come from now on would come between two of them.
            let made = (position(last) - position(first)) / self.keys.len() as u64;
            if made > SPREAD_MAX * step {
                self.keys.clear();
            }
        }
        while self.keys.len() < AHEAD {
            let last = self.last.saturating_mul(2);
            let from = self.keys.back().map_or(last, position);
            let key = place(bucket, from.saturating_add(step));
            tree.insert(key, &[])?;
            self.keys.push_back(key);
        }
        Ok(())
    }
}

/// The bucket and the number of a record that may be an appended one, or of a place.
fn number(key: &[u8]) -> Option<(u8, u64)> {
    let (&bucket, rest) = key.split_first()?;
    let number = rest.first_chunk()?;
    let is_appended = (PACKED_FROM..PIECES_FROM).contains(&bucket);
    is_appended.then_some((bucket, u64::from_be_bytes(*number)))
}

/// The key of a place: its position is twice the number that it follows, and one more for the second one there.
fn place(bucket: u8, position: u64) -> PlaceKey {
    let mut key = [u8::MAX; PLACE_BYTES];
    key[0] = bucket;
    key[1..NUMBERED_BYTES].copy_from_slice(&(position / 2).to_be_bytes());
    key[PLACE_BYTES - 1] = u8::from(position % 2 == 1);
    key
}

fn position(place: &PlaceKey) -> u64 {
    let (_, number) = number(place).unwrap_or_default();
    number
        .saturating_mul(2)
        .saturating_add(u64::from(place[PLACE_BYTES - 1]))
}

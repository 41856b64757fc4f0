//! The log in memory: every entry that is not purged, for reads.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, RangeBounds};

use super::group::{self, PackedEntry};
use crate::type_config::{Entry, LogId, Vote};

/// An entry, and where it is in the bytes of commands since the log was opened.
#[derive(Clone, Debug)]
struct Slot {
    log_id: LogId,
    start: u64,
    end: u64,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// Not applied yet, or not durable yet: soon read.
    Live {
        entry: Entry,
        packed: Option<PackedEntry>,
    },
    /// Applied and durable: read when a member has to catch up. The bytes are a part of the
    /// record that was written, so nothing is held twice.
    Settled(PackedEntry),
}

/// Every entry that is not purged, the vote, and what was purged.
#[derive(Debug)]
pub(super) struct Index {
    slots: VecDeque<Slot>,
    /// The first entry that has not settled.
    live: u64,
    /// Bytes of commands appended since the log was opened.
    end: u64,
    pub(super) purged: Option<LogId>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
}

impl Index {
    pub(super) fn new(vote: Option<Vote>, committed: Option<LogId>, purged: Option<LogId>) -> Self {
        Self {
            slots: VecDeque::new(),
            live: 0,
            end: 0,
            purged,
            vote,
            committed,
        }
    }

    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// The id of the entry at `index`.
    pub(super) fn log_id(&self, index: u64) -> Option<LogId> {
        let place = position(index.checked_sub(self.first()?)?);
        self.slots.get(place).map(|slot| slot.log_id)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if let Some(last) = self.slots.back() {
            let next = last.log_id.index + 1;
            assert_eq!(entry.log_id.index, next, "the log must not have a hole");
        }
        let start = self.end;
        self.end += group::payload_len(&entry) as u64;
        let log_id = entry.log_id;
        let body = Body::Live {
            entry,
            packed: None,
        };
        self.slots.push_back(Slot {
            log_id,
            start,
            end: self.end,
            body,
        });
    }

    /// Notes the bytes of entries that are durable, and keeps nothing else of those among them
    /// that are applied too. `applied` counts from 1. Returns what is not kept.
    pub(super) fn settle(&mut self, durable: Vec<PackedEntry>, applied: u64) -> Vec<Entry> {
        for entry in durable {
            let slot = self.slot_mut(entry.log_id.index);
            // It may have been purged or truncated while it was written.
            let Some(slot) = slot.filter(|slot| slot.log_id == entry.log_id) else {
                continue;
            };
            if let Body::Live { packed, .. } = &mut slot.body {
                *packed = Some(entry);
            }
        }
        self.live = self.live.max(self.first().unwrap_or_default());
        let mut let_go = Vec::new();
        while self.live < applied {
            let Some(slot) = self.slot_mut(self.live) else {
                break;
            };
            let Body::Live { packed, .. } = &mut slot.body else {
                break;
            };
            let Some(packed) = packed.take() else { break };
            let settled = Body::Settled(packed);
            if let Body::Live { entry, .. } = std::mem::replace(&mut slot.body, settled) {
                let_go.push(entry);
            }
            self.live += 1;
        }
        let_go
    }

    /// The entries of `range` that are here.
    pub(super) fn range(&self, range: &impl RangeBounds<u64>) -> io::Result<Vec<Entry>> {
        let Some(first) = self.first() else {
            return Ok(Vec::new());
        };
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let skip = position(from.saturating_sub(first)).min(self.slots.len());
        let take = position(to.saturating_sub(from.max(first)));
        let entry = |slot: &Slot| match &slot.body {
            Body::Live { entry, .. } => Ok(entry.clone()),
            Body::Settled(packed) => group::unpack(packed).map_err(io::Error::other),
        };
        self.slots.iter().skip(skip).take(take).map(entry).collect()
    }

    /// The end of the longest part of `start..end` from `start` on whose commands have at most so
    /// many bytes; at least one entry.
    pub(super) fn limit(&self, start: u64, end: u64, bytes: u64) -> u64 {
        let Some(skip) = self.first().and_then(|first| start.checked_sub(first)) else {
            return end;
        };
        let Some(first) = self.slots.get(position(skip)) else {
            return end;
        };
        let fits = self
            .slots
            .partition_point(|slot| slot.end.saturating_sub(first.start) <= bytes);
        let last = self.first().unwrap_or_default() + fits as u64;
        end.min(last.max(start + 1))
    }

    /// Removes every entry after `last`.
    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        let keep = last.map_or(0, |last| last.index + 1);
        while self
            .slots
            .back()
            .is_some_and(|slot| slot.log_id.index >= keep)
        {
            self.slots.pop_back();
        }
        self.live = self.live.min(keep);
    }

    /// Removes every entry up to and with `upto`.
    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged >= upto) {
            return;
        }
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.log_id.index <= upto.index)
        {
            self.slots.pop_front();
        }
        if self.slots.capacity() > 4 * self.slots.len().max(1024) {
            self.slots.shrink_to(2 * self.slots.len());
        }
        self.purged = Some(upto);
    }

    /// Bytes of commands in the entries after `index`.
    pub(super) fn bytes_after(&self, index: Option<u64>) -> u64 {
        let from = match (index, self.first()) {
            (Some(index), Some(first)) if index >= first => self
                .slots
                .get(position(index - first))
                .map_or(self.end, |slot| slot.end),
            _ => self.start(),
        };
        self.end - from
    }

    /// Where to cut the log so that up to `upto` no more than `entries` entries and `bytes` bytes
    /// are left: the last entry to purge. `None` when there are not more.
    pub(super) fn cut(&self, upto: u64, entries: u64, bytes: u64) -> Option<u64> {
        let first = self.first()?;
        let last = upto.min(first + self.slots.len() as u64 - 1);
        let end = self.slots.get(position(last.checked_sub(first)?))?.end;
        let by_count = last.checked_sub(entries).filter(|index| *index >= first);
        let by_bytes = (end - self.start() > bytes).then(|| {
            let kept = self
                .slots
                .partition_point(|slot| end.saturating_sub(slot.end) > bytes);
            (first + kept as u64).min(last)
        });
        by_count.max(by_bytes)
    }

    #[cfg(test)]
    pub(super) fn live_entries(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.body, Body::Live { .. }))
            .count()
    }

    fn first(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.log_id.index)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let distance = index.checked_sub(self.first()?)?;
        self.slots.get_mut(position(distance))
    }

    /// Where the first entry begins in the log's bytes.
    fn start(&self) -> u64 {
        self.slots.front().map_or(self.end, |slot| slot.start)
    }
}

/// A distance between indexes as a position; one that does not fit is past every entry.
fn position(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

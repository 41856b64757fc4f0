//! The stores that were in use before this one: read until nobody does any more, then closed, and removed a step at a time.

use std::collections::VecDeque;
use std::time::Duration;

use backend::{Leftover, Reader};
use tokio::time::Instant;

use super::rewrite::Ended;

/// How often it is looked whether somebody still reads them.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long to rest at least between two steps of a removal; otherwise as long as the one before took.
const REST_MIN: Duration = Duration::from_millis(1);

/// Most often one, or none.
#[derive(Debug, Default)]
pub(super) struct Retired {
    /// Those that somebody may read.
    read: Vec<Reader>,
    /// Those that are being removed.
    left: VecDeque<Leftover>,
    /// When something is to be done about them.
    due: Option<Instant>,
    /// The copy that has taken the place of one, and is said to have ended when the disk has its room.
    ended: Option<Ended>,
}

impl Retired {
    /// Takes one more.
    pub(super) fn put(&mut self, reader: Reader) {
        reader.retire();
        self.read.push(reader);
        self.close();
    }

    /// Whether files are being removed.
    pub(super) fn is_being_removed(&self) -> bool {
        !self.left.is_empty()
    }

    /// Keeps the end of a copy until the files are gone, if nobody reads them. Returns it otherwise.
    pub(super) fn keep(&mut self, ended: Ended) -> Option<Ended> {
        self.close();
        if ended.failure.is_some() || !self.is_being_removed() {
            return Some(ended);
        }
        self.ended = Some(ended);
        None
    }

    /// How long until there is something to do, from now; `None`: there is nothing.
    pub(super) fn rest(&self) -> Option<Duration> {
        let due = self.due?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Does it. Returns the end of the copy that was kept.
    pub(super) fn step(&mut self) -> Option<Ended> {
        let Some(leftover) = self.left.front_mut() else {
            self.close();
            return None;
        };
        let began = Instant::now();
        let goes_on = leftover.remove_some().unwrap_or_else(|error| {
            // It goes when the member starts.
            tracing::warn!(%error, "cannot remove a store that is not needed");
            false
        });
        if !goes_on {
            self.left.pop_front();
        }
        self.rest_for(began.elapsed().max(REST_MIN));
        let is_gone = self.left.is_empty();
        self.ended.take_if(|_| is_gone)
    }

    /// Closes those that nobody reads any more.
    fn close(&mut self) {
        for reader in std::mem::take(&mut self.read) {
            match reader.close() {
                Ok(leftover) => self.left.push_back(leftover),
                Err(reader) => self.read.push(reader),
            }
        }
        self.rest_for(Duration::ZERO);
    }

    /// Until the next step of a removal so long, or until it is looked again.
    fn rest_for(&mut self, rest: Duration) {
        let rest = match (self.left.is_empty(), self.read.is_empty()) {
            (false, _) => Some(rest),
            (true, false) => Some(LOOK_INTERVAL),
            (true, true) => None,
        };
        self.due = rest.map(|rest| Instant::now() + rest);
    }
}

//! The store that was in use before this one: read until nobody does any more, then closed, and removed a step at a time.

use std::time::Duration;

use backend::{Leftover, Reader};
use tokio::time::Instant;

use super::rewrite::Ended;

/// How often it is looked whether somebody still reads it.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long to rest at least between two steps of its removal; otherwise as long as the one before took.
const REST_MIN: Duration = Duration::from_millis(1);

/// At most one at a time.
#[derive(Debug, Default)]
pub(super) struct Retired {
    state: State,
    /// When something is to be done about it.
    due: Option<Instant>,
    /// The copy that has taken its place, and is said to have ended when the disk has its room.
    ended: Option<Ended>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    Read(Reader),
    Removed(Leftover),
}

impl Retired {
    /// Takes one more. What is left of the one before goes at once; returns the end of a copy that was kept for that.
    pub(super) fn put(&mut self, reader: Reader) -> Option<Ended> {
        let mut ended = None;
        while self.is_being_removed() {
            ended = self.step();
        }
        reader.retire();
        self.state = State::Read(reader);
        self.close();
        ended
    }

    /// Whether its files are being removed.
    pub(super) const fn is_being_removed(&self) -> bool {
        matches!(self.state, State::Removed(_))
    }

    /// Keeps the end of a copy until the files are gone, if nobody reads them. Returns it otherwise.
    pub(super) fn keep(&mut self, ended: Ended) -> Option<Ended> {
        self.close();
        if !self.is_being_removed() {
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
        let began = Instant::now();
        let removed = match &mut self.state {
            State::None => return None,
            State::Read(_) => {
                self.close();
                return None;
            }
            State::Removed(leftover) => leftover.remove_some(),
        };
        let goes_on = removed.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot remove a store that is not needed");
            false
        });
        if goes_on {
            self.due = Some(Instant::now() + began.elapsed().max(REST_MIN));
            return None;
        }
        self.state = State::None;
        self.due = None;
        self.ended.take()
    }

    /// Closes it if nobody reads it.
    fn close(&mut self) {
        let reader = match std::mem::take(&mut self.state) {
            State::Read(reader) => reader,
            state => {
                self.state = state;
                return;
            }
        };
        let now = Instant::now();
        let (state, due) = match reader.close() {
            Ok(leftover) => (State::Removed(leftover), now),
            Err(reader) => (State::Read(reader), now + LOOK_INTERVAL),
        };
        self.state = state;
        self.due = Some(due);
    }
}

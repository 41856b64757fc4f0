//! When a watcher is to be told, unasked, how far it is. It does not know how far that is.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};
use types::WatchId;

/// The watchers that want to be told, and the timer.
pub(super) struct ProgressNotifier {
    ticks: Interval,
    /// Whether each got no events since the last tick.
    quiet: BTreeMap<WatchId, bool>,
}

impl ProgressNotifier {
    pub(super) fn new(interval: Duration) -> Self {
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            quiet: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, id: WatchId) {
        if self.quiet.is_empty() {
            // Nobody has looked at it meanwhile.
            self.ticks.reset();
        }
        self.quiet.insert(id, true);
    }

    pub(super) fn remove(&mut self, id: WatchId) {
        self.quiet.remove(&id);
    }

    /// The watcher got events: they say how far it is, so the next notification is left out.
    pub(super) fn sent_events(&mut self, id: WatchId) {
        if let Some(quiet) = self.quiet.get_mut(&id) {
            *quiet = false;
        }
    }

    /// Waits until it is time; for ever while nobody wants to be told. Safe to drop.
    pub(super) async fn tick(&mut self) {
        if self.quiet.is_empty() {
            std::future::pending::<()>().await;
        }
        self.ticks.tick().await;
    }

    /// The watchers to be told now.
    pub(super) fn due(&mut self) -> Vec<WatchId> {
        let mut due = Vec::new();
        for (id, quiet) in &mut self.quiet {
            if std::mem::replace(quiet, true) {
                due.push(*id);
            }
        }
        due
    }
}

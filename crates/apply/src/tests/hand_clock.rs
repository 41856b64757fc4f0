//! Time that passes when a test says so.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use types::{Clock, SystemClock};

/// A clock that is moved by hand.
pub(crate) struct HandClock(Mutex<Instant>);

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(SystemClock.now())))
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        *self.0.lock()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

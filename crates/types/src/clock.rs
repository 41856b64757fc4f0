//! Time as something that is passed in, so that a simulation can own it.

use std::time::{Instant, SystemTime};

/// Tells the time. Every timer and every timestamp of kvorum asks one of these.
pub trait Clock: Send + Sync + 'static {
    /// A time that only goes forward, for durations and deadlines.
    fn now(&self) -> Instant;
    /// The time of day, for logs, certificates and ids.
    fn wall(&self) -> SystemTime;
}

/// The machine's own clock.
///
/// ```
/// # use kvorum_types::{Clock, SystemClock};
/// let clock = SystemClock;
/// let begun = clock.now();
/// assert!(clock.now() >= begun);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that asks the system"
)]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

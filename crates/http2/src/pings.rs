//! A client that pings too often is told so and disconnected, by grpc-go's rules
//! (`--grpc-keepalive-min-time`).
//!
//! Without open streams, pings must be two hours apart; with some, the minimum time. Whatever is sent to the
//! client forgives it everything. After the third strike comes a GOAWAY.

use std::sync::Arc;
use std::time::{Duration, Instant};

use types::Clock;

/// Pings that come too early before the connection ends.
const STRIKES_MAX: u32 = 2;
/// How far pings must be apart when no stream is open.
const IDLE_MIN_TIME: Duration = Duration::from_secs(2 * 60 * 60);

/// Counts one client's pings.
pub(crate) struct PingEnforcer {
    min_time: Duration,
    clock: Arc<dyn Clock>,
    last_ping: Option<Instant>,
    strikes: u32,
    /// Something was sent to the client since its last ping.
    is_forgiven: bool,
}

impl PingEnforcer {
    pub(crate) fn new(min_time: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            min_time,
            clock,
            last_ping: None,
            strikes: 0,
            is_forgiven: false,
        }
    }

    /// Headers or data were sent.
    pub(crate) fn sent(&mut self) {
        self.is_forgiven = true;
    }

    /// A ping has come. Says whether that was one too many.
    pub(crate) fn is_too_much(&mut self, has_streams: bool) -> bool {
        let now = self.clock.now();
        let before = self.last_ping.replace(now);
        if std::mem::take(&mut self.is_forgiven) {
            self.strikes = 0;
            return false;
        }
        let min_time = match has_streams {
            true => self.min_time,
            false => IDLE_MIN_TIME,
        };
        if before.is_some_and(|before| now.saturating_duration_since(before) < min_time) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::time::SystemTime;

    use super::*;

    /// A clock that stands until it is set.
    struct Hand(Mutex<Instant>);

    impl Clock for Hand {
        fn now(&self) -> Instant {
            *self.0.lock()
        }

        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
    }

    /// How many of ten pings, so far apart, are not too much.
    fn pings_taken(
        min_time: u64,
        has_streams: bool,
        apart: u64,
        between: impl Fn(&mut PingEnforcer),
    ) -> usize {
        let clock = Arc::new(Hand(Mutex::new(types::SystemClock.now())));
        let mut pings = PingEnforcer::new(Duration::from_secs(min_time), Arc::clone(&clock) as _);
        let taken = (0..10).take_while(|_| {
            *clock.0.lock() += Duration::from_secs(apart);
            between(&mut pings);
            !pings.is_too_much(has_streams)
        });
        taken.count()
    }

    fn nothing(_: &mut PingEnforcer) {}

    #[test]
    fn pings_without_a_stream_end_the_connection() {
        // Whatever is configured.
        assert_eq!(pings_taken(0, false, 1, nothing), 3);
        assert_eq!(pings_taken(0, false, 7200, nothing), 10);
    }

    #[test]
    fn pings_on_a_stream_may_be_as_frequent_as_is_configured() {
        assert_eq!(pings_taken(5, true, 4, nothing), 3);
        assert_eq!(pings_taken(5, true, 5, nothing), 10);
        assert_eq!(pings_taken(0, true, 0, nothing), 10);
    }

    #[test]
    fn what_is_sent_forgives_pings() {
        assert_eq!(pings_taken(5, true, 1, PingEnforcer::sent), 10);
    }
}

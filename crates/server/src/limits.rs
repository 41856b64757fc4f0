//! What clients' connections and requests are held to.
//!
//! What this is not: limits of what is in a request; those are `v3rpc::validate`'s.

use std::time::Duration;

/// grpc-go's minimum time between pings if none is configured.
const KEEPALIVE_MIN_TIME: Duration = Duration::from_secs(5 * 60);
/// grpc-go's time of silence before a client is pinged.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
/// grpc-go pings no client more often than this.
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// grpc-go's time that a client has to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a client's connection is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcLimits {
    /// `--grpc-keepalive-min-time`: how often a client may ping.
    pub keepalive_min_time: Duration,
    /// `--grpc-keepalive-interval`: how long a connection is silent before its client is pinged.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`: how long the answer may take.
    pub keepalive_timeout: Duration,
    /// `--max-concurrent-streams`: requests that a connection may have open.
    pub max_concurrent_streams: u32,
}

impl Default for GrpcLimits {
    fn default() -> Self {
        Self {
            keepalive_min_time: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
            max_concurrent_streams: u32::MAX,
        }
        .with_defaults()
    }
}

impl GrpcLimits {
    /// What etcd makes of these: where one is zero, grpc-go's own applies.
    #[must_use]
    pub fn with_defaults(mut self) -> Self {
        if self.keepalive_min_time.is_zero() {
            self.keepalive_min_time = KEEPALIVE_MIN_TIME;
        }
        // etcd sets both or none.
        if self.keepalive_interval.is_zero() || self.keepalive_timeout.is_zero() {
            self.keepalive_interval = KEEPALIVE_INTERVAL;
            self.keepalive_timeout = KEEPALIVE_TIMEOUT;
        }
        self.keepalive_interval = self.keepalive_interval.max(KEEPALIVE_INTERVAL_MIN);
        self
    }
}

/// When a request is slow enough to be warned about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequests {
    /// `--warning-apply-duration`: for applying it, or reading.
    pub apply: Duration,
    /// `--warning-unary-request-duration`: for all of it.
    pub unary: Duration,
}

impl Default for SlowRequests {
    fn default() -> Self {
        Self {
            apply: Duration::from_millis(100),
            unary: Duration::from_millis(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_what_grpc_go_does_by_itself() {
        let limits = GrpcLimits {
            keepalive_min_time: Duration::ZERO,
            keepalive_interval: Duration::from_secs(9),
            keepalive_timeout: Duration::ZERO,
            max_concurrent_streams: 7,
        };
        let limits = limits.with_defaults();
        assert_eq!(limits.keepalive_min_time, Duration::from_secs(300));
        assert_eq!(limits.keepalive_interval, Duration::from_secs(7200));
        assert_eq!(limits.keepalive_timeout, Duration::from_secs(20));
        assert_eq!(limits.max_concurrent_streams, 7);
        let often = GrpcLimits {
            keepalive_interval: Duration::from_millis(1),
            ..limits
        };
        assert_eq!(
            often.with_defaults().keepalive_interval,
            Duration::from_secs(1)
        );
    }
}

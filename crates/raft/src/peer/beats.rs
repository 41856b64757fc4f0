//! Whether a leader sends its heartbeats in time (`etcd_server_heartbeat_send_failures_total`).
//!
//! One that does not is overloaded, and may be taken for dead. Not what a peer makes of it: while it is
//! slow to answer, or does not, nothing is late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use types::MemberId;

/// How many were late. Shared by all peers.
#[derive(Debug)]
pub(crate) struct LateHeartbeats {
    interval: Duration,
    count: AtomicU64,
}

/// The heartbeats to one peer.
#[derive(Debug)]
pub(crate) struct Beats {
    late: Arc<LateHeartbeats>,
    /// Since when, and in which term, nothing has kept the next one.
    free: Mutex<Option<(u64, Instant)>>,
}

impl LateHeartbeats {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            count: AtomicU64::new(0),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Beats {
    pub(crate) fn new(late: &Arc<LateHeartbeats>) -> Self {
        Self {
            late: Arc::clone(late),
            free: Mutex::default(),
        }
    }

    /// The next one goes to a peer, in a term.
    pub(crate) fn sends(&self, to: MemberId, term: u64) {
        let Some((of, since)) = self.free.lock().take() else {
            return;
        };
        // As etcd does (`contention.TimeoutDetector`): one may be missed.
        let expected = 2 * self.late.interval;
        let took = since.elapsed();
        if of == term && took > expected {
            self.late.count.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                %to,
                heartbeat_interval = ?self.late.interval,
                expected_duration = ?expected,
                exceeded_duration = ?(took - expected),
                "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"
            );
        }
    }

    /// It was answered.
    pub(crate) fn answered(&self, term: u64) {
        *self.free.lock() = Some((term, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_late_when_nothing_but_the_leader_has_kept_it() {
        let interval = Duration::from_millis(100);
        let late = Arc::new(LateHeartbeats::new(interval));
        let beats = Beats::new(&late);
        beats.sends(MemberId(1), 3);
        beats.answered(3);
        tokio::time::advance(2 * interval).await;
        beats.sends(MemberId(1), 3);
        assert_eq!(late.count(), 0, "one was missed");
        tokio::time::advance(5 * interval).await;
        beats.answered(3);
        beats.sends(MemberId(1), 3);
        assert_eq!(late.count(), 0, "the peer was slow");
        tokio::time::advance(5 * interval).await;
        beats.sends(MemberId(1), 3);
        assert_eq!(late.count(), 0, "it was not answered");
        beats.answered(3);
        tokio::time::advance(5 * interval).await;
        beats.sends(MemberId(1), 4);
        assert_eq!(late.count(), 0, "another led meanwhile");
        beats.answered(4);
        tokio::time::advance(3 * interval).await;
        beats.sends(MemberId(1), 4);
        assert_eq!(late.count(), 1);
    }
}

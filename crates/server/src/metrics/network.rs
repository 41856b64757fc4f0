//! What is counted about the peers, under the names of `server/etcdserver/api/rafthttp/metrics.go`.
//!
//! Raft counts by itself; its counts are taken over when somebody asks for the metrics. Round trips
//! and losses are looked at once a second, by [`NetworkMetrics::look`].

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use raft::PeerStatus;
use types::MemberId;

use super::Registrar;

/// etcd's buckets of round trips: 0.1 ms, doubled 15 times.
const ROUND_TRIP_BUCKETS: (f64, f64, usize) = (0.0001, 2.0, 16);

pub(super) struct NetworkMetrics {
    local: String,
    active_peers: IntGaugeVec,
    known_peers: IntGaugeVec,
    disconnected_peers: IntCounterVec,
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    round_trip: HistogramVec,
    /// The peers at the last look, and since when they were active.
    seen: Mutex<BTreeMap<MemberId, Option<Instant>>>,
}

impl NetworkMetrics {
    pub(super) fn register(registry: &Registry, local: MemberId) -> prometheus::Result<Self> {
        let registrar = Registrar(registry);
        let (start, factor, count) = ROUND_TRIP_BUCKETS;
        let round_trip = HistogramOpts::new(
            "etcd_network_peer_round_trip_time_seconds",
            "Round trips to peers.",
        )
        .buckets(prometheus::exponential_buckets(start, factor, count)?);
        let round_trip = HistogramVec::new(round_trip, &["To"])?;
        registry.register(Box::new(round_trip.clone()))?;
        // Nothing tells the two directions' failures apart; the name is there, as in etcd without any.
        registrar.counters(
            "etcd_network_peer_received_failures_total",
            "Failures to receive from peers.",
            &["From"],
        )?;
        Ok(Self {
            local: local.to_string(),
            active_peers: registrar.gauges(
                "etcd_network_active_peers",
                "1 for each peer that answers.",
                &["Local", "Remote"],
            )?,
            known_peers: registrar.gauges(
                "etcd_network_known_peers",
                "1 for each peer.",
                &["Local", "Remote"],
            )?,
            disconnected_peers: registrar.counters(
                "etcd_network_disconnected_peers_total",
                "Times that a peer was lost.",
                &["Local", "Remote"],
            )?,
            sent_bytes: registrar.counters(
                "etcd_network_peer_sent_bytes_total",
                "Bytes sent to peers.",
                &["To"],
            )?,
            received_bytes: registrar.counters(
                "etcd_network_peer_received_bytes_total",
                "Bytes received from peers.",
                &["From"],
            )?,
            sent_failures: registrar.counters(
                "etcd_network_peer_sent_failures_total",
                "Failures to send to peers.",
                &["To"],
            )?,
            round_trip,
            seen: Mutex::default(),
        })
    }

    /// Takes over what Raft has counted.
    pub(super) fn read(&self, peers: &[PeerStatus]) {
        self.active_peers.reset();
        self.known_peers.reset();
        for peer in peers {
            let remote = peer.id.to_string();
            let pair = [self.local.as_str(), remote.as_str()];
            let is_active = peer.active_since.is_some();
            self.active_peers
                .with_label_values(&pair)
                .set(is_active.into());
            self.known_peers.with_label_values(&pair).set(1);
            for (counter, now) in [
                (&self.sent_bytes, peer.sent_bytes),
                (&self.received_bytes, peer.received_bytes),
                (&self.sent_failures, peer.failures),
            ] {
                let counter = counter.with_label_values(&[remote.as_str()]);
                counter.inc_by(now.saturating_sub(counter.get()));
            }
        }
    }

    /// Notes round trips, and peers that were lost since the last look.
    pub(super) fn look(&self, peers: &[PeerStatus]) {
        let mut seen = self.seen.lock();
        let before = std::mem::take(&mut *seen);
        for peer in peers {
            let remote = peer.id.to_string();
            if let (Some(_), Some(took)) = (peer.active_since, peer.round_trip) {
                let histogram = self.round_trip.with_label_values(&[remote.as_str()]);
                histogram.observe(took.as_secs_f64());
            }
            let was_active_since = before.get(&peer.id).copied().flatten();
            if was_active_since.is_some() && was_active_since != peer.active_since {
                let pair = [self.local.as_str(), remote.as_str()];
                self.disconnected_peers.with_label_values(&pair).inc();
            }
            seen.insert(peer.id, peer.active_since);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{Encoder, TextEncoder};
    use types::{Clock, SystemClock};

    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_peer_is_counted_under_etcds_names() {
        let registry = Registry::new();
        let metrics = NetworkMetrics::register(&registry, MemberId(1)).unwrap();
        let now = SystemClock.now();
        let mut peer = PeerStatus {
            id: MemberId(0xab),
            active_since: Some(now),
            round_trip: Some(Duration::from_millis(3)),
            version: String::new(),
            sent_bytes: 10,
            received_bytes: 20,
            failures: 0,
        };
        metrics.look(std::slice::from_ref(&peer));
        peer.active_since = None;
        peer.sent_bytes = 15;
        peer.failures = 2;
        metrics.look(std::slice::from_ref(&peer));
        metrics.read(std::slice::from_ref(&peer));
        metrics.read(std::slice::from_ref(&peer));
        let shown = shown(&registry);
        for line in [
            r#"etcd_network_active_peers{Local="1",Remote="ab"} 0"#,
            r#"etcd_network_known_peers{Local="1",Remote="ab"} 1"#,
            r#"etcd_network_disconnected_peers_total{Local="1",Remote="ab"} 1"#,
            r#"etcd_network_peer_sent_bytes_total{To="ab"} 15"#,
            r#"etcd_network_peer_received_bytes_total{From="ab"} 20"#,
            r#"etcd_network_peer_sent_failures_total{To="ab"} 2"#,
            r#"etcd_network_peer_round_trip_time_seconds_bucket{To="ab",le="0.0032"} 1"#,
            r#"etcd_network_peer_round_trip_time_seconds_count{To="ab"} 1"#,
        ] {
            assert!(shown.contains(line), "{line} not in\n{shown}");
        }
    }
}

//! States sent to and received from peers, under the names of
//! `server/etcdserver/api/rafthttp/metrics.go`.
//!
//! Raft counts, histograms included; what it has counted is shown as it is.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use raft::{DURATION_BOUNDS_S, Durations, SnapshotMetrics as Counted, TransferMetrics};
use types::MemberId;

/// One name, and what of a transfer it shows.
struct Family {
    name: &'static str,
    help: &'static str,
    /// The label, and with it which way the state goes.
    way: &'static str,
    kind: MetricType,
    show: fn(&TransferMetrics) -> Metric,
}

const TO: &str = "To";
const FROM: &str = "From";

const FAMILIES: [Family; 10] = [
    Family {
        name: "etcd_network_snapshot_send_success",
        help: "States sent and installed.",
        way: TO,
        kind: MetricType::COUNTER,
        show: |transfers| counter(transfers.success),
    },
    Family {
        name: "etcd_network_snapshot_send_failures",
        help: "States whose sending broke off.",
        way: TO,
        kind: MetricType::COUNTER,
        show: |transfers| counter(transfers.failures),
    },
    Family {
        name: "etcd_network_snapshot_send_inflights_total",
        help: "States that are being sent.",
        way: TO,
        kind: MetricType::GAUGE,
        show: |transfers| gauge(transfers.inflights),
    },
    Family {
        name: "etcd_network_snapshot_send_total_duration_seconds",
        help: "How long sending took.",
        way: TO,
        kind: MetricType::HISTOGRAM,
        show: |transfers| histogram(&transfers.durations),
    },
    Family {
        name: "kvorum_snapshot_sent_bytes_total",
        help: "Bytes of states sent.",
        way: TO,
        kind: MetricType::COUNTER,
        show: |transfers| counter(transfers.bytes),
    },
    Family {
        name: "etcd_network_snapshot_receive_success",
        help: "States received and installed.",
        way: FROM,
        kind: MetricType::COUNTER,
        show: |transfers| counter(transfers.success),
    },
    Family {
        name: "etcd_network_snapshot_receive_failures",
        help: "States whose receiving broke off.",
        way: FROM,
        kind: MetricType::COUNTER,
        show: |transfers| counter(transfers.failures),
    },
    Family {
        name: "etcd_network_snapshot_receive_inflights_total",
        help: "States that are being received.",
        way: FROM,
        kind: MetricType::GAUGE,
        show: |transfers| gauge(transfers.inflights),
    },
    Family {
        name: "etcd_network_snapshot_receive_total_duration_seconds",
        help: "How long receiving took.",
        way: FROM,
        kind: MetricType::HISTOGRAM,
        show: |transfers| histogram(&transfers.durations),
    },
    Family {
        name: "kvorum_snapshot_received_bytes_total",
        help: "Bytes of states received.",
        way: FROM,
        kind: MetricType::COUNTER,
        show: |transfers| counter(transfers.bytes),
    },
];

/// Shows what Raft has counted.
pub(super) struct SnapshotMetrics {
    counted: Arc<Mutex<Vec<(MemberId, Counted)>>>,
}

struct Shown {
    descriptions: Vec<Desc>,
    counted: Arc<Mutex<Vec<(MemberId, Counted)>>>,
}

impl SnapshotMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let descriptions = FAMILIES.iter().map(|family| {
            let labels = vec![family.way.to_owned()];
            Desc::new(
                family.name.to_owned(),
                family.help.to_owned(),
                labels,
                HashMap::new(),
            )
        });
        let counted = Arc::default();
        let shown = Shown {
            descriptions: descriptions.collect::<prometheus::Result<_>>()?,
            counted: Arc::clone(&counted),
        };
        registry.register(Box::new(shown))?;
        Ok(Self { counted })
    }

    /// Takes over what Raft has counted.
    pub(super) fn read(&self, counted: Vec<(MemberId, Counted)>) {
        *self.counted.lock() = counted;
    }
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counted = self.counted.lock();
        // A peer that no state went to or came from is not shown; neither is a name without peers.
        let shown = |family: &Family| {
            let metrics = counted.iter().filter_map(|(peer, counted)| {
                let transfers = match family.way {
                    TO => &counted.sent,
                    _ => &counted.received,
                };
                let mut metric = (family.show)(transfers);
                metric.set_label(vec![label(family.way, *peer)]);
                (*transfers != TransferMetrics::default()).then_some(metric)
            });
            let mut shown = MetricFamily::default();
            shown.set_name(family.name.to_owned());
            shown.set_help(family.help.to_owned());
            shown.set_field_type(family.kind);
            shown.set_metric(metrics.collect());
            shown
        };
        let families = FAMILIES.iter().map(shown);
        families
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

fn label(name: &str, peer: MemberId) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(peer.to_string());
    label
}

fn counter(value: u64) -> Metric {
    let (mut metric, mut counter) = (Metric::default(), Counter::default());
    counter.set_value(float(value));
    metric.set_counter(counter);
    metric
}

fn gauge(value: u64) -> Metric {
    let (mut metric, mut gauge) = (Metric::default(), Gauge::default());
    gauge.set_value(float(value));
    metric.set_gauge(gauge);
    metric
}

fn histogram(durations: &Durations) -> Metric {
    let (mut metric, mut histogram) = (Metric::default(), Histogram::default());
    let buckets = durations.buckets.iter().zip(DURATION_BOUNDS_S);
    let buckets = buckets.map(|(count, bound)| {
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(*count);
        bucket.set_upper_bound(bound);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(durations.count);
    histogram.set_sample_sum(durations.sum_s);
    metric.set_histogram(histogram);
    metric
}

/// Prometheus knows no other numbers. A count above 2^53 may be a little off.
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;

    #[test]
    fn a_state_is_counted_under_etcds_names() {
        let registry = Registry::new();
        let metrics = SnapshotMetrics::register(&registry).unwrap();
        let mut counted = Counted::default();
        counted.sent.success = 1;
        counted.sent.bytes = 100;
        counted.sent.durations.count = 1;
        counted.sent.durations.sum_s = 0.3;
        counted.sent.durations.buckets[2..].fill(1);
        metrics.read(vec![(MemberId(0xab), counted)]);
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            r#"etcd_network_snapshot_send_success{To="ab"} 1"#,
            r#"etcd_network_snapshot_send_inflights_total{To="ab"} 0"#,
            r#"etcd_network_snapshot_send_total_duration_seconds_bucket{To="ab",le="0.2"} 0"#,
            r#"etcd_network_snapshot_send_total_duration_seconds_bucket{To="ab",le="0.4"} 1"#,
            r#"etcd_network_snapshot_send_total_duration_seconds_bucket{To="ab",le="+Inf"} 1"#,
            r#"kvorum_snapshot_sent_bytes_total{To="ab"} 100"#,
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(!text.contains("receive"), "nothing came: {text}");
    }
}

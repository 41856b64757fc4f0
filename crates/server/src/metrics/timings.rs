//! How long the log, the state and applying take, and what of applying is only counted here: read
//! off Raft and the state's writer when somebody asks.
//!
//! What this is not: a counter. Those are where things happen; what they have counted is shown as it
//! is.

use std::collections::HashMap;
use std::sync::Arc;

use apply::CompactionCounts;
use parking_lot::Mutex;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use raft::Applications;
use types::Buckets;

const WAL_FSYNC: (&str, &str) = (
    "etcd_disk_wal_fsync_duration_seconds",
    "How long it took to make the log durable.",
);
const WAL_WRITE: (&str, &str) = (
    "etcd_disk_wal_write_duration_seconds",
    "How long it took to write the log, before it was durable.",
);
const BACKEND_COMMIT: (&str, &str) = (
    "etcd_disk_backend_commit_duration_seconds",
    "How long it took to commit a batch of the state.",
);
const LEASE_TTL: (&str, &str) = (
    "etcd_debugging_lease_ttl_total",
    "The TTLs of the leases that were granted, in seconds.",
);
const INDEX_COMPACTION_PAUSE: (&str, &str) = (
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
    "How long steps of compactions took that forget what the index holds.",
);
const COMPACTION_PAUSE: (&str, &str) = (
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
    "How long steps of compactions took that remove history from the disk.",
);
const COMPACTION_TOTAL: (&str, &str) = (
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
    "How long compactions took.",
);
const APPLY: (&str, &str) = (
    "etcd_server_apply_duration_seconds",
    "How long it took to apply a command.",
);

/// What is shown.
#[derive(Clone, Default)]
pub(super) struct Timings {
    pub(super) wal_write: Buckets,
    pub(super) wal_fsync: Buckets,
    pub(super) backend_commit: Buckets,
    pub(super) applications: Applications,
    pub(super) compactions: CompactionCounts,
}

pub(super) struct TimingMetrics {
    timings: Arc<Mutex<Timings>>,
}

struct Shown {
    descriptions: Vec<Desc>,
    timings: Arc<Mutex<Timings>>,
}

impl TimingMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let describe = |(name, help): (&str, &str), labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        let timings = Arc::<Mutex<Timings>>::default();
        registry.register(Box::new(Shown {
            descriptions: vec![
                describe(WAL_FSYNC, &[])?,
                describe(WAL_WRITE, &[])?,
                describe(BACKEND_COMMIT, &[])?,
                describe(LEASE_TTL, &[])?,
                describe(INDEX_COMPACTION_PAUSE, &[])?,
                describe(COMPACTION_PAUSE, &[])?,
                describe(COMPACTION_TOTAL, &[])?,
                describe(APPLY, &["op", "success", "version"])?,
            ],
            timings: Arc::clone(&timings),
        }))?;
        Ok(Self { timings })
    }

    pub(super) fn read(&self, timings: Timings) {
        *self.timings.lock() = timings;
    }
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let timings = self.timings.lock();
        let compactions = &timings.compactions;
        let one = |name, buckets: &Buckets| family(name, vec![histogram(buckets, &[])]);
        let applied = timings.applications.durations.iter();
        let applied = applied.map(|(op, is_ok, buckets)| {
            let success = if *is_ok { "true" } else { "false" };
            let labels = [("op", *op), ("success", success), ("version", "v3")];
            histogram(buckets, &labels)
        });
        let families = vec![
            one(WAL_FSYNC, &timings.wal_fsync),
            one(WAL_WRITE, &timings.wal_write),
            one(BACKEND_COMMIT, &timings.backend_commit),
            one(LEASE_TTL, &timings.applications.lease_ttls),
            one(INDEX_COMPACTION_PAUSE, &compactions.index_pauses_ms),
            one(COMPACTION_PAUSE, &compactions.pauses_ms),
            one(COMPACTION_TOTAL, &compactions.totals_ms),
            family(APPLY, applied.collect()),
        ];
        families
            .into_iter()
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

fn family((name, help): (&str, &str), metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics);
    family
}

fn histogram(buckets: &Buckets, labels: &[(&str, &str)]) -> Metric {
    let (mut metric, mut histogram) = (Metric::default(), Histogram::default());
    let of_bounds = buckets.cumulative.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(*count);
        bucket.set_upper_bound(*bound);
        bucket
    });
    histogram.set_bucket(of_bounds.collect());
    histogram.set_sample_count(buckets.count);
    histogram.set_sample_sum(buckets.sum);
    metric.set_histogram(histogram);
    let labels = labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    metric.set_label(labels.collect());
    metric
}

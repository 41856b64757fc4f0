//! What an operator asks for that takes long: defragmentations and snapshots.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntGauge, Registry, exponential_buckets};

use super::Registrar;

pub(crate) struct UpkeepMetrics {
    defragmentations: Histogram,
    defragmenting: IntGauge,
    snapshots: Histogram,
}

impl UpkeepMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, (first, buckets)| {
            let buckets = exponential_buckets(first, 2.0, buckets)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        Ok(Self {
            defragmentations: histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "How long defragmentations took.",
                (0.1, 13),
            )?,
            defragmenting: Registrar(registry).gauge(
                "etcd_disk_defrag_inflight",
                "1 while the store is being defragmented.",
            )?,
            snapshots: histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "How long snapshots took to be sent.",
                (0.01, 17),
            )?,
        })
    }

    pub(crate) fn defragmentation_began(&self) {
        self.defragmenting.inc();
    }

    /// One has ended, and was done or not.
    pub(crate) fn defragmentation_ended(&self) {
        self.defragmenting.dec();
    }

    pub(crate) fn defragmented(&self, took: Duration) {
        self.defragmentations.observe(took.as_secs_f64());
    }

    pub(crate) fn snapshot_sent(&self, took: Duration) {
        self.snapshots.observe(took.as_secs_f64());
    }
}

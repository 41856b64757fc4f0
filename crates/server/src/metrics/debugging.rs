//! What etcd shows under `etcd_debugging_`, its features, and how long ranges and hashes take.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntGaugeVec, Registry, exponential_buckets,
};
use raft::Applications;

use super::Registrar;
use crate::EtcdServer;

/// Features by name, stage and whether they are on.
pub type Features = Vec<(&'static str, &'static str, bool)>;

/// What of the configuration changes what is counted or shown.
#[derive(Clone, Debug, Default)]
pub struct MetricsConfig {
    /// Whether it is counted how long each gRPC method takes (`--metrics=extensive`).
    pub is_extensive: bool,
    /// For `etcd_server_feature_enabled`.
    pub features: Features,
}

pub(super) struct DebuggingMetrics {
    leases_granted: IntCounter,
    leases_revoked: IntCounter,
    leases_expired: IntCounter,
    pub(super) leases_renewed: IntCounter,
    alarms: IntGaugeVec,
    ranges: HistogramVec,
    hashes: Histogram,
    hashes_of_revisions: Histogram,
}

impl DebuggingMetrics {
    pub(super) fn register(registry: &Registry, features: &Features) -> prometheus::Result<Self> {
        let registrar = Registrar(registry);
        let counter = |name: &str, help: &str| registrar.counter(name, help);
        let enabled = registrar.gauges(
            "etcd_server_feature_enabled",
            "1 if the feature is on.",
            &["name", "stage"],
        )?;
        for (name, stage, is_on) in features {
            enabled
                .with_label_values(&[name, stage])
                .set((*is_on).into());
        }
        let hash = |name: &str, help: &str| {
            // 10 ms to 163 s, as etcd's.
            let buckets = exponential_buckets(0.01, 2.0, 15)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        let options = HistogramOpts::new(
            "etcd_server_range_duration_seconds",
            "How long ranges took to be read.",
        );
        let buckets = exponential_buckets(0.0001, 2.0, 20)?;
        let ranges = HistogramVec::new(options.buckets(buckets), &["success"])?;
        registry.register(Box::new(ranges.clone()))?;
        Ok(Self {
            leases_granted: counter("etcd_debugging_lease_granted_total", "Leases granted.")?,
            leases_revoked: counter("etcd_debugging_lease_revoked_total", "Leases revoked.")?,
            leases_expired: counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases that had expired and were revoked.",
            )?,
            leases_renewed: counter("etcd_debugging_lease_renewed_total", "Leases renewed.")?,
            alarms: registrar.gauges(
                "etcd_debugging_server_alarms",
                "Alarms that stand.",
                &["server_id", "alarm_type"],
            )?,
            ranges,
            hashes: hash("etcd_mvcc_hash_duration_seconds", "How long Hash took.")?,
            hashes_of_revisions: hash(
                "etcd_mvcc_hash_rev_duration_seconds",
                "How long HashKV took.",
            )?,
        })
    }

    pub(super) fn read(&self, server: &EtcdServer, applications: &Applications) {
        let show = |counter: &IntCounter, value| {
            counter.reset();
            counter.inc_by(value);
        };
        show(&self.leases_granted, applications.leases_granted);
        show(&self.leases_revoked, applications.leases_revoked);
        show(&self.leases_expired, applications.leases_expired);
        self.alarms.reset();
        for alarm in server.views().alarms.list() {
            self.alarms
                .with_label_values(&[&alarm.member.to_string(), alarm.kind.name()])
                .set(1);
        }
    }

    pub(super) fn range(&self, is_ok: bool, took: Duration) {
        let success = if is_ok { "true" } else { "false" };
        self.ranges
            .with_label_values(&[success])
            .observe(took.as_secs_f64());
    }

    pub(super) fn hash(&self, is_of_revision: bool, took: Duration) {
        let histogram = if is_of_revision {
            &self.hashes_of_revisions
        } else {
            &self.hashes
        };
        histogram.observe(took.as_secs_f64());
    }
}

//! What is counted of backups. kvorum's own; a member shows what it knows, so look at the newest of all.

use std::time::{Duration, SystemTime};

use backup::Metadata;
use prometheus::{Gauge, IntCounter, IntGauge, Registry};

use super::protocol::unix_ms;

pub(super) struct BackupMetrics {
    last_success: Gauge,
    last_duration: Gauge,
    last_bytes: IntGauge,
    last_revision: IntGauge,
    taken: IntCounter,
    failures: IntCounter,
    is_overdue: IntGauge,
    archived_revision: IntGauge,
}

impl BackupMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            last_success: Gauge::new(
                "kvorum_backup_last_success_timestamp_seconds",
                "When the last good backup that this member knows of was taken.",
            )?,
            last_duration: Gauge::new("kvorum_backup_last_duration_seconds", "How long it took.")?,
            last_bytes: IntGauge::new("kvorum_backup_last_size_bytes", "Bytes of its file.")?,
            last_revision: IntGauge::new("kvorum_backup_last_revision", "Its revision.")?,
            taken: IntCounter::new(
                "kvorum_backup_success_total",
                "Backups that this member has taken.",
            )?,
            failures: IntCounter::new(
                "kvorum_backup_failures_total",
                "Backups and segments of the archive that no member could make, counted by the leader.",
            )?,
            is_overdue: IntGauge::new(
                "kvorum_backup_overdue",
                "Whether the last good backup is older than --backup-age-max, as the leader knows.",
            )?,
            archived_revision: IntGauge::new(
                "kvorum_backup_archived_revision",
                "Up to where changes are archived, as this member knows.",
            )?,
        };
        registry.register(Box::new(metrics.last_success.clone()))?;
        registry.register(Box::new(metrics.last_duration.clone()))?;
        for gauge in [
            &metrics.last_bytes,
            &metrics.last_revision,
            &metrics.is_overdue,
            &metrics.archived_revision,
        ] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&metrics.taken, &metrics.failures] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(metrics)
    }

    /// This member has taken a backup.
    pub(super) fn taken(&self, backup: &Metadata, took: Duration) {
        self.taken.inc();
        self.known(backup);
        self.last_duration.set(took.as_secs_f64());
    }

    /// There is a backup, by whomever.
    pub(super) fn known(&self, backup: &Metadata) {
        self.last_success.set(seconds(backup.taken()));
        self.last_duration
            .set(Duration::from_millis(backup.took_ms).as_secs_f64());
        self.last_bytes
            .set(i64::try_from(backup.file_bytes).unwrap_or(i64::MAX));
        self.last_revision.set(backup.revision);
    }

    pub(super) fn archived(&self, revision: i64) {
        self.archived_revision.set(revision);
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn overdue(&self, is_overdue: bool) {
        self.is_overdue.set(is_overdue.into());
    }
}

/// Prometheus knows no other numbers; a float has room for milliseconds.
fn seconds(at: SystemTime) -> f64 {
    unix_ms(at) as f64 / 1000.0
}

//! The store: its size, its revisions, its watchers, and what was done to it.

use std::sync::atomic::{AtomicU64, Ordering};

use apply::CompactionCounts;
use mvcc::Range;
use prometheus::{IntCounter, IntGauge};
use raft::Applications;
use types::KeyRange;

use super::{Registrar, gauge_value};
use crate::EtcdServer;

pub(super) struct StoreMetrics {
    pub(super) put: IntCounter,
    pub(super) delete: IntCounter,
    pub(super) txn: IntCounter,
    pub(super) range: IntCounter,
    /// Ranges that were read outside of the log.
    pub(super) ranges_read: AtomicU64,
    pub(super) db_total_size: IntGauge,
    pub(super) db_total_size_in_use: IntGauge,
    pub(super) keys: IntGauge,
    pub(super) current_revision: IntGauge,
    pub(super) auth_revision: IntGauge,
    pub(super) compact_revision: IntGauge,
    pub(super) watch_streams: IntGauge,
    pub(super) watchers: IntGauge,
    pub(super) slow_watchers: IntGauge,
    pub(super) events: IntCounter,
    pub(super) put_bytes: IntGauge,
    pub(super) compaction_last: IntGauge,
    pub(super) compaction_keys: IntCounter,
}

impl StoreMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| registrar.gauge(name, help);
        let counter = |name: &str, help: &str| registrar.counter(name, help);
        Ok(Self {
            put: counter("etcd_mvcc_put_total", "Puts seen by this member.")?,
            delete: counter("etcd_mvcc_delete_total", "Deletes seen by this member.")?,
            txn: counter("etcd_mvcc_txn_total", "Transactions seen by this member.")?,
            range: counter("etcd_mvcc_range_total", "Ranges seen by this member.")?,
            ranges_read: AtomicU64::new(0),
            db_total_size: gauge("etcd_mvcc_db_total_size_in_bytes", "The state on the disk.")?,
            db_total_size_in_use: gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "What of the state is not compacted.",
            )?,
            keys: gauge("etcd_debugging_mvcc_keys_total", "Keys.")?,
            current_revision: gauge("etcd_debugging_mvcc_current_revision", "The revision.")?,
            auth_revision: gauge(
                "etcd_debugging_auth_revision",
                "The revision of users and roles.",
            )?,
            compact_revision: gauge(
                "etcd_debugging_mvcc_compact_revision",
                "The revision up to which history is gone.",
            )?,
            watch_streams: gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.")?,
            watchers: gauge("etcd_debugging_mvcc_watcher_total", "Watchers.")?,
            slow_watchers: gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Unsynced watchers.",
            )?,
            events: counter(
                "etcd_debugging_mvcc_events_total",
                "Events sent to watchers.",
            )?,
            put_bytes: gauge(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "Bytes of the keys and values put on this member.",
            )?,
            compaction_last: gauge(
                "etcd_debugging_mvcc_db_compaction_last",
                "When the last compaction ended, Unix time; 0 if there was none since the start.",
            )?,
            compaction_keys: counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Revisions that compactions removed from the disk.",
            )?,
        })
    }

    /// Reads them off the member.
    pub(super) fn read(
        &self,
        server: &EtcdServer,
        applications: &Applications,
        compactions: &CompactionCounts,
    ) {
        let put_bytes = server.views().store.put_bytes();
        self.put_bytes.set(gauge_value(put_bytes));
        self.compaction_last.set(gauge_value(compactions.last_s));
        self.compaction_keys.reset();
        self.compaction_keys.inc_by(compactions.keys);
        let view = server.views().store.view();
        self.current_revision.set(view.revision());
        self.auth_revision
            .set(gauge_value(server.views().auth.revision()));
        self.compact_revision.set(view.compact_revision());
        self.db_total_size.set(gauge_value(server.db_size()));
        self.db_total_size_in_use
            .set(gauge_value(server.db_size_in_use()));
        let keys = Range {
            keys: KeyRange::all(),
            at: None,
            limit: None,
            count_only: true,
        };
        if let Ok(found) = view.range(&keys) {
            self.keys
                .set(i64::try_from(found.count).unwrap_or(i64::MAX));
        }
        let watch = server.views().store.watch_counts();
        self.watch_streams.set(gauge_value(watch.streams as u64));
        self.watchers.set(gauge_value(watch.watchers as u64));
        self.slow_watchers
            .set(gauge_value(watch.slow_watchers as u64));
        self.count(applications);
    }

    /// Shows what applying has come to.
    fn count(&self, applications: &Applications) {
        let show = |counter: &IntCounter, value| {
            counter.reset();
            counter.inc_by(value);
        };
        show(&self.put, applications.puts);
        show(&self.delete, applications.deletes);
        show(&self.txn, applications.txns);
        let read = self.ranges_read.load(Ordering::Relaxed);
        show(&self.range, applications.ranges + read);
    }
}

//! The member's part in the cluster: leader, proposals, learners, the log.

use super::{Registrar, gauge_value};
use crate::EtcdServer;
use apply::Quota;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

pub(super) struct ServerMetrics {
    pub(super) has_leader: IntGauge,
    pub(super) is_leader: IntGauge,
    pub(super) is_learner: IntGauge,
    pub(super) leader_changes_seen: IntCounter,
    pub(super) proposals_committed: IntGauge,
    pub(super) proposals_applied: IntGauge,
    pub(super) proposals_pending: IntGauge,
    pub(super) proposals_failed: IntCounter,
    pub(super) slow_apply: IntCounter,
    pub(super) slow_read_indexes: IntCounter,
    pub(super) read_indexes_failed: IntCounter,
    pub(super) quota_backend_bytes: IntGauge,
    pub(super) heartbeat_send_failures: IntCounter,
    pub(super) snapshot_apply_in_progress: IntGauge,
    pub(super) wal_write_bytes: IntGauge,
    pub(super) learner_promote_successes: IntCounter,
    pub(super) learner_promote_failures: IntCounterVec,
}

impl ServerMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            has_leader: registrar.gauge("etcd_server_has_leader", "1 if a leader is known.")?,
            is_leader: registrar.gauge("etcd_server_is_leader", "1 if this member leads.")?,
            is_learner: registrar.gauge("etcd_server_is_learner", "1 if it has no vote.")?,
            leader_changes_seen: registrar
                .counter("etcd_server_leader_changes_seen_total", "New leaders seen.")?,
            proposals_committed: registrar.gauge(
                "etcd_server_proposals_committed_total",
                "Log entries committed.",
            )?,
            proposals_applied: registrar.gauge(
                "etcd_server_proposals_applied_total",
                "Log entries applied.",
            )?,
            proposals_pending: registrar.gauge(
                "etcd_server_proposals_pending",
                "Proposals without an outcome yet.",
            )?,
            proposals_failed: registrar.counter(
                "etcd_server_proposals_failed_total",
                "Proposals that failed.",
            )?,
            slow_apply: registrar.counter(
                "etcd_server_slow_apply_total",
                "Requests that took too long.",
            )?,
            slow_read_indexes: registrar.counter(
                "etcd_server_slow_read_indexes_total",
                "Read indexes not had in time.",
            )?,
            read_indexes_failed: registrar.counter(
                "etcd_server_read_indexes_failed_total",
                "Read indexes that failed.",
            )?,
            quota_backend_bytes: registrar
                .gauge("etcd_server_quota_backend_bytes", "The quota, in bytes.")?,
            heartbeat_send_failures: registrar.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats that were sent late: the leader is overloaded.",
            )?,
            snapshot_apply_in_progress: registrar.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 while a received state is put in the place of the member's own.",
            )?,
            wal_write_bytes: registrar.gauge(
                "etcd_disk_wal_write_bytes_total",
                "Bytes of commands in the log.",
            )?,
            learner_promote_successes: registrar.counter(
                "etcd_server_learner_promote_successes",
                "Learners promoted.",
            )?,
            learner_promote_failures: registrar.counters(
                "etcd_server_learner_promote_failures",
                "Promotions that were refused.",
                &["Reason"],
            )?,
        })
    }

    /// Reads them off the member.
    pub(super) fn read(&self, server: &EtcdServer) {
        let status = server.node().status();
        self.has_leader.set(status.leader.is_some().into());
        self.is_leader.set(server.is_leader().into());
        self.is_learner.set(server.is_learner().into());
        self.proposals_committed
            .set(gauge_value(status.committed_index));
        self.proposals_applied
            .set(gauge_value(status.applied_index));
        self.quota_backend_bytes.set(match server.config().quota {
            Quota::Bytes(bytes) => gauge_value(bytes),
            Quota::Unlimited => 0,
        });
        let raft = server.node().metrics();
        self.wal_write_bytes.set(gauge_value(raft.log_bytes));
        let late = &self.heartbeat_send_failures;
        late.inc_by(raft.late_heartbeats.saturating_sub(late.get()));
        self.snapshot_apply_in_progress
            .set(gauge_value(raft.installing));
    }
}

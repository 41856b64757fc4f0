//! What applying has come to so far, under the names that etcd's metrics have for it.
//!
//! Counted on every member, whoever was asked, as etcd does. What this is not: part of the state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apply::{AuthCommand, Command, OpReply, Rejection, Reply, TxnReply};
use types::{Buckets, Histogram};

/// The names of commands (`op` of `etcd_server_apply_duration_seconds`).
const OPS: [&str; 23] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "ClusterMemberAttrSet",
    "AuthEnable",
    "AuthDisable",
    "Authenticate",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
    "ClusterVersionSet",
    "DowngradeInfoSet",
];

/// What was counted of the commands applied since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applications {
    /// How long commands took, by their name and whether they were carried out. Those that did not
    /// occur are left out.
    pub durations: Vec<(&'static str, bool, Buckets)>,
    /// Puts, also those of transactions (`etcd_mvcc_put_total`).
    pub puts: u64,
    /// Deletes (`etcd_mvcc_delete_total`).
    pub deletes: u64,
    /// Ranges of transactions.
    pub ranges: u64,
    /// Transactions of more than one operation (`etcd_mvcc_txn_total`).
    pub txns: u64,
    /// Leases made (`etcd_debugging_lease_granted_total`).
    pub leases_granted: u64,
    /// Leases revoked (`etcd_debugging_lease_revoked_total`).
    pub leases_revoked: u64,
    /// Leases that this member has revoked as the leader because they had expired
    /// (`etcd_debugging_server_lease_expired_total`).
    pub leases_expired: u64,
    /// Their TTLs (`etcd_debugging_lease_ttl_total`).
    pub lease_ttls: Buckets,
}

/// Counts them. The numbers change one by one.
#[derive(Debug)]
pub(crate) struct ApplyCounts {
    /// By name; refused and carried out.
    durations: Vec<[Histogram; 2]>,
    puts: AtomicU64,
    deletes: AtomicU64,
    ranges: AtomicU64,
    txns: AtomicU64,
    leases_granted: AtomicU64,
    leases_revoked: AtomicU64,
    leases_expired: AtomicU64,
    lease_ttls: Histogram,
}

impl Default for ApplyCounts {
    fn default() -> Self {
        // 0.1 ms to 52 s, as etcd's.
        let histogram = || Histogram::doubling(0.0001, 20);
        Self {
            durations: OPS.iter().map(|_| [histogram(), histogram()]).collect(),
            puts: AtomicU64::default(),
            deletes: AtomicU64::default(),
            ranges: AtomicU64::default(),
            txns: AtomicU64::default(),
            leases_granted: AtomicU64::default(),
            leases_revoked: AtomicU64::default(),
            leases_expired: AtomicU64::default(),
            lease_ttls: Histogram::doubling(1.0, 24),
        }
    }
}

impl ApplyCounts {
    pub(crate) fn applied(
        &self,
        command: &Command,
        outcome: &Result<Reply, Rejection>,
        took: Duration,
    ) {
        if let Some(place) = OPS.iter().position(|op| *op == name(command)) {
            self.durations[place][usize::from(outcome.is_ok())].observe(took);
        }
        let Ok(reply) = outcome else {
            return;
        };
        match (command, reply) {
            (_, Reply::Put { .. }) => add(&self.puts),
            (_, Reply::DeleteRange { .. }) => add(&self.deletes),
            (_, Reply::Txn { txn, .. }) => self.count_txn(txn),
            (Command::LeaseGrant { ttl_s, .. }, _) => {
                add(&self.leases_granted);
                let ttl = u32::try_from(*ttl_s).unwrap_or(u32::MAX);
                self.lease_ttls.observe_number(ttl);
            }
            (Command::LeaseRevoke { .. }, _) => add(&self.leases_revoked),
            _ => {}
        }
    }

    /// Counts leases that have expired and are revoked.
    pub(crate) fn expired(&self, leases: usize) {
        let leases = u64::try_from(leases).unwrap_or(u64::MAX);
        self.leases_expired.fetch_add(leases, Ordering::Relaxed);
    }

    /// As etcd: one of a single operation counts as that operation only.
    fn count_txn(&self, txn: &TxnReply) {
        if self.count_ops(txn) > 1 {
            add(&self.txns);
        }
    }

    /// Counts the operations that a transaction did, and returns how many.
    fn count_ops(&self, txn: &TxnReply) -> usize {
        let mut ops = 0;
        for (_, reply) in &txn.responses {
            ops += match reply {
                OpReply::Txn(nested) => self.count_ops(nested),
                OpReply::Range(_) | OpReply::Put(_) | OpReply::DeleteRange(_) => 1,
            };
            match reply {
                OpReply::Range(_) => add(&self.ranges),
                OpReply::Put(_) => add(&self.puts),
                OpReply::DeleteRange(_) => add(&self.deletes),
                OpReply::Txn(_) => {}
            }
        }
        ops
    }

    pub(crate) fn read(&self) -> Applications {
        let mut durations = Vec::new();
        for (op, outcomes) in OPS.iter().zip(&self.durations) {
            for (is_ok, histogram) in [false, true].into_iter().zip(outcomes) {
                let buckets = histogram.read();
                if buckets.count > 0 {
                    durations.push((*op, is_ok, buckets));
                }
            }
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Applications {
            durations,
            puts: read(&self.puts),
            deletes: read(&self.deletes),
            ranges: read(&self.ranges),
            txns: read(&self.txns),
            leases_granted: read(&self.leases_granted),
            leases_revoked: read(&self.leases_revoked),
            leases_expired: read(&self.leases_expired),
            lease_ttls: self.lease_ttls.read(),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// etcd's name for a command (`applierV3`).
fn name(command: &Command) -> &'static str {
    match command {
        Command::Put(_) => "Put",
        Command::DeleteRange(_) => "DeleteRange",
        Command::Txn(_) => "Txn",
        Command::Compact { .. } => "Compaction",
        Command::LeaseGrant { .. } => "LeaseGrant",
        Command::LeaseRevoke { .. } => "LeaseRevoke",
        Command::LeaseCheckpoint { .. } => "LeaseCheckpoint",
        Command::Alarm { .. } => "Alarm",
        Command::PublishMember(_) => "ClusterMemberAttrSet",
        Command::Auth(command) => auth_name(command),
        Command::ClusterVersionSet { .. } => "ClusterVersionSet",
        Command::DowngradeInfoSet { .. } => "DowngradeInfoSet",
    }
}

const fn auth_name(command: &AuthCommand) -> &'static str {
    match command {
        AuthCommand::Enable => "AuthEnable",
        AuthCommand::Disable => "AuthDisable",
        AuthCommand::Authenticate { .. } => "Authenticate",
        AuthCommand::UserAdd { .. } => "AuthUserAdd",
        AuthCommand::UserDelete { .. } => "AuthUserDelete",
        AuthCommand::UserChangePassword { .. } => "AuthUserChangePassword",
        AuthCommand::UserGrantRole { .. } => "AuthUserGrantRole",
        AuthCommand::UserRevokeRole { .. } => "AuthUserRevokeRole",
        AuthCommand::RoleAdd { .. } => "AuthRoleAdd",
        AuthCommand::RoleDelete { .. } => "AuthRoleDelete",
        AuthCommand::RoleGrantPermission { .. } => "AuthRoleGrantPermission",
        AuthCommand::RoleRevokePermission { .. } => "AuthRoleRevokePermission",
    }
}

#[cfg(test)]
mod tests {
    use types::LeaseId;

    use super::*;

    #[test]
    fn what_was_applied_is_counted_by_its_name_and_outcome() {
        let counts = ApplyCounts::default();
        let grant = Command::LeaseGrant {
            id: LeaseId(1),
            ttl_s: 100,
        };
        let done = Ok(Reply::Done { revision: 1 });
        counts.applied(&grant, &done, Duration::from_millis(1));
        let compact = Command::Compact { revision: 5 };
        counts.applied(&compact, &Err(Rejection::Compacted), Duration::ZERO);
        let read = counts.read();
        assert_eq!(read.leases_granted, 1);
        assert_eq!(read.lease_ttls.cumulative[6..8], [(64.0, 0), (128.0, 1)]);
        let names: Vec<_> = read
            .durations
            .iter()
            .map(|(op, ok, _)| (*op, *ok))
            .collect();
        assert_eq!(names, [("Compaction", false), ("LeaseGrant", true)]);
    }
}

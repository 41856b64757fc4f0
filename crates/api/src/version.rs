//! The versions that kvorum announces. Clients and peers switch their behaviour on etcd's; ours is
//! shown beside it.

/// The etcd version whose behaviour kvorum has: `Status.version`, `/version`, `--version`. A plain
/// semver, because Kubernetes turns features off for anything else.
pub const ETCD_VERSION: &str = "3.6.14";
/// The newest version of what a snapshot holds, in etcd's counting.
pub const STORAGE_VERSION: &str = "3.6.0";
/// The oldest cluster that a member of this version can join.
pub const MIN_CLUSTER_VERSION: &str = "3.0.0";
/// kvorum's own version.
pub const KVORUM_VERSION: &str = env!("CARGO_PKG_VERSION");

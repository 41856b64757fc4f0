//! What the leader does about the cluster's version: it is the lowest that any member announces, or
//! the target of a downgrade (`server/etcdserver/version/monitor.go`).
//!
//! A member changes nothing when the cluster's version does, because its data have a format of their
//! own: what follows the version is what clients, tools and members that want to join are told, and
//! what kind of database a snapshot says it is.

use std::fmt;
use std::time::Duration;

use api::version::{ETCD_VERSION, MIN_CLUSTER_VERSION};
use apply::{ClusterVersions, Command};
use types::Version;

use crate::EtcdServer;

/// How often it is looked whether the cluster's version has to change; Raft asks the peers about as
/// often for theirs.
// Differs from etcd: it looks every five seconds, and opens connections for it.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same, as long as it has none.
const UNDECIDED_INTERVAL: Duration = Duration::from_millis(100);

/// What is to become of the cluster's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stay,
    Set(Version),
    /// There is a downgrade that cannot be.
    Invalid {
        target: Version,
        from: Version,
    },
}

/// What every member announces; `None`: one of them is not known.
type Announced = Option<Vec<Version>>;

/// The cluster's next version. New versions come when all members have them.
fn decide(versions: ClusterVersions, announced: &Announced) -> Step {
    let lowest = announced
        .as_ref()
        .and_then(|versions| versions.iter().min().copied());
    let Some(cluster) = versions.cluster else {
        return Step::Set(lowest.unwrap_or_else(oldest));
    };
    let Some(lowest) = lowest else {
        return Step::Stay;
    };
    if let Some(target) = versions.downgrade {
        if target == cluster {
            return Step::Stay;
        }
        let wrong = [cluster, lowest]
            .into_iter()
            .find(|from| from.before() != Some(target));
        return match wrong {
            Some(from) => Step::Invalid { target, from },
            None => Step::Set(target),
        };
    }
    if cluster < lowest && cluster.major == lowest.major {
        Step::Set(lowest)
    } else {
        Step::Stay
    }
}

/// Whether all members are where the downgrade leads.
fn has_ended(target: Version, announced: &Announced) -> bool {
    let announced = announced.as_ref();
    announced.is_some_and(|all| all.iter().all(|version| *version == target))
}

fn oldest() -> Version {
    Version::parse(MIN_CLUSTER_VERSION).expect("our versions are versions")
}

/// This member's own version.
fn own() -> Version {
    Version::parse(ETCD_VERSION).expect("our versions are versions")
}

/// Runs until the member stops. `downgrade_check_interval` is how often it is looked whether a
/// downgrade has ended; zero is never.
pub(crate) async fn watch(server: &EtcdServer, downgrade_check_interval: Duration) {
    tokio::join!(
        watch_version(server),
        watch_downgrade(server, downgrade_check_interval)
    );
}

async fn watch_version(server: &EtcdServer) {
    let mut status = server.node().watch_status();
    let mut told = None;
    loop {
        // The first entries of a new cluster say who its members are.
        let knows_itself = server
            .views()
            .cluster
            .member(server.config().member)
            .is_some();
        if server.is_leader() && knows_itself {
            let step = decide(server.views().versions.get(), &announced(server));
            match step {
                Step::Stay => {}
                Step::Set(version) => set(server, version).await,
                // Once, and not every second.
                Step::Invalid { target, from } if told != Some(step) => tracing::error!(
                    "downgrade-target" = %target,
                    %from,
                    "Cannot downgrade to downgrade-target"
                ),
                Step::Invalid { .. } => {}
            }
            told = Some(step);
        }
        let undecided = server.views().versions.get().cluster.is_none();
        let interval = if undecided {
            UNDECIDED_INTERVAL
        } else {
            INTERVAL
        };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            // A new leader decides at once.
            changed = status.changed(), if undecided => if changed.is_err() {
                return;
            },
        }
    }
}

async fn set(server: &EtcdServer, version: Version) {
    let to = version.short();
    match server.views().versions.get().cluster {
        None => tracing::info!(
            "cluster-version" = to,
            "setting up initial cluster version using v3 API"
        ),
        Some(from) => tracing::info!(
            from = from.short(),
            to,
            "updating cluster version using v3 API"
        ),
    }
    let set = Command::ClusterVersionSet { version }.by_member();
    match server.propose_unchecked(set).await {
        Ok(_) => tracing::info!("cluster-version" = to, "cluster version is updated"),
        Err(error) => tracing::warn!(%error, "failed to update cluster version"),
    }
}

async fn watch_downgrade(server: &EtcdServer, interval: Duration) {
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        let Some(target) = server.views().versions.get().downgrade else {
            continue;
        };
        if !server.is_leader() || !has_ended(target, &announced(server)) {
            continue;
        }
        tracing::info!("cluster-version" = %target, "the cluster has been downgraded");
        let end = Command::DowngradeInfoSet { target: None }.by_member();
        if let Err(error) = server.propose_unchecked(end).await {
            tracing::warn!(%error, "failed to cancel downgrade");
        }
    }
}

/// What the members announce now.
fn announced(server: &EtcdServer) -> Announced {
    let peers = server.node().peers();
    let version = |id| {
        if id == server.config().member {
            return Some(own());
        }
        let peer = peers.iter().find(|peer| peer.id == id)?;
        peer.active_since?;
        Version::parse(&peer.version)
    };
    let members = server.views().cluster.members();
    members
        .into_iter()
        .map(|member| version(member.id))
        .collect()
}

/// What a member shows of versions.
#[derive(Clone, Copy, Debug)]
pub struct ShownVersions(ClusterVersions);

impl ShownVersions {
    /// By what the log says.
    #[must_use]
    pub const fn new(versions: ClusterVersions) -> Self {
        Self(versions)
    }

    /// What kind of database a snapshot is: one of the cluster's version. Ours can be any.
    #[must_use]
    pub fn storage(self) -> Version {
        etcdfile::storage_version(self.0.cluster)
    }
}

/// The body of `/version`.
impl fmt::Display for ShownVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = match self.0.cluster {
            Some(version) => version.to_string(),
            None => "not_decided".to_owned(),
        };
        write!(
            f,
            r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{cluster}","storage":"{}"}}"#,
            self.storage()
        )
    }
}

#[cfg(test)]
mod tests;

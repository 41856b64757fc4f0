//! Who this member is: its id and its cluster's.
//!
//! They are computed once, from the initial cluster, and then stay with the data, whatever
//! `--initial-cluster` says later: as in etcd, whose log keeps them in its first record.

use backend::schema::raft::{RaftMetaKey, encode_meta};
use backend::{Backend, Batch, Bucket};
use types::{ClusterId, MemberId, Url};

use crate::config::{ClusterState, Config, InitialCluster, InitialMember};
use crate::error::{BootstrapError, StartError};

/// A member's id and its cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) member: MemberId,
    pub(super) cluster: ClusterId,
}

/// The ids in the log's store, or, when it is new, those that the initial cluster gives, which are
/// durable on return.
pub(super) fn load_or_create(log: &mut Backend, config: &Config) -> Result<Identity, StartError> {
    let stored = log
        .reader
        .get(Bucket::RaftMeta, encode_meta(RaftMetaKey::Identity))
        .map_err(|source| StartError::ReadIdentity(Box::new(source)))?;
    if let Some(stored) = stored {
        return Identity::decode(&stored).ok_or(StartError::Identity { len: stored.len() });
    }
    let identity = bootstrap(config)?;
    let mut batch = Batch::new();
    batch.put(
        Bucket::RaftMeta,
        encode_meta(RaftMetaKey::Identity),
        identity.encode(),
    );
    let write_identity = |source| StartError::WriteIdentity(Box::new(source));
    log.writer.commit(batch).map_err(write_identity)?;
    log.writer.flush_durable().map_err(write_identity)?;
    Ok(identity)
}

/// The ids that a new member gets, if the initial cluster is one that it can begin.
fn bootstrap(config: &Config) -> Result<Identity, BootstrapError> {
    let cluster = &config.initial_cluster;
    let this = cluster
        .member(&config.name)
        .ok_or_else(|| BootstrapError::NotAMember {
            name: config.name.clone(),
        })?;
    check_urls(cluster, this, &config.advertise_peer_urls)?;
    if cluster.state == ClusterState::Existing {
        return Err(BootstrapError::Joining);
    }
    if cluster.members.len() > 1 {
        let (count, cluster) = (cluster.members.len(), cluster.to_string());
        return Err(BootstrapError::SeveralMembers { count, cluster });
    }
    Ok(Identity {
        member: cluster.member_id(this),
        cluster: cluster.cluster_id(),
    })
}

fn check_urls(
    cluster: &InitialCluster,
    this: &InitialMember,
    advertised: &[Url],
) -> Result<(), BootstrapError> {
    let mut all: Vec<&Url> = cluster.members.iter().flat_map(|m| &m.peer_urls).collect();
    all.sort_unstable();
    if all.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(BootstrapError::DuplicateUrl {
            cluster: cluster.to_string(),
        });
    }
    let missing = |these: &[Url], those: &[Url]| -> Vec<Url> {
        these
            .iter()
            .filter(|url| !those.contains(url))
            .cloned()
            .collect()
    };
    let unknown = missing(advertised, &this.peer_urls);
    let unadvertised = missing(&this.peer_urls, advertised);
    let list = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
    if !unadvertised.is_empty() {
        let named: Vec<String> = unadvertised
            .iter()
            .map(|url| format!("{}={url}", this.name))
            .collect();
        let (has, advertised) = (named.join(","), list(advertised));
        return Err(BootstrapError::NotAdvertised { has, advertised });
    }
    if !unknown.is_empty() {
        let (has, cluster) = (list(&unknown), cluster.to_string());
        return Err(BootstrapError::NotInCluster { has, cluster });
    }
    Ok(())
}

impl Identity {
    fn encode(self) -> Vec<u8> {
        [self.member.0.to_be_bytes(), self.cluster.0.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (member, cluster) = bytes.split_first_chunk()?;
        let cluster = cluster.try_into().ok()?;
        Some(Self {
            member: MemberId(u64::from_be_bytes(*member)),
            cluster: ClusterId(u64::from_be_bytes(cluster)),
        })
    }

    /// How this member runs Raft. The initial member counts only while the log is empty, and then
    /// has the stored id, whatever became of the flags since.
    pub(super) fn raft_config(self, config: &Config) -> raft::Config {
        let peer_urls = config
            .advertise_peer_urls
            .iter()
            .map(Url::to_string)
            .collect();
        raft::Config {
            member: self.member,
            cluster: self.cluster,
            force_new_cluster: false,
            snapshot_catchup_entries: 5000,
            pre_vote: true,
            strict_reconfig_check: true,
            learners_max: 1,
            workers: apply::Workers::Threads,
            initial_members: vec![raft::Peer {
                id: self.member,
                name: config.name.clone(),
                peer_urls,
            }],
            heartbeat_interval: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            snapshot_count: config.snapshot_count,
            request_bytes_max: config.request_bytes_max,
        }
    }

    pub(super) fn log_start(self, config: &Config) {
        let list = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
        tracing::info!(
            "etcd-version" = api::version::ETCD_VERSION,
            "kvorum-version" = api::version::KVORUM_VERSION,
            name = config.name,
            "data-dir" = %config.data_dir.display(),
            "local-member-id" = %self.member,
            "cluster-id" = %self.cluster,
            "heartbeat-interval" = ?config.heartbeat_interval,
            "election-timeout" = ?config.election_timeout,
            "snapshot-count" = config.snapshot_count,
            "initial-advertise-peer-urls" = list(&config.advertise_peer_urls),
            "listen-peer-urls" = list(&config.listen_peer_urls),
            "advertise-client-urls" = list(&config.advertise_client_urls),
            "listen-client-urls" = list(&config.listen_client_urls),
            "listen-metrics-urls" = list(&config.listen_metrics_urls),
            "initial-cluster" = %config.initial_cluster,
            "initial-cluster-token" = config.initial_cluster.token,
            quota = ?config.quota,
            "max-request-bytes" = config.request_bytes_max,
            "auto-compaction" = ?config.auto_compaction,
            "starting an etcd server",
        );
    }
}

#[cfg(test)]
mod tests;

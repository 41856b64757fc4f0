//! Who this member is: its id and its cluster's.
//!
//! They are found once, by [`bootstrap`](super::bootstrap), and then stay with the data, whatever
//! `--initial-cluster` says later: as in etcd, whose log keeps them in its first record.

use backend::schema::raft::{RaftMetaKey, encode_meta};
use backend::{Backend, Batch, Bucket};
use types::{ClusterId, MemberId, Url};

use crate::config::{ClusterState, Config, InitialCluster};
use crate::error::StartError;

/// A member's id and its cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
}

/// The ids in the log's store; `None` when it is new.
pub(super) fn load(log: &Backend) -> Result<Option<Identity>, StartError> {
    let stored = log
        .reader
        .get(Bucket::RaftMeta, encode_meta(RaftMetaKey::Identity))
        .map_err(|source| StartError::ReadIdentity(Box::new(source)))?;
    stored
        .map(|stored| Identity::decode(&stored).ok_or(StartError::Identity { len: stored.len() }))
        .transpose()
}

/// Whether the member has taken part in its cluster: it has voted, or heard from a leader.
pub(super) fn has_begun(log: &Backend) -> Result<bool, StartError> {
    let vote = log
        .reader
        .get(Bucket::RaftMeta, encode_meta(RaftMetaKey::Vote));
    let vote = vote.map_err(|source| StartError::ReadIdentity(Box::new(source)))?;
    Ok(vote.is_some())
}

/// Stores the ids; they are durable on return.
pub(crate) fn store(log: &mut Backend, identity: Identity) -> Result<(), StartError> {
    let mut batch = Batch::new();
    batch.put(
        Bucket::RaftMeta,
        encode_meta(RaftMetaKey::Identity),
        identity.encode(),
    );
    let write_identity = |source| StartError::WriteIdentity(Box::new(source));
    log.writer.commit(batch).map_err(write_identity)?;
    log.writer.flush_durable().map_err(write_identity)
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

    /// How this member runs Raft.
    pub(super) fn raft_config(self, config: &Config, initial: &InitialCluster) -> raft::Config {
        raft::Config {
            member: self.member,
            cluster: self.cluster,
            initial_members: self.initial_members(&config.name, initial),
            force_new_cluster: config.force_new_cluster,
            snapshot_catchup_entries: config.snapshot_catchup_entries,
            pre_vote: config.pre_vote,
            strict_reconfig_check: config.strict_reconfig_check,
            learners_max: config.learners_max,
            workers: apply::Workers::Threads,
            started_at: types::Clock::wall(&types::SystemClock),
            heartbeat_interval: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            read_timeout: config.raft_read_timeout,
            snapshot_count: config.snapshot_count,
            request_bytes_max: config.request_bytes_max,
        }
    }

    /// The members that begin the cluster; they count only while the log is empty. None if this
    /// member joins one, or if the flags speak of another cluster than the data.
    fn initial_members(self, name: &str, initial: &InitialCluster) -> Vec<raft::Peer> {
        let this = initial.member(name).map(|this| initial.member_id(this));
        let begins = initial.state == ClusterState::New
            && this == Some(self.member)
            && initial.cluster_id() == self.cluster;
        let members = initial.members.iter().filter(|_| begins);
        members
            .map(|member| raft::Peer {
                id: initial.member_id(member),
                name: member.name.clone(),
                peer_urls: member.peer_urls.iter().map(Url::to_string).collect(),
            })
            .collect()
    }

    pub(super) fn log_start(self, config: &Config, initial: &InitialCluster) {
        let list = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
        tracing::info!(
            "etcd-version" = api::version::ETCD_VERSION,
            "kvorum-version" = api::version::KVORUM_VERSION,
            name = config.name,
            "data-dir" = %config.data_dir.display(),
            "dedicated-wal-dir" = config.wal_dir.as_ref().map(|it| it.display().to_string()),
            "local-member-id" = %self.member,
            "cluster-id" = %self.cluster,
            "heartbeat-interval" = ?config.heartbeat_interval,
            "election-timeout" = ?config.election_timeout,
            "snapshot-count" = config.snapshot_count,
            "initial-advertise-peer-urls" = list(&config.advertise_peer_urls),
            "listen-peer-urls" = list(&config.listen_peer_urls),
            "advertise-client-urls" = list(&config.advertise_client_urls),
            "listen-client-urls" = list(&config.listen_client_urls),
            "listen-client-http-urls" = list(&config.listen_client_http_urls),
            "listen-metrics-urls" = list(&config.listen_metrics_urls),
            "initial-cluster" = %initial,
            "initial-cluster-token" = config.initial_cluster.token,
            "force-new-cluster" = config.force_new_cluster,
            "pre-vote" = config.pre_vote,
            "strict-reconfig-check" = config.strict_reconfig_check,
            "max-learners" = config.learners_max,
            quota = ?config.quota,
            "max-request-bytes" = config.request_bytes_max,
            "auto-compaction" = ?config.auto_compaction,
            "starting an etcd server",
        );
    }
}

//! What is in the data directory, opened in order, and Raft started on it.

use std::sync::Arc;

use api::version::ETCD_VERSION;
use apply::{ClusterVersions, Views};
use backend::{Backend, DataDir};
use tokio::task::spawn_blocking;
use transport::SharedDial;
use types::{Clock, Version};

use super::bootstrap;
use super::discovery::{self, NameServers};
use super::identity::{self, Identity};
use super::peer_client::PeerClient;
use super::tokens;
use crate::config::{ClusterState, Config, InitialCluster};
use crate::error::StartError;

/// Bytes of recent events kept for watchers.
const EVENT_LOG_BYTES_MAX: usize = 16 << 20;
/// The engine's cache for the log; what is read of it is in memory already.
const LOG_CACHE_BYTES: u64 = 4 << 20;
/// The engine's cache for the state; only old versions are read from it.
const STATE_CACHE_BYTES: u64 = 16 << 20;

/// What is opened from the data directory.
pub(super) struct Opened {
    data_dir: DataDir,
    pub(super) identity: Identity,
    /// The members that begin the cluster, from wherever they are known.
    pub(super) initial_cluster: InitialCluster,
    /// Whether the identity was there already.
    is_restart: bool,
    log: Backend,
    machine: apply::StateMachine,
    views: Views,
    persister: apply::Persister,
}

/// A member that takes part in its cluster, and serves nobody yet.
pub(super) struct Started {
    pub(super) data_dir: DataDir,
    pub(super) identity: Identity,
    pub(super) node: raft::Node,
    pub(super) views: Views,
    pub(super) persister: apply::Persister,
}

impl Opened {
    /// Opens what is in the data directory. A member without an identity asks its peers for one.
    pub(super) async fn open(
        config: &Arc<Config>,
        clock: &Arc<dyn Clock>,
        dial: &SharedDial,
        name_servers: &NameServers,
    ) -> Result<Self, StartError> {
        let (data_dir, mut log, stored) = {
            let config = Arc::clone(config);
            blocking(move || open_log(&config)).await?
        };
        let tokens = {
            let (settings, clock) = (config.auth.clone(), Arc::clone(clock));
            blocking(move || Ok(tokens::open(&settings, clock)?)).await?
        };
        let is_restart = stored.is_some();
        let (identity, initial_cluster) = match stored {
            Some(identity) => {
                if config.discovery.is_set() {
                    tracing::warn!(
                        "discovery token is ignored since cluster already initialized; valid logs \
                         are found",
                    );
                }
                (identity, config.initial_cluster.clone())
            }
            None => {
                let peers = PeerClient::new(Arc::clone(dial));
                Box::pin(first_start(config, clock, &peers, name_servers)).await?
            }
        };
        let apply_config = apply::Config {
            quota: config.quota,
            clock: Arc::clone(clock),
            tokens,
            mvcc: mvcc::Config {
                event_log_bytes_max: EVENT_LOG_BYTES_MAX,
            },
            scrub: config.compaction.steps(),
            workers: apply::Workers::Threads,
        };
        blocking(move || {
            if !is_restart {
                identity::store(&mut log, identity)?;
            }
            let path = data_dir.state_path();
            let state = open_store("state", path.clone(), STATE_CACHE_BYTES)?;
            let (machine, views, persister) =
                apply::open(state, &apply_config).map_err(|source| {
                    let source = Box::new(source);
                    StartError::State { path, source }
                })?;
            check_version(views.versions.get())?;
            Ok(Self {
                data_dir,
                identity,
                initial_cluster,
                is_restart,
                log,
                machine,
                views,
                persister,
            })
        })
        .await
    }

    /// Starts Raft.
    pub(super) async fn start(
        self,
        config: &Config,
        dial: SharedDial,
    ) -> Result<Started, StartError> {
        let raft_config = raft::Config {
            // Without data there is nothing to force.
            force_new_cluster: config.force_new_cluster && self.is_restart,
            ..self.identity.raft_config(config, &self.initial_cluster)
        };
        log_member(&raft_config, self.is_restart);
        let (views, persister) = (self.views, self.persister);
        let node = raft::Node::start(
            raft_config,
            self.log,
            self.machine,
            persister.clone(),
            views.clone(),
            dial,
        )
        .await
        .map_err(|source| {
            let (source, path) = (Box::new(source), self.data_dir.log_path());
            match *source {
                raft::StartError::Log(_) => StartError::Log { path, source },
                _ => StartError::Raft(source),
            }
        })?;
        Ok(Started {
            data_dir: self.data_dir,
            identity: self.identity,
            node,
            views,
            persister,
        })
    }
}

/// Whether this member speaks what its cluster has agreed on: else it is older than the others.
fn check_version(versions: ClusterVersions) -> Result<(), StartError> {
    let own = Version::parse(ETCD_VERSION).expect("our versions are versions");
    match versions.cluster {
        Some(cluster) if own < cluster => Err(StartError::Downgrade { own, cluster }),
        _ => Ok(()),
    }
}

/// The log's store, and who the member is if it has begun.
fn open_log(config: &Config) -> Result<(DataDir, Backend, Option<Identity>), StartError> {
    let data_dir = DataDir::lock_with(&config.data_dir, config.wal_dir.as_deref())?;
    let log = open_store("log", data_dir.log_path(), LOG_CACHE_BYTES)?;
    let stored = identity::load(&log)?;
    let has_begun = stored.is_some() && identity::has_begun(&log)?;
    // The identity comes first: a state without one has lost its log.
    if stored.is_none() && data_dir.state_path().exists() {
        let path = data_dir.log_path();
        return Err(StartError::NoIdentity { path });
    }
    // Whom a member has found counts only once it is in the log.
    let counts = has_begun || !config.discovery.is_set();
    Ok((data_dir, log, stored.filter(|_| counts)))
}

/// Who a member is that starts for the first time, and with whom it begins.
async fn first_start(
    config: &Config,
    clock: &Arc<dyn Clock>,
    peers: &PeerClient,
    name_servers: &NameServers,
) -> Result<(Identity, InitialCluster), StartError> {
    let named = match discovery::from_dns(config, name_servers).await? {
        None => config.clone(),
        Some(initial_cluster) => Config {
            initial_cluster,
            ..config.clone()
        },
    };
    let identity = bootstrap::bootstrap(&named, peers).await?;
    let begun = named.initial_cluster;
    if begun.state == ClusterState::Existing {
        return Ok((identity, begun));
    }
    Ok(
        match discovery::from_service(config, identity.member, clock).await? {
            None => (identity, begun),
            Some(found) => {
                let cluster = found.cluster_id();
                (
                    Identity {
                        cluster,
                        ..identity
                    },
                    found,
                )
            }
        },
    )
}

/// Runs what blocks on the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    spawn_blocking(work)
        .await
        .map_err(|_panic| StartError::Panicked)?
}

fn log_member(config: &raft::Config, is_restart: bool) {
    let (member, cluster) = (config.member, config.cluster);
    let message = if config.force_new_cluster {
        "forcing restart member"
    } else if is_restart {
        "restarting local member"
    } else {
        "starting local member"
    };
    tracing::info!(
        "cluster-id" = %cluster,
        "local-member-id" = %member,
        "{message}"
    );
}

fn open_store(
    name: &'static str,
    path: std::path::PathBuf,
    cache_bytes: u64,
) -> Result<Backend, StartError> {
    Backend::open(&backend::Config { path, cache_bytes }).map_err(|source| StartError::Backend {
        name,
        source: Box::new(source),
    })
}

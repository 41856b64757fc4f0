//! A running member: its parts put together, started in order and stopped in the other.
//!
//! Addresses are bound first, so that a port in use is told before anything is written. Then come
//! the data directory, the stores, the state, Raft; then peers and probes are served; clients only
//! when there is a leader and this member has published its name and urls.
//!
//! What this is not: behaviour. Every part has its own crate.

mod backups;
mod bootstrap;
mod certificates;
mod discovery;
mod identity;
mod listeners;
mod opened;
mod peer;
mod peer_client;
mod status;
mod tasks;
mod tokens;
mod traces;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use apply::{Command, Member};
use backend::DataDir;
use futures_util::future::BoxFuture;
use server::{ClientService, EtcdServer, HttpOptions, InProcess, Metrics, MetricsConfig};
use tokio::sync::watch;
use types::{Clock, SystemClock, Url};

use crate::client::Client;
use crate::config::{AutoCompaction, Config, Gate, LogLevel, MetricsLevel};
use crate::error::{Fatal, StartError};
use backups::Backups;
pub(crate) use bootstrap::check_restored;
use certificates::Certificates;
use discovery::NameServers;
pub(crate) use identity::{Identity, store as store_identity};
use listeners::Listeners;
use opened::{Opened, Started, blocking};
use peer_client::PeerClient;
pub use status::{MemberStatus, MetricsError};
use tasks::Tasks;
use traces::Exporter;

/// How long to wait before publishing the member again when it did not work.
const PUBLISH_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A running member. Dropping it stops it without waiting; [`Kvorum::stop`] leaves nothing to be
/// replayed at the next start.
///
/// ```
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// tokio::select! {
///     // The disk is full or broken, or the cluster has removed this member.
///     fatal = member.failed() => eprintln!("{fatal}, removed: {}", fatal.is_removed()),
///     // What the host program is for.
///     read = async { member.client().get("greeting").await } => assert!(read?.is_none()),
/// }
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
pub struct Kvorum {
    identity: Identity,
    config: Arc<Config>,
    node: raft::Node,
    server: EtcdServer,
    client: Client,
    tasks: Tasks,
    /// Those that serve peers: they end after all others, because requests need them.
    peer_tasks: Tasks,
    ready: watch::Receiver<bool>,
    client_urls: Vec<Url>,
    peer_urls: Vec<Url>,
    metrics_urls: Vec<Url>,
    exporter: Option<Exporter>,
    /// Given up last: until then nobody else may open the directory.
    data_dir: DataDir,
}

impl fmt::Debug for Kvorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kvorum")
            .field("member", &self.identity.member)
            .field("client_urls", &self.client_urls)
            .finish_non_exhaustive()
    }
}

impl Kvorum {
    /// Starts a member on the current tokio runtime, which must have several threads. Returns when
    /// it takes part in its cluster; [`Kvorum::wait_ready`] waits until it serves clients.
    ///
    /// # Errors
    ///
    /// When an address, the data or a certificate cannot be had. Nothing is left running then.
    pub fn start(
        config: Config,
    ) -> impl Future<Output = Result<Self, StartError>> + Send + 'static {
        boxed(Self::start_with(config, NameServers::System))
    }

    async fn start_with(config: Config, name_servers: NameServers) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let config = Arc::new(config);
        for warning in &config.warnings {
            warning.log();
        }
        let certificates = {
            let (config, clock) = (Arc::clone(&config), Arc::clone(&clock));
            blocking(move || Certificates::load(&config, &clock)).await?
        };
        let exporter = Exporter::start(&config.tracing)?;
        let backups = backups::open(&config).await?;
        let listeners = Listeners::bind(&config, &certificates)?;
        let dial = certificates.dial(&config);
        let opened = Opened::open(&config, &clock, &dial, &name_servers).await?;
        opened.identity.log_start(&config, &opened.initial_cluster);
        let Started {
            data_dir,
            identity,
            node,
            views,
            persister,
        } = opened.start(&config, Arc::clone(&dial)).await?;
        let tasks = Tasks::default();
        let peer_tasks = tasks.beside();
        let metrics = metrics(&config, &identity, certificates);
        let traces = exporter.as_ref().map(Exporter::traces);
        let server = EtcdServer::new(
            server_config(&config, &identity, clock, traces),
            node.clone(),
            views.clone(),
            persister,
            metrics,
            tasks.stopping(),
        );
        let (is_ready, ready) = watch::channel(false);
        let (client_urls, peer_urls, metrics_urls) = listeners.urls();
        let client = Client::new(InProcess::new(server.clone()));
        let peers = PeerClient::new(dial);
        let backups = backups::begin(backups, &config, &server, peers, tasks.clone());
        let starting = Starting {
            config: Arc::clone(&config),
            backups,
            identity,
            server: server.clone(),
            tasks: tasks.clone(),
            peer_tasks: peer_tasks.clone(),
            is_ready,
        };
        starting.run(listeners);
        Ok(Self {
            identity,
            config,
            node,
            server,
            client,
            tasks,
            peer_tasks,
            ready,
            client_urls,
            peer_urls,
            metrics_urls,
            exporter,
            data_dir,
        })
    }

    /// Waits until clients are served.
    ///
    /// # Errors
    ///
    /// When the member has had to stop before.
    pub async fn wait_ready(&self) -> Result<(), Arc<Fatal>> {
        let mut ready = self.ready.clone();
        tokio::select! {
            reason = self.failed() => Err(reason),
            // An error means that the member stops, which the other branch tells.
            Ok(_) = ready.wait_for(|ready| *ready) => Ok(()),
        }
    }

    /// Waits until the member has to stop, and says why. It does not stop by itself: call
    /// [`Kvorum::stop`].
    pub async fn failed(&self) -> Arc<Fatal> {
        // Asked by the caller itself: no task of a runtime whose threads may all wait for a broken disk has to
        // pass it on.
        tokio::select! {
            biased;
            reason = self.tasks.failed() => reason,
            reason = self.node.fatal() => Arc::new(Fatal::Raft(Box::new(reason))),
        }
    }

    /// A client that needs no connection: for the program that the member lives in.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The urls on which it listens for clients, with the real port where port 0 was asked for.
    #[must_use]
    pub fn client_urls(&self) -> &[Url] {
        &self.client_urls
    }

    /// The urls on which it listens for peers.
    #[must_use]
    pub fn peer_urls(&self) -> &[Url] {
        &self.peer_urls
    }

    /// The urls on which it listens for probes and scrapers.
    #[must_use]
    pub fn metrics_urls(&self) -> &[Url] {
        &self.metrics_urls
    }

    /// This member's id.
    #[must_use]
    pub const fn member_id(&self) -> types::MemberId {
        self.identity.member
    }

    /// Its cluster's id.
    #[must_use]
    pub const fn cluster_id(&self) -> types::ClusterId {
        self.identity.cluster
    }

    /// Lets requests end, stops, and gives the data directory up. Everything applied is durable
    /// then, and the next start has nothing to replay.
    pub fn stop(self) -> impl Future<Output = ()> + Send + 'static {
        boxed(self.stop_all())
    }

    async fn stop_all(mut self) {
        let name = self.config.name.as_str();
        let data_dir = self.data_dir.path().display();
        tracing::info!(name, "data-dir" = %data_dir, "closing etcd server");
        // While requests are still served: they go on at the new leader.
        self.node.hand_over_leadership().await;
        self.tasks.stop().await;
        if let Some(exporter) = self.exporter.take() {
            exporter.stop().await;
        }
        self.node.stop().await;
        self.peer_tasks.stop().await;
        tracing::info!(name, "data-dir" = %data_dir, "closed etcd server");
    }
}

/// A future of a type that says nothing of what is in it. An `async fn` of a library is compiled in each program
/// that awaits it; so is, but for this, the whole server.
fn boxed<T>(future: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    Box::pin(future)
}

/// The member's metrics, in a registry of their own.
fn metrics(config: &Config, identity: &Identity, certificates: Certificates) -> Metrics {
    let metrics = Metrics::new(
        &prometheus::Registry::new(),
        identity.member,
        &MetricsConfig {
            is_extensive: config.metrics == MetricsLevel::Extensive,
            features: config.features.all().collect(),
        },
    )
    .expect("a new registry has no metric of these names");
    let tls = [certificates.client, certificates.peer];
    for tls in tls.into_iter().flatten() {
        metrics.follow_certificates(tls);
    }
    metrics
}

impl Drop for Kvorum {
    fn drop(&mut self) {
        self.tasks.cancel();
        self.peer_tasks.cancel();
    }
}

fn server_config(
    config: &Config,
    identity: &Identity,
    clock: Arc<dyn Clock>,
    traces: Option<server::Traces>,
) -> server::Config {
    server::Config {
        member: identity.member,
        cluster: identity.cluster,
        request_bytes_max: config.request_bytes_max,
        txn_ops_max: config.txn_ops_max,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        quota: config.quota,
        grpc: server::GrpcLimits {
            keepalive_min_time: config.grpc.keepalive_min_time,
            keepalive_interval: config.grpc.keepalive_interval,
            keepalive_timeout: config.grpc.keepalive_timeout,
            max_concurrent_streams: config.grpc.max_concurrent_streams,
        }
        .with_defaults(),
        slow: server::SlowRequests {
            apply: config.slow.apply,
            unary: config.slow.unary_request,
        },
        reflection: config.grpc.is_reflection_enabled,
        traces,
        stop_serving_on_defrag: config.features.enabled(Gate::StopGRPCServiceOnDefrag),
        disarms_nospace: config.checks.nospace_auto_disarm,
        downgrade_check_interval: config.checks.downgrade_check_time,
        corrupt: server::CorruptConfig {
            check_interval: config.checks.corrupt_check_time,
            compact_hash_interval: config
                .features
                .enabled(Gate::CompactHashCheck)
                .then_some(config.checks.compact_hash_check_time),
            repairs: config.checks.corrupt_repair,
        },
        watch_progress_notify_interval: config.watch_progress_notify_interval,
        client_cert_auth: config.client_cert_auth,
        bcrypt_cost: tokens::bcrypt_cost(config.auth.bcrypt_cost),
        clock,
    }
}

fn http_options(config: &Config) -> HttpOptions {
    let http = &config.http;
    HttpOptions {
        gateway: http.is_gateway_enabled,
        pprof: http.is_pprof_enabled || config.log.level == LogLevel::Debug,
        cors: http.cors.iter().cloned().collect(),
        host_whitelist: http.host_whitelist.iter().cloned().collect(),
    }
}

/// What starts serving, and when.
struct Starting {
    config: Arc<Config>,
    backups: Option<Backups>,
    identity: Identity,
    server: EtcdServer,
    tasks: Tasks,
    peer_tasks: Tasks,
    is_ready: watch::Sender<bool>,
}

impl Starting {
    /// Serves peers and probes at once, and clients when there is a leader.
    fn run(self, listeners: Listeners) {
        let peers = peer::PeerService::new(
            self.identity.cluster,
            self.server.views(),
            self.server.node(),
            self.backups.clone(),
        );
        for listener in listeners.peer {
            let serve = peer::serve(listener, peers.clone(), self.peer_tasks.stopping());
            self.peer_tasks.serve(serve);
        }
        for listener in listeners.metrics {
            let service = ClientService::metrics_only(self.server.clone());
            self.tasks
                .serve(server::serve(listener, service, self.tasks.stopping()));
        }
        self.tasks.spawn(self.server.clone().monitor());
        let comparing = server::corrupt::run(self.server.clone(), self.tasks.stopping());
        self.tasks.spawn(comparing);
        self.start_compactor();
        if let Some(backups) = self.backups.clone() {
            backups.run();
        }
        let (tasks, stopping) = (self.tasks.clone(), self.tasks.stopping());
        tasks.spawn(async move {
            tokio::select! {
                () = self.welcome_clients(listeners.client, listeners.client_http) => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    fn start_compactor(&self) {
        let retention = match self.config.auto_compaction {
            AutoCompaction::Off => return,
            AutoCompaction::Periodic(period) => server::compactor::Retention::Periodic(period),
            AutoCompaction::Revision(kept) => server::compactor::Retention::Revision(kept),
        };
        let (server, stopping) = (self.server.clone(), self.tasks.stopping());
        self.tasks
            .spawn(server::compactor::run(server, retention, stopping));
    }

    async fn welcome_clients(
        self,
        listeners: Vec<transport::Listener>,
        http_listeners: Vec<transport::Listener>,
    ) {
        self.server.node().wait_ready().await;
        if self.config.features.enabled(Gate::InitialCorruptCheck)
            && let Err(inconsistent) = server::corrupt::check_at_start(&self.server).await
        {
            tracing::error!(error = %inconsistent, "checkInitialHashKV failed");
            self.tasks.fail(Fatal::Inconsistent(inconsistent));
            return;
        }
        self.publish().await;
        let (service, traffic) = if http_listeners.is_empty() {
            (
                ClientService::new(self.server.clone(), http_options(&self.config)),
                "grpc+http",
            )
        } else {
            (ClientService::grpc_only(self.server.clone()), "grpc")
        };
        for listener in listeners {
            log_serving(&listener, traffic);
            let serve = server::serve(listener, service.clone(), self.tasks.stopping());
            self.tasks.serve(serve);
        }
        for listener in http_listeners {
            log_serving(&listener, "http");
            let service = ClientService::http_only(self.server.clone(), http_options(&self.config));
            self.tasks
                .serve(server::serve(listener, service, self.tasks.stopping()));
        }
        tracing::info!("ready to serve client requests");
        if self.is_ready.send(true).is_err() {
            // Nobody waits: the member has been dropped.
        }
    }

    /// Tells the cluster this member's name and client urls, again and again until it knows.
    async fn publish(&self) {
        let urls = |urls: &[Url]| urls.iter().map(Url::to_string).collect();
        let member = Member {
            id: self.identity.member,
            name: self.config.name.clone(),
            peer_urls: urls(&self.config.advertise_peer_urls),
            client_urls: urls(&self.config.advertise_client_urls),
            is_learner: false,
        };
        while let Err(error) = self
            .server
            .propose(Command::PublishMember(member.clone()).by_member())
            .await
        {
            tracing::warn!(%error, "failed to publish local member to cluster through raft");
            tokio::time::sleep(PUBLISH_RETRY_INTERVAL).await;
        }
        tracing::info!(
            "local-member-id" = %self.identity.member,
            "cluster-id" = %self.identity.cluster,
            name = self.config.name,
            "published local member to cluster through raft",
        );
    }
}

fn log_serving(listener: &transport::Listener, traffic: &str) {
    for url in listener.urls() {
        let address = listener.local_addr().map(|address| address.to_string());
        let address = address.or_else(|| url.socket_path()).unwrap_or_default();
        if url.scheme().is_tls() {
            tracing::info!(traffic, address, "serving client traffic securely");
        } else {
            tracing::info!(
                traffic,
                address,
                "serving client traffic insecurely; this is strongly discouraged!",
            );
        }
    }
}

#[cfg(test)]
mod tests;

//! What is counted, under etcd's names.
//!
//! Counters move where things happen: in the layer around gRPC, and in [`crate::EtcdServer`]. Gauges
//! are read off the member when somebody asks for the metrics. What this is not: a global; the
//! registry is passed in.

mod certificates;
mod consensus;
mod corruption;
mod debugging;
mod network;
mod process;
mod snapshots;
mod store;
mod timings;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::rpctypes::ErrorCode;
use api::version::{ETCD_VERSION, KVORUM_VERSION};
use parking_lot::{Mutex, RwLock};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, exponential_buckets,
};
use raft::{PeerStatus, ProposeError, ReadIndexError};
use tokio::time::Instant;
use tonic::Code;
use transport::TlsServer;
use types::MemberId;

use crate::EtcdServer;
use crate::traces::CallSpan;
use crate::v3rpc::{METHODS, MethodKind};
use certificates::CertificateMetrics;
use consensus::ServerMetrics;
use corruption::CorruptionMetrics;
pub(crate) use corruption::{Check, Checked, Repaired};
use debugging::DebuggingMetrics;
use network::NetworkMetrics;
use process::ProcessMetrics;
use snapshots::SnapshotMetrics;
use store::StoreMetrics;
use timings::{TimingMetrics, Timings};
use upkeep::UpkeepMetrics;

pub use debugging::{Features, MetricsConfig};

/// The codes of gRPC, by number, as grpc-go's metrics call them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Client versions that are counted each by itself: a client may claim what it likes.
const CLIENT_VERSIONS_MAX: usize = 64;
/// What all others are counted as.
const OTHER_VERSIONS: &str = "other";

/// A member's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    all: Arc<All>,
}

struct All {
    registry: Registry,
    methods: Vec<Arc<MethodMetrics>>,
    cluster_version: IntGaugeVec,
    server: ServerMetrics,
    store: StoreMetrics,
    health: HealthMetrics,
    process: ProcessMetrics,
    network: NetworkMetrics,
    snapshots: SnapshotMetrics,
    certificates: CertificateMetrics,
    timings: TimingMetrics,
    upkeep: UpkeepMetrics,
    debugging: DebuggingMetrics,
    corruption: CorruptionMetrics,
    clients: ClientMetrics,
    client_received_bytes: IntCounter,
    client_sent_bytes: IntCounter,
}

/// The counters of one gRPC method.
struct MethodMetrics {
    started: IntCounter,
    received_messages: IntCounter,
    sent_messages: IntCounter,
    /// By code.
    handled: Vec<IntCounter>,
    /// How long it took, if that is counted.
    handling: Option<Histogram>,
    /// The same for requests that etcd counts by their kind: failed and done.
    requests: Option<[Histogram; 2]>,
}

struct HealthMetrics {
    success: IntCounter,
    failures: IntCounter,
    checks: IntGaugeVec,
    checks_total: IntCounterVec,
}

/// Makes metrics and registers them.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let gauge = IntGauge::new(name, help)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }
}

impl Metrics {
    /// Registers a member's metrics.
    pub fn new(
        registry: &Registry,
        member: MemberId,
        config: &MetricsConfig,
    ) -> prometheus::Result<Self> {
        let registrar = Registrar(registry);
        register_versions(&registrar, member)?;
        Ok(Self {
            all: Arc::new(All {
                registry: registry.clone(),
                methods: register_methods(&registrar, config.is_extensive)?,
                cluster_version: registrar.gauges(
                    "etcd_cluster_version",
                    "The cluster's version.",
                    &["cluster_version"],
                )?,
                server: ServerMetrics::register(&registrar)?,
                store: StoreMetrics::register(&registrar)?,
                health: HealthMetrics::register(&registrar)?,
                process: ProcessMetrics::register(registry)?,
                network: NetworkMetrics::register(registry, member)?,
                snapshots: SnapshotMetrics::register(registry)?,
                certificates: CertificateMetrics::register(registry)?,
                timings: TimingMetrics::register(registry)?,
                upkeep: UpkeepMetrics::register(registry)?,
                debugging: DebuggingMetrics::register(registry, &config.features)?,
                corruption: CorruptionMetrics::register(&registrar)?,
                clients: ClientMetrics::register(&registrar)?,
                client_received_bytes: registrar.counter(
                    "etcd_network_client_grpc_received_bytes_total",
                    "Bytes received from gRPC clients.",
                )?,
                client_sent_bytes: registrar.counter(
                    "etcd_network_client_grpc_sent_bytes_total",
                    "Bytes sent to gRPC clients.",
                )?,
            }),
        })
    }

    /// All metrics as text, read off the member now. Counts keys: call it off the async threads.
    pub fn render(&self, server: &EtcdServer) -> prometheus::Result<Vec<u8>> {
        self.read_gauges(server);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.all.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn read_gauges(&self, server: &EtcdServer) {
        let All {
            cluster_version,
            server: of_server,
            store: of_store,
            process,
            network,
            snapshots,
            certificates,
            timings,
            debugging,
            ..
        } = &*self.all;
        cluster_version.reset();
        if let Some(version) = server.views().versions.get().cluster {
            let label = version.short();
            cluster_version.with_label_values(&[&label]).set(1);
        }
        let applications = server.node().applications();
        of_server.read(server);
        let compactions = server.views().compactions.read();
        of_store.read(server, &applications, &compactions);
        process.read();
        network.read(&server.node().peers());
        snapshots.read(server.node().snapshot_metrics());
        certificates.read();
        debugging.read(server, &applications);
        let (wal_write, wal_fsync) = server.node().log_durations();
        timings.read(Timings {
            wal_write,
            wal_fsync,
            backend_commit: server.persister().commit_durations(),
            applications,
            compactions,
        });
    }

    /// Counts how long a range took to be read.
    pub(crate) fn range_took(&self, is_ok: bool, took: Duration) {
        self.all.debugging.range(is_ok, took);
    }

    /// Counts how long a hash took.
    pub(crate) fn hash_took(&self, is_of_revision: bool, took: Duration) {
        self.all.debugging.hash(is_of_revision, took);
    }

    /// What an operator asks for that takes long.
    pub(crate) fn upkeep(&self) -> &UpkeepMetrics {
        &self.all.upkeep
    }

    /// Counts a lease that was renewed.
    pub(crate) fn lease_renewed(&self) {
        self.all.debugging.leases_renewed.inc();
    }

    /// Where the member's parts register what they count themselves.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.all.registry
    }

    /// Shows these certificates' expiry from now on.
    pub fn follow_certificates(&self, tls: TlsServer) {
        self.all.certificates.follow(tls);
    }

    /// Looks at the peers; to be called about once a second.
    pub(crate) fn look_at_peers(&self, peers: &[PeerStatus]) {
        self.all.network.look(peers);
    }

    /// Counts a request that passed the first checks, by the version that its client claims.
    pub(crate) fn client_request(&self, kind: MethodKind, version: &str) {
        self.all.clients.count(kind, version);
    }

    /// Counts a promotion that this member was asked for.
    pub(crate) fn learner_promoted(&self, refusal: Option<ErrorCode>) {
        let server = &self.all.server;
        match refusal {
            None => server.learner_promote_successes.inc(),
            Some(error) => server
                .learner_promote_failures
                .with_label_values(&[error.text()])
                .inc(),
        }
    }

    /// The metrics of a call of this method of the table; counts it as started. Its span ends with it.
    pub(crate) fn call(&self, method: usize, span: Option<CallSpan>) -> CallMetrics {
        let metrics = self.all.methods[method].clone();
        metrics.started.inc();
        CallMetrics {
            call: Arc::new(Call {
                begun: Instant::now(),
                metrics,
                all: self.clone(),
                finished: false.into(),
                span: Mutex::new(span),
            }),
        }
    }

    /// Counts a proposal as pending while the result lives.
    pub(crate) fn propose(&self) -> PendingProposal<'_> {
        self.all.server.proposals_pending.inc();
        PendingProposal {
            metrics: &self.all.server,
        }
    }

    /// Counts ranges that were read.
    pub(crate) fn ranges(&self, count: usize) {
        let read = &self.all.store.ranges_read;
        read.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts a request that took long.
    pub(crate) fn slow_apply(&self) {
        self.all.server.slow_apply.inc();
    }

    /// Counts a read index that failed.
    pub(crate) fn read_index_failed(&self, error: ReadIndexError) {
        self.all.server.read_indexes_failed.inc();
        if error == ReadIndexError::Timeout {
            self.all.server.slow_read_indexes.inc();
        }
    }

    /// Counts a new leader.
    pub(crate) fn leader_changed(&self) {
        self.all.server.leader_changes_seen.inc();
    }

    /// Counts an answer of `/health`.
    pub(crate) fn health_answered(&self, healthy: bool) {
        let health = &self.all.health;
        if healthy {
            health.success.inc()
        } else {
            health.failures.inc()
        }
    }

    /// Counts a check of `/livez` or `/readyz`.
    pub(crate) fn health_checked(&self, endpoint: &str, check: &str, passed: bool) {
        let health = &self.all.health;
        health
            .checks
            .with_label_values(&[endpoint, check])
            .set(passed.into());
        let status = if passed { "success" } else { "error" };
        health
            .checks_total
            .with_label_values(&[endpoint, check, status])
            .inc();
    }

    /// `etcd_debugging_mvcc_events_total`.
    #[must_use]
    pub fn events(&self) -> &IntCounter {
        &self.all.store.events
    }
}

/// Requests by what their clients say they are.
struct ClientMetrics {
    requests: IntCounterVec,
    /// The versions seen so far.
    versions: RwLock<BTreeMap<String, ClientVersion>>,
}

/// Requests of clients of one version, once there are any.
#[derive(Default)]
struct ClientVersion {
    unary: OnceLock<IntCounter>,
    stream: OnceLock<IntCounter>,
}

impl ClientMetrics {
    fn register(registrar: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: registrar.counters(
                "etcd_server_client_requests_total",
                "Requests by kind and client version.",
                &["type", "client_api_version"],
            )?,
            versions: RwLock::default(),
        })
    }

    fn count(&self, kind: MethodKind, version: &str) {
        if let Some(known) = self.versions.read().get(version) {
            return self.counter(known, kind, version).inc();
        }
        let mut versions = self.versions.write();
        let is_room = versions.len() < CLIENT_VERSIONS_MAX;
        let version = if is_room { version } else { OTHER_VERSIONS };
        let known = versions.entry(version.to_owned()).or_default();
        self.counter(known, kind, version).inc();
    }

    fn counter<'a>(
        &self,
        known: &'a ClientVersion,
        kind: MethodKind,
        version: &str,
    ) -> &'a IntCounter {
        let (counter, label) = match kind {
            MethodKind::Unary => (&known.unary, "unary"),
            MethodKind::ServerStream | MethodKind::BidiStream => (&known.stream, "stream"),
        };
        counter.get_or_init(|| self.requests.with_label_values(&[label, version]))
    }
}

impl HealthMetrics {
    fn register(registrar: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            success: registrar.counter("etcd_server_health_success", "Passed health checks.")?,
            failures: registrar.counter("etcd_server_health_failures", "Failed health checks.")?,
            checks: registrar.gauges(
                "etcd_server_healthcheck",
                "The last outcome of each check.",
                &["type", "name"],
            )?,
            checks_total: registrar.counters(
                "etcd_server_healthchecks_total",
                "Outcomes of each check.",
                &["type", "name", "status"],
            )?,
        })
    }
}

fn register_versions(registrar: &Registrar<'_>, member: MemberId) -> prometheus::Result<()> {
    for (name, help, label, value) in [
        (
            "etcd_server_version",
            "etcd's version.",
            "server_version",
            ETCD_VERSION,
        ),
        (
            "kvorum_version",
            "kvorum's own version.",
            "version",
            KVORUM_VERSION,
        ),
        (
            "etcd_server_id",
            "This member.",
            "server_id",
            &member.to_string(),
        ),
    ] {
        registrar
            .gauges(name, help, &[label])?
            .with_label_values(&[value])
            .set(1);
    }
    Ok(())
}

/// As etcd 3.7 calls the requests whose time it counts.
fn request_kind(service: &str, method: &str) -> Option<&'static str> {
    Some(match (service, method) {
        ("etcdserverpb.KV", "Range") => "Range",
        ("etcdserverpb.KV", "Put") => "Put",
        ("etcdserverpb.KV", "DeleteRange") => "DeleteRange",
        ("etcdserverpb.KV", "Txn") => "Txn",
        ("etcdserverpb.KV", "Compact") => "Compaction",
        ("etcdserverpb.Lease", "LeaseGrant") => "LeaseGrant",
        ("etcdserverpb.Lease", "LeaseRevoke") => "LeaseRevoke",
        ("etcdserverpb.Maintenance", "Alarm") => "Alarm",
        _ => return None,
    })
}

fn register_methods(
    registrar: &Registrar<'_>,
    is_extensive: bool,
) -> prometheus::Result<Vec<Arc<MethodMetrics>>> {
    const LABELS: [&str; 3] = ["grpc_method", "grpc_service", "grpc_type"];
    const HANDLED_LABELS: [&str; 4] = ["grpc_code", "grpc_method", "grpc_service", "grpc_type"];
    let started = registrar.counters(
        "grpc_server_started_total",
        "Calls that were begun.",
        &LABELS,
    )?;
    let handled = registrar.counters(
        "grpc_server_handled_total",
        "Calls that ended.",
        &HANDLED_LABELS,
    )?;
    let received = registrar.counters(
        "grpc_server_msg_received_total",
        "Messages received.",
        &LABELS,
    )?;
    let sent = registrar.counters("grpc_server_msg_sent_total", "Messages sent.", &LABELS)?;
    let handling = HistogramVec::new(
        HistogramOpts::new("grpc_server_handling_seconds", "How long calls took."),
        &LABELS,
    )?;
    if is_extensive {
        registrar.0.register(Box::new(handling.clone()))?;
    }
    let requests = HistogramVec::new(
        HistogramOpts::new(
            "etcd_server_request_duration_seconds",
            "How long requests took, by their kind.",
        )
        .buckets(exponential_buckets(0.001, 2.0, 14)?),
        &["type", "success"],
    )?;
    registrar.0.register(Box::new(requests.clone()))?;
    let of_kind =
        |kind| ["false", "true"].map(|success| requests.with_label_values(&[kind, success]));
    let of_method = |method: &crate::v3rpc::Method| {
        let (service, name) = method.names();
        let labels = [name, service, method.kind.label()];
        let handled = CODES
            .map(|code| handled.with_label_values(&[code, name, service, method.kind.label()]));
        Arc::new(MethodMetrics {
            started: started.with_label_values(&labels),
            received_messages: received.with_label_values(&labels),
            sent_messages: sent.with_label_values(&labels),
            handled: handled.into(),
            requests: request_kind(service, name).map(of_kind),
            handling: is_extensive.then(|| handling.with_label_values(&labels)),
        })
    };
    Ok(METHODS.iter().map(of_method).collect())
}

fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A proposal without an outcome.
pub(crate) struct PendingProposal<'m> {
    metrics: &'m ServerMetrics,
}

impl PendingProposal<'_> {
    /// Counts it as failed, and hands the reason on.
    pub(crate) fn failed(&self, error: ProposeError) -> ProposeError {
        // What was never proposed has not failed for etcd.
        if !matches!(
            error,
            ProposeError::TooLarge | ProposeError::TooManyRequests
        ) {
            self.metrics.proposals_failed.inc();
        }
        error
    }
}

impl Drop for PendingProposal<'_> {
    fn drop(&mut self) {
        self.metrics.proposals_pending.dec();
    }
}

/// The metrics of one gRPC call. A call that nobody has called finished when the last clone goes was
/// canceled by its client.
#[derive(Clone)]
pub(crate) struct CallMetrics {
    call: Arc<Call>,
}

struct Call {
    metrics: Arc<MethodMetrics>,
    all: Metrics,
    finished: AtomicBool,
    begun: Instant,
    /// If it is traced.
    span: Mutex<Option<CallSpan>>,
}

impl CallMetrics {
    pub(crate) fn received_message(&self) {
        self.call.metrics.received_messages.inc();
    }

    pub(crate) fn received_bytes(&self, bytes: usize) {
        self.call.all.all.client_received_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn sent_messages(&self, messages: u64) {
        self.call.metrics.sent_messages.inc_by(messages);
    }

    pub(crate) fn sent_bytes(&self, bytes: usize) {
        self.call.all.all.client_sent_bytes.inc_by(bytes as u64);
    }

    /// Notes the outcome; the first one counts.
    pub(crate) fn finished(&self, code: Code) {
        self.call.finish(code);
    }
}

impl Call {
    fn finish(&self, code: Code) {
        if !self.finished.swap(true, Ordering::Relaxed) {
            self.metrics.handled[code as usize].inc();
            let took = self.begun.elapsed().as_secs_f64();
            if let Some(handling) = &self.metrics.handling {
                handling.observe(took);
            }
            if let Some(requests) = &self.metrics.requests {
                requests[usize::from(code == Code::Ok)].observe(took);
            }
            if let Some(span) = self.span.lock().take() {
                span.end(code);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

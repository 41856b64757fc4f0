//! How a member is configured: etcd's flags and environment fill raw [`Options`], and
//! [`Options::validate`] turns them into a [`Config`] or says everything that is wrong with them.
//!
//! What this is not: nothing in here opens a file or a socket, and no other crate reads the
//! environment.

mod backups;
mod builder;
pub(crate) mod duration;
pub mod env;
pub mod features;
pub mod file;
pub mod flags;
mod initial_cluster;
mod log;
mod settings;
mod tls;
mod validate;
mod warning;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use types::Url;

pub use backups::{BackupOptions, BackupSettings, S3Options, S3Settings};
pub use builder::ConfigBuilder;
pub use features::{FeatureGates, Gate};
pub use initial_cluster::{ClusterState, InitialCluster, InitialMember};
pub(crate) use initial_cluster::{RawInitialCluster, parse as parse_initial_cluster};
pub use settings::{
    AuthSettings, CheckSettings, CompactionSettings, DiscoverySettings, GrpcSettings, HttpSettings,
    MetricsLevel, SlowSettings, SocketSettings, TracingSettings,
};
pub use tls::{AutoCertificates, ClientTls, PeerFiles, PeerTls, TlsOptions};
pub use validate::{ConfigError, Problem};
pub use warning::Warning;

/// `--log-rotation-config-json`, as etcd writes it.
const LOG_ROTATION_DEFAULT: &str =
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

/// `--raft-read-timeout` and `--raft-write-timeout`; shorter ones are raised to it, as in etcd.
const RAFT_IO_TIMEOUT: Duration = Duration::from_secs(5);

/// The duration that Go reads in `text`, if it reads one.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    duration::parse(text).ok()
}

/// What was asked for, unchecked. `None` and the values of [`Options::default`] are etcd's defaults;
/// the table in [`flags`] says what each is.
///
/// ```
/// use kvorum::Options;
///
/// let name = "m1".to_owned();
/// let config = Options { name, data_dir: "/var/lib/mine".to_owned(), ..Options::default() }.validate()?;
/// assert_eq!(config.snapshot_count, 10_000);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is a row of the table in config::flags"
)]
pub struct Options {
    pub name: String,
    pub data_dir: String,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    pub heartbeat_interval_ms: u64,
    pub election_timeout_ms: u64,
    pub listen_peer_urls: Option<Vec<Url>>,
    pub listen_client_urls: Option<Vec<Url>>,
    pub listen_client_http_urls: Vec<Url>,
    pub quota_backend_bytes: i64,
    pub max_txn_ops: u64,
    pub max_request_bytes: u64,
    pub initial_advertise_peer_urls: Option<Vec<Url>>,
    pub initial_cluster: Option<String>,
    pub initial_cluster_state: ClusterState,
    pub initial_cluster_token: String,
    pub advertise_client_urls: Option<Vec<Url>>,
    pub strict_reconfig_check: bool,
    pub pre_vote: bool,
    pub max_learners: u64,
    pub force_new_cluster: bool,
    pub auto_compaction_mode: String,
    pub auto_compaction_retention: String,
    pub client_tls: TlsOptions,
    pub peer_tls: TlsOptions,
    pub self_signed_cert_validity_years: u64,
    pub cipher_suites: Vec<String>,
    pub tls_min_version: String,
    pub tls_max_version: String,
    pub listen_metrics_urls: Vec<Url>,
    pub logger: String,
    pub log_level: String,
    pub log_format: String,
    pub log_outputs: String,
    pub watch_progress_notify_interval: Duration,
    pub feature_gates: FeatureGates,
    pub wal_dir: String,
    pub memory_mlock: bool,
    pub raft_read_timeout: Duration,
    pub raft_write_timeout: Duration,
    pub enable_log_rotation: bool,
    pub log_rotation_config_json: String,
    pub grpc: GrpcSettings,
    pub http: HttpSettings,
    pub auth: AuthSettings,
    pub slow: SlowSettings,
    pub checks: CheckSettings,
    pub compaction: CompactionSettings,
    pub metrics: MetricsLevel,
    pub tracing: TracingSettings,
    pub sockets: SocketSettings,
    pub discovery: DiscoverySettings,
    pub backup: BackupOptions,
    /// The configuration file that stands in place of all these options.
    pub config_file: String,
    /// Whether these options come from such a file.
    pub is_from_file: bool,
    /// The flags that were given, by name; for warnings only.
    pub given: BTreeSet<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: String::new(),
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5000,
            heartbeat_interval_ms: 100,
            election_timeout_ms: 1000,
            listen_peer_urls: None,
            listen_client_urls: None,
            listen_client_http_urls: Vec::new(),
            quota_backend_bytes: 0,
            max_txn_ops: 128,
            max_request_bytes: 1_572_864,
            initial_advertise_peer_urls: None,
            initial_cluster: None,
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            advertise_client_urls: None,
            strict_reconfig_check: true,
            pre_vote: true,
            max_learners: 1,
            force_new_cluster: false,
            auto_compaction_mode: "periodic".to_owned(),
            auto_compaction_retention: "0".to_owned(),
            client_tls: TlsOptions::default(),
            peer_tls: TlsOptions::default(),
            self_signed_cert_validity_years: 1,
            cipher_suites: Vec::new(),
            tls_min_version: "TLS1.2".to_owned(),
            tls_max_version: String::new(),
            listen_metrics_urls: Vec::new(),
            logger: "zap".to_owned(),
            log_level: "info".to_owned(),
            log_format: "json".to_owned(),
            log_outputs: "default".to_owned(),
            watch_progress_notify_interval: Duration::from_secs(600),
            feature_gates: FeatureGates::default(),
            wal_dir: String::new(),
            memory_mlock: false,
            raft_read_timeout: RAFT_IO_TIMEOUT,
            raft_write_timeout: RAFT_IO_TIMEOUT,
            enable_log_rotation: false,
            log_rotation_config_json: LOG_ROTATION_DEFAULT.to_owned(),
            grpc: GrpcSettings::default(),
            http: HttpSettings::default(),
            auth: AuthSettings::default(),
            slow: SlowSettings::default(),
            checks: CheckSettings::default(),
            compaction: CompactionSettings::default(),
            metrics: MetricsLevel::default(),
            tracing: TracingSettings::default(),
            sockets: SocketSettings::default(),
            discovery: DiscoverySettings::default(),
            backup: BackupOptions::default(),
            config_file: String::new(),
            is_from_file: false,
            given: BTreeSet::new(),
        }
    }
}

/// A member's configuration, checked. Made by [`Options::validate`].
///
/// ```
/// use kvorum::Config;
///
/// let config = Config::builder().data_dir("/var/lib/mine").flag("max-txn-ops", "256").build()?;
/// assert_eq!(config.txn_ops_max, 256);
/// assert_eq!(config.listen_client_urls[0].to_string(), "http://localhost:2379");
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// What people call this member.
    pub name: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub listen_client_urls: Vec<Url>,
    /// Where it listens for clients' HTTP; if there are any, the others are for gRPC only.
    pub listen_client_http_urls: Vec<Url>,
    /// Where clients are told to find it.
    pub advertise_client_urls: Vec<Url>,
    /// Where it listens for its peers.
    pub listen_peer_urls: Vec<Url>,
    /// Where its peers are told to find it.
    pub advertise_peer_urls: Vec<Url>,
    /// Where it listens for probes and scrapers.
    pub listen_metrics_urls: Vec<Url>,
    /// The cluster it begins or joins; of no effect once it has data.
    pub initial_cluster: InitialCluster,
    /// The identity it shows to clients on `https` urls.
    pub client_tls: Option<ClientTls>,
    /// Whether the common names of clients' certificates stand for users.
    pub client_cert_auth: bool,
    /// The identity it shows to peers, and dials them with.
    pub peer_tls: Option<PeerTls>,
    /// The address from which it dials its peers.
    pub local_address: Option<IpAddr>,
    /// Whether it becomes the only member of its cluster.
    pub force_new_cluster: bool,
    /// Whether changes of the members that could cost the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Whether it asks first if it could be elected.
    pub pre_vote: bool,
    /// Learners that its cluster may have at a time.
    pub learners_max: usize,
    /// Log entries after which the log is cut.
    pub snapshot_count: u64,
    /// Log entries that stay when it is cut.
    pub snapshot_catchup_entries: u64,
    /// How often a leader says that it is there.
    pub heartbeat_interval: Duration,
    /// How long its peers wait without hearing of it.
    pub election_timeout: Duration,
    /// How much may be stored.
    pub quota: apply::Quota,
    /// Bytes of the largest request.
    pub request_bytes_max: usize,
    /// Operations of the largest transaction.
    pub txn_ops_max: usize,
    /// What history is kept.
    pub auto_compaction: AutoCompaction,
    /// How often an idle watch that asked for it hears how far it is.
    pub watch_progress_notify_interval: Duration,
    /// gRPC's connections with clients.
    pub grpc: GrpcSettings,
    /// HTTP for clients.
    pub http: HttpSettings,
    /// Users' tokens and passwords.
    pub auth: AuthSettings,
    /// When a request is slow enough to be logged.
    pub slow: SlowSettings,
    /// What is looked at again and again.
    pub checks: CheckSettings,
    /// The steps in which a compaction removes history.
    pub compaction: CompactionSettings,
    /// How much `/metrics` tells.
    pub metrics: MetricsLevel,
    /// Traces for OpenTelemetry.
    pub tracing: TracingSettings,
    /// Options of the sockets that are listened on.
    pub sockets: SocketSettings,
    /// How the members that begin a cluster find each other.
    pub discovery: DiscoverySettings,
    /// Backups that the member takes by itself.
    pub backup: Option<BackupSettings>,
    /// Where the log is, if not below the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Whether its memory is never swapped out. Only the binary acts on it.
    pub memory_mlock: bool,
    /// How long a connection with a peer may be silent.
    pub raft_read_timeout: Duration,
    /// How long a peer may not confirm that it got what was sent.
    pub raft_write_timeout: Duration,
    /// Which features are on.
    pub features: FeatureGates,
    /// What whoever wrote the flags should know; logged when the member starts.
    pub warnings: Vec<Warning>,
    /// How to log. Only the binary acts on it: a program that embeds kvorum logs as it likes.
    pub log: LogConfig,
}

/// Which history is removed without being asked (`--auto-compaction-mode`,
/// `--auto-compaction-retention`).
///
/// ```
/// use std::time::Duration;
/// use kvorum::Config;
/// use kvorum::config::AutoCompaction;
///
/// let config = Config::builder().data_dir("/x").flag("auto-compaction-retention", "2").build()?;
/// assert_eq!(config.auto_compaction, AutoCompaction::Periodic(Duration::from_secs(7200)));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// What is more than so many revisions back.
    Revision(i64),
}

/// How the binary logs.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::{LogConfig, LogFormat, LogLevel, LogOutput};
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("log-level", "warn").flag("log-format", "console").build()?;
/// let expected = LogConfig {
///     level: LogLevel::Warn,
///     format: LogFormat::Console,
///     outputs: vec![LogOutput::Stderr],
///     rotation: None,
/// };
/// assert_eq!(config.log, expected);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// From which level on.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
    /// Where to: `stdout`, `stderr`, or files.
    pub outputs: Vec<LogOutput>,
    /// When its file is begun anew.
    pub rotation: Option<LogRotation>,
}

/// When a log file is begun anew, and which old ones stay (`--log-rotation-config-json`).
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::{LogOutput, LogRotation};
///
/// let builder = Config::builder().data_dir("/var/lib/mine").flag("enable-log-rotation", "true");
/// let builder = builder.flag("log-outputs", "/var/log/mine.log");
/// let log = builder.flag("log-rotation-config-json", r#"{"maxsize": 10, "maxbackups": 3}"#).build()?.log;
/// assert_eq!(log.outputs, [LogOutput::File("/var/log/mine.log".into())]);
/// let expected = LogRotation { bytes_max: 10 << 20, age_max: None, backups_max: 3, is_compressed: false };
/// assert_eq!(log.rotation, Some(expected));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRotation {
    /// It is begun anew before it gets larger.
    pub bytes_max: u64,
    /// Old files that were written longer ago are removed.
    pub age_max: Option<Duration>,
    /// So many old files stay; 0 is all.
    pub backups_max: usize,
    /// Whether old files are compressed.
    pub is_compressed: bool,
}

/// etcd's log levels. Nothing is logged at the last two; they are the ways to see errors only.
///
/// ```
/// use kvorum::config::LogLevel;
/// use kvorum::logging::targets;
/// use tracing::Level;
///
/// assert!(targets(LogLevel::Warn).would_enable("kvorum", &Level::WARN));
/// assert!(!targets(LogLevel::Fatal).would_enable("kvorum", &Level::ERROR));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

/// The form of a log line. [`LogConfig`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, as etcd's.
    Json,
    /// For people.
    Console,
}

/// Where log lines go. [`LogRotation`] has an example with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error; `default` means this too.
    Stderr,
    /// Standard output.
    Stdout,
    /// systemd's journal.
    Journal,
    /// The end of a file.
    File(PathBuf),
}

//! How a member is configured: etcd's flags and environment fill raw [`Options`], and
//! [`Options::validate`] turns them into a [`Config`] or says everything that is wrong with them.
//!
//! What this is not: nothing in here opens a file or a socket, and no other crate reads the
//! environment.

mod duration;
pub mod env;
pub mod flags;
mod initial_cluster;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

use types::Url;

pub use initial_cluster::{ClusterState, InitialCluster, InitialMember};
pub use validate::{ConfigError, Problem};

/// What was asked for, unchecked. `None` and the values of [`Options::default`] are etcd's defaults;
/// the table in [`flags`] says what each is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is a row of the table in config::flags"
)]
pub struct Options {
    pub name: String,
    pub data_dir: String,
    pub snapshot_count: u64,
    pub heartbeat_interval_ms: u64,
    pub election_timeout_ms: u64,
    pub listen_peer_urls: Option<Vec<Url>>,
    pub listen_client_urls: Option<Vec<Url>>,
    pub quota_backend_bytes: i64,
    pub max_txn_ops: u64,
    pub max_request_bytes: u64,
    pub initial_advertise_peer_urls: Option<Vec<Url>>,
    pub initial_cluster: Option<String>,
    pub initial_cluster_state: ClusterState,
    pub initial_cluster_token: String,
    pub advertise_client_urls: Option<Vec<Url>>,
    pub auto_compaction_mode: String,
    pub auto_compaction_retention: String,
    pub cert_file: String,
    pub key_file: String,
    pub client_cert_auth: bool,
    pub trusted_ca_file: String,
    pub listen_metrics_urls: Vec<Url>,
    pub log_level: String,
    pub log_format: String,
    pub log_outputs: String,
    pub watch_progress_notify_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: String::new(),
            snapshot_count: 10_000,
            heartbeat_interval_ms: 100,
            election_timeout_ms: 1000,
            listen_peer_urls: None,
            listen_client_urls: None,
            quota_backend_bytes: 0,
            max_txn_ops: 128,
            max_request_bytes: 1_572_864,
            initial_advertise_peer_urls: None,
            initial_cluster: None,
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            advertise_client_urls: None,
            auto_compaction_mode: "periodic".to_owned(),
            auto_compaction_retention: "0".to_owned(),
            cert_file: String::new(),
            key_file: String::new(),
            client_cert_auth: false,
            trusted_ca_file: String::new(),
            listen_metrics_urls: Vec::new(),
            log_level: "info".to_owned(),
            log_format: "json".to_owned(),
            log_outputs: "default".to_owned(),
            watch_progress_notify_interval: Duration::from_secs(600),
        }
    }
}

/// A member's configuration, checked. Made by [`Options::validate`].
#[derive(Clone, Debug)]
pub struct Config {
    /// What people call this member.
    pub name: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub listen_client_urls: Vec<Url>,
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
    pub client_tls: Option<transport::TlsConfig>,
    /// Log entries after which the log is cut.
    pub snapshot_count: u64,
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
    /// How to log. Only the binary acts on it: a program that embeds kvorum logs as it likes.
    pub log: LogConfig,
}

/// Which history is removed without being asked (`--auto-compaction-mode`,
/// `--auto-compaction-retention`).
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// From which level on.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
    /// Where to: `stdout`, `stderr`, or files.
    pub outputs: Vec<LogOutput>,
}

/// etcd's log levels. Nothing is logged at the last two; they are the ways to see errors only.
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

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, as etcd's.
    Json,
    /// For people.
    Console,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error; `default` means this too.
    Stderr,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

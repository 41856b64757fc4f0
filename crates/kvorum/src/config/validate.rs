//! Raw options in, a checked configuration or every problem at once out. The texts are etcd's
//! (`server/embed/config.go`). No file is opened here.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use types::{Url, UrlError};

use super::flags::{self, Section};
use super::{
    AutoCompaction, Config, Gate, InitialCluster, InitialMember, Options, RAFT_IO_TIMEOUT,
    SlowSettings, Warning, duration, initial_cluster,
};

/// What `--quota-backend-bytes=0` means.
const QUOTA_DEFAULT_BYTES: u64 = 2 << 30;
/// The longest `--election-timeout`.
const ELECTION_TIMEOUT_MAX_MS: u64 = 50_000;

const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";

/// Flags that were renamed, which must not be given by both names.
const RENAMED: [(&str, &str); 17] = [
    (
        "experimental-compact-hash-check-time",
        "compact-hash-check-time",
    ),
    ("experimental-corrupt-check-time", "corrupt-check-time"),
    (
        "experimental-compaction-batch-limit",
        "compaction-batch-limit",
    ),
    (
        "experimental-watch-progress-notify-interval",
        "watch-progress-notify-interval",
    ),
    (
        "experimental-warning-apply-duration",
        "warning-apply-duration",
    ),
    (
        "experimental-bootstrap-defrag-threshold-megabytes",
        "bootstrap-defrag-threshold-megabytes",
    ),
    ("experimental-memory-mlock", "memory-mlock"),
    (
        "experimental-snapshot-catchup-entries",
        "snapshot-catchup-entries",
    ),
    ("experimental-max-learners", "max-learners"),
    (
        "experimental-compaction-sleep-interval",
        "compaction-sleep-interval",
    ),
    ("experimental-downgrade-check-time", "downgrade-check-time"),
    (
        "experimental-peer-skip-client-san-verification",
        "peer-skip-client-san-verification",
    ),
    (
        "experimental-enable-distributed-tracing",
        "enable-distributed-tracing",
    ),
    (
        "experimental-distributed-tracing-address",
        "distributed-tracing-address",
    ),
    (
        "experimental-distributed-tracing-service-name",
        "distributed-tracing-service-name",
    ),
    (
        "experimental-distributed-tracing-instance-id",
        "distributed-tracing-instance-id",
    ),
    (
        "experimental-distributed-tracing-sampling-rate",
        "distributed-tracing-sampling-rate",
    ),
];

/// Flags that became feature gates.
const GATES_OF_FLAGS: [(&str, Gate); 6] = [
    (
        "experimental-initial-corrupt-check",
        Gate::InitialCorruptCheck,
    ),
    (
        "experimental-compact-hash-check-enabled",
        Gate::CompactHashCheck,
    ),
    (
        "experimental-txn-mode-write-with-shared-buffer",
        Gate::TxnModeWriteWithSharedBuffer,
    ),
    (
        "experimental-stop-grpc-service-on-defrag",
        Gate::StopGRPCServiceOnDefrag,
    ),
    (
        "experimental-enable-lease-checkpoint",
        Gate::LeaseCheckpoint,
    ),
    (
        "experimental-enable-lease-checkpoint-persist",
        Gate::LeaseCheckpointPersist,
    ),
];

/// One thing that is wrong with the options.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::Problem;
///
/// let builder = Config::builder().data_dir("/var/lib/mine").flag("heartbeat-interval", "0");
/// let refused = builder.build().expect_err("a leader has to be heard of");
/// let texts: Vec<String> = refused.problems.iter().map(Problem::to_string).collect();
/// assert_eq!(texts, ["--heartbeat-interval must be >0 (set to 0ms)"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    text: String,
}

/// Everything that is wrong with the options.
///
/// ```
/// use kvorum::Config;
///
/// let builder = Config::builder().flag("election-timeout", "100").flag("auto-compaction-mode", "never");
/// let refused = builder.build().unwrap_err();
/// assert!(refused.problems.len() > 1, "all of them are told at once");
/// for problem in &refused.problems {
///     println!("{problem}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl Problem {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Options {
    /// The configuration that these options stand for.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, not only the first.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let mut check = Check::default();
        let mut config = check.config(self);
        if check.problems.is_empty() {
            config.warnings = check.warnings;
            Ok(config)
        } else {
            Err(ConfigError {
                problems: check.problems,
            })
        }
    }
}

/// Collects problems. Its methods return something usable even where they found one, so that the
/// rest can be checked too.
#[derive(Default)]
pub(super) struct Check {
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Check {
    pub(super) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(Problem::new(text));
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    fn config(&mut self, mut options: Options) -> Config {
        let listens_explicitly = options.listen_client_urls.is_some();
        let listen_peer_urls = self.bound(or_default(&options.listen_peer_urls, DEFAULT_PEER_URL));
        let listen_client_urls =
            self.bound(or_default(&options.listen_client_urls, DEFAULT_CLIENT_URL));
        let listen_client_http_urls = self.bound(options.listen_client_http_urls.clone());
        let listen_metrics_urls = self.bound(options.listen_metrics_urls.clone());
        let advertise_peer_urls =
            or_default(&options.initial_advertise_peer_urls, DEFAULT_PEER_URL);
        let advertise_client_urls = or_default(&options.advertise_client_urls, DEFAULT_CLIENT_URL);
        self.advertised("initial-advertise-peer-urls", &advertise_peer_urls);
        self.advertised("advertise-client-urls", &advertise_client_urls);
        let says_nothing = options.advertise_client_urls.is_none() && !options.is_from_file;
        if listens_explicitly && says_nothing {
            self.problem(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            );
        }
        self.apart(&listen_client_urls, &listen_client_http_urls);
        self.given(&options);
        self.intervals(&options);
        self.bootstrap(&options);
        self.durations(&mut options);
        let parameters = self.tls_parameters(&options);
        let client_urls = [&listen_client_urls[..], &listen_client_http_urls].concat();
        Config {
            peer_tls: self.peer_tls(&options, &parameters, &listen_peer_urls),
            client_cert_auth: options.client_tls.client_cert_auth,
            client_tls: self.client_tls(&options, &parameters, &client_urls),
            local_address: self.local_address(&options, &advertise_peer_urls),
            learners_max: usize::try_from(options.max_learners).unwrap_or(usize::MAX),
            warnings: Vec::new(),
            initial_cluster: self.initial_cluster(&options, &advertise_peer_urls),
            auto_compaction: self.auto_compaction(&options),
            log: self.log(&options),
            data_dir: data_dir(&options),
            listen_client_urls,
            listen_client_http_urls,
            advertise_client_urls,
            listen_peer_urls,
            advertise_peer_urls,
            listen_metrics_urls,
            force_new_cluster: options.force_new_cluster,
            strict_reconfig_check: options.strict_reconfig_check,
            pre_vote: options.pre_vote,
            wal_dir: (!options.wal_dir.is_empty()).then(|| PathBuf::from(&options.wal_dir)),
            memory_mlock: options.memory_mlock,
            raft_read_timeout: self.raft_timeout("raft-read-timeout", options.raft_read_timeout),
            raft_write_timeout: self.raft_timeout("raft-write-timeout", options.raft_write_timeout),
            grpc: options.grpc,
            http: options.http,
            auth: options.auth,
            slow: options.slow,
            checks: options.checks,
            compaction: options.compaction,
            metrics: options.metrics,
            tracing: options.tracing,
            sockets: options.sockets,
            discovery: options.discovery,
            backup: self.backups(&options.backup),
            features: options.feature_gates,
            snapshot_count: options.snapshot_count,
            snapshot_catchup_entries: options.snapshot_catchup_entries,
            heartbeat_interval: Duration::from_millis(options.heartbeat_interval_ms),
            election_timeout: Duration::from_millis(options.election_timeout_ms),
            quota: quota(options.quota_backend_bytes),
            request_bytes_max: usize::try_from(options.max_request_bytes).unwrap_or(usize::MAX),
            txn_ops_max: usize::try_from(options.max_txn_ops).unwrap_or(usize::MAX),
            watch_progress_notify_interval: options.watch_progress_notify_interval,
            name: options.name,
        }
    }

    /// gRPC and HTTP that are to be apart cannot share an address.
    fn apart(&mut self, grpc: &[Url], http: &[Url]) {
        for url in http {
            if grpc.iter().any(|other| share_address(url, other)) {
                self.problem(format!(
                    "cannot bind both --listen-client-urls and --listen-client-http-urls on the \
                     same url {url}"
                ));
            }
        }
    }

    fn bound(&mut self, urls: Vec<Url>) -> Vec<Url> {
        for url in &urls {
            if let Err(error) = url.bind_address() {
                self.problem(error.to_string());
            }
        }
        urls
    }

    fn advertised(&mut self, flag: &str, urls: &[Url]) {
        let check = || -> Result<(), UrlError> { urls.iter().try_for_each(Url::check_advertised) };
        if let Err(error) = check() {
            let list = join(urls);
            self.problem(format!("--{flag} {list:?} must be \"host:port\" ({error})"));
        }
    }

    /// Flags of which etcd or we have something to say.
    fn given(&mut self, options: &Options) {
        for (old, new) in RENAMED {
            if options.given.contains(old) && options.given.contains(new) {
                self.problem(format!(
                    "cannot set --{old} and --{new} at the same time, please use --{new} only"
                ));
            }
        }
        for (flag, gate) in GATES_OF_FLAGS {
            if options.given.contains(flag) && options.feature_gates.is_named(gate) {
                let (on, name) = (options.feature_gates.enabled(gate), gate.name());
                self.problem(format!(
                    "cannot specify both flags: --{flag}={on} and --feature-gates={name}={on} at \
                     the same time, please just use --feature-gates={name}={on}"
                ));
            }
        }
        for flag in flags::all().filter(|flag| options.given.contains(flag.name)) {
            if let Some(text) = flag.deprecated {
                self.warn(Warning::Deprecated { text });
            }
            let is_gate = GATES_OF_FLAGS.iter().any(|(name, _)| *name == flag.name);
            if flag.section == Section::NoEffect && !is_gate {
                self.warn(Warning::NoEffect { flag: flag.name });
            }
        }
        self.features(options);
        match options.logger.as_str() {
            "zap" => {}
            "capnslog" => self.problem("--logger=capnslog is removed in v3.5"),
            other => self.problem(format!("unknown logger option {other:?}")),
        }
        if options.name == "default" {
            self.warn(Warning::DefaultName);
        }
    }

    fn features(&mut self, options: &Options) {
        let gates = &options.feature_gates;
        for (gate, on) in gates.given() {
            // The shared buffer is how etcd makes a transaction see its own writes; here it does.
            // And renewals wait for nothing that they need not.
            let is_here = [
                Gate::SetMemberLocalAddr,
                Gate::TxnModeWriteWithSharedBuffer,
                Gate::FastLeaseKeepAlive,
            ];
            if on && !is_here.contains(&gate) {
                self.warn(Warning::NoFeature { gate });
            }
        }
        let checkpoint = gates.enabled(Gate::LeaseCheckpoint);
        let persist = gates.enabled(Gate::LeaseCheckpointPersist);
        if checkpoint && !persist {
            self.warn(Warning::CheckpointsNotPersisted);
        }
        if persist && !checkpoint {
            self.problem(
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                 LeaseCheckpoint",
            );
        }
    }

    /// The first advertised address that is one of this machine's own, if that feature is on.
    fn local_address(&mut self, options: &Options, advertised: &[Url]) -> Option<IpAddr> {
        if !options.feature_gates.enabled(Gate::SetMemberLocalAddr) {
            return None;
        }
        let address = advertised
            .iter()
            .filter_map(|url| url.host().parse().ok())
            .find(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified());
        if address.is_none() {
            let urls = join(advertised);
            self.warn(Warning::NoLocalAddress { urls });
        }
        address
    }

    /// That it is said in one way only how the cluster begins.
    fn bootstrap(&mut self, options: &Options) {
        let discovery = &options.discovery;
        let ways = [
            !discovery.url.is_empty(),
            options.initial_cluster.is_some(),
            !discovery.srv.is_empty(),
            !discovery.endpoints.is_empty(),
        ];
        if ways.into_iter().filter(|is_set| *is_set).count() > 1 {
            self.problem(
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                 \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"",
            );
        }
        if !discovery.url.is_empty() || !discovery.proxy.is_empty() {
            self.problem(
                "--discovery and --discovery-proxy are not supported: etcd has given its v2 discovery \
                 service up in v3.7; choose --discovery-token and --discovery-endpoints, or \
                 --discovery-srv",
            );
        }
        let v3_texts = [
            &discovery.token,
            &discovery.cert_file,
            &discovery.key_file,
            &discovery.cacert_file,
            &discovery.user,
            &discovery.password,
        ];
        let is_v3 = !discovery.endpoints.is_empty() || v3_texts.iter().any(|text| !text.is_empty());
        if is_v3 && !discovery.proxy.is_empty() {
            self.problem(
                "both v2 discovery settings (discovery, discovery-proxy) and v3 discovery settings \
                 (discovery-token, discovery-endpoints, discovery-cert, discovery-key, \
                 discovery-cacert, discovery-user, discovery-password) are set",
            );
        }
        if discovery.token.is_empty() != discovery.endpoints.is_empty() {
            self.problem("both --discovery-token and --discovery-endpoints must be set");
        }
        if discovery
            .endpoints
            .iter()
            .any(|endpoint| endpoint.trim().is_empty())
        {
            self.problem("--discovery-endpoints must not contain empty endpoints");
        }
        if discovery.fallback == "proxy" {
            self.problem(
                "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
            );
        }
    }

    fn durations(&mut self, options: &mut Options) {
        let (old, new) = (
            "experimental-warning-unary-request-duration",
            "warning-unary-request-duration",
        );
        if options.given.contains(old) && options.given.contains(new) {
            self.problem(format!(
                "both --{old} and --{new} flags are set. Use only --{new}"
            ));
        }
        // As in etcd, nothing means the default.
        if options.slow.unary_request.is_zero() {
            options.slow.unary_request = SlowSettings::default().unary_request;
        }
        if options.checks.compact_hash_check_time.is_zero() {
            let old = "experimental-compact-hash-check-time";
            let prefix = if options.given.contains(old) {
                "experimental-"
            } else {
                ""
            };
            self.problem(format!(
                "--{prefix}compact-hash-check-time must be >0 (set to 0s)"
            ));
        }
        let rate = options.tracing.sampling_rate_per_million;
        if options.tracing.is_enabled && !(0..=1_000_000).contains(&rate) {
            self.problem(format!(
                "distributed tracing configurition is not valid: ({})",
                if rate < 0 {
                    "tracing sampling rate must be positive"
                } else {
                    "tracing sampling rate must be less than 1000000"
                }
            ));
        }
    }

    fn raft_timeout(&mut self, flag: &'static str, asked: Duration) -> Duration {
        if asked < RAFT_IO_TIMEOUT {
            self.warn(Warning::Raised { flag });
        }
        asked.max(RAFT_IO_TIMEOUT)
    }

    fn intervals(&mut self, options: &Options) {
        let heartbeat = options.heartbeat_interval_ms;
        let election = options.election_timeout_ms;
        if heartbeat == 0 {
            self.problem("--heartbeat-interval must be >0 (set to 0ms)");
        }
        if election == 0 {
            self.problem("--election-timeout must be >0 (set to 0ms)");
        } else if heartbeat.saturating_mul(5) > election {
            self.problem(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if election > ELECTION_TIMEOUT_MAX_MS {
            self.problem(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than \
                 {ELECTION_TIMEOUT_MAX_MS}ms"
            ));
        }
    }

    fn initial_cluster(
        &mut self,
        options: &Options,
        advertise_peer_urls: &[Url],
    ) -> InitialCluster {
        let members = match &options.initial_cluster {
            // It follows the name and the urls.
            None => vec![InitialMember {
                name: options.name.clone(),
                peer_urls: advertise_peer_urls.to_vec(),
            }],
            Some(text) => match initial_cluster::parse(text) {
                Ok(members) => members
                    .into_iter()
                    .map(|(name, peer_urls)| InitialMember { name, peer_urls })
                    .collect(),
                Err(error) => {
                    self.problem(format!("error setting up initial cluster: {error}"));
                    Vec::new()
                }
            },
        };
        InitialCluster {
            state: options.initial_cluster_state,
            // As in etcd, the ids of members that meet at another etcd come from the token of that.
            token: match options.discovery.endpoints.is_empty() {
                true => options.initial_cluster_token.clone(),
                false => options.discovery.token.clone(),
            },
            members,
        }
    }

    fn auto_compaction(&mut self, options: &Options) -> AutoCompaction {
        let mode = options.auto_compaction_mode.as_str();
        let revisions = match mode {
            "periodic" => false,
            "revision" => true,
            "" => {
                self.problem("undefined auto-compaction-mode");
                return AutoCompaction::Off;
            }
            other => {
                self.problem(format!("unknown auto-compaction-mode {other:?}"));
                return AutoCompaction::Off;
            }
        };
        let retention = options.auto_compaction_retention.as_str();
        match (retention.parse::<u32>(), duration::parse(retention)) {
            (Ok(0), _) | (_, Ok(Duration::ZERO)) => AutoCompaction::Off,
            (Ok(count), _) if revisions => AutoCompaction::Revision(i64::from(count)),
            (Ok(hours), _) => {
                AutoCompaction::Periodic(Duration::from_secs(u64::from(hours) * 60 * 60))
            }
            // As in etcd, a time given in this mode counts nanoseconds as revisions.
            (_, Ok(time)) if revisions => {
                AutoCompaction::Revision(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
            }
            (_, Ok(time)) => AutoCompaction::Periodic(time),
            (_, Err(_)) => {
                self.problem(format!(
                    "error parsing CompactionRetention: time: invalid duration {retention:?}"
                ));
                AutoCompaction::Off
            }
        }
    }
}

fn or_default(urls: &Option<Vec<Url>>, default: &str) -> Vec<Url> {
    urls.clone()
        .unwrap_or_else(|| vec![Url::parse(default).expect("the default urls are urls")])
}

/// Whether both cannot be bound.
fn share_address(one: &Url, other: &Url) -> bool {
    match (one.socket_path(), other.socket_path()) {
        (None, None) => one.authority() == other.authority(),
        (one, other) => one == other,
    }
}

pub(super) fn data_dir(options: &Options) -> PathBuf {
    if options.data_dir.is_empty() {
        PathBuf::from(format!("{}.etcd", options.name))
    } else {
        PathBuf::from(&options.data_dir)
    }
}

fn quota(bytes: i64) -> apply::Quota {
    match u64::try_from(bytes) {
        Ok(0) => apply::Quota::Bytes(QUOTA_DEFAULT_BYTES),
        Ok(bytes) => apply::Quota::Bytes(bytes),
        Err(_negative) => apply::Quota::Unlimited,
    }
}

fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;

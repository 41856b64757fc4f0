//! Groups of settings that mean the same asked for and checked: [`Options`](super::Options) holds
//! them as they were given, [`Config`](super::Config) as they apply.
//!
//! What this is not: behaviour. Whoever acts on a group takes it from the configuration.

use std::time::Duration;

/// gRPC's connections with clients.
///
/// ```
/// use std::time::Duration;
///
/// use kvorum::Config;
/// use kvorum::config::GrpcSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("max-concurrent-streams", "1000").flag("grpc-keepalive-interval", "30s").build()?;
/// assert_eq!(config.grpc.max_concurrent_streams, 1000);
/// assert_eq!(config.grpc.keepalive_interval, Duration::from_secs(30));
/// assert_eq!(config.grpc.keepalive_timeout, GrpcSettings::default().keepalive_timeout);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcSettings {
    /// `--grpc-keepalive-min-time`: how often a client may ping.
    pub keepalive_min_time: Duration,
    /// `--grpc-keepalive-interval`: how often an idle client is pinged; zero is never.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`: how long its answer may take; zero is for ever.
    pub keepalive_timeout: Duration,
    /// `--max-concurrent-streams`: requests that a connection may have open.
    pub max_concurrent_streams: u32,
    /// `--grpc-reflection`: whether clients may ask which services there are. etcd has no such flag.
    pub is_reflection_enabled: bool,
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self {
            keepalive_min_time: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(2 * 60 * 60),
            keepalive_timeout: Duration::from_secs(20),
            max_concurrent_streams: u32::MAX,
            is_reflection_enabled: false,
        }
    }
}

/// HTTP for clients, beside gRPC.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::HttpSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("host-whitelist", "etcd.example.com").flag("enable-grpc-gateway", "false").build()?;
/// let expected = HttpSettings {
///     host_whitelist: vec!["etcd.example.com".to_owned()],
///     is_gateway_enabled: false,
///     ..HttpSettings::default()
/// };
/// assert_eq!(config.http, expected);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// `--cors`: origins that may ask from a browser; `*` or nothing is all.
    pub cors: Vec<String>,
    /// `--host-whitelist`: host names by which a plain listener may be addressed; `*` or nothing is
    /// all.
    pub host_whitelist: Vec<String>,
    /// `--enable-grpc-gateway`: whether JSON is spoken.
    pub is_gateway_enabled: bool,
    /// `--enable-pprof`: whether `/debug/pprof` is served.
    pub is_pprof_enabled: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            cors: vec!["*".to_owned()],
            host_whitelist: vec!["*".to_owned()],
            is_gateway_enabled: true,
            is_pprof_enabled: false,
        }
    }
}

/// Users' tokens and passwords.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::AuthSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("auth-token-ttl", "60").flag("bcrypt-cost", "12").build()?;
/// let token = "simple".to_owned();
/// assert_eq!(config.auth, AuthSettings { token, token_ttl_seconds: 60, bcrypt_cost: 12 });
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// `--auth-token`: `simple`, or `jwt` and its options behind commas.
    pub token: String,
    /// `--auth-token-ttl`: how long a simple token is good for.
    pub token_ttl_seconds: u64,
    /// `--bcrypt-cost`: as given; what is out of 4 to 31 is for whoever hashes to refuse.
    pub bcrypt_cost: u64,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            token: "simple".to_owned(),
            token_ttl_seconds: 300,
            bcrypt_cost: 10,
        }
    }
}

/// What is looked at again and again.
///
/// ```
/// use std::time::Duration;
///
/// use kvorum::Config;
/// use kvorum::config::CheckSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("corrupt-check-time", "12h").flag("nospace-auto-disarm", "true").build()?;
/// assert_eq!(config.checks.corrupt_check_time, Duration::from_secs(12 * 60 * 60));
/// assert!(config.checks.nospace_auto_disarm && !CheckSettings::default().nospace_auto_disarm);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// `--corrupt-check-time`: how often members compare their data; zero is never.
    pub corrupt_check_time: Duration,
    /// `--compact-hash-check-time`: how often the leader compares compactions' hashes, if the
    /// feature `CompactHashCheck` is on.
    pub compact_hash_check_time: Duration,
    /// `--corrupt-repair`: a member that a majority does not agree with takes the leader's state. etcd has
    /// no such flag.
    pub corrupt_repair: bool,
    /// `--downgrade-check-time`: how often it is seen whether a downgrade has ended.
    pub downgrade_check_time: Duration,
    /// `--nospace-auto-disarm`: NOSPACE is cleared by itself once there is space again.
    pub nospace_auto_disarm: bool,
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            corrupt_check_time: Duration::ZERO,
            compact_hash_check_time: Duration::from_secs(60),
            corrupt_repair: true,
            downgrade_check_time: Duration::from_secs(5),
            nospace_auto_disarm: false,
        }
    }
}

/// The steps in which a compaction removes history.
///
/// ```
/// use std::time::Duration;
///
/// use kvorum::Config;
/// use kvorum::config::CompactionSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("compaction-batch-limit", "500").flag("compaction-sleep-interval", "20ms").build()?;
/// let sleep_interval = Duration::from_millis(20);
/// assert_eq!(config.compaction, CompactionSettings { batch_limit: 500, sleep_interval });
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// `--compaction-batch-limit`: revisions in one step.
    pub batch_limit: i64,
    /// `--compaction-sleep-interval`: the rest between two steps.
    pub sleep_interval: Duration,
}

impl CompactionSettings {
    /// As the store wants them; what is 0 or less is the default, as in etcd.
    pub(crate) fn steps(&self) -> apply::ScrubSteps {
        let default = Self::default();
        let limit = Some(self.batch_limit).filter(|limit| *limit > 0);
        let limit = limit.unwrap_or(default.batch_limit);
        let rest = Some(self.sleep_interval).filter(|rest| !rest.is_zero());
        apply::ScrubSteps {
            batch_limit: u32::try_from(limit).unwrap_or(u32::MAX),
            rest: rest.unwrap_or(default.sleep_interval),
        }
    }
}

impl Default for CompactionSettings {
    fn default() -> Self {
        Self {
            batch_limit: 1000,
            sleep_interval: Duration::from_millis(10),
        }
    }
}

/// When a request is slow enough to be logged.
///
/// ```
/// use std::time::Duration;
///
/// use kvorum::Config;
/// use kvorum::config::SlowSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("warning-apply-duration", "50ms").build()?;
/// let apply = Duration::from_millis(50);
/// assert_eq!(config.slow, SlowSettings { apply, ..SlowSettings::default() });
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowSettings {
    /// `--warning-apply-duration`: for applying it.
    pub apply: Duration,
    /// `--warning-unary-request-duration`: for all of it.
    pub unary_request: Duration,
}

impl Default for SlowSettings {
    fn default() -> Self {
        Self {
            apply: Duration::from_millis(100),
            unary_request: Duration::from_millis(300),
        }
    }
}

/// How much `/metrics` tells.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::MetricsLevel;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("metrics", "extensive").build()?;
/// assert_eq!(config.metrics, MetricsLevel::Extensive);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsLevel {
    /// What etcd tells.
    #[default]
    Basic,
    /// And how long every gRPC request takes, by its method.
    Extensive,
}

/// Traces for OpenTelemetry.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::TracingSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let builder = builder.flag("enable-distributed-tracing", "true");
/// let config = builder.flag("distributed-tracing-sampling-rate", "1000").build()?;
/// let expected = TracingSettings {
///     is_enabled: true,
///     sampling_rate_per_million: 1000,
///     ..TracingSettings::default()
/// };
/// assert_eq!(config.tracing, expected);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingSettings {
    /// `--enable-distributed-tracing`
    pub is_enabled: bool,
    /// `--distributed-tracing-address`: the collector.
    pub address: String,
    /// `--distributed-tracing-service-name`
    pub service_name: String,
    /// `--distributed-tracing-instance-id`
    pub instance_id: String,
    /// `--distributed-tracing-sampling-rate`: so many of a million requests are traced; those whose
    /// client traces them always are.
    pub sampling_rate_per_million: i64,
}

impl Default for TracingSettings {
    fn default() -> Self {
        Self {
            is_enabled: false,
            address: "localhost:4317".to_owned(),
            service_name: "etcd".to_owned(),
            instance_id: String::new(),
            sampling_rate_per_million: 0,
        }
    }
}

/// Options of the sockets that are listened on.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::SocketSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("socket-reuse-port", "true").build()?;
/// assert_eq!(config.sockets, SocketSettings { reuse_port: true, reuse_address: false });
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketSettings {
    /// `--socket-reuse-port`
    pub reuse_port: bool,
    /// `--socket-reuse-address`
    pub reuse_address: bool,
}

/// How a member that is given no `--initial-cluster` finds the others.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::DiscoverySettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let builder = builder.flag("discovery-token", "3e86b59982e49066");
/// let config = builder.flag("discovery-endpoints", "http://10.0.0.9:2379").build()?;
/// let discovery: DiscoverySettings = config.discovery;
/// assert!(discovery.is_set());
/// assert_eq!(discovery.endpoints, ["http://10.0.0.9:2379"]);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// `--discovery`: etcd's old service.
    pub url: String,
    /// `--discovery-proxy`
    pub proxy: String,
    /// `--discovery-fallback`: only `exit`.
    pub fallback: String,
    /// `--discovery-srv`: the domain that is asked.
    pub srv: String,
    /// `--discovery-srv-name`: what the names of its services end with.
    pub srv_name: String,
    /// `--discovery-token`: names the cluster that begins.
    pub token: String,
    /// `--discovery-endpoints`: the cluster that is asked.
    pub endpoints: Vec<String>,
    /// `--discovery-dial-timeout`
    pub dial_timeout: Duration,
    /// `--discovery-request-timeout`
    pub request_timeout: Duration,
    /// `--discovery-keepalive-time`
    pub keepalive_time: Duration,
    /// `--discovery-keepalive-timeout`
    pub keepalive_timeout: Duration,
    /// `--discovery-insecure-transport`: whether it is asked without TLS.
    pub is_insecure_transport: bool,
    /// `--discovery-insecure-skip-tls-verify`
    pub is_insecure_skip_tls_verify: bool,
    /// `--discovery-cert`
    pub cert_file: String,
    /// `--discovery-key`
    pub key_file: String,
    /// `--discovery-cacert`
    pub cacert_file: String,
    /// `--discovery-user`
    pub user: String,
    /// `--discovery-password`
    pub password: String,
}

impl Default for DiscoverySettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            proxy: String::new(),
            fallback: "exit".to_owned(),
            srv: String::new(),
            srv_name: String::new(),
            token: String::new(),
            endpoints: Vec::new(),
            dial_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            is_insecure_transport: true,
            is_insecure_skip_tls_verify: false,
            cert_file: String::new(),
            key_file: String::new(),
            cacert_file: String::new(),
            user: String::new(),
            password: String::new(),
        }
    }
}

impl DiscoverySettings {
    /// Whether any of them takes the place of `--initial-cluster`.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        !self.url.is_empty() || !self.srv.is_empty() || !self.endpoints.is_empty()
    }
}

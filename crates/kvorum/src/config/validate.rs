//! Raw options in, a checked configuration or every problem at once out. The texts are etcd's
//! (`server/embed/config.go`). No file is opened here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use transport::{
    ClientAuth, ClientVerification, EndpointKind, TlsConfig, TlsParameters,
};
use types::{Url, UrlError};

use super::{
    AutoCompaction, Config, InitialCluster, InitialMember, LogConfig, LogFormat, LogLevel,
    LogOutput, Options, duration, initial_cluster,
};

/// What `--quota-backend-bytes=0` means.
const QUOTA_DEFAULT_BYTES: u64 = 2 << 30;
/// The longest `--election-timeout`.
const ELECTION_TIMEOUT_MAX_MS: u64 = 50_000;

const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";

/// One thing that is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    text: String,
}

/// Everything that is wrong with the options.
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
        let mut check = Check {
            problems: Vec::new(),
        };
        let config = check.config(self);
        if check.problems.is_empty() {
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
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(Problem::new(text));
    }

    fn config(&mut self, options: Options) -> Config {
        let listens_explicitly = options.listen_client_urls.is_some();
        let listen_peer_urls = self.bound(or_default(&options.listen_peer_urls, DEFAULT_PEER_URL));
        let listen_client_urls =
            self.bound(or_default(&options.listen_client_urls, DEFAULT_CLIENT_URL));
        let listen_metrics_urls = self.bound(options.listen_metrics_urls.clone());
        let advertise_peer_urls =
            or_default(&options.initial_advertise_peer_urls, DEFAULT_PEER_URL);
        let advertise_client_urls = or_default(&options.advertise_client_urls, DEFAULT_CLIENT_URL);
        self.advertised("initial-advertise-peer-urls", &advertise_peer_urls);
        self.advertised("advertise-client-urls", &advertise_client_urls);
        if listens_explicitly && options.advertise_client_urls.is_none() {
            self.problem(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            );
        }
        self.peer_tls(&listen_peer_urls);
        self.intervals(&options);
        Config {
            client_tls: self.client_tls(&options, &listen_client_urls, &listen_metrics_urls),
            initial_cluster: self.initial_cluster(&options, &advertise_peer_urls),
            auto_compaction: self.auto_compaction(&options),
            log: self.log(&options),
            data_dir: data_dir(&options),
            listen_client_urls,
            advertise_client_urls,
            listen_peer_urls,
            advertise_peer_urls,
            listen_metrics_urls,
            snapshot_count: options.snapshot_count,
            heartbeat_interval: Duration::from_millis(options.heartbeat_interval_ms),
            election_timeout: Duration::from_millis(options.election_timeout_ms),
            quota: quota(options.quota_backend_bytes),
            request_bytes_max: usize::try_from(options.max_request_bytes).unwrap_or(usize::MAX),
            txn_ops_max: usize::try_from(options.max_txn_ops).unwrap_or(usize::MAX),
            watch_progress_notify_interval: options.watch_progress_notify_interval,
            name: options.name,
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

    fn peer_tls(&mut self, urls: &[Url]) {
        for url in urls.iter().filter(|url| url.scheme().is_tls()) {
            self.problem(format!(
                "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url \
                 {url} with HTTPS scheme"
            ));
        }
    }

    fn client_tls(
        &mut self,
        options: &Options,
        client_urls: &[Url],
        metrics_urls: &[Url],
    ) -> Option<TlsConfig> {
        let mut secure = client_urls.iter().filter(|url| url.scheme().is_tls());
        let secure_client = secure.next();
        let secure_metrics = metrics_urls.iter().any(|url| url.scheme().is_tls());
        if secure_client.is_none() && !secure_metrics {
            return None;
        }
        if options.cert_file.is_empty() || options.key_file.is_empty() {
            self.problem(match secure_client {
                Some(url) => format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} \
                     with HTTPS scheme"
                ),
                None => "client TLS key/cert (--cert-file, --key-file) must be provided for \
                         metrics secure url"
                    .to_owned(),
            });
        }
        let client_auth = if !options.trusted_ca_file.is_empty() {
            ClientAuth::Required(ClientVerification {
                trusted_ca_file: PathBuf::from(&options.trusted_ca_file),
                ..ClientVerification::default()
            })
        } else {
            if options.client_cert_auth {
                // Differs from etcd: it would believe every authority that the machine believes.
                self.problem("--client-cert-auth needs --trusted-ca-file");
            }
            ClientAuth::None
        };
        Some(TlsConfig {
            kind: EndpointKind::Client,
            parameters: TlsParameters::default(),
            cert_file: PathBuf::from(&options.cert_file),
            key_file: PathBuf::from(&options.key_file),
            client_auth,
        })
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
            token: options.initial_cluster_token.clone(),
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

    fn log(&mut self, options: &Options) -> LogConfig {
        let level = match options.log_level.as_str() {
            "debug" | "DEBUG" => LogLevel::Debug,
            "info" | "INFO" | "" => LogLevel::Info,
            "warn" | "WARN" => LogLevel::Warn,
            "error" | "ERROR" => LogLevel::Error,
            "panic" | "PANIC" => LogLevel::Panic,
            "fatal" | "FATAL" => LogLevel::Fatal,
            other => {
                self.problem(format!("--log-level: unrecognized level: {other:?}"));
                LogLevel::Info
            }
        };
        let format = match options.log_format.as_str() {
            "json" => LogFormat::Json,
            "console" => LogFormat::Console,
            other => {
                self.problem(format!(
                    "unknown log format: {other}, supported values json, console"
                ));
                LogFormat::Json
            }
        };
        LogConfig {
            level,
            format,
            outputs: self.log_outputs(&options.log_outputs),
        }
    }

    fn log_outputs(&mut self, text: &str) -> Vec<LogOutput> {
        let names: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .collect();
        if names.len() > 1 && names.contains(&"default") {
            self.problem("multi logoutput for \"default\" is not supported yet");
        }
        let output = |name: &&str| match *name {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            path => LogOutput::File(PathBuf::from(path)),
        };
        if names.is_empty() {
            return vec![LogOutput::Stderr];
        }
        names.iter().map(output).collect()
    }
}

fn or_default(urls: &Option<Vec<Url>>, default: &str) -> Vec<Url> {
    urls.clone()
        .unwrap_or_else(|| vec![Url::parse(default).expect("the default urls are urls")])
}

fn data_dir(options: &Options) -> PathBuf {
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

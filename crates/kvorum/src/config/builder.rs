//! A configuration put together in code: etcd's flags, by name.

use std::path::Path;

use super::flags::{self, Action};
use super::{Config, ConfigError, Options, Problem, env};

/// Puts a [`Config`] together. What is not said is etcd's default; what is wrong is told at the end, all at
/// once.
///
/// ```
/// let config = kvorum::Config::builder()
///     .name("m1")
///     .data_dir("/var/lib/mine")
///     .listen_client_urls("http://127.0.0.1:2379")
///     .flag("auto-compaction-retention", "1h")
///     .build()?;
/// assert_eq!(config.name, "m1");
///
/// let wrong = kvorum::Config::builder().flag("max-txn-ops", "many").listen_peer_urls("nowhere");
/// assert_eq!(wrong.build().unwrap_err().problems.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ConfigBuilder {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Config {
    /// Begins with etcd's defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }
}

impl ConfigBuilder {
    /// Any flag of etcd's, without its dashes: `flag("quota-backend-bytes", "8589934592")`.
    pub fn flag(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.arguments.push(format!("--{name}={}", value.as_ref()));
        self
    }

    /// A command line as etcd takes it.
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Variables like `ETCD_NAME`, for what no flag says: `std::env::vars()`, or others.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// `--name`.
    pub fn name(self, name: &str) -> Self {
        self.flag("name", name)
    }

    /// `--data-dir`.
    pub fn data_dir(self, path: impl AsRef<Path>) -> Self {
        self.flag("data-dir", path.as_ref().to_string_lossy())
    }

    /// `--listen-client-urls`, which are advertised as well.
    pub fn listen_client_urls(self, urls: &str) -> Self {
        self.flag("listen-client-urls", urls)
            .flag("advertise-client-urls", urls)
    }

    /// `--listen-peer-urls`.
    pub fn listen_peer_urls(self, urls: &str) -> Self {
        self.flag("listen-peer-urls", urls)
    }

    /// `--initial-advertise-peer-urls`.
    pub fn initial_advertise_peer_urls(self, urls: &str) -> Self {
        self.flag("initial-advertise-peer-urls", urls)
    }

    /// `--initial-cluster`: `name=url,name=url`.
    pub fn initial_cluster(self, members: &str) -> Self {
        self.flag("initial-cluster", members)
    }

    /// Listens on ports of the system's choice on 127.0.0.1: for a member alone, in a test.
    pub fn any_ports(self) -> Self {
        self.flag("listen-client-urls", "http://127.0.0.1:0")
            .flag("advertise-client-urls", "http://127.0.0.1:2379")
            .flag("listen-peer-urls", "http://127.0.0.1:0")
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, not only the first.
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let (mut options, given) = match flags::parse(&self.arguments) {
            Ok(Action::Run { options, given }) => (options, given),
            Ok(Action::Help | Action::Version) => {
                problems.push(Problem::new("--help and --version configure nothing"));
                (Box::new(Options::default()), Vec::new())
            }
            Err(errors) => {
                let told = errors.errors.iter();
                problems.extend(told.map(|error| Problem::new(error.to_string())));
                (errors.options, errors.given)
            }
        };
        let (_notices, wrong) = env::fill(&mut options, &given, self.environment);
        problems.extend(wrong);
        match options.validate() {
            Ok(config) if problems.is_empty() => Ok(config),
            Ok(_) => Err(ConfigError { problems }),
            Err(error) => {
                problems.extend(error.problems);
                Err(ConfigError { problems })
            }
        }
    }
}

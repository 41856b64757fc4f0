//! The command line, in etcd's flags and with the syntax of Go's `flag` package: one dash or two,
//! `--flag value` or `--flag=value`, and a flag that is on or off takes its value only behind `=`.
//!
//! [`FLAGS`] is the one table of flags: name, default, and what it does. A flag that is not in it is
//! refused by name.

use std::fmt;
use types::{Url, UrlError};

use super::{ClusterState, Options, duration};

/// A flag.
#[derive(Debug)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// Which part of `--help` it is in.
    pub section: Section,
    /// What it is when not given, as `--help` shows it.
    pub default: &'static str,
    /// What it does.
    pub effect: &'static str,
    kind: Kind,
    set: fn(&mut Options, &str) -> Result<(), ValueError>,
}

/// The parts of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Section {
    Member,
    Clustering,
    Security,
    Monitoring,
    Logging,
    Features,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Value,
    Switch,
}

/// A value was refused, in the words of Go's `flag` package and of etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a number, duration or truth value.
    #[error("parse error")]
    Parse,
    /// A number that is too large.
    #[error("value out of range")]
    Range,
    /// Not one of the values there are.
    #[error("invalid value")]
    Choice,
    /// Not a list of urls.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// The command line was refused, in the words of Go's `flag` package and of etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// There is no such flag.
    #[error("flag provided but not defined: -{name}")]
    Unknown {
        /// As given.
        name: String,
    },
    /// Dashes, but no flag.
    #[error("bad flag syntax: {argument}")]
    Syntax {
        /// As given.
        argument: String,
    },
    /// A flag without its value.
    #[error("flag needs an argument: -{name}")]
    NoValue {
        /// The flag.
        name: &'static str,
    },
    /// A value that the flag cannot have.
    #[error("invalid value {value:?} for flag -{name}: {source}")]
    Value {
        /// As given.
        value: String,
        /// The flag.
        name: &'static str,
        /// Why not.
        source: ValueError,
    },
    /// A value that is neither true nor false.
    #[error("invalid boolean value {value:?} for -{name}: {source}")]
    Switch {
        /// As given.
        value: String,
        /// The flag.
        name: &'static str,
        /// Why not.
        source: ValueError,
    },
    /// An argument without dashes.
    #[error("'{argument}' is not a valid flag")]
    NotAFlag {
        /// As given.
        argument: String,
    },
}

impl FlagError {
    /// Whether the command line could not be read at all, so that the usage helps. etcd leaves with
    /// status 2 then.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(self, Self::NotAFlag { .. })
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a member.
    Run {
        /// With these options.
        options: Box<Options>,
        /// The flags that were given.
        given: Vec<&'static str>,
    },
    /// Print the version.
    Version,
    /// Print the flags.
    Help,
}

/// A command line that cannot be used: everything that is wrong with it, and what could be read all
/// the same, so that the rest can be checked too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagErrors {
    /// In the order of the command line; never empty.
    pub errors: Vec<FlagError>,
    /// The options that could be read.
    pub options: Box<Options>,
    /// The flags they came from.
    pub given: Vec<&'static str>,
}

impl FlagErrors {
    /// Whether the usage helps; see [`FlagError::is_usage`].
    #[must_use]
    pub fn is_usage(&self) -> bool {
        self.errors.iter().any(FlagError::is_usage)
    }
}

impl fmt::Display for FlagErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.errors.iter().enumerate() {
            let line_break = if place == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FlagErrors {}

/// Reads a command line, without the program's name.
///
/// Differs from etcd: Go's `flag` package stops at the first mistake; here all of them are told.
///
/// # Errors
/// Every flag that is not known or has a wrong value, and an argument that is no flag.
pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Action, FlagErrors> {
    let mut reading = Reading::default();
    let mut arguments = arguments.iter().map(AsRef::as_ref).peekable();
    while let Some(argument) = arguments.next() {
        match reading.take(argument, &mut arguments) {
            Ok(Next::Goes) => {}
            Ok(Next::Help) => return Ok(Action::Help),
            Ok(Next::Ends) => break,
            Err(error) => {
                // Nobody knows what an argument without a flag was meant to be; the rest may hang on it.
                let is_lost = matches!(error, FlagError::NotAFlag { .. });
                reading.errors.push(error);
                if is_lost {
                    break;
                }
            }
        }
    }
    let Reading {
        options,
        given,
        wants_version,
        errors,
    } = reading;
    let options = Box::new(options);
    if !errors.is_empty() {
        return Err(FlagErrors {
            errors,
            options,
            given,
        });
    }
    Ok(if wants_version {
        Action::Version
    } else {
        Action::Run { options, given }
    })
}

/// A command line, read so far.
#[derive(Default)]
struct Reading {
    options: Options,
    given: Vec<&'static str>,
    wants_version: bool,
    errors: Vec<FlagError>,
}

/// How reading goes on.
enum Next {
    Goes,
    Help,
    Ends,
}

impl Reading {
    /// Takes one argument, and the next one if that is its value.
    fn take<'a>(
        &mut self,
        argument: &'a str,
        rest: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    ) -> Result<Next, FlagError> {
        let Some((name, mut value)) = split(argument)? else {
            // As in Go, `--` ends the flags; whatever follows is no flag either.
            let argument = if argument == "--" {
                rest.next()
            } else {
                Some(argument)
            };
            return match argument {
                Some(argument) => Err(FlagError::NotAFlag {
                    argument: argument.to_owned(),
                }),
                None => Ok(Next::Ends),
            };
        };
        match name {
            "version" => {
                self.wants_version = value.is_none_or(|value| switch(value).unwrap_or(true));
                return Ok(Next::Goes);
            }
            "h" | "help" => return Ok(Next::Help),
            _ => {}
        }
        let Some(flag) = find(name) else {
            // What follows an unknown flag is taken for its value when it looks like one.
            if value.is_none() {
                rest.next_if(|next| !next.starts_with('-'));
            }
            return Err(FlagError::Unknown {
                name: name.to_owned(),
            });
        };
        if value.is_none() {
            value = match flag.kind {
                Kind::Switch => Some("true"),
                Kind::Value => rest.next(),
            };
        }
        let value = value.ok_or(FlagError::NoValue { name: flag.name })?;
        flag.apply(&mut self.options, value)?;
        self.given.push(flag.name);
        Ok(Next::Goes)
    }
}

/// The name and the value behind `=`; `None` for an argument that is no flag.
fn split(argument: &str) -> Result<Option<(&str, Option<&str>)>, FlagError> {
    let Some(flag) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return Ok(None);
    };
    if flag == "-" {
        return Ok(None);
    }
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    if flag.starts_with(['-', '=']) {
        return Err(FlagError::Syntax {
            argument: argument.to_owned(),
        });
    }
    Ok(Some(match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    }))
}

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

impl Flag {
    /// Sets the option that the flag stands for.
    pub(super) fn set(&self, options: &mut Options, value: &str) -> Result<(), ValueError> {
        (self.set)(options, value)
    }

    fn apply(&self, options: &mut Options, value: &str) -> Result<(), FlagError> {
        self.set(options, value).map_err(|source| {
            let (value, name) = (value.to_owned(), self.name);
            match self.kind {
                Kind::Value => FlagError::Value {
                    value,
                    name,
                    source,
                },
                Kind::Switch => FlagError::Switch {
                    value,
                    name,
                    source,
                },
            }
        })
    }
}

/// What `--help` prints.
#[must_use]
pub fn help() -> String {
    let mut text = USAGE.to_owned();
    for (section, title) in SECTIONS {
        text.push_str(&format!("\n{title}:\n"));
        for flag in FLAGS.iter().filter(|flag| flag.section == section) {
            text.push_str(&format!(
                "  --{} '{}'\n    {}\n",
                flag.name, flag.default, flag.effect
            ));
        }
    }
    text.push_str(
        "\nEvery flag can also be given in the environment: --data-dir as ETCD_DATA_DIR, and so on.\n",
    );
    text
}

/// What is printed when the command line cannot be read.
pub const USAGE: &str = "Usage:

  kvorum [flags]
    Start a member.

  kvorum --version
    Show the version.

  kvorum -h | --help
    Show the flags.
";

const SECTIONS: [(Section, &str); 6] = [
    (Section::Member, "Member"),
    (Section::Clustering, "Clustering"),
    (Section::Security, "Security"),
    (Section::Monitoring, "Profiling and Monitoring"),
    (Section::Logging, "Logging"),
    (Section::Features, "Features"),
];

fn switch(value: &str) -> Result<bool, ValueError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Parse),
    }
}

/// A whole number as Go reads it: also hexadecimal, octal and binary.
fn number<N: TryFrom<i128>>(value: &str) -> Result<N, ValueError> {
    let (negative, digits) = match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let (digits, radix) = match digits.get(..2) {
        Some("0x" | "0X") => (&digits[2..], 16),
        Some("0o" | "0O") => (&digits[2..], 8),
        Some("0b" | "0B") => (&digits[2..], 2),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(ValueError::Parse);
    }
    let magnitude = i128::from_str_radix(digits, radix).or(Err(ValueError::Range))?;
    N::try_from(if negative { -magnitude } else { magnitude }).or(Err(ValueError::Range))
}

fn unsigned(value: &str) -> Result<u64, ValueError> {
    if value.starts_with(['-', '+']) {
        return Err(ValueError::Parse);
    }
    number(value)
}

/// A list of urls; nothing at all leaves the default, as in etcd.
fn urls(value: &str) -> Result<Option<Vec<Url>>, ValueError> {
    if value.is_empty() {
        return Ok(None);
    }
    Ok(Some(Url::parse_list(value)?))
}

fn time(value: &str) -> Result<std::time::Duration, ValueError> {
    duration::parse(value).or(Err(ValueError::Parse))
}

macro_rules! flag {
    ($section:ident, $kind:ident, $name:literal, $default:literal, $effect:literal, $set:expr) => {
        Flag {
            name: $name,
            section: Section::$section,
            default: $default,
            effect: $effect,
            kind: Kind::$kind,
            set: $set,
        }
    };
}

/// Every flag there is, besides `--version` and `--help`.
pub static FLAGS: &[Flag] = &[
    flag!(
        Member,
        Value,
        "name",
        "default",
        "Human-readable name for this member.",
        |options, value| {
            options.name = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "data-dir",
        "${name}.etcd",
        "Path to the data directory; made, for its owner only, when it is not there.",
        |options, value| {
            options.data_dir = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "snapshot-count",
        "10000",
        "Number of log entries after which the log is cut.",
        |options, value| {
            options.snapshot_count = unsigned(value)?;
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "heartbeat-interval",
        "100",
        "Time (in milliseconds) between a leader's heartbeats; about a round trip between members.",
        |options, value| {
            options.heartbeat_interval_ms = unsigned(value)?;
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "election-timeout",
        "1000",
        "Time (in milliseconds) without a heartbeat after which members elect another leader; at least 5 heartbeats.",
        |options, value| {
            options.election_timeout_ms = unsigned(value)?;
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "listen-peer-urls",
        "http://localhost:2380",
        "Comma-separated urls to listen on for peers. Hosts must be addresses.",
        |options, value| {
            options.listen_peer_urls = urls(value)?;
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "listen-client-urls",
        "http://localhost:2379",
        "Comma-separated urls to listen on for clients' gRPC and HTTP. Hosts must be addresses.",
        |options, value| {
            options.listen_client_urls = urls(value)?;
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "quota-backend-bytes",
        "0",
        "Bytes that may be stored before writes are refused and an alarm is raised. 0 means 2 GiB, a negative number no limit.",
        |options, value| {
            options.quota_backend_bytes = number(value)?;
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "max-txn-ops",
        "128",
        "Number of operations a transaction may have.",
        |options, value| {
            options.max_txn_ops = unsigned(value)?;
            Ok(())
        }
    ),
    flag!(
        Member,
        Value,
        "max-request-bytes",
        "1572864",
        "Bytes a client's request may have.",
        |options, value| {
            options.max_request_bytes = unsigned(value)?;
            Ok(())
        }
    ),
    flag!(
        Clustering,
        Value,
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        "Comma-separated urls at which peers reach this member.",
        |options, value| {
            options.initial_advertise_peer_urls = urls(value)?;
            Ok(())
        }
    ),
    flag!(
        Clustering,
        Value,
        "initial-cluster",
        "${name}=${initial-advertise-peer-urls}",
        "The members that begin the cluster, as name=url,name=url. Of no effect once there is data.",
        |options, value| {
            options.initial_cluster = Some(value.to_owned());
            Ok(())
        }
    ),
    flag!(
        Clustering,
        Value,
        "initial-cluster-state",
        "new",
        "'new' to begin a cluster, 'existing' to join one. Of no effect once there is data.",
        |options, value| {
            options.initial_cluster_state = match value {
                "new" => ClusterState::New,
                "existing" => ClusterState::Existing,
                _ => return Err(ValueError::Choice),
            };
            Ok(())
        }
    ),
    flag!(
        Clustering,
        Value,
        "initial-cluster-token",
        "etcd-cluster",
        "Keeps clusters apart that begin with the same urls: their ids differ.",
        |options, value| {
            options.initial_cluster_token = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Clustering,
        Value,
        "advertise-client-urls",
        "http://localhost:2379",
        "Comma-separated urls at which clients reach this member. Required when --listen-client-urls is given.",
        |options, value| {
            options.advertise_client_urls = urls(value)?;
            Ok(())
        }
    ),
    flag!(
        Clustering,
        Value,
        "auto-compaction-mode",
        "periodic",
        "What --auto-compaction-retention counts: 'periodic' a time, 'revision' a number of revisions.",
        |options, value| {
            options.auto_compaction_mode = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Clustering,
        Value,
        "auto-compaction-retention",
        "0",
        "How much history is kept; a time without a unit is in hours. 0 keeps all.",
        |options, value| {
            options.auto_compaction_retention = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Security,
        Value,
        "cert-file",
        "",
        "Path to the certificate shown to clients on https urls (PEM). Followed when it changes.",
        |options, value| {
            options.cert_file = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Security,
        Value,
        "key-file",
        "",
        "Path to its key (PEM). Followed when it changes.",
        |options, value| {
            options.key_file = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Security,
        Switch,
        "client-cert-auth",
        "false",
        "Whether clients must show a certificate from --trusted-ca-file.",
        |options, value| {
            options.client_cert_auth = switch(value)?;
            Ok(())
        }
    ),
    flag!(
        Security,
        Value,
        "trusted-ca-file",
        "",
        "Path to the authorities of clients' certificates (PEM). Given, clients must show one.",
        |options, value| {
            options.trusted_ca_file = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Monitoring,
        Value,
        "listen-metrics-urls",
        "",
        "Comma-separated urls to listen on for /metrics and /health only. https uses the certificate for clients; http asks for none.",
        |options, value| {
            options.listen_metrics_urls = urls(value)?.unwrap_or_default();
            Ok(())
        }
    ),
    flag!(
        Logging,
        Value,
        "log-level",
        "info",
        "Log from this level on: debug, info, warn, error, panic, or fatal.",
        |options, value| {
            options.log_level = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Logging,
        Value,
        "log-format",
        "json",
        "'json' or 'console'.",
        |options, value| {
            options.log_format = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Logging,
        Value,
        "log-outputs",
        "default",
        "Comma-separated: 'stdout', 'stderr' (the default), or paths of files.",
        |options, value| {
            options.log_outputs = value.to_owned();
            Ok(())
        }
    ),
    flag!(
        Features,
        Value,
        "watch-progress-notify-interval",
        "10m",
        "How often an idle watch that asked for it hears how far it is.",
        |options, value| {
            options.watch_progress_notify_interval = time(value)?;
            Ok(())
        }
    ),
    flag!(
        Features,
        Value,
        "experimental-watch-progress-notify-interval",
        "10m",
        "The name of --watch-progress-notify-interval before etcd 3.6.",
        |options, value| {
            options.watch_progress_notify_interval = time(value)?;
            Ok(())
        }
    ),
];

#[cfg(test)]
mod tests;

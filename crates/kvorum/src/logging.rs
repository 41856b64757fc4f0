//! Log lines in the form that etcd's have, so that whatever reads etcd's logs reads ours.
//!
//! One JSON object a line: `level`, `ts` (UTC, microseconds), `caller`, `msg`, then the event's own
//! fields; or, for people, the same separated by tabs (`--log-format console`).
//!
//! What this is not: part of the library's way of working. The binary installs it; a program that
//! embeds kvorum brings a subscriber of its own or none.

mod journal;
mod line;
mod rotation;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use types::Clock;

use crate::config::{LogConfig, LogFormat, LogLevel, LogOutput, LogRotation};
use journal::Journal;
use rotation::RotatingFile;

/// Crates of others that say at `info` what etcd says at `debug`, if at all.
const TALKATIVE: [&str; 6] = ["sled", "h2", "hyper", "hyper_util", "tonic", "tower"];

/// Warns of every message that an election has made void. What matters of it, `raft` says.
const OPENRAFT: &str = "openraft";

/// Logging could not be set up.
///
/// ```
/// use std::sync::Arc;
///
/// use kvorum::logging::{self, LoggingError};
/// use kvorum::{Config, SystemClock};
///
/// let builder = Config::builder().data_dir("/var/lib/mine").flag("log-outputs", "/nowhere/mine.log");
/// let refused = logging::install(&builder.build()?.log, Arc::new(SystemClock));
/// let refused = refused.expect_err("there is no such directory");
/// assert!(matches!(&refused, LoggingError::Open { path, .. } if path.ends_with("mine.log")));
/// assert_eq!(refused.to_string(), "--log-outputs: cannot open /nowhere/mine.log");
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// A file of `--log-outputs` cannot be written.
    #[error("--log-outputs: cannot open {}", path.display())]
    Open {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process has a logger already.
    #[error("logging is set up already")]
    Installed(#[from] TryInitError),
}

/// Sends this process' events to where `config` says.
pub fn install(config: &LogConfig, clock: Arc<dyn Clock>) -> Result<(), LoggingError> {
    let outputs = config
        .outputs
        .iter()
        .map(|output| open(output, config.rotation.as_ref(), &clock))
        .collect::<Result<Vec<_>, _>>()?;
    let logger = Logger {
        format: config.format,
        clock,
        outputs: Mutex::new(outputs),
    };
    tracing_subscriber::registry()
        .with(logger.with_filter(targets(config.level)))
        .try_init()?;
    Ok(())
}

/// What is worth a line at a level: for a host program that has a subscriber of its own. Consensus tells
/// far more than anybody wants to read.
///
/// ```
/// use kvorum::config::LogLevel;
/// use kvorum::logging::targets;
/// use tracing::Level;
///
/// let targets = targets(LogLevel::Info);
/// assert!(targets.would_enable("raft::node", &Level::INFO));
/// assert!(!targets.would_enable("openraft::engine", &Level::WARN));
/// ```
#[must_use]
pub fn targets(level: LogLevel) -> Targets {
    use LevelFilter as At;
    let (ours, others, openraft) = match level {
        LogLevel::Debug => (At::DEBUG, At::INFO, At::INFO),
        LogLevel::Info => (At::INFO, At::WARN, At::ERROR),
        LogLevel::Warn => (At::WARN, At::WARN, At::ERROR),
        LogLevel::Error => (At::ERROR, At::ERROR, At::ERROR),
        // Nothing of ours is above error: we stop instead of panicking.
        LogLevel::Panic | LogLevel::Fatal => (At::OFF, At::OFF, At::OFF),
    };
    let targets = Targets::new()
        .with_default(ours)
        .with_target(OPENRAFT, openraft)
        .with_target(raft::HEARTBEAT_WORKER, At::OFF);
    TALKATIVE
        .into_iter()
        .fold(targets, |targets, name| targets.with_target(name, others))
}

fn open(
    output: &LogOutput,
    rotation: Option<&LogRotation>,
    clock: &Arc<dyn Clock>,
) -> Result<Box<dyn Write + Send>, LoggingError> {
    let path = match output {
        LogOutput::Stderr => return Ok(Box::new(io::stderr())),
        LogOutput::Stdout => return Ok(Box::new(io::stdout())),
        LogOutput::Journal => return Ok(Box::new(Journal::connect())),
        LogOutput::File(path) => path,
    };
    let opened = match rotation {
        Some(rotation) => RotatingFile::open(path, rotation.clone(), Arc::clone(clock))
            .map(|file| Box::new(file) as Box<dyn Write + Send>),
        None => OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(|file| Box::new(file) as Box<dyn Write + Send>),
    };
    opened.map_err(|source| LoggingError::Open {
        path: path.clone(),
        source,
    })
}

/// Writes each event as one line.
struct Logger {
    format: LogFormat,
    clock: Arc<dyn Clock>,
    outputs: Mutex<Vec<Box<dyn Write + Send>>>,
}

impl<S: Subscriber> Layer<S> for Logger {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = line::format(event, self.format, self.clock.wall());
        for output in self.outputs.lock().iter_mut() {
            // A log that cannot be written is no reason to stop, and there is nowhere to say so.
            output.write_all(&line).ok();
        }
    }
}

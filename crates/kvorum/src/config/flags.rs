//! The command line, in etcd's flags and with the syntax of Go's `flag` package: one dash or two,
//! `--flag value` or `--flag=value`, and a flag that is on or off takes its value only behind `=`.
//!
//! [`all`] is the one table of flags: name, default, and what it does. A flag that is not in it is
//! refused by name.

mod table;
mod value;

use std::fmt;

use super::Options;

pub use value::ValueError;
pub(crate) use value::{truth, unsigned};

/// A flag.
///
/// ```
/// use kvorum::config::flags::{self, Flag, Section};
///
/// let is_logging = |flag: &&Flag| flag.section == Section::Logging;
/// for flag in flags::all().filter(is_logging) {
///     println!("--{} '{}': {}", flag.name, flag.default, flag.effect);
/// }
/// let level = flags::all().find(|flag| flag.name == "log-level").expect("etcd has it");
/// assert_eq!((level.section, level.default), (Section::Logging, "info"));
/// ```
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
    /// What etcd says to whoever still uses it.
    pub(super) deprecated: Option<&'static str>,
    kind: Kind,
    set: fn(&mut Options, &str) -> Result<(), ValueError>,
}

/// Every flag there is, besides `--version` and `--help`.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    table::TABLE.iter().copied().flatten()
}

/// The parts of `--help`. [`Flag`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Section {
    Member,
    Clustering,
    Discovery,
    Security,
    Auth,
    Monitoring,
    Tracing,
    Logging,
    Features,
    Backup,
    Unsafe,
    NoEffect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Value,
    Switch,
    /// Of etcd's past: may be given, with a value or without, and is not worth a word.
    Legacy,
}

/// The command line was refused, in the words of Go's `flag` package and of etcd.
///
/// ```
/// use kvorum::config::flags::{self, FlagError};
///
/// let refused = flags::parse(&["--max-txn-opts=256"]).expect_err("there is no such flag");
/// assert!(matches!(&refused.errors[..], [FlagError::Unknown { name }] if name == "max-txn-opts"));
/// assert_eq!(refused.errors[0].to_string(), "flag provided but not defined: -max-txn-opts");
/// ```
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
///
/// ```
/// use kvorum::config::flags::{self, Action};
///
/// match flags::parse(&["--name=m1", "--max-txn-ops", "256"])? {
///     Action::Run { options, given } => {
///         assert_eq!((options.name.as_str(), options.max_txn_ops), ("m1", 256));
///         assert_eq!(given, ["name", "max-txn-ops"]);
///     }
///     Action::Help => print!("{}", flags::help()),
///     Action::Version => println!("mine 1.0"),
/// }
/// # Ok::<(), flags::FlagErrors>(())
/// ```
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
///
/// ```
/// use kvorum::config::flags::{self, FlagErrors};
///
/// let line = ["--name=m1", "--max-txn-opts=256", "--watch-progress-notify-interval=1"];
/// let refused: FlagErrors = flags::parse(&line).expect_err("two of them are wrong");
/// assert_eq!(refused.errors.len(), 2);
/// assert_eq!(
///     refused.to_string(),
///     "flag provided but not defined: -max-txn-opts\n\
///      invalid value \"1\" for flag -watch-progress-notify-interval: parse error"
/// );
/// assert!(refused.is_usage());
/// assert_eq!(refused.options.name, "m1", "the rest was read");
/// ```
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
                self.wants_version = value.is_none_or(|value| truth(value).unwrap_or(true));
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
                Kind::Switch | Kind::Legacy => Some("true"),
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
    all().find(|flag| flag.name == name)
}

impl Flag {
    /// Whether it is worth being shown to whoever types a command line: it has an effect, and no better name.
    pub(crate) fn is_current(&self) -> bool {
        self.section != Section::NoEffect
            && self.kind != Kind::Legacy
            && self.deprecated.is_none()
            && !self.name.starts_with("experimental-")
    }

    /// Whether it takes its value only behind `=`.
    pub(crate) fn is_switch(&self) -> bool {
        self.kind == Kind::Switch
    }

    /// Sets the option that the flag stands for.
    pub(super) fn set(&self, options: &mut Options, value: &str) -> Result<(), ValueError> {
        (self.set)(options, value)?;
        if self.kind != Kind::Legacy {
            options.given.insert(self.name);
        }
        Ok(())
    }

    fn apply(&self, options: &mut Options, value: &str) -> Result<(), FlagError> {
        self.set(options, value).map_err(|source| {
            let (value, name) = (value.to_owned(), self.name);
            match self.kind {
                Kind::Value | Kind::Legacy => FlagError::Value {
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
        for flag in all().filter(|flag| flag.section == section && flag.kind != Kind::Legacy) {
            text.push_str(&format!(
                "  --{} '{}'\n    {}\n",
                flag.name, flag.default, flag.effect
            ));
        }
    }
    text.push_str(
        "\nEvery flag can also be given in the environment: --data-dir as ETCD_DATA_DIR, and so on.\n\
         `kvorum help` lists the commands beside the member.\n",
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

const SECTIONS: [(Section, &str); 12] = [
    (Section::Member, "Member"),
    (Section::Clustering, "Clustering"),
    (Section::Discovery, "Discovery"),
    (Section::Security, "Security"),
    (Section::Auth, "Auth"),
    (Section::Monitoring, "Profiling and Monitoring"),
    (Section::Tracing, "Distributed tracing"),
    (Section::Logging, "Logging"),
    (Section::Features, "Features"),
    (Section::Backup, "Backups"),
    (Section::Unsafe, "Unsafe"),
    (
        Section::NoEffect,
        "Accepted because etcd has them; they change nothing here",
    ),
];

#[cfg(test)]
mod tests;

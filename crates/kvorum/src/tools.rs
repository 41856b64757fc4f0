//! The commands beside the member itself, one tree: `kvorum snapshot …`, with the arguments and outputs of
//! `etcdutl` and `etcdctl`, `kvorum migrate` and `kvorum certs`; `kvorum check` and `kvorum top` to look with; completions and
//! manual pages.
//!
//! `Tool` is the tree, and [`command`] what help, completions and manual pages are made of. A command is
//! a variant of `Command`, and a file beside this one with its arguments (`clap::Args`) and a function
//! that carries it out.
//!
//! What this is not: the work; [`crate::restore`], [`crate::migrate`], [`crate::certs`] and `etcdfile` do
//! it. And not the flags of a member, which are etcd's ([`crate::config::flags`]).

mod asked;
mod check;
mod command_line;
mod connection;
mod manual;
mod migrate;
mod print;
mod save;
mod scrape;
mod snapshot;
mod top;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};
use types::SystemClock;

use crate::certs::CertsCommand;
use crate::error::chain;

/// etcd's: what was asked for did not work, or the command line cannot be read.
const EXIT_ERROR: u8 = 1;
/// etcd's: there is no such form of output.
const EXIT_BAD_FEATURE: u8 = 4;
/// etcd's: the connection broke, or something in between.
const EXIT_INTERRUPTED: u8 = 5;
/// etcd's: the arguments cannot be.
const EXIT_BAD_ARGS: u8 = 128;

/// Runs a member of a cluster when no command is given (kvorum --help lists its flags), and the commands
/// of whoever looks after one.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kvorum",
    bin_name = "kvorum",
    disable_version_flag = true,
    infer_subcommands = true,
    args_override_self = true
)]
struct Tool {
    /// What is to be done.
    #[command(subcommand)]
    command: Command,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Saves, checks and restores snapshots, ours and an etcd's
    #[command(subcommand)]
    Snapshot(Snapshot),
    Migrate(migrate::Arguments),
    Certs(CertsCommand),
    /// Says what would go wrong, before a member starts or while members run
    #[command(subcommand)]
    Check(check::Check),
    Top(top::Arguments),
    Completion(manual::CompletionArguments),
    Man(manual::ManArguments),
}

/// A command about snapshots.
#[derive(Clone, Debug, Subcommand)]
enum Snapshot {
    Save(save::Arguments),
    Status(snapshot::StatusArguments),
    Restore(Box<snapshot::RestoreArguments>),
}

impl Tool {
    fn run(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Snapshot(Snapshot::Save(arguments)) => save::run(arguments),
            Command::Snapshot(Snapshot::Status(arguments)) => snapshot::status(arguments),
            Command::Snapshot(Snapshot::Restore(arguments)) => snapshot::restore(arguments),
            Command::Migrate(arguments) => migrate::run(arguments),
            Command::Certs(certs) => self::certs(certs),
            Command::Check(check) => check::run(check),
            Command::Top(arguments) => top::run(arguments),
            Command::Completion(arguments) => {
                manual::completion(arguments);
                Ok(())
            }
            Command::Man(arguments) => manual::man(arguments),
        }
    }
}

/// How a command writes what it has found.
#[derive(Clone, Debug, clap::Args)]
struct Output {
    /// Set the output format (fields, json, protobuf, simple, table)
    #[arg(short = 'w', long, value_name = "FORM", default_value = "simple")]
    write_out: String,
}

/// The tree of commands below `kvorum`, with the syntax of etcd's tools.
#[must_use]
pub fn command() -> clap::Command {
    command_line::like_etcds(<Tool as clap::CommandFactory>::command())
}

/// A command did not do what it was asked for.
#[derive(Debug)]
struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    fn bad_arguments(text: impl Into<String>) -> Self {
        Self {
            status: EXIT_BAD_ARGS,
            text: text.into(),
        }
    }

    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            status: EXIT_ERROR,
            text: chain(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Carries out a command, if the command line names one.
#[must_use]
pub fn run(arguments: &[String]) -> Option<ExitCode> {
    let line = command_line::of_a_command(&command(), arguments)?;
    let read = command()
        .try_get_matches_from(&line)
        .and_then(|matches| Tool::from_arg_matches(&matches));
    let done = match read {
        Ok(tool) => tool.run(),
        Err(error) => command_line::refused(&error, &line),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&format!("Error: {failure}\n"));
            ExitCode::from(failure.status)
        }
    })
}

/// Makes the certificates of a cluster, and says what it wrote.
fn certs(certs: &CertsCommand) -> Result<(), Failure> {
    let written = certs
        .run(&SystemClock)
        .map_err(|error| Failure::of(&error))?;
    for path in written {
        say(&format!("{}\n", path.display()));
    }
    Ok(())
}

/// Writes to standard output.
fn say(text: &str) {
    // There is nobody to tell that it is closed.
    io::stdout().write_all(text.as_bytes()).ok();
}

/// Writes to standard error.
fn complain(text: &str) {
    // There is nobody to tell that it is closed.
    io::stderr().write_all(text.as_bytes()).ok();
}

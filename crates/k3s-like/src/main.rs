//! `k3s-like`: kvorum inside a server that a k3s user knows how to run.
//!
//! ```text
//! k3s-like server --cluster-init                                  the first server; converts SQLite
//! k3s-like server --server https://10.0.0.1:6443 --token K10…     the others
//! k3s-like get nodes                                              who is there
//! k3s-like delete node NAME                                       who goes: its member goes, too
//! k3s-like etcd-snapshot save|ls|delete|prune
//! k3s-like server --cluster-reset [--cluster-reset-restore-path SNAPSHOT]
//! ```
//!
//! Flags, files, messages, the token and the supervisor's paths are k3s's. What this is not: Kubernetes.
//! There is no agent, no scheduler and no controller manager; a `kube-apiserver` is run when one is given.

mod access;
mod apiserver;
mod bootstrap;
mod cli;
mod cluster;
mod controllers;
mod critical;
mod datastore;
mod layout;
mod log;
mod nodes;
mod operator;
mod pki;
mod schedule;
mod server;
mod snapshots;
mod supervisor;
mod token;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// What messages call this program; files, keys and paths on the wire say `k3s`.
const PROGRAM: &str = "k3s-like";

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::install();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fatal(&anyhow::Error::new(error).context("cannot start a runtime")),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Server(arguments) => server::run(*arguments).await,
            Command::EtcdSnapshot(command) => operator::snapshots(command).await,
            Command::Get(command) => operator::get(command).await,
            Command::Delete(command) => operator::delete(command).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fatal(&error),
    }
}

/// The one line that says why it ends.
fn fatal(error: &anyhow::Error) -> ExitCode {
    let line = log::line("fatal", &format!("{error:#}"));
    // There is nobody to tell that it is closed.
    io::stderr().write_all(line.as_bytes()).ok();
    ExitCode::FAILURE
}

//! Commands beside the member itself: `kvorum snapshot …`, with the arguments and outputs of `etcdutl`
//! and `etcdctl`, and `kvorum migrate`.
//!
//! What this is not: the work; [`crate::restore`], [`crate::migrate`] and `etcdfile` do it.

mod arguments;
mod migrate;
mod print;
mod save;
mod snapshot;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::error::chain;

/// etcd's: what was asked for did not work.
const EXIT_ERROR: u8 = 1;
/// etcd's: the connection broke, or something in between.
const EXIT_INTERRUPTED: u8 = 3;
/// etcd's: there is no such form of output.
const EXIT_BAD_FEATURE: u8 = 4;
/// etcd's: the arguments cannot be.
const EXIT_BAD_ARGS: u8 = 128;

const HELP: &str = "\
Commands beside the member itself:

  kvorum snapshot save <filename> [--endpoints URL] [--cacert F --cert F --key F] [--user NAME:PASSWORD]
      Stores a snapshot of a running member, ours or an etcd, in a file.

  kvorum snapshot status <filename> [-w simple|fields|json|table]
      Checks a snapshot and says what is in it.

  kvorum snapshot restore <filename> --data-dir DIR [options]
      Makes the data directory of a member of a new cluster out of a snapshot, ours or an etcd's.
        --name NAME                          name of this member (default \"default\")
        --initial-cluster LIST               all members (default \"default=http://localhost:2380\")
        --initial-cluster-token TOKEN        (default \"etcd-cluster\")
        --initial-advertise-peer-urls LIST   this member's urls (default \"http://localhost:2380\")
        --wal-dir DIR                        accepted; the log is in the data directory
        --skip-hash-check                    for a file without a checksum, as in member/snap/db
        --bump-revision N --mark-compacted   how far the revision goes ahead (default 1000000000), so that
                                             watchers and caches notice that history was turned back
        --no-bump                            etcd's default: the revision of the snapshot

  kvorum migrate --from DIR --data-dir DIR [--from-wal-dir DIR] [--dry-run] [-w simple|json]
      Takes over the data directory of an etcd that has stopped, which stays as it is.
";

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

/// Carries out a command, if the command line is one: its first word is no flag.
#[must_use]
pub fn run(arguments: &[String]) -> Option<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["snapshot", "save", rest @ ..] => save::run(rest),
        ["snapshot", "status", rest @ ..] => snapshot::status(rest),
        ["snapshot", "restore", rest @ ..] => snapshot::restore(rest),
        ["migrate", rest @ ..] => migrate::run(rest),
        ["snapshot" | "help", ..] => {
            say(HELP);
            Ok(())
        }
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&format!("Error: {failure}\n"));
            ExitCode::from(failure.status)
        }
    })
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

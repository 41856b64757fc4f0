//! `kvorum check machine`, before a member starts, and `kvorum check cluster`, when members run: what would go wrong, or
//! is about to, in plain sentences.
//!
//! What this is not: a repair, or a benchmark. It changes nothing; a file in the data directory, to time the disk,
//! goes again.

mod certificates;
mod cluster;
mod configuration;
mod disk;
mod ports;
mod report;

use std::path::Path;
use std::sync::Arc;

use apply::Quota;
use types::{Clock, SystemClock};

use self::report::{Level, Report};
use super::connection::Connection;
use super::{Failure, Output, print, say};
use crate::Config;

/// What is wrong is said in the report already.
const EXIT_PROBLEMS: u8 = 1;

/// A check.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Check {
    Machine(MachineArguments),
    Cluster(ClusterArguments),
}

/// Checks this machine before a member starts on it: its flags, disk, clock, ports and certificates
///
/// Takes the flags that the member is to be started with, and its ETCD_ variables; flags of the check come first.
/// Nothing is changed. The status is 1 if there is an error; warnings do not count.
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "kvorum check machine [options] [flags of the member]")]
pub(super) struct MachineArguments {
    /// How often the disk is asked to make something durable
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    syncs: u32,
    #[command(flatten)]
    output: Output,
    /// The member's flags
    #[arg(
        value_name = "FLAGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    flags: Vec<String>,
}

/// Checks members that run: health, leader, quorum, versions, alarms, sizes, clocks, disks
///
/// Every member of the cluster is asked, not only those that are named. The status is 1 if there is an error;
/// warnings do not count.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ClusterArguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Carries out a check, and says what it found.
pub(super) fn run(check: &Check) -> Result<(), Failure> {
    let (report, form) = match check {
        Check::Machine(arguments) => (machine(arguments), &arguments.output.write_out),
        Check::Cluster(arguments) => (
            cluster::check(&arguments.connection)?,
            &arguments.output.write_out,
        ),
    };
    match form.as_str() {
        "simple" => say(&report.text()),
        "json" => say(&print::json(&report)),
        _ => return Err(print::bad_form("unsupported output format")),
    }
    match report.worst() {
        Level::Error => Err(Failure {
            status: EXIT_PROBLEMS,
            text: report.summary(),
        }),
        Level::Ok | Level::Warning => Ok(()),
    }
}

fn machine(arguments: &MachineArguments) -> Report {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut report = Report::default();
    let Some(config) = configuration::read(&arguments.flags, &mut report) else {
        return report;
    };
    members(&config, &mut report);
    let running = data_dir(&config.data_dir, &mut report);
    let quota = match config.quota {
        Quota::Bytes(bytes) => Some(bytes),
        Quota::Unlimited => None,
    };
    let due = disk::Due {
        heartbeat: config.heartbeat_interval,
        election: config.election_timeout,
        quota_bytes: quota,
    };
    let log = config.wal_dir.as_deref().unwrap_or(&config.data_dir);
    disk::check(log, &due, arguments.syncs, &*clock, &mut report);
    certificates::check(&config, &clock, &mut report);
    ports::check(&config, running, &mut report);
    time(&*clock, &mut report);
    open_files(&mut report);
    report
}

/// What the number of members is good for.
fn members(config: &Config, report: &mut Report) {
    let members = config.initial_cluster.members.len();
    if members > 0 {
        report.add("members", report::of_voters(members));
    }
}

/// Whether a member runs on a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Yes,
    No,
}

fn data_dir(path: &Path, report: &mut Report) -> Running {
    let shown = path.display();
    if !path.join("member").exists() {
        report.ok(
            "data-dir",
            format!("{shown} holds no data: a new member starts here"),
        );
        return Running::No;
    }
    match backend::DataDir::lock(path) {
        Ok(_released) => {
            report.ok(
                "data-dir",
                format!("{shown} holds a member's data, and nobody uses it"),
            );
            Running::No
        }
        Err(backend::DataDirError::InUse { .. }) => {
            report.ok("data-dir", format!("{shown} is in use: a member runs here"));
            Running::Yes
        }
        Err(error) => {
            report.error("data-dir", crate::error::chain(&error));
            Running::No
        }
    }
}

/// The first of January 2026: no machine on which this runs is older.
const EARLIEST: std::time::Duration = std::time::Duration::from_secs(1_767_225_600);
/// Says whether the time is kept by somebody.
const TIMEDATECTL: [&str; 3] = ["show", "--property=NTPSynchronized", "--value"];

fn time(clock: &dyn Clock, report: &mut Report) {
    let now = clock.wall();
    let shown = httpdate::fmt_http_date(now);
    let since_1970 = now.duration_since(std::time::UNIX_EPOCH);
    if since_1970.is_ok_and(|since| since < EARLIEST) {
        report.error(
            "clock",
            format!("it is {shown} here, which cannot be: certificates will be refused"),
        );
        return;
    }
    let asked = std::process::Command::new("timedatectl")
        .args(TIMEDATECTL)
        .output();
    let answer = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match answer.as_deref() {
        Ok("yes") => report.ok("clock", format!("it is {shown} here, kept by a time server")),
        Ok("no") => report.warning("clock", format!("it is {shown} here, and no time server keeps it: certificates and leases need clocks that agree")),
        _ => report.ok("clock", format!("it is {shown} here; whether a time server keeps it cannot be seen (no timedatectl)")),
    }
}

/// Each client and peer is a file.
const OPEN_FILES_MIN: u64 = 10_000;

fn open_files(report: &mut Report) {
    use nix::sys::resource::{Resource, getrlimit};
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_soft, hard)) if hard < OPEN_FILES_MIN => report.warning("open-files", format!("the hard limit of open files is {hard}: more clients than that are refused (LimitNOFILE=)")),
        Ok((_soft, hard)) => report.ok("open-files", format!("the hard limit of open files is {hard}")),
        Err(error) => report.warning("open-files", format!("the limit of open files cannot be read: {error}")),
    }
}

//! One child process: its output goes to a file, it dies with its handle.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::patience::{eventually, note};

/// util-linux's `setpriv` asks the kernel to kill the child when the thread that started it is
/// gone: covers a test binary that is killed itself, when nothing is dropped.
const SETPRIV: &str = "/usr/bin/setpriv";

/// With it a write beyond `RLIMIT_FSIZE` fails, instead of ending the process by SIGXFSZ.
const ENV: &str = "/usr/bin/env";

/// A running child process; killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`, standard output and error appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, args: &[String], log: &Path) -> Result<Process> {
        Process::start_in(program, args, &[], log)
    }

    /// As [`Process::start`], with more in its environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_in(
        program: &Path,
        args: &[String],
        environment: &[(&str, PathBuf)],
        log: &Path,
    ) -> Result<Process> {
        let log_file = append(log)?;
        let mut command = command(program);
        command.args(args).stdin(Stdio::null());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdout(log_file.try_clone()?).stderr(log_file);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Process { child })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("{signal} to {pid}"))
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the end, within the tests' patience.
    ///
    /// # Errors
    /// When it goes on running.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let child = RefCell::new(&mut self.child);
        eventually("the process ends", || async {
            child
                .borrow_mut()
                .try_wait()?
                .ok_or_else(|| anyhow!("still running"))
        })
        .await
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn rss(&self) -> Result<u64> {
        self.status_field("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn rss_peak(&self) -> Result<u64> {
        self.status_field("VmHWM:")
    }

    fn status_field(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib: u64 = line
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no {field} of process {}", self.pid()))?
            .parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            note(format_args!(
                "process {} could not be killed: {error:#}",
                self.pid()
            ));
        }
    }
}

/// A command that dies with the calling thread, where the system can do that.
#[must_use]
pub fn command(program: &Path) -> Command {
    if Path::new(SETPRIV).is_file() {
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL", "--"]);
        command.args([ENV, "--ignore-signal=XFSZ"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// The last lines of a log file, for a failure's report.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> String {
    let text = match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{}: {error}", log.display()),
    };
    let skipped = text.lines().count().saturating_sub(lines);
    text.lines()
        .skip(skipped)
        .map(|line| format!("  | {line}\n"))
        .collect()
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| PathBuf::from(path).display().to_string())
}

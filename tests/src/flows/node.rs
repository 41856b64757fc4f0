//! One machine: ports, a directory, and at most one member that runs on it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use testkit::process::{self, Process};
use testkit::{Port, Program, binaries, eventually, http, note};

const LOG_LINES_SHOWN: usize = 30;
const PORTS: usize = 6;

/// A machine of the test.
#[derive(Debug)]
pub struct Node {
    /// What the machine is called.
    pub name: String,
    /// What is installed on it.
    pub program: Program,
    /// Where the member listens for clients, as others reach it.
    pub client: u16,
    /// Where it listens for clients on the machine itself.
    pub local: u16,
    /// Where it listens for members.
    pub peer: u16,
    /// Where it listens for members on the machine itself.
    pub peer_local: u16,
    /// Where it answers probes, in plain text.
    pub metrics: u16,
    /// Where it answers clients over HTTP, if not with the others.
    pub http: u16,
    dir: PathBuf,
    _ports: Vec<Port>,
    process: Option<Process>,
    /// How long the log was at the last start.
    log_start: usize,
    fine: bool,
}

impl Node {
    /// A machine without a member; its files are below `dir`.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(program: Program, name: &str, dir: &Path) -> Result<Node> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let ports = (0..PORTS).map(|_| Port::reserve());
        let ports = ports.collect::<Result<Vec<_>>>()?;
        let port = |at: usize| ports[at].number();
        Ok(Node {
            name: name.to_owned(),
            program,
            client: port(0),
            local: port(1),
            peer: port(2),
            peer_local: port(3),
            metrics: port(4),
            http: port(5),
            dir,
            _ports: ports,
            process: None,
            log_start: 0,
            fine: false,
        })
    }

    /// Its ports, and what they are for.
    #[must_use]
    pub fn ports(&self) -> [(u16, &'static str); PORTS] {
        [
            (self.client, "client"),
            (self.local, "local"),
            (self.peer, "peer"),
            (self.peer_local, "peer-local"),
            (self.metrics, "metrics"),
            (self.http, "http"),
        ]
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its member keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// `https://127.0.0.1:` and its client port.
    #[must_use]
    pub fn client_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client)
    }

    /// `https://127.0.0.1:` and its peer port.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.peer)
    }

    /// `https://127.0.0.1:` and its second peer port.
    #[must_use]
    pub fn peer_local_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.peer_local)
    }

    /// Starts the member; waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started, or runs already.
    pub fn start(&mut self, args: &[String]) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let binary = match self.program {
            Program::Kvorum => binaries::kvorum()?,
            Program::Etcd => binaries::etcd()?,
        };
        self.log_start = std::fs::read(self.log_path()).map_or(0, |log| log.len());
        self.process = Some(Process::start(&binary, args, &self.log_path())?);
        Ok(())
    }

    /// Waits until a probe is answered with this status.
    ///
    /// # Errors
    /// When it is not in time, or the member ends.
    pub async fn answers(&mut self, path: &str, status: u16) -> Result<http::Answer> {
        let port = self.metrics;
        let what = format!("{} answers {path} with {status}", self.name);
        let pid = self.running()?.pid();
        eventually(&what, || async {
            if !is_alive(pid) {
                return Ok(None);
            }
            let answer = http::get(port, path).await?;
            ensure!(answer.status == status, "{answer:?}");
            Ok(Some(answer))
        })
        .await?
        .with_context(|| format!("{} has ended by itself", self.name))
    }

    /// What a probe is answered now.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn probe(&self, path: &str) -> Result<u16> {
        Ok(http::get(self.metrics, path).await?.status)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.running()?.signal(Signal::SIGTERM)?;
        self.ended().await
    }

    /// Waits until the member ends.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("not running")?;
        let status = process.ended().await;
        status.with_context(|| self.name.clone())
    }

    /// Waits until a member ends that was removed while it was down.
    ///
    /// It has not been ready. etcd's `main` then finds two things at once, that the server has
    /// stopped and that its listeners have failed, and Go's `select` takes either of them: its status
    /// is 0 or 1, by chance. kvorum's is 0, as it is for a member that was ready.
    ///
    /// # Errors
    /// When it does not end in time, or with another status.
    pub async fn ended_as_stale(&mut self) -> Result<()> {
        let status = self.ended().await?;
        let is_right = match self.program {
            Program::Etcd => matches!(status.code(), Some(0 | 1)),
            Program::Kvorum => status.code() == Some(0),
        };
        ensure!(is_right, "{} ended with {status}", self.name);
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("not running")?.kill()
    }

    /// What the member wrote since its last start.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        let log = std::fs::read(self.log_path())?;
        Ok(String::from_utf8_lossy(&log[self.log_start..]).into_owned())
    }

    /// Says that the test went well: the log is not shown at the end.
    pub fn fine(&mut self) {
        self.fine = true;
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("not running")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.fine {
            let log = process::tail(&self.log_path(), LOG_LINES_SHOWN);
            note(format_args!(
                "the last lines of {:?} {}:\n{log}",
                self.program, self.name
            ));
        }
    }
}

/// A process that has ended and was not waited for yet has no memory.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status.contains("VmRSS"))
}

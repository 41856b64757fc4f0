//! A server under test, kvorum or a real etcd, as a process with one interface.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::certs::Certs;
use crate::client::Client;
use crate::patience::{eventually, note};
use crate::port::MemberPorts;
use crate::process::{self, Process};
use crate::{binaries, http};

/// How often other ports are tried when somebody else took ours in between.
const LOG_LINES_SHOWN: usize = 60;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The kvorum built from this checkout.
    Kvorum,
    /// A real etcd.
    Etcd,
}

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Spec {
    program: Program,
    binary: Option<PathBuf>,
    name: String,
    args: Vec<String>,
    tls: Option<Certs>,
    metrics: bool,
}

impl Spec {
    /// A kvorum member with default flags.
    #[must_use]
    pub fn kvorum() -> Spec {
        Spec::of(Program::Kvorum)
    }

    /// A real etcd with default flags.
    #[must_use]
    pub fn etcd() -> Spec {
        Spec::of(Program::Etcd)
    }

    /// Either, with default flags.
    #[must_use]
    pub fn of(program: Program) -> Spec {
        Spec {
            program,
            binary: None,
            name: "m1".to_owned(),
            args: Vec::new(),
            tls: None,
            metrics: false,
        }
    }

    /// Runs this file, which is another version of the program.
    #[must_use]
    pub fn binary(mut self, path: PathBuf) -> Spec {
        self.binary = Some(path);
        self
    }

    /// Adds a flag (`--name=value`).
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Spec {
        self.args.push(arg.into());
        self
    }

    /// Serves clients over TLS and asks them for certificates.
    #[must_use]
    pub fn mutual_tls(mut self, certs: Certs) -> Spec {
        self.tls = Some(certs);
        self
    }

    /// Probes it on a metrics listener, because its client port has no HTTP.
    #[must_use]
    pub fn metrics_listener(mut self) -> Spec {
        self.metrics = true;
        self
    }

    /// Starts it and waits until it is healthy.
    ///
    /// # Errors
    /// When it ends, or does not become healthy in time; its log is in the message.
    pub async fn start(self) -> Result<Server> {
        let mut server = Server::prepare(self)?;
        server.launch().await?;
        Ok(server)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The test is still under way: a drop now means that it failed.
    Pending,
    /// The server was stopped as it should be.
    Clean,
}

/// A server under test. Call [`Server::stop`] at the end of a test; a server that is dropped
/// without it belongs to a test that failed, and its log is shown.
#[derive(Debug)]
pub struct Server {
    spec: Spec,
    ports: MemberPorts,
    process: Option<Process>,
    verdict: Verdict,
    dir: TempDir,
}

impl Server {
    fn prepare(spec: Spec) -> Result<Server> {
        let dir = tempfile::Builder::new().prefix("kvorum-test-").tempdir()?;
        let ports = MemberPorts::reserve()?;
        Ok(Server {
            spec,
            ports,
            process: None,
            verdict: Verdict::Pending,
            dir,
        })
    }

    async fn launch(&mut self) -> Result<()> {
        let binary = match (&self.spec.binary, self.spec.program) {
            (Some(path), _) => path.clone(),
            (None, Program::Kvorum) => binaries::kvorum()?,
            (None, Program::Etcd) => binaries::etcd()?,
        };
        ensure!(self.process.is_none(), "{} runs already", self.spec.name);
        self.process = Some(Process::start(&binary, &self.args(), &self.log_path())?);
        let ready = self.ready().await;
        if ready.is_err() {
            self.process = None;
        }
        ready
    }

    async fn ready(&mut self) -> Result<()> {
        let port = if self.has_metrics_listener() {
            self.ports.metrics.number()
        } else {
            self.ports.client.number()
        };
        let process = self.process.as_mut().context("not started")?;
        let process = RefCell::new(process);
        let ended = Cell::new(None);
        let health = eventually("/health says true", || async {
            ended.set(process.borrow_mut().exited()?);
            if ended.get().is_some() {
                return Ok(());
            }
            let answer = http::get(port, "/health").await?;
            ensure!(
                answer.body.contains("\"health\":\"true\""),
                "/health: {answer:?}"
            );
            Ok(())
        })
        .await;
        health.with_context(|| format!("starting {:?}", self.spec.program))?;
        if let Some(status) = ended.get() {
            bail!("{:?} ended at its start: {status}", self.spec.program);
        }
        Ok(())
    }

    fn args(&self) -> Vec<String> {
        let (client, peer) = (self.client_url(), self.peer_url());
        let name = &self.spec.name;
        let mut args = vec![
            format!("--name={name}"),
            format!("--data-dir={}", self.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={name}={peer}"),
        ];
        if let Some(tls) = &self.spec.tls {
            args.extend([
                format!("--cert-file={}", tls.server.cert.display()),
                format!("--key-file={}", tls.server.key.display()),
                "--client-cert-auth".to_owned(),
                format!("--trusted-ca-file={}", tls.ca.display()),
            ]);
        }
        if self.has_metrics_listener() {
            let port = self.ports.metrics.number();
            args.push(format!("--listen-metrics-urls=http://127.0.0.1:{port}"));
        }
        args.extend(self.spec.args.iter().cloned());
        args
    }

    fn has_metrics_listener(&self) -> bool {
        self.spec.metrics || self.spec.tls.is_some()
    }

    /// Which program this is.
    #[must_use]
    pub fn program(&self) -> Program {
        self.spec.program
    }

    /// Where clients connect.
    #[must_use]
    pub fn client_url(&self) -> String {
        let scheme = if self.spec.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://127.0.0.1:{}", self.ports.client.number())
    }

    /// Where peers connect.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.peer.number())
    }

    /// The client port.
    #[must_use]
    pub fn client_port(&self) -> u16 {
        self.ports.client.number()
    }

    /// The peer port.
    #[must_use]
    pub fn peer_port(&self) -> u16 {
        self.ports.peer.number()
    }

    /// The port of the metrics listener, which exists when the server speaks TLS, and when asked for.
    #[must_use]
    pub fn metrics_port(&self) -> u16 {
        self.ports.metrics.number()
    }

    /// Its data directory; stays the same over restarts.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The process id of the running server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn rss(&self) -> Result<u64> {
        self.running()?.rss()
    }

    /// The most resident memory since its start, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn rss_peak(&self) -> Result<u64> {
        self.running()?.rss_peak()
    }

    /// A new connection.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(&self.client_url()).await
    }

    /// Takes another program for its next start, on the same directory and ports.
    pub fn become_program(&mut self, program: Program) {
        self.spec.program = program;
        self.spec.binary = None;
    }

    /// Waits until it is healthy.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn healthy(&mut self) -> Result<()> {
        self.ready().await
    }

    /// Whether the process is there.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn alive(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.exited()?.is_none()),
            None => Ok(false),
        }
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("not running")?.kill()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running()?.signal(signal)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("not running")?;
        process.signal(Signal::SIGTERM)?;
        process.ended().await
    }

    /// Starts it again on the same directory and ports.
    ///
    /// # Errors
    /// As [`Spec::start`].
    pub async fn restart(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        truncate(&self.log_path())?;
        self.launch().await
    }

    /// The end of a test that went well: SIGTERM must end the server, by itself or by the signal.
    ///
    /// # Errors
    /// When it has crashed, or goes on running.
    pub async fn stop(mut self) -> Result<()> {
        use std::os::unix::process::ExitStatusExt as _;
        if let Some(process) = &mut self.process {
            ensure!(
                process.exited()?.is_none(),
                "{:?} has ended by itself",
                self.spec.program
            );
            let status = self.terminate().await?;
            let by_signal = status.signal() == Some(Signal::SIGTERM as i32);
            ensure!(
                status.success() || by_signal,
                "ended with {status} at SIGTERM"
            );
        }
        self.verdict = Verdict::Clean;
        Ok(())
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        process::tail(&self.log_path(), LOG_LINES_SHOWN)
    }

    /// The whole log since its last start.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.log_path())?).into_owned())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("not running")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.verdict == Verdict::Pending {
            let (program, log) = (self.spec.program, self.log_tail());
            note(format_args!("the last lines of {program:?}'s log:\n{log}"));
        }
    }
}

fn truncate(path: &Path) -> Result<()> {
    std::fs::write(path, "").with_context(|| path.display().to_string())
}

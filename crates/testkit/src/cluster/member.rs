//! One member of a cluster: a process, its ports, its directory.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit};

use super::ClusterSpec;
use crate::client::Client;
use crate::disk::{Disk, Library};
use crate::network::Network;
use crate::patience::eventually;
use crate::port::MemberPorts;
use crate::process::{self, Process};
use crate::server::Program;
use crate::{binaries, http};

const LOG_LINES_SHOWN: usize = 40;

/// A member; it runs or not, and may have been removed from the cluster.
#[derive(Debug)]
pub struct Member {
    spec: ClusterSpec,
    name: String,
    ports: MemberPorts,
    dir: PathBuf,
    proxy: Option<Proxied>,
    disk: Option<Disk>,
    initial_cluster: String,
    initial_cluster_state: &'static str,
    /// Flags of this member alone.
    args: Vec<String>,
    process: Option<Process>,
    /// Length of the log when the process was started last.
    log_start: u64,
    removed: bool,
    incarnation: u64,
}

/// Where a member's peers find it, and who has to know of its process.
#[derive(Debug)]
struct Proxied {
    network: Network,
    number: usize,
    port: u16,
}

impl Member {
    pub(super) fn prepare(spec: &ClusterSpec, name: String, dir: &Path) -> Result<Member> {
        let dir = dir.join(&name);
        std::fs::create_dir(&dir)?;
        Ok(Member {
            spec: spec.clone(),
            name,
            ports: MemberPorts::reserve()?,
            dir,
            proxy: None,
            disk: None,
            initial_cluster: String::new(),
            initial_cluster_state: "new",
            args: Vec::new(),
            process: None,
            log_start: 0,
            removed: false,
            incarnation: 0,
        })
    }

    pub(super) fn behind(&mut self, network: Network, number: usize, port: u16) {
        self.proxy = Some(Proxied {
            network,
            number,
            port,
        });
    }

    pub(super) fn on_faulty_disk(&mut self, library: Library) -> Result<()> {
        let disk = Disk::new(library, &self.data_dir(), &self.dir.join("disk"))?;
        self.disk = Some(disk);
        Ok(())
    }

    /// Its disk.
    ///
    /// # Errors
    /// When the cluster was not made with [`ClusterSpec::faulty_disks`].
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context("the disk is a real one")
    }

    /// Sets `--initial-cluster`, if it is not empty, and `--initial-cluster-state` for the next start.
    pub fn bootstrap(&mut self, initial_cluster: &str, state: &'static str) {
        initial_cluster.clone_into(&mut self.initial_cluster);
        self.initial_cluster_state = state;
    }

    /// Adds a flag (`--name=value`) to this member's next start.
    pub fn arg(&mut self, arg: impl Into<String>) {
        self.args.push(arg.into());
    }

    /// `--name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients connect.
    #[must_use]
    pub fn client_url(&self) -> String {
        format!(
            "{}://127.0.0.1:{}",
            self.scheme(),
            self.ports.client.number()
        )
    }

    /// The client port.
    #[must_use]
    pub fn client_port(&self) -> u16 {
        self.ports.client.number()
    }

    /// Where peers connect, maybe a proxy: what the member advertises.
    #[must_use]
    pub fn peer_url(&self) -> String {
        let proxy = self.proxy.as_ref().map(|proxy| proxy.port);
        let port = proxy.unwrap_or(self.ports.peer.number());
        format!("{}://127.0.0.1:{port}", self.scheme())
    }

    /// Where the member itself listens for peers.
    #[must_use]
    pub fn listen_peer_port(&self) -> u16 {
        self.ports.peer.number()
    }

    /// A plaintext port that answers `/health` and `/metrics`.
    #[must_use]
    pub fn metrics_port(&self) -> u16 {
        if self.spec.tls.is_some() {
            self.ports.metrics.number()
        } else {
            self.ports.client.number()
        }
    }

    /// Its data directory; stays the same over restarts.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A client of this member; connects when it is used.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn client(&self) -> Result<Client> {
        Client::lazy(&self.client_url(), self.spec.tls.as_ref())
    }

    /// Whether it was started and not stopped since. It may have ended by itself: see
    /// [`Member::exited`].
    #[must_use]
    pub fn started(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it was removed from the cluster.
    #[must_use]
    pub fn removed(&self) -> bool {
        self.removed
    }

    /// How often it was started.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("not running")?.pid())
    }

    /// How it ended by itself, if it has.
    ///
    /// # Errors
    /// When it was not started, or the system does not tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.process.as_mut().context("not started")?.exited()
    }

    /// Starts the process and does not wait for anything.
    ///
    /// # Errors
    /// When it cannot be started, or runs already.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let binary = match self.spec.program {
            Program::Kvorum => binaries::kvorum()?,
            Program::Etcd => binaries::etcd()?,
        };
        self.log_start = std::fs::metadata(self.log_path()).map_or(0, |file| file.len());
        self.incarnation += 1;
        let disk = self.disk.as_ref().map(Disk::environment);
        let process = Process::start_in(
            &binary,
            &self.all_args(),
            &disk.unwrap_or_default(),
            &self.log_path(),
        )?;
        if let Some(proxy) = &self.proxy {
            proxy.network.set_process(proxy.number, process.pid());
        }
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it is healthy, which takes a quorum.
    ///
    /// # Errors
    /// When it ends, or is not healthy in time.
    pub async fn ready(&mut self) -> Result<()> {
        let port = self.metrics_port();
        let process = RefCell::new(self.process.as_mut().context("not started")?);
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
        health.with_context(|| format!("starting {}", self.name))?;
        if let Some(status) = ended.get() {
            self.process = None;
            bail!("{} ended at its start: {status}", self.name);
        }
        Ok(())
    }

    /// Starts it and waits until it is healthy.
    ///
    /// # Errors
    /// As [`Member::ready`].
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("not running")?.kill()
    }

    /// Sends a signal: SIGSTOP and SIGCONT, say.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("not running")?;
        process.signal(signal)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.ended().await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let process = self.process.as_mut().context("not running")?;
        let status = process.ended().await?;
        self.process = None;
        Ok(status)
    }

    /// Loses its disk.
    ///
    /// # Errors
    /// When it runs.
    pub fn wipe(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs", self.name);
        match std::fs::remove_dir_all(self.data_dir()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("wiping {}", self.name)),
        }
    }

    /// kill -9 together with the power: what its disk had not synced is gone.
    ///
    /// # Errors
    /// When it does not run, or has a real disk.
    pub fn lose_power(&mut self) -> Result<usize> {
        self.kill()?;
        self.disk()?.lose_power()
    }

    /// Lets none of its files grow any more. On a real disk (which needs neither root nor a file
    /// system of its own) such a write fails with "file too large" instead of "no space left", by
    /// `RLIMIT_FSIZE`. [`Member::free_disk`] ends it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn fill_disk(&self) -> Result<()> {
        match &self.disk {
            Some(disk) => disk.fill(true),
            None => self.limit_files(Some(largest_file(&self.dir)?)),
        }
    }

    /// Files may grow again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn free_disk(&self) -> Result<()> {
        match &self.disk {
            Some(disk) => disk.fill(false),
            None => self.limit_files(None),
        }
    }

    fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()?)?);
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        rustix::process::prlimit(pid, Resource::Fsize, limit)?;
        Ok(())
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        process::tail(&self.log_path(), LOG_LINES_SHOWN)
    }

    /// The log since its last start.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        let log = std::fs::read(self.log_path())?;
        let start = usize::try_from(self.log_start)?.min(log.len());
        Ok(String::from_utf8_lossy(&log[start..]).into_owned())
    }

    /// Waits until its log since its last start holds a text.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn logs(&self, text: &str) -> Result<()> {
        eventually("the log says something", || async {
            let found = self.log()?.contains(text);
            found
                .then_some(())
                .ok_or_else(|| anyhow!("no {text:?} in {}'s log", self.name))
        })
        .await
    }

    pub(super) fn remove(&mut self) {
        self.removed = true;
    }

    pub(super) fn request_stop(&mut self) -> Result<()> {
        let ended = self.exited()?;
        ensure!(
            ended.is_none(),
            "{} has ended by itself: {ended:?}",
            self.name
        );
        self.signal(Signal::SIGTERM)
    }

    pub(super) async fn stopped(&mut self) -> Result<()> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.ended().await?;
        let by_signal = status.signal() == Some(Signal::SIGTERM as i32);
        ensure!(
            status.success() || by_signal,
            "{} ended with {status} at SIGTERM",
            self.name
        );
        Ok(())
    }

    fn all_args(&self) -> Vec<String> {
        let client = self.client_url();
        let (scheme, port) = (self.scheme(), self.ports.peer.number());
        let mut args = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={scheme}://127.0.0.1:{port}"),
            format!("--initial-advertise-peer-urls={}", self.peer_url()),
            format!("--initial-cluster-state={}", self.initial_cluster_state),
        ];
        if !self.initial_cluster.is_empty() {
            args.push(format!("--initial-cluster={}", self.initial_cluster));
        }
        if let Some(tls) = &self.spec.tls {
            for prefix in ["", "peer-"] {
                args.extend([
                    format!("--{prefix}cert-file={}", tls.server.cert.display()),
                    format!("--{prefix}key-file={}", tls.server.key.display()),
                    format!("--{prefix}client-cert-auth"),
                    format!("--{prefix}trusted-ca-file={}", tls.ca.display()),
                ]);
            }
            let metrics = self.ports.metrics.number();
            args.push(format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"));
        }
        args.extend(self.spec.args.iter().cloned());
        args.extend(self.args.iter().cloned());
        args
    }

    fn scheme(&self) -> &'static str {
        if self.spec.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// The size of the largest file below a directory, in bytes.
fn largest_file(dir: &Path) -> Result<u64> {
    let mut largest = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A file may go away while we look.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        largest = largest.max(if metadata.is_dir() {
            largest_file(&entry.path())?
        } else {
            metadata.len()
        });
    }
    Ok(largest)
}

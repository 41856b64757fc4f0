//! Servers of `k3s-like` on one machine, the links between their members through proxies.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use kvorum_tests::flows::{Caller, Operator};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use testkit::certs::Identity;
use testkit::network::Network;
use testkit::process::{self, Process};
use testkit::{Port, binaries, eventually, note};

const LOG_LINES_SHOWN: usize = 25;
const PORTS: usize = 4;

/// The servers of a test.
pub(crate) struct Site {
    pub(crate) servers: Vec<K3s>,
    pub(crate) network: Network,
    dir: TempDir,
}

/// One server, running or not.
pub(crate) struct K3s {
    pub(crate) name: String,
    dir: PathBuf,
    number: usize,
    supervisor: u16,
    client: u16,
    peer: u16,
    metrics: u16,
    /// Where its peers reach it.
    proxy: u16,
    network: Network,
    _ports: Vec<Port>,
    process: Option<Process>,
    /// How long the log was at the last start.
    log_start: usize,
    is_fine: bool,
}

impl Site {
    pub(crate) async fn new(servers: usize) -> Result<Site> {
        let dir = tempfile::Builder::new().prefix("kvorum-test-").tempdir()?;
        let mut site = Site {
            servers: Vec::new(),
            network: Network::default(),
            dir,
        };
        for _ in 0..servers {
            site.add().await?;
        }
        Ok(site)
    }

    /// Another machine.
    pub(crate) async fn add(&mut self) -> Result<usize> {
        let number = self.servers.len();
        let name = format!("server-{number}");
        let dir = self.dir.path().join(&name);
        std::fs::create_dir_all(&dir)?;
        let ports = (0..PORTS).map(|_| Port::reserve());
        let ports = ports.collect::<Result<Vec<_>>>()?;
        let port = |at: usize| ports[at].number();
        let peer = port(2);
        self.servers.push(K3s {
            name,
            dir,
            number,
            supervisor: port(0),
            client: port(1),
            peer,
            metrics: port(3),
            proxy: self.network.join(number, peer).await?,
            network: self.network.clone(),
            _ports: ports,
            process: None,
            log_start: 0,
            is_fine: false,
        });
        Ok(number)
    }

    /// Starts the first server, and waits until it is up.
    pub(crate) async fn init(&mut self, more: &[&str]) -> Result<()> {
        let flags = [&["--cluster-init"], more].concat();
        self.servers[0].start(&flags)?;
        self.servers[0].is_up().await
    }

    /// Has a server join the first one's cluster, and waits until it is up.
    pub(crate) async fn join(&mut self, at: usize, more: &[&str]) -> Result<()> {
        self.start_joining(at, more)?;
        self.servers[at].is_up().await
    }

    pub(crate) fn start_joining(&mut self, at: usize, more: &[&str]) -> Result<()> {
        let (url, token) = (self.servers[0].url(), self.servers[0].token()?);
        let join = ["--server", url.as_str(), "--token", token.as_str()];
        self.servers[at].start(&[&join[..], more].concat())
    }

    /// A client of these servers' members.
    pub(crate) fn operator(&self, servers: &[usize]) -> Operator {
        let url = |at: &usize| format!("https://127.0.0.1:{}", self.servers[*at].client);
        let urls: Vec<String> = servers.iter().map(url).collect();
        Operator::new(self.servers[servers[0]].caller(), &urls)
    }

    /// What a server's member has for a key.
    pub(crate) async fn get(&self, at: usize, key: &str) -> Result<Option<String>> {
        let here = self.operator(&[at]);
        eventually("Range", || here.get(&here.endpoints[0], key)).await
    }

    /// Waits until so many nodes are there, with these being ready.
    pub(crate) async fn ready(&self, at: usize, nodes: usize, ready: &[usize]) -> Result<()> {
        let ready: Vec<&str> = ready
            .iter()
            .map(|at| self.servers[*at].name.as_str())
            .collect();
        eventually("the nodes are ready", || async {
            let shown = self.servers[at].run(&["get", "nodes"])?;
            ensure!(shown.status.success(), "{shown:?}");
            let shown = String::from_utf8(shown.stdout)?;
            let mut lines = shown.lines();
            let header: Vec<&str> = lines
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            ensure!(
                header == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
                "{shown}"
            );
            let rows: Vec<Vec<&str>> = lines
                .map(|line| line.split_whitespace().collect())
                .collect();
            let is_ready = |row: &&Vec<&str>| row[1] == "Ready" && row[2] == "control-plane,etcd";
            let found: Vec<&str> = rows.iter().filter(is_ready).map(|row| row[0]).collect();
            ensure!(rows.len() == nodes && found == ready, "{shown}");
            Ok(())
        })
        .await
    }

    /// The test went well.
    pub(crate) async fn fine(&mut self) -> Result<()> {
        for server in &mut self.servers {
            server.is_fine = true;
            if server.process.is_some() {
                let status = server.stop().await?;
                ensure!(status == Some(0), "{} ended with {status:?}", server.name);
            }
        }
        Ok(())
    }
}

impl K3s {
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.supervisor)
    }

    pub(crate) fn peer_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.proxy)
    }

    /// `${data-dir}`
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file below `${data-dir}/server`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join("server").join(name)
    }

    /// The token that is written for others.
    pub(crate) fn token(&self) -> Result<String> {
        let token = std::fs::read_to_string(self.file("token"))?;
        Ok(token.trim().to_owned())
    }

    fn caller(&self) -> Caller {
        Caller::trusting(&self.file("tls/etcd/server-ca.crt")).showing(&Identity {
            cert: self.file("tls/etcd/client.crt"),
            key: self.file("tls/etcd/client.key"),
        })
    }

    fn flags(&self, more: &[&str]) -> Vec<String> {
        let (client, proxy) = (self.client, self.proxy);
        let mut flags = vec![
            "server".to_owned(),
            format!("--data-dir={}", self.dir.display()),
            "--node-ip=127.0.0.1".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--https-listen-port={}", self.supervisor),
        ];
        let etcd = [
            format!("listen-client-urls=https://127.0.0.1:{client}"),
            format!("advertise-client-urls=https://127.0.0.1:{client}"),
            format!("listen-peer-urls=https://127.0.0.1:{}", self.peer),
            format!("initial-advertise-peer-urls=https://127.0.0.1:{proxy}"),
            format!("listen-metrics-urls=http://127.0.0.1:{}", self.metrics),
            "heartbeat-interval=100".to_owned(),
            "election-timeout=1000".to_owned(),
        ];
        if !more.iter().any(|flag| flag.starts_with("--node-name=")) {
            flags.push(format!("--node-name={}", self.name));
        }
        flags.extend(etcd.map(|flag| format!("--etcd-arg={flag}")));
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        flags
    }

    /// Starts it; waits for nothing.
    pub(crate) fn start(&mut self, more: &[&str]) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        self.log_start = std::fs::read(self.log_path()).map_or(0, |log| log.len());
        let program = binaries::k3s_like()?;
        let process = Process::start(&program, &self.flags(more), &self.log_path())?;
        self.network.set_process(self.number, process.pid());
        self.process = Some(process);
        Ok(())
    }

    pub(crate) async fn is_up(&mut self) -> Result<()> {
        self.says("k3s-like is up and running").await
    }

    /// Its member's client url.
    pub(crate) fn client_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client)
    }

    /// Waits until it has said something since its last start.
    pub(crate) async fn says(&mut self, words: &str) -> Result<()> {
        self.says_one_of(&[words]).await
    }

    /// The same for one thing of several.
    pub(crate) async fn says_one_of(&mut self, words: &[&str]) -> Result<()> {
        let what = format!("{} says {words:?}", self.name);
        let path = self.log_path();
        let begin = self.log_start;
        eventually(&what, || async {
            let log = std::fs::read(&path)?;
            let log = String::from_utf8_lossy(&log[begin..]);
            ensure!(words.iter().any(|words| log.contains(words)), "not yet");
            Ok(())
        })
        .await
    }

    /// Waits until it ends, and returns its status.
    pub(crate) async fn ended(&mut self) -> Result<Option<i32>> {
        let mut process = self.process.take().context("not running")?;
        let status = process.ended().await;
        Ok(status.with_context(|| self.name.clone())?.code())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self) -> Result<Option<i32>> {
        let process = self.process.as_ref().context("not running")?;
        process.signal(Signal::SIGTERM)?;
        self.ended().await
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.take().context("not running")?.kill()
    }

    /// Waits until it has ended by itself, because of something that one line says.
    pub(crate) async fn refuses(&mut self, why: &str) -> Result<()> {
        let status = self.ended().await?;
        let log = self.log()?;
        let fatal: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("level=fatal"))
            .collect();
        ensure!(
            status == Some(1),
            "{} ended with {status:?}: {log}",
            self.name
        );
        ensure!(fatal.len() == 1 && fatal[0].contains(why), "{why:?}: {log}");
        Ok(())
    }

    /// What it wrote since its last start.
    pub(crate) fn log(&self) -> Result<String> {
        let log = std::fs::read(self.log_path())?;
        Ok(String::from_utf8_lossy(&log[self.log_start..]).into_owned())
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = process::command(&binaries::k3s_like()?);
        command.args(words);
        command.args(["--data-dir".as_ref(), self.dir.as_os_str()]);
        command.args(["--server", self.url().as_str()]);
        Ok(command.output()?)
    }

    /// The same for one that has to work; returns what it prints.
    pub(crate) fn ok(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for K3s {
    fn drop(&mut self) {
        if !self.is_fine {
            let log = process::tail(&self.log_path(), LOG_LINES_SHOWN);
            note(format_args!("the last lines of {}:\n{log}", self.name));
        }
    }
}

/// Names of files and directories.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

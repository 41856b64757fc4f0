//! Machines of a guide: `10.0.0.N` is `127.a.b.N` here, a machine's own 127.0.0.1 is `127.a.b.100+N`,
//! and its files lie below a directory. So ports, which guides fix, stay what they are, and several
//! runs do not meet.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use testkit::process::{self, Process};
use testkit::{binaries, note};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LOG_LINES_SHOWN: usize = 30;

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A network of machines, and their disks.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    /// `127.a.b.`
    network: String,
    /// Keeps others off the network: a port that no guide uses.
    _claim: TcpListener,
}

impl Site {
    pub(crate) fn new() -> Result<Site> {
        let mut last = None;
        for _ in 0..100 {
            let (a, b): (u8, u8) = rand::random();
            let network = format!("127.{}.{b}.", a.max(1));
            match TcpListener::bind((format!("{network}254"), 1024 + 2379)) {
                Ok(claim) => {
                    return Ok(Site {
                        dir: tempfile::tempdir()?,
                        network,
                        _claim: claim,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no network was tried")?.into())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn address(&self, n: u8) -> String {
        format!("{}1{n}", self.network)
    }

    pub(crate) fn machine(&self, n: u8, name: &str) -> Result<Machine> {
        let root = self.dir.path().join(name);
        std::fs::create_dir_all(&root)?;
        Ok(Machine {
            number: n,
            name: name.to_owned(),
            network: self.network.clone(),
            root,
            process: None,
            fine: false,
        })
    }

    /// Runs a command to its end.
    pub(crate) fn run(
        &self,
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<String> {
        run(program, arguments, environment, self.dir())
    }
}

/// One machine, and at most one member on it.
pub(crate) struct Machine {
    number: u8,
    name: String,
    network: String,
    root: PathBuf,
    process: Option<Process>,
    fine: bool,
}

impl Machine {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    pub(crate) fn address(&self) -> String {
        format!("{}1{}", self.network, self.number)
    }

    fn local_address(&self) -> String {
        format!("{}10{}", self.network, self.number)
    }

    /// Where a path of this machine lies.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Addresses and paths of a guide, as they are here.
    pub(crate) fn localised(&self, text: &str) -> String {
        let mut text = text
            .replace("127.0.0.1", &self.local_address())
            .replace("10.0.0.", &self.network);
        for top in ["etc", "var"] {
            let here = self.root.join(top).display().to_string();
            text = text.replace(&format!("=/{top}/"), &format!("={here}/"));
        }
        text
    }

    /// Copies a directory's files to the machine.
    pub(crate) fn install(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.path(to);
        std::fs::create_dir_all(&to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    }

    /// Starts the member; waits for nothing.
    pub(crate) fn start(
        &mut self,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<()> {
        std::fs::create_dir_all(self.path("/var/lib"))?;
        let environment: Vec<(&str, PathBuf)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), PathBuf::from(value)))
            .collect();
        let program = binaries::kvorum()?;
        self.process = Some(Process::start_in(
            &program,
            arguments,
            &environment,
            &self.log(),
        )?);
        Ok(())
    }

    /// As `systemctl stop` does it.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.signal(Signal::SIGTERM)?;
        process.ended().await.map(drop)
    }

    /// What etcdctl prints on standard output.
    pub(crate) fn etcdctl(
        &self,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> Result<String> {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        run(&binaries::etcdctl()?, &arguments, environment, &self.root)
    }

    /// The body of `GET http://127.0.0.1:port/path` on the machine, if it is found.
    pub(crate) async fn get(&self, port: u16, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect((self.local_address(), port)).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "{head}\n{body}");
        Ok(body.to_owned())
    }

    /// Says that the test went well: the log is not shown at the end.
    pub(crate) fn fine(&mut self) {
        self.fine = true;
    }

    fn log(&self) -> PathBuf {
        self.root.join("log")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.fine {
            let log = process::tail(&self.log(), LOG_LINES_SHOWN);
            note(format_args!("the last lines of {}:\n{log}", self.name));
        }
    }
}

fn run(
    program: &Path,
    arguments: &[String],
    environment: &[(String, String)],
    dir: &Path,
) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program:?} {arguments:?}: {}\n{text}{errors}",
        output.status
    );
    Ok(text)
}

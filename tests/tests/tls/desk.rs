//! One member with TLS on both ports, and those who knock.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, bail, ensure};
use kvorum_tests::flows::{Caller, Node, Operator};
use serde_json::Value;
use tempfile::TempDir;
use testkit::certs::{self, Authority, Leaf};
use testkit::{Program, eventually, http};

/// Where somebody knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Client,
    Peer,
}

/// Somebody who knocks, and what has to come of it.
#[derive(Debug)]
pub(crate) struct Row {
    port: Port,
    what: String,
    /// None knocks in plain text.
    caller: Option<Caller>,
    /// What the member's log says of the refusal; none if they get in.
    refusal: Option<&'static str>,
}

impl Row {
    pub(crate) fn taken(port: Port, what: &str, caller: &Caller) -> Row {
        Row {
            port,
            what: what.to_owned(),
            caller: Some(caller.clone()),
            refusal: None,
        }
    }

    pub(crate) fn refused(port: Port, what: &str, caller: &Caller, why: &'static str) -> Row {
        Row {
            refusal: Some(why),
            ..Row::taken(port, what, caller)
        }
    }

    pub(crate) fn refused_plain(port: Port, why: &'static str) -> Row {
        Row {
            port,
            what: "plain text".to_owned(),
            caller: None,
            refusal: Some(why),
        }
    }
}

/// The member and its authority.
#[derive(Debug)]
pub(crate) struct Desk {
    node: Node,
    ca: Authority,
    foreign: Authority,
    revoked: certs::Pair,
    dir: TempDir,
}

impl Desk {
    /// A machine with certificates, and no member yet.
    pub(crate) fn new(program: Program) -> Result<Desk> {
        let dir = tempfile::Builder::new().prefix("kvorum-test-").tempdir()?;
        let node = Node::new(program, "desk", dir.path())?;
        let (ca, foreign) = (Authority::new("ca")?, Authority::new("other")?);
        ca.issue(&Leaf::default())?.write(dir.path(), "server")?;
        certs::replace(&dir.path().join("ca.crt"), ca.pem())?;
        let revoked = ca.issue(&Leaf::named("revoked"))?;
        let list = ca.crl(1, &[revoked.serial])?;
        certs::replace(&dir.path().join("ca.crl"), &list)?;
        Ok(Desk {
            node,
            ca,
            foreign,
            revoked,
            dir,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Somebody without a certificate, who believes the authority.
    pub(crate) fn caller(&self) -> Caller {
        Caller::trusting(&self.file("ca.crt"))
    }

    /// Somebody with a certificate of the authority.
    pub(crate) fn showing(&self, file: &str, leaf: &Leaf) -> Result<Caller> {
        let identity = self.ca.issue(leaf)?.write(self.dir.path(), file)?;
        Ok(self.caller().showing(&identity))
    }

    /// Somebody whose certificate was revoked.
    pub(crate) fn revoked(&self) -> Result<Caller> {
        let identity = self.revoked.write(self.dir.path(), "revoked")?;
        Ok(self.caller().showing(&identity))
    }

    /// Somebody with another authority's certificate.
    pub(crate) fn foreign(&self) -> Result<Caller> {
        let pair = self.foreign.issue(&Leaf::default())?;
        let identity = pair.write(self.dir.path(), "foreign")?;
        Ok(self.caller().showing(&identity))
    }

    /// Both ports show a certificate.
    pub(crate) fn one_sided_tls(&self) -> Vec<String> {
        let mut flags = Vec::new();
        for prefix in ["", "peer-"] {
            for (flag, name) in [("cert-file", "server.crt"), ("key-file", "server.key")] {
                flags.push(format!("--{prefix}{flag}={}", self.file(name).display()));
            }
        }
        flags
    }

    /// Both ports ask for one too.
    pub(crate) fn mutual_tls(&self) -> Vec<String> {
        let (ca, crl) = (self.file("ca.crt"), self.file("ca.crl"));
        let mut flags = self.one_sided_tls();
        flags.extend([
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", ca.display()),
            format!("--client-crl-file={}", crl.display()),
            "--peer-client-cert-auth".to_owned(),
            format!("--peer-trusted-ca-file={}", ca.display()),
            format!("--peer-crl-file={}", crl.display()),
        ]);
        flags
    }

    /// The flag's name as each release has it.
    pub(crate) fn skip_client_san_verification(&self) -> String {
        let prefix = match self.node.program {
            Program::Etcd => "experimental-",
            Program::Kvorum => "",
        };
        format!("--{prefix}peer-skip-client-san-verification")
    }

    /// Starts the member.
    pub(crate) async fn open(&mut self, flags: &[String]) -> Result<()> {
        let (client, peer) = (self.node.client_url(), self.node.peer_url());
        let mut args = vec![
            format!("--data-dir={}", self.node.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            format!(
                "--listen-metrics-urls=http://127.0.0.1:{}",
                self.node.metrics
            ),
        ];
        if self.node.program == Program::Etcd {
            // Its gateway is a client of the member, and may be refused itself.
            args.push("--enable-grpc-gateway=false".to_owned());
        }
        args.extend_from_slice(flags);
        self.node.start(&args)?;
        self.node.answers("/readyz", 200).await?;
        Ok(())
    }

    /// Lets all knock, one after the other. Returns who got in.
    pub(crate) async fn ask(&mut self, rows: &[Row]) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        let mut refused = self.refusals()?.len();
        for row in rows {
            let got_in = self.knock(row).await;
            let line = format!("{:?}, {}", row.port, row.what);
            let Some(why) = row.refusal else {
                got_in.with_context(|| format!("{line}: was refused"))?;
                seen.push(format!("{line}: taken"));
                continue;
            };
            ensure!(got_in.is_err(), "{line}: got in");
            refused += 1;
            let reason = self.refusal(refused).await.with_context(|| line.clone())?;
            ensure!(reason.contains(why), "{line}: the log says {reason}");
            seen.push(format!("{line}: refused"));
        }
        Ok(seen)
    }

    async fn knock(&self, row: &Row) -> Result<()> {
        let port = match row.port {
            Port::Client => self.node.client,
            Port::Peer => self.node.peer,
        };
        let answer = match &row.caller {
            Some(caller) => caller.get(port, "/version").await?,
            None => http::get(port, "/version").await?,
        };
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }

    /// Waits for this many refusals in the log; what the last says.
    async fn refusal(&self, count: usize) -> Result<String> {
        eventually("the log tells of the refusal", || async {
            let mut refusals = self.refusals()?;
            ensure!(
                refusals.len() >= count,
                "it tells of {} only",
                refusals.len()
            );
            ensure!(
                refusals.len() == count,
                "it tells of one too many: {refusals:?}"
            );
            refusals.pop().context("none")
        })
        .await
    }

    fn refusals(&self) -> Result<Vec<String>> {
        let log = self.node.log()?;
        let lines = log
            .lines()
            .filter(|line| line.contains("rejected connection"));
        let error = |line: &str| {
            let line: Value = serde_json::from_str(line)?;
            let level = line["level"].as_str();
            ensure!(level == Some("warn"), "{line}");
            Ok(line["error"].as_str().context("no error")?.to_owned())
        };
        lines.map(error).collect()
    }

    /// Runs etcdctl for somebody; it does not wait long.
    pub(crate) fn etcdctl(&self, caller: &Caller, args: &[&str]) -> Result<Output> {
        let operator = Operator::new(caller.clone(), &[self.node.client_url()]);
        let mut patient = vec!["--dial-timeout=2s", "--command-timeout=3s"];
        patient.extend_from_slice(args);
        operator.run_etcdctl(&patient)
    }

    /// The end of a test that did not count.
    pub(crate) async fn close_without_count(mut self) -> Result<()> {
        self.node.terminate().await?;
        self.node.fine();
        Ok(())
    }

    /// The end of a test that went well: each refusal was told once.
    pub(crate) async fn close(mut self, rows: &[Row]) -> Result<()> {
        let status = self.node.terminate().await?;
        let refused = rows.iter().filter(|row| row.refusal.is_some()).count();
        let told = self.refusals()?;
        if told.len() != refused {
            bail!("{refused} were refused, but the log tells of {told:?} ({status})");
        }
        self.node.fine();
        Ok(())
    }
}

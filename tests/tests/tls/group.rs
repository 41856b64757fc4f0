//! A cluster that starts from one list, with the certificates of one authority in files of their
//! own for each machine.

use anyhow::{Result, ensure};
use kvorum_tests::flows::{Caller, Node};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use testkit::certs::{self, Authority, Leaf};
use testkit::{Program, eventually};

/// The machines.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
    dir: TempDir,
}

impl Group {
    pub(crate) fn new(program: Program, size: usize) -> Result<Group> {
        let dir = tempfile::Builder::new().prefix("kvorum-test-").tempdir()?;
        let node = |at| Node::new(program, &format!("m{at}"), dir.path());
        Ok(Group {
            nodes: (0..size).map(node).collect::<Result<_>>()?,
            dir,
        })
    }

    /// Starts one member; waits for nothing.
    pub(crate) fn start(&mut self, at: usize, flags: &[String]) -> Result<()> {
        let entry = |node: &Node| format!("{}={}", node.name, node.peer_url());
        let cluster: Vec<String> = self.nodes.iter().map(entry).collect();
        let node = &mut self.nodes[at];
        let (client, peer) = (node.client_url(), node.peer_url());
        let mut args = vec![
            format!("--name={}", node.name),
            format!("--data-dir={}", node.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--listen-metrics-urls=http://127.0.0.1:{}", node.metrics),
            format!("--initial-cluster={}", cluster.join(",")),
        ];
        args.extend_from_slice(flags);
        node.start(&args)
    }

    /// Starts all members and waits until they are ready.
    pub(crate) async fn start_all(&mut self, flags: &dyn Fn(&Node) -> Vec<String>) -> Result<()> {
        for at in 0..self.nodes.len() {
            let flags = flags(&self.nodes[at]);
            self.start(at, &flags)?;
        }
        for node in &mut self.nodes {
            node.answers("/readyz", 200).await?;
        }
        Ok(())
    }

    pub(crate) fn client_urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::client_url).collect()
    }

    /// Replaces a file on all machines.
    pub(crate) fn write_everywhere(&self, name: &str, text: &str) -> Result<()> {
        for node in &self.nodes {
            certs::replace(&node.dir().join(name), text)?;
        }
        Ok(())
    }

    /// Waits until all ports let somebody in.
    pub(crate) async fn let_in(&self, caller: &Caller) -> Result<()> {
        for port in self.ports() {
            eventually("somebody is let in", || async {
                let answer = caller.get(port, "/version").await?;
                ensure!(answer.status == 200, "{answer:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until no port lets somebody in, and all members have said why.
    pub(crate) async fn keep_out(&self, caller: &Caller, why: &str) -> Result<()> {
        for port in self.ports() {
            eventually("somebody is kept out", || async {
                let answer = caller.get(port, "/version").await;
                ensure!(answer.is_err(), "still let in");
                Ok(())
            })
            .await?;
        }
        // The caller may be gone before the member has written down why.
        for node in &self.nodes {
            eventually("the member says why", || async {
                let told = |line: &str| line.contains("rejected connection") && line.contains(why);
                let is_told = node.log()?.lines().any(told);
                ensure!(is_told, "{} does not say why", node.name);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until all ports show the certificates that are in their files.
    pub(crate) async fn show_leaves(&self, caller: &Caller) -> Result<()> {
        for node in &self.nodes {
            for (port, name) in [(node.client, "server.crt"), (node.peer, "peer.crt")] {
                let path = node.dir().join(name);
                let wanted = CertificateDer::from_pem_file(&path)?;
                eventually("the new certificate is shown", || async {
                    let shown = caller.certificate_of(port).await?;
                    ensure!(shown == wanted, "still another one than {}", path.display());
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().flat_map(|node| [node.client, node.peer])
    }

    /// The end of a test that went well.
    pub(crate) async fn stop_all(mut self) -> Result<()> {
        for node in &mut self.nodes {
            let status = node.terminate().await?;
            let by_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
            ensure!(
                status.success() || by_signal,
                "{} ended with {status}",
                node.name
            );
            node.fine();
        }
        Ok(())
    }
}

/// The files of a group: `ca.crt`, `ca.crl`, `server.*` and `peer.*` on each machine.
#[derive(Debug)]
pub(crate) struct GroupPki {
    pub(crate) ca: Authority,
}

impl GroupPki {
    pub(crate) fn of(ca: Authority) -> GroupPki {
        GroupPki { ca }
    }

    /// A new authority, and its files on all machines.
    pub(crate) fn new(group: &Group) -> Result<GroupPki> {
        let this = GroupPki::of(Authority::new("first")?);
        group.write_everywhere("ca.crt", this.ca.pem())?;
        group.write_everywhere("ca.crl", &this.ca.crl(1, &[])?)?;
        this.issue_leaves(group)?;
        Ok(this)
    }

    /// Gives all machines new certificates.
    pub(crate) fn issue_leaves(&self, group: &Group) -> Result<()> {
        for node in &group.nodes {
            let leaf = Leaf::named(&node.name);
            self.ca.issue(&leaf)?.write(node.dir(), "server")?;
            self.issue_peer(node)?;
        }
        Ok(())
    }

    /// Gives a machine a new certificate for its peer port.
    pub(crate) fn issue_peer(&self, node: &Node) -> Result<()> {
        self.ca
            .issue(&Leaf::named(&node.name))?
            .write(node.dir(), "peer")?;
        Ok(())
    }

    /// Somebody with a certificate of this authority, who believes it and the first.
    pub(crate) fn client(&self, group: &Group, name: &str) -> Result<Caller> {
        Ok(self.client_with_serial(group, name)?.0)
    }

    pub(crate) fn client_with_serial(&self, group: &Group, name: &str) -> Result<(Caller, u64)> {
        let dir = group.dir.path();
        let believed = std::fs::read_to_string(group.nodes[0].dir().join("ca.crt"))?;
        let ca = dir.join(format!("{name}-ca.crt"));
        certs::replace(&ca, format!("{believed}{}", self.ca.pem()))?;
        let pair = self.ca.issue(&Leaf::client(name))?;
        let identity = pair.write(dir, name)?;
        Ok((Caller::trusting(&ca).showing(&identity), pair.serial))
    }

    /// What a member is told of its files.
    pub(crate) fn flags(node: &Node) -> Vec<String> {
        let file = |name: &str| node.dir().join(name).display().to_string();
        let both = |prefix: &str, name: &str| {
            [
                format!("--{prefix}cert-file={}", file(&format!("{name}.crt"))),
                format!("--{prefix}key-file={}", file(&format!("{name}.key"))),
                format!("--{prefix}client-cert-auth"),
                format!("--{prefix}trusted-ca-file={}", file("ca.crt")),
            ]
        };
        let mut flags = [both("", "server"), both("peer-", "peer")].concat();
        flags.push(format!("--client-crl-file={}", file("ca.crl")));
        flags.push(format!("--peer-crl-file={}", file("ca.crl")));
        flags
    }
}

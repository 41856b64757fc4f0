//! Three servers of k3s.

use anyhow::Result;
use kvorum_tests::flows::{Caller, Node, Operator, Transcript};
use tempfile::TempDir;
use testkit::Program;
use testkit::certs::{self, Authority, Leaf};

const SERVERS: usize = 3;

/// How a server's etcd is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// `--cluster-init`.
    Init,
    /// With the list of members that were asked for.
    Join(String),
    /// With what is on the disk.
    Again,
    /// `--cluster-reset`.
    Reset,
}

/// The servers, and what was seen so far.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) nodes: Vec<Node>,
    /// `<node>-<8 hex digits>`, as in the file `name`; another one after each burial.
    pub(crate) member_names: Vec<String>,
    /// What has to be the same on etcd and kvorum.
    pub(crate) seen: Transcript,
    /// Servers whose members are voters.
    voters: Vec<usize>,
    names_given: usize,
    dir: TempDir,
}

impl Site {
    /// Servers with certificates and no member yet.
    pub(crate) fn new(program: Program) -> Result<Site> {
        let dir = tempfile::Builder::new().prefix("kvorum-test-").tempdir()?;
        let node = |at| Node::new(program, &format!("server-{at}"), dir.path());
        let nodes = (0..SERVERS).map(node).collect::<Result<Vec<_>>>()?;
        let (server_ca, peer_ca) = (Authority::new("etcd-server")?, Authority::new("etcd-peer")?);
        for node in &nodes {
            certs::replace(&node.dir().join("server-ca.crt"), server_ca.pem())?;
            certs::replace(&node.dir().join("peer-ca.crt"), peer_ca.pem())?;
            let names = ["localhost", "127.0.0.1", "::1", node.name.as_str()];
            let server = Leaf::named("etcd-server").sans(&names);
            server_ca
                .issue(&server)?
                .write(node.dir(), "server-client")?;
            let peer = Leaf::named("etcd-peer").sans(&names);
            peer_ca
                .issue(&peer)?
                .write(node.dir(), "peer-server-client")?;
        }
        certs::replace(&dir.path().join("server-ca.crt"), server_ca.pem())?;
        server_ca
            .issue(&Leaf::client("etcd-client"))?
            .write(dir.path(), "client")?;
        let mut site = Site {
            seen: Transcript::of(&nodes),
            member_names: vec![String::new(); SERVERS],
            voters: vec![0],
            names_given: 0,
            nodes,
            dir,
        };
        for at in 0..SERVERS {
            site.give_name(at);
        }
        Ok(site)
    }

    fn give_name(&mut self, at: usize) {
        self.names_given += 1;
        self.member_names[at] = format!("{}-{:08x}", self.nodes[at].name, self.names_given);
    }

    /// The client's certificate.
    pub(crate) fn caller(&self) -> Caller {
        let dir = self.dir.path();
        Caller::trusting(&dir.join("server-ca.crt")).showing(&certs::Identity {
            cert: dir.join("client.crt"),
            key: dir.join("client.key"),
        })
    }

    /// A client of all voters.
    pub(crate) fn operator(&self) -> Operator {
        let endpoint = |at: &usize| self.nodes[*at].client_url();
        let endpoints: Vec<String> = self.voters.iter().map(endpoint).collect();
        Operator::new(self.caller(), &endpoints)
    }

    /// A client of one server.
    pub(crate) fn operator_at(&self, at: usize) -> Operator {
        Operator::new(self.caller(), &[self.nodes[at].client_url()])
    }

    /// Its member is a voter from now on.
    pub(crate) fn know(&mut self, at: usize) {
        self.voters.push(at);
    }

    /// Its member is gone.
    pub(crate) fn forget(&mut self, at: usize) {
        self.voters.retain(|voter| *voter != at);
    }

    /// Moves its data aside; the next member gets another name.
    pub(crate) fn bury(&mut self, at: usize) -> Result<()> {
        let data = self.nodes[at].data_dir();
        std::fs::rename(
            &data,
            self.nodes[at]
                .dir()
                .join(format!("etcd-old-{}", self.names_given)),
        )?;
        self.give_name(at);
        Ok(())
    }

    /// Starts its etcd with the configuration that k3s generates.
    pub(crate) fn start(&mut self, at: usize, start: &Start) -> Result<()> {
        let name = &self.member_names[at];
        let node = &mut self.nodes[at];
        let (client, peer) = (node.client_url(), node.peer_url());
        let client_local = format!("https://127.0.0.1:{}", node.local);
        let peer_local = node.peer_local_url();
        let file = |name: &str| node.dir().join(name).display().to_string();
        let mut args = vec![
            format!("--name={name}"),
            format!("--data-dir={}", node.data_dir().display()),
            format!("--listen-client-urls={client_local},{client}"),
            format!("--listen-client-http-urls=https://127.0.0.1:{}", node.http),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer_local},{peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--listen-metrics-urls=http://127.0.0.1:{}", node.metrics),
            format!("--cert-file={}", file("server-client.crt")),
            format!("--key-file={}", file("server-client.key")),
            "--client-cert-auth=true".to_owned(),
            format!("--trusted-ca-file={}", file("server-ca.crt")),
            format!("--peer-cert-file={}", file("peer-server-client.crt")),
            format!("--peer-key-file={}", file("peer-server-client.key")),
            "--peer-client-cert-auth=true".to_owned(),
            format!("--peer-trusted-ca-file={}", file("peer-ca.crt")),
            "--snapshot-count=10000".to_owned(),
            "--heartbeat-interval=500".to_owned(),
            "--election-timeout=5000".to_owned(),
            "--logger=zap".to_owned(),
            "--log-outputs=stderr".to_owned(),
            "--experimental-initial-corrupt-check=true".to_owned(),
            "--experimental-watch-progress-notify-interval=5s".to_owned(),
        ];
        match start {
            Start::Init | Start::Reset => args.extend([
                format!("--initial-cluster={name}={peer}"),
                "--initial-cluster-state=new".to_owned(),
            ]),
            Start::Join(cluster) => args.extend([
                format!("--initial-cluster={cluster}"),
                "--initial-cluster-state=existing".to_owned(),
            ]),
            // With data on the disk k3s leaves the list out, which makes it the member alone.
            Start::Again => {}
        }
        if *start == Start::Reset {
            args.push("--force-new-cluster=true".to_owned());
        }
        node.start(&args)
    }

    /// The test went well.
    pub(crate) fn fine(&mut self) {
        for node in &mut self.nodes {
            node.fine();
        }
    }
}

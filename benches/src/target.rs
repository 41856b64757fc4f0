//! The server under load: one member or a cluster, in plain text or with certificates on both sides, and how
//! the load generator connects to it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use testkit::certs::{Certs, generate};
use testkit::{Cluster, ClusterSpec};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Server;
use crate::grpc::Connection;
use crate::measure::now;

/// What kind of server takes its turn.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shape {
    /// How many members it has. Clients connect to all of them in turn, to the leader last.
    #[arg(long, default_value_t = 1)]
    pub(crate) members: usize,
    /// TLS with certificates on both sides, for clients and between members.
    #[arg(long)]
    pub(crate) tls: bool,
    /// A flag for every member of both, `--snapshot-count=100000` say (may be repeated).
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) flag: Vec<String>,
}

/// A running server.
pub(crate) struct Running {
    pub(crate) cluster: Cluster,
    pub(crate) target: Target,
    /// Its certificates are in it.
    _certs: TempDir,
}

/// Where clients go, and whose time and memory is counted.
#[derive(Clone)]
pub(crate) struct Target {
    /// `host:port` of each member's client listener.
    authorities: Vec<String>,
    tls: Option<TlsConnector>,
    /// The process of each member.
    pub(crate) pids: Vec<u32>,
}

impl Shape {
    /// One member in plain text, with these flags.
    pub(crate) fn single(flags: &[&str]) -> Self {
        Self {
            members: 1,
            tls: false,
            flag: flags.iter().map(|&flag| flag.to_owned()).collect(),
        }
    }

    /// Starts one and waits until all of it is healthy.
    pub(crate) async fn start(&self, server: Server) -> anyhow::Result<Running> {
        let dir = tempfile::tempdir()?;
        let spec = ClusterSpec::of(server.program(), self.members);
        let mut spec = self.flag.iter().fold(spec, ClusterSpec::arg);
        let mut tls = None;
        if self.tls {
            let certs = generate(dir.path(), "benchmark")?;
            tls = Some(connector(&certs)?);
            spec = spec.mutual_tls(certs);
        }
        let cluster = spec.start().await?;
        let leader = cluster.leader().await?;
        let mut target = Target::of(&cluster, tls)?;
        // Most members follow. A single client is at one of these, and not where chance has put it.
        let led = target.authorities.remove(leader);
        target.authorities.push(led);
        Ok(Running {
            cluster,
            target,
            _certs: dir,
        })
    }
}

impl Running {
    /// Stops it as an operator would, if it runs, and starts it again. Says how long the start took.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<Duration> {
        self.terminate().await?;
        let begun = now();
        self.cluster.start_all().await?;
        let took = begun.elapsed();
        self.target = Target::of(&self.cluster, self.target.tls.take())?;
        Ok(took)
    }

    /// Stops all members, whose directories stay.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        for at in self.cluster.running() {
            self.cluster.member_mut(at).terminate().await?;
        }
        Ok(())
    }

    /// Bytes that its members' directories take on the disk.
    pub(crate) fn size_on_disk(&self) -> anyhow::Result<u64> {
        let members = self.cluster.members().iter();
        members.map(|member| size_of_dir(&member.data_dir())).sum()
    }
}

impl Target {
    fn of(cluster: &Cluster, tls: Option<TlsConnector>) -> anyhow::Result<Self> {
        let members = cluster.members();
        Ok(Self {
            authorities: members
                .iter()
                .map(|member| format!("127.0.0.1:{}", member.client_port()))
                .collect(),
            tls,
            pids: members
                .iter()
                .map(testkit::cluster::Member::pid)
                .collect::<anyhow::Result<_>>()?,
        })
    }

    /// So many connections, to all members in turn.
    pub(crate) async fn connect(&self, connections: usize) -> anyhow::Result<Vec<Connection>> {
        let mut all = Vec::with_capacity(connections);
        for authority in self.authorities.iter().cycle().take(connections) {
            all.push(self.open(authority).await?);
        }
        Ok(all)
    }

    async fn open(&self, authority: &str) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(authority).await.context("connecting")?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Connection::over(tcp, authority));
        };
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = tls.connect(name, tcp).await.context("TLS")?;
        Ok(Connection::over(stream, authority))
    }
}

fn connector(certs: &Certs) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for authority in chain(&certs.ca)? {
        roots.add(authority)?;
    }
    let key = PrivateKeyDer::from_pem_file(&certs.client.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(&certs.client.cert)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn chain(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)?;
    Ok(certificates.collect::<Result<_, _>>()?)
}

fn size_of_dir(dir: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => size_of_dir(&entry.path())?,
            // What it takes on the disk: etcd preallocates files that it has not filled.
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}

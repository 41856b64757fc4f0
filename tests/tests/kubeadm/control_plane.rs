//! The machines of a control plane that kubeadm has set up.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use api::etcdserverpb as pb;
use kvorum_tests::flows::{Caller, Node, Operator, Transcript};
use tempfile::TempDir;
use testkit::Program;
use testkit::certs::{Authority, Identity, Kubeadm};

/// How many machines a test may use.
const MACHINES: usize = 4;

/// Whose manifest: kubeadm writes flags for the etcd of its own release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// kubeadm 1.33, for etcd 3.5.
    Before,
    /// kubeadm 1.34, for etcd 3.6.
    Next,
}

/// The machines, and what was seen so far.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) nodes: Vec<Node>,
    pub(crate) release: Release,
    /// What has to be the same on etcd and kvorum.
    pub(crate) seen: Transcript,
    /// The command line of each machine's manifest.
    manifests: Vec<Vec<String>>,
    /// `extraArgs` of every manifest.
    pub(crate) extra: Vec<String>,
    /// Removed at the end.
    _dir: TempDir,
    program: Program,
}

impl ControlPlane {
    /// Four machines without a member, but with certificates.
    pub(crate) fn new(program: Program) -> Result<ControlPlane> {
        let dir = tempfile::Builder::new().prefix("kvorum-test-").tempdir()?;
        let ca = Authority::new("etcd-ca")?;
        let node = |at| Node::new(program, &format!("control-plane-{at}"), dir.path());
        let nodes = (0..MACHINES).map(node).collect::<Result<Vec<_>>>()?;
        for node in &nodes {
            Kubeadm::generate(
                &ca,
                &node.dir().join("pki"),
                &node.name,
                Ipv4Addr::LOCALHOST.into(),
            )?;
        }
        Ok(ControlPlane {
            seen: Transcript::of(&nodes),
            nodes,
            release: Release::Before,
            manifests: vec![Vec::new(); MACHINES],
            extra: Vec::new(),
            _dir: dir,
            program,
        })
    }

    pub(crate) fn program(&self) -> Program {
        self.program
    }

    /// The client that kubeadm is: it shows `healthcheck-client`.
    pub(crate) fn operator(&self) -> Operator {
        let caller = self.caller("etcd/healthcheck-client");
        Operator::new(caller, &[self.nodes[0].client_url()])
    }

    /// The client that the API server is.
    pub(crate) fn apiserver(&self) -> Caller {
        self.caller("apiserver-etcd-client")
    }

    fn caller(&self, name: &str) -> Caller {
        let pki = self.nodes[0].dir().join("pki");
        let identity = Identity {
            cert: pki.join(format!("{name}.crt")),
            key: pki.join(format!("{name}.key")),
        };
        Caller::trusting(&pki.join("etcd/ca.crt")).showing(&identity)
    }

    /// Writes the manifest and starts the pod: `cluster` is given by a join.
    pub(crate) fn boot(&mut self, at: usize, cluster: Option<&str>) -> Result<()> {
        self.manifests[at] = self.manifest(&self.nodes[at], cluster);
        self.boot_again(at)
    }

    /// Starts the pod of the manifest that is there.
    pub(crate) fn boot_again(&mut self, at: usize) -> Result<()> {
        self.nodes[at].start(&self.manifests[at])
    }

    /// Starts the pod of a manifest with one flag more.
    pub(crate) fn boot_with(&mut self, at: usize, flag: &str) -> Result<()> {
        self.manifests[at].push(flag.to_owned());
        self.boot_again(at)
    }

    fn manifest(&self, node: &Node, cluster: Option<&str>) -> Vec<String> {
        // A real etcd of the release before does not know the next one's flags.
        let release = match self.program {
            Program::Etcd => Release::Before,
            Program::Kvorum => self.release,
        };
        let pki = node.dir().join("pki/etcd");
        let file = |name| pki.join(name).display().to_string();
        let (client, peer) = (node.client_url(), node.peer_url());
        let mut flags = vec![
            ("advertise-client-urls", client.clone()),
            ("cert-file", file("server.crt")),
            ("client-cert-auth", "true".to_owned()),
            ("data-dir", node.data_dir().display().to_string()),
        ];
        flags.push(match release {
            Release::Before => ("experimental-initial-corrupt-check", "true".to_owned()),
            Release::Next => ("feature-gates", "InitialCorruptCheck=true".to_owned()),
        });
        if release == Release::Before {
            flags.push((
                "experimental-watch-progress-notify-interval",
                "5s".to_owned(),
            ));
        }
        flags.push(("initial-advertise-peer-urls", peer.clone()));
        match cluster {
            None => flags.push(("initial-cluster", format!("{}={peer}", node.name))),
            Some(cluster) => flags.extend([
                ("initial-cluster", cluster.to_owned()),
                ("initial-cluster-state", "existing".to_owned()),
            ]),
        }
        let local = format!("https://127.0.0.1:{}", node.local);
        flags.extend([
            ("key-file", file("server.key")),
            ("listen-client-urls", format!("{local},{client}")),
            (
                "listen-metrics-urls",
                format!("http://127.0.0.1:{}", node.metrics),
            ),
            ("listen-peer-urls", peer),
            ("name", node.name.clone()),
            ("peer-cert-file", file("peer.crt")),
            ("peer-client-cert-auth", "true".to_owned()),
            ("peer-key-file", file("peer.key")),
            ("peer-trusted-ca-file", file("ca.crt")),
            ("snapshot-count", "10000".to_owned()),
            ("trusted-ca-file", file("ca.crt")),
        ]);
        if release == Release::Next {
            flags.push(("watch-progress-notify-interval", "5s".to_owned()));
        }
        let flag = |(name, value)| format!("--{name}={value}");
        flags
            .into_iter()
            .map(flag)
            .chain(self.extra.iter().cloned())
            .collect()
    }

    /// `--initial-cluster` from a response's members, as kubeadm makes it: the new member by its
    /// machine's name, others by theirs, or by their id while they have none.
    pub(crate) fn initial_cluster(&self, members: &[pb::Member], at: usize) -> String {
        let own = self.nodes[at].peer_url();
        let entry = |member: &pb::Member| {
            let url = member.peer_ur_ls.first().cloned().unwrap_or_default();
            let name = match member.name.as_str() {
                _ if url == own => self.nodes[at].name.clone(),
                "" => format!("{:x}", member.id),
                name => name.to_owned(),
            };
            format!("{name}={url}")
        };
        members.iter().map(entry).collect::<Vec<_>>().join(",")
    }

    /// The ids of all members.
    pub(crate) async fn ids(&self) -> Result<BTreeSet<u64>> {
        let members = self.operator().members().await?;
        Ok(members.iter().map(|member| member.id).collect())
    }

    /// The test went well.
    pub(crate) fn fine(&mut self) {
        for node in &mut self.nodes {
            node.fine();
        }
    }
}

/// A table's row without what the widths of its columns do to it.
pub(crate) fn row(line: &str) -> String {
    let is_rule = |c: char| "─┌┬┐├┼┤└┴┘+-=|│".contains(c);
    let cells = line
        .split(is_rule)
        .map(str::trim)
        .filter(|cell| !cell.is_empty());
    cells.collect::<Vec<_>>().join(" | ")
}

/// What an entry of etcdctl's JSON says that is the same on both: all names, and the values that do
/// not depend on time, engine or release.
pub(crate) fn comparable(entry: &serde_json::Value) -> String {
    const DIFFERS: [&str; 9] = [
        "leader",
        "took",
        "version",
        "dbSize",
        "dbSizeInUse",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
        "cluster_id",
    ];
    match entry {
        serde_json::Value::Object(fields) => {
            let field = |(name, value): (&String, &serde_json::Value)| {
                let differs = DIFFERS.contains(&name.as_str()) || name == "raft_term";
                let value = if differs {
                    "…".to_owned()
                } else {
                    comparable(value)
                };
                format!("{name}:{value}")
            };
            format!(
                "{{{}}}",
                fields.iter().map(field).collect::<Vec<_>>().join(",")
            )
        }
        other => other.to_string(),
    }
}

/// Copies a directory of files and directories.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

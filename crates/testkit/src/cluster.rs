//! Several members as one cluster: real processes with static bootstrap, their links through
//! proxies if asked, each of them killed, stopped, wiped, removed and added at will.
//!
//! What this is not: a client that hides failures. It says where members are, not how to talk to
//! a cluster that is half down.
//!
//! A member keeps its number for life, also when it has been removed; added ones get the next.

mod member;

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use api::etcdserverpb as pb;
use tempfile::TempDir;

use crate::certs::Certs;
use crate::client::Client;
use crate::disk::Library;
use crate::network::Network;
use crate::patience::{eventually, note};
use crate::server::Program;

pub use member::Member;

const UNHEALTHY: &str = "etcdserver: unhealthy cluster";

/// How the members of a cluster are started.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    program: Program,
    size: usize,
    args: Vec<String>,
    tls: Option<Certs>,
    links: Links,
    disks: Disks,
}

/// What members write on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disks {
    /// The machine's disk.
    Real,
    /// One [`Disk`](crate::disk::Disk) each.
    Faulty,
}

/// How members reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// At the address where they listen.
    Direct,
    /// Through a [`Network`] in the test's process.
    Proxied,
}

/// Whether an added member votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It does.
    Voter,
    /// It only listens until it is promoted.
    Learner,
}

impl ClusterSpec {
    /// So many kvorum members with default flags.
    #[must_use]
    pub fn kvorum(size: usize) -> ClusterSpec {
        ClusterSpec::of(Program::Kvorum, size)
    }

    /// So many members of a real etcd with default flags.
    #[must_use]
    pub fn etcd(size: usize) -> ClusterSpec {
        ClusterSpec::of(Program::Etcd, size)
    }

    /// Members of what `KVORUM_TEST_PROGRAM` names, `kvorum` if it is not set: `etcd` shows what
    /// a test says of a real etcd.
    ///
    /// # Errors
    /// When the variable names something else.
    pub fn chosen(size: usize) -> Result<ClusterSpec> {
        match std::env::var("KVORUM_TEST_PROGRAM").as_deref() {
            Ok("kvorum") | Err(std::env::VarError::NotPresent) => Ok(ClusterSpec::kvorum(size)),
            Ok("etcd") => Ok(ClusterSpec::etcd(size)),
            other => bail!("KVORUM_TEST_PROGRAM is {other:?}, not kvorum or etcd"),
        }
    }

    /// Either, with default flags.
    #[must_use]
    pub fn of(program: Program, size: usize) -> ClusterSpec {
        ClusterSpec {
            program,
            size,
            args: Vec::new(),
            tls: None,
            links: Links::Direct,
            disks: Disks::Real,
        }
    }

    /// What is run.
    #[must_use]
    pub fn program(&self) -> Program {
        self.program
    }

    /// Adds a flag (`--name=value`) to every member.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> ClusterSpec {
        self.args.push(arg.into());
        self
    }

    /// TLS with client certificates, for clients and between members.
    #[must_use]
    pub fn mutual_tls(mut self, certs: Certs) -> ClusterSpec {
        self.tls = Some(certs);
        self
    }

    /// Puts every link between members through a proxy: see [`Cluster::network`].
    #[must_use]
    pub fn proxied(mut self) -> ClusterSpec {
        self.links = Links::Proxied;
        self
    }

    /// Gives every member a disk that can fail: see [`Member::disk`]. For kvorum only.
    #[must_use]
    pub fn faulty_disks(mut self) -> ClusterSpec {
        self.disks = Disks::Faulty;
        self
    }

    /// Gives the members names, ports and directories, and starts none of them.
    ///
    /// # Errors
    /// When there is no room for a directory, or no port is free.
    pub async fn prepare(self) -> Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("kvorum-test-").tempdir()?;
        let network = match self.links {
            Links::Direct => None,
            Links::Proxied => Some(Network::default()),
        };
        let library = match self.disks {
            Disks::Real => None,
            Disks::Faulty => Some(Library::compile(dir.path())?),
        };
        let size = self.size;
        let mut cluster = Cluster {
            library,
            spec: self,
            members: Vec::new(),
            network,
            verdict: Verdict::Pending,
            dir,
        };
        for _ in 0..size {
            cluster.prepare_member().await?;
        }
        let initial_cluster = cluster.initial_cluster();
        for member in &mut cluster.members {
            member.bootstrap(&initial_cluster, "new");
        }
        Ok(cluster)
    }

    /// Starts all members at once and waits until every one is healthy.
    ///
    /// # Errors
    /// When one ends, or does not become healthy in time; the logs are printed then.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = self.prepare().await?;
        cluster.start_all().await?;
        Ok(cluster)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The test is still under way: a drop now means that it failed.
    Pending,
    /// The cluster was stopped as it should be.
    Clean,
}

/// A cluster under test. Call [`Cluster::stop`] at the end of a test; one that is dropped without
/// it belongs to a test that failed, and its members' logs are shown.
#[derive(Debug)]
pub struct Cluster {
    spec: ClusterSpec,
    members: Vec<Member>,
    network: Option<Network>,
    library: Option<Library>,
    verdict: Verdict,
    dir: TempDir,
}

impl Cluster {
    /// What is run.
    #[must_use]
    pub fn program(&self) -> Program {
        self.spec.program
    }

    /// All members there ever were.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The numbers of the members that were not removed.
    #[must_use]
    pub fn present(&self) -> Vec<usize> {
        let numbers = 0..self.members.len();
        numbers.filter(|&at| !self.members[at].removed()).collect()
    }

    /// The numbers of the members whose process runs, also if it is stopped by SIGSTOP.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let numbers = 0..self.members.len();
        numbers.filter(|&at| self.members[at].started()).collect()
    }

    /// A member.
    #[must_use]
    pub fn member(&self, at: usize) -> &Member {
        &self.members[at]
    }

    /// A member, to do something to it.
    pub fn member_mut(&mut self, at: usize) -> &mut Member {
        &mut self.members[at]
    }

    /// The links between members.
    ///
    /// # Errors
    /// When the cluster was not made with [`ClusterSpec::proxied`].
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("the links are not proxied")
    }

    /// Where everything is that the members write.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The certificates, if there is TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Certs> {
        self.spec.tls.as_ref()
    }

    /// All members' client urls.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let present = self.present();
        let urls = present.iter().map(|&at| self.members[at].client_url());
        urls.collect()
    }

    /// A client of one member; connects when it is used.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn client(&self, at: usize) -> Result<Client> {
        Client::lazy(&self.members[at].client_url(), self.spec.tls.as_ref())
    }

    /// Starts whoever does not run, all at once, and waits until every one is healthy.
    ///
    /// # Errors
    /// When one ends, or does not become healthy in time.
    pub async fn start_all(&mut self) -> Result<()> {
        for at in self.present() {
            if !self.members[at].started() {
                self.members[at].launch()?;
            }
        }
        for at in self.present() {
            self.members[at].ready().await?;
        }
        Ok(())
    }

    /// Kills a member if it runs, starts it again on the same directory and ports, and waits
    /// until it is healthy.
    ///
    /// # Errors
    /// When it ends, or does not become healthy in time.
    pub async fn restart(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        if member.started() {
            member.kill()?;
        }
        member.start().await
    }

    /// The member that all running members take for their leader, once they agree.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn leader(&self) -> Result<usize> {
        self.leader_of(&self.running()).await
    }

    /// The member that these take for their leader, once they agree and it is one of them.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn leader_of(&self, those: &[usize]) -> Result<usize> {
        let clients = those
            .iter()
            .map(|&at| self.client(at))
            .collect::<Result<Vec<_>>>()?;
        eventually("all agree on a leader", || async {
            let mut views = Vec::new();
            for client in &clients {
                let status = client
                    .maintenance
                    .clone()
                    .status(pb::StatusRequest {})
                    .await?
                    .into_inner();
                let id = status.header.context("a response has a header")?.member_id;
                views.push((id, status.leader, status.raft_term));
            }
            let (_, leader, term) = views.first().context("nobody was asked")?;
            let agree = views.iter().all(|(_, l, t)| l == leader && t == term);
            let found = views.iter().position(|(id, ..)| id == leader);
            ensure!(agree, "(member, leader, term) are {views:x?}");
            let found = found.with_context(|| format!("the leader is none of {views:x?}"))?;
            Ok(those[found])
        })
        .await
    }

    /// What a member says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, at: usize) -> Result<pb::StatusResponse> {
        let mut client = self.client(at)?.maintenance;
        Ok(client.status(pb::StatusRequest {}).await?.into_inner())
    }

    /// A member's id, as another member knows it: it need not run.
    ///
    /// # Errors
    /// When nobody answers, or nobody knows it.
    pub async fn id(&self, at: usize) -> Result<u64> {
        let url = self.members[at].peer_url();
        let asked: Vec<usize> = self.running();
        eventually("some member knows the id", || async {
            let mut last = None;
            for &other in &asked {
                match self.list(other).await {
                    Ok(members) => {
                        let found = members.iter().find(|m| m.peer_ur_ls.contains(&url));
                        let found =
                            found.with_context(|| format!("{url} is not in {members:?}"))?;
                        return Ok(found.id);
                    }
                    Err(error) => last = Some(error),
                }
            }
            Err(last.context("nobody runs")?)
        })
        .await
    }

    /// The members, as one of them knows them.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn list(&self, at: usize) -> Result<Vec<pb::Member>> {
        let request = pb::MemberListRequest { linearizable: true };
        let answer = self.client(at)?.cluster.member_list(request).await?;
        Ok(answer.into_inner().members)
    }

    /// Adds a member to the cluster by asking `through`, and prepares it; it is not started.
    /// Returns its number. Asks again while the cluster takes itself for unhealthy: etcd does for
    /// the first five seconds of any connection.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn add(&mut self, through: usize, role: Role) -> Result<usize> {
        let at = self.prepare_member().await?;
        let added = self.announce(through, at, role).await;
        if added.is_err() {
            // It never was a member.
            self.members[at].remove();
        }
        added.map(|()| at)
    }

    async fn announce(&mut self, through: usize, at: usize, role: Role) -> Result<()> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![self.members[at].peer_url()],
            is_learner: role == Role::Learner,
        };
        let client = self.client(through)?;
        let answer = while_unhealthy(async || {
            let answer = client.cluster.clone().member_add(request.clone()).await?;
            Ok(answer.into_inner())
        })
        .await?;
        let new = answer
            .member
            .context("an answer to an addition has the new member")?;
        let mut parts = Vec::new();
        for member in &answer.members {
            for url in &member.peer_ur_ls {
                let name = if member.id == new.id {
                    self.members[at].name()
                } else {
                    &member.name
                };
                parts.push(format!("{name}={url}"));
            }
        }
        self.members[at].bootstrap(&parts.join(","), "existing");
        Ok(())
    }

    /// Removes a member from the cluster by asking `through`, as patiently as [`Cluster::add`]. Its
    /// process is left alone.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn remove(&mut self, through: usize, at: usize) -> Result<()> {
        let id = self.id(at).await?;
        let request = pb::MemberRemoveRequest { id };
        let client = self.client(through)?;
        while_unhealthy(async || {
            client.cluster.clone().member_remove(request).await?;
            Ok(())
        })
        .await?;
        self.members[at].remove();
        Ok(())
    }

    /// The end of a test that went well: SIGTERM must end every running member.
    ///
    /// # Errors
    /// When one has crashed, or goes on running.
    pub async fn stop(mut self) -> Result<()> {
        let running = self.running();
        for &at in &running {
            self.members[at].request_stop()?;
        }
        for &at in &running {
            self.members[at].stopped().await?;
        }
        self.verdict = Verdict::Clean;
        Ok(())
    }

    /// The last lines of all members' logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = self.members.iter().map(|member| {
            let (name, log) = (member.name(), member.log_tail());
            format!("the last lines of {name}'s log:\n{log}\n")
        });
        logs.collect()
    }

    fn initial_cluster(&self) -> String {
        let parts: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name(), member.peer_url()))
            .collect();
        parts.join(",")
    }

    async fn prepare_member(&mut self) -> Result<usize> {
        let at = self.members.len();
        let name = format!("m{}", at + 1);
        let mut member = Member::prepare(&self.spec, name, self.dir.path())?;
        if let Some(network) = &self.network {
            let proxy = network.join(at, member.listen_peer_port()).await?;
            member.behind(network.clone(), at, proxy);
        }
        if let Some(library) = &self.library {
            member.on_faulty_disk(library.clone())?;
        }
        self.members.push(member);
        Ok(at)
    }
}

/// Asks again while the answer is that the cluster is unhealthy.
async fn while_unhealthy<T>(ask: impl AsyncFn() -> Result<T, tonic::Status>) -> Result<T> {
    let answer = eventually("the cluster takes itself for healthy", || async {
        match ask().await {
            Err(status) if status.message() == UNHEALTHY => Err(status.into()),
            other => Ok(other),
        }
    });
    Ok(answer.await??)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.verdict == Verdict::Pending {
            note(self.logs());
        }
    }
}

//! The member inside the server: which one it is, how it is started, begun, converted, joined and reset.

mod convert;
mod join;
mod reset;

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use kvorum::{Config, Kvorum};
use types::{Clock, SystemClock};

use crate::PROGRAM;
use crate::layout::{Layout, private_dir, read_if_there, write_private};
use crate::token::{hex, random};

pub(crate) use convert::{convert, finish_conversion};
pub(crate) use join::{Members, join};
pub(crate) use reset::reset;

/// Bytes of what makes a member's name its own.
const NAME_SUFFIX_BYTES: usize = 4;
/// So many data directories of former members stay.
const BACKUPS_MAX: usize = 5;
/// How often it is looked whether the member is one of the cluster.
const TEST_INTERVAL: Duration = Duration::from_millis(500);
/// Under this the API servers' addresses are.
pub(crate) const ADDRESSES_KEY: &str = "k3s/apiaddresses";

/// Which member this server has.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) node: String,
    pub(crate) address: IpAddr,
    /// `--etcd-arg`: the last word on any flag of the member.
    pub(crate) etcd_args: Vec<(String, String)>,
    pub(crate) expose_metrics: bool,
}

impl Plan {
    /// Where the member's peers find it.
    pub(crate) fn peer_url(&self) -> String {
        self.flag("initial-advertise-peer-urls")
            .unwrap_or_else(|| self.url(2380))
    }

    /// Where its clients find it.
    pub(crate) fn client_url(&self) -> String {
        self.flag("advertise-client-urls")
            .unwrap_or_else(|| self.url(2379))
    }

    fn url(&self, port: u16) -> String {
        format!("https://{}", std::net::SocketAddr::new(self.address, port))
    }

    fn flag(&self, name: &str) -> Option<String> {
        let given = self.etcd_args.iter().rev();
        let mut named = given.filter(|(given, _value)| given == name);
        named.next().map(|(_name, value)| value.clone())
    }

    /// The flags that k3s gives its etcd.
    fn flags(&self, name: &str) -> Vec<String> {
        let tls = |file: &str| self.layout.tls_file(file).display().to_string();
        let local_metrics = "http://127.0.0.1:2381";
        let metrics = match self.expose_metrics {
            true => format!(
                "http://{},{local_metrics}",
                std::net::SocketAddr::new(self.address, 2381)
            ),
            false => local_metrics.to_owned(),
        };
        let ours = [
            ("name", name.to_owned()),
            ("data-dir", self.layout.etcd().display().to_string()),
            (
                "listen-client-urls",
                format!("https://127.0.0.1:2379,{}", self.url(2379)),
            ),
            ("advertise-client-urls", self.url(2379)),
            (
                "listen-peer-urls",
                format!("https://127.0.0.1:2380,{}", self.url(2380)),
            ),
            ("initial-advertise-peer-urls", self.url(2380)),
            ("listen-metrics-urls", metrics),
            ("cert-file", tls("etcd/server-client.crt")),
            ("key-file", tls("etcd/server-client.key")),
            ("client-cert-auth", "true".to_owned()),
            ("trusted-ca-file", tls("etcd/server-ca.crt")),
            ("peer-cert-file", tls("etcd/peer-server-client.crt")),
            ("peer-key-file", tls("etcd/peer-server-client.key")),
            ("peer-client-cert-auth", "true".to_owned()),
            ("peer-trusted-ca-file", tls("etcd/peer-ca.crt")),
            ("snapshot-count", "10000".to_owned()),
            ("heartbeat-interval", "500".to_owned()),
            ("election-timeout", "5000".to_owned()),
        ];
        let ours = ours
            .into_iter()
            .map(|(name, value)| format!("--{name}={value}"));
        let given = self.etcd_args.iter();
        ours.chain(given.map(|(name, value)| format!("--{name}={value}")))
            .collect()
    }

    /// The member's name, which it gets once, and another one after it was removed or reset.
    pub(crate) fn name(&self, naming: Naming) -> Result<String> {
        let path = self.layout.name();
        match read_if_there(&path)? {
            Some(name) if naming == Naming::AsBefore => Ok(name),
            _ => {
                let name = format!("{}-{}", self.node, hex(&random::<NAME_SUFFIX_BYTES>()?));
                write_private(&path, &name)?;
                Ok(name)
            }
        }
    }

    /// Starts the member; what of the cluster it begins or joins is in `more`.
    async fn start(&self, name: &str, more: &[String]) -> Result<Kvorum> {
        private_dir(&self.layout.etcd())?;
        let flags = self.flags(name).into_iter().chain(more.iter().cloned());
        let config = Config::builder().arguments(flags).build();
        let config = config.context("the member's flags")?;
        let member = Kvorum::start(config)
            .await
            .context("etcd cannot be started")?;
        Ok(member)
    }

    /// Begins a cluster.
    pub(crate) async fn init(&self) -> Result<Kvorum> {
        let name = self.name(Naming::AsBefore)?;
        self.start(&name, &self.new_cluster(&name)).await
    }

    /// The flags of a member that begins a cluster.
    fn new_cluster(&self, name: &str) -> [String; 2] {
        [
            format!("--initial-cluster={name}={}", self.peer_url()),
            "--initial-cluster-state=new".to_owned(),
        ]
    }

    /// Starts the member that is on the disk.
    pub(crate) async fn again(&self) -> Result<Kvorum> {
        let name = self.name(Naming::AsBefore)?;
        self.start(&name, &[]).await
    }

    /// Waits until the member has a vote in its cluster, under its name and url; says what it waits for.
    pub(crate) async fn test(&self, member: &Kvorum) -> Result<()> {
        let mut told = String::new();
        loop {
            let why = match self.why_not_a_member(member).await {
                Ok(()) => return Ok(()),
                Err(error) => format!("{error:#}"),
            };
            if told != why {
                tracing::info!("Failed to test data store connection: {why}");
                told = why;
            }
            tokio::select! {
                fatal = member.failed() => return Err(fatal.into()),
                () = tokio::time::sleep(TEST_INTERVAL) => {}
            }
        }
    }

    async fn why_not_a_member(&self, member: &Kvorum) -> Result<()> {
        if member.status().is_learner {
            bail!("this server has not yet been promoted from learner to voting member");
        }
        let (name, url) = (self.name(Naming::AsBefore)?, self.peer_url());
        let members = member.client().members().await?;
        let is_it = |member: &kvorum::api::etcdserverpb::Member| {
            member.name == name && member.peer_ur_ls.contains(&url)
        };
        if members.iter().any(is_it) {
            return Ok(());
        }
        let found = members
            .iter()
            .filter_map(|member| Some(format!("{}={}", member.name, member.peer_ur_ls.first()?)));
        let found: Vec<String> = found.collect();
        bail!(
            "this server is a not a member of the etcd cluster. Found [{}], expect: {name}={url}",
            found.join(" ")
        )
    }

    /// Says that the member was removed: the next start begins without its data.
    pub(crate) fn bury(&self) -> Result<()> {
        write_private(&self.layout.tombstone(), "")?;
        tracing::info!(
            "This node has been removed from the cluster - please restart {PROGRAM} to rejoin the cluster"
        );
        Ok(())
    }

    /// Moves the data of a removed member aside; says whether there was any.
    pub(crate) fn leave_grave(&self) -> Result<bool> {
        if !self.layout.tombstone().exists() {
            return Ok(false);
        }
        tracing::info!("tombstone file has been detected, removing data dir to rejoin the cluster");
        self.move_aside("backup")?;
        self.forget_old_backups()?;
        Ok(true)
    }

    /// Moves the member's data aside, and says where it is.
    fn move_aside(&self, why: &str) -> Result<std::path::PathBuf> {
        let now = SystemClock
            .wall()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let from = self.layout.etcd();
        let mut seconds = now.as_secs();
        let to = loop {
            let to = self.layout.db().join(format!("etcd-{why}-{seconds}"));
            if !to.exists() {
                break to;
            }
            seconds += 1;
        };
        std::fs::rename(&from, &to)
            .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
        Ok(to)
    }

    fn forget_old_backups(&self) -> Result<()> {
        let entries = std::fs::read_dir(self.layout.db())?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let mut backups = paths.collect::<Result<Vec<_>>>()?;
        backups.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("etcd-backup-")
        });
        // Their names end with the time.
        backups.sort();
        let old = backups.len().saturating_sub(BACKUPS_MAX);
        for path in &backups[..old] {
            std::fs::remove_dir_all(path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// Whether a member keeps its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    AsBefore,
    Anew,
}

/// The name of the node whose member has this name.
pub(crate) fn node_of(member_name: &str) -> &str {
    match member_name.rsplit_once('-') {
        Some((node, _suffix)) if !node.is_empty() => node,
        _ => member_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dir: &std::path::Path) -> Plan {
        Plan {
            layout: Layout::new(dir),
            node: "a-1".to_owned(),
            address: "10.0.0.1".parse().unwrap(),
            etcd_args: Vec::new(),
            expose_metrics: false,
        }
    }

    #[test]
    fn a_name_is_kept_and_says_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let name = plan.name(Naming::AsBefore).unwrap();
        assert_eq!(node_of(&name), "a-1");
        assert_eq!(plan.name(Naming::AsBefore).unwrap(), name);
        assert_ne!(plan.name(Naming::Anew).unwrap(), name);
    }

    #[test]
    fn the_last_word_is_the_users() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path());
        assert_eq!(plan.peer_url(), "https://10.0.0.1:2380");
        let flag = (
            "initial-advertise-peer-urls".to_owned(),
            "https://a:1".to_owned(),
        );
        plan.etcd_args.push(flag);
        assert_eq!(plan.peer_url(), "https://a:1");
        assert_eq!(
            plan.flags("a").last().map(String::as_str),
            Some("--initial-advertise-peer-urls=https://a:1")
        );
    }

    #[test]
    fn a_removed_members_data_is_moved_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        assert!(!plan.leave_grave().unwrap());
        for _ in 0..=BACKUPS_MAX {
            plan.name(Naming::AsBefore).unwrap();
            plan.bury().unwrap();
            assert!(plan.leave_grave().unwrap());
            assert!(!plan.layout.etcd().exists());
        }
        assert_eq!(
            std::fs::read_dir(plan.layout.db()).unwrap().count(),
            BACKUPS_MAX
        );
    }
}

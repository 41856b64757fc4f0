//! The cluster a member begins: `--initial-cluster`, `-state` and `-token`.

use std::collections::BTreeMap;
use std::fmt;

use types::{ClusterId, MemberId, Url, UrlError, cluster_id, member_id};

/// The members of `--initial-cluster` by name, before anything is known about this one.
pub(crate) type RawInitialCluster = BTreeMap<String, Vec<Url>>;

/// Whether the cluster is there already (`--initial-cluster-state`).
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::ClusterState;
///
/// let builder = Config::builder().name("c").data_dir("/var/lib/mine");
/// let builder = builder.initial_cluster("a=http://10.0.0.1:2380,c=http://10.0.0.3:2380");
/// let builder = builder.initial_advertise_peer_urls("http://10.0.0.3:2380");
/// let joining = builder.flag("initial-cluster-state", "existing").build()?;
/// assert_eq!(joining.initial_cluster.state, ClusterState::Existing);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Its members begin it together.
    New,
    /// It runs, and this member joins.
    Existing,
}

/// A cluster as it begins.
///
/// ```
/// let config = kvorum::Config::builder()
///     .name("a")
///     .data_dir("/x")
///     .initial_cluster("a=http://10.0.0.1:2380,b=http://10.0.0.2:2380")
///     .initial_advertise_peer_urls("http://10.0.0.1:2380")
///     .build()?;
/// let cluster = &config.initial_cluster;
/// let member = cluster.member("b").expect("it is one of them");
/// assert_eq!(cluster.member_id(member).to_string().len(), 16);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Whether it is there already.
    pub state: ClusterState,
    /// What makes its ids differ from those of another cluster with the same urls.
    pub token: String,
    /// Its members, by name.
    pub members: Vec<InitialMember>,
}

/// A member of a cluster as it begins.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::InitialMember;
///
/// let config = Config::builder().name("m1").data_dir("/var/lib/mine").build()?;
/// let [InitialMember { name, peer_urls }] = &config.initial_cluster.members[..] else {
///     panic!("a member that knows of no others begins alone");
/// };
/// assert_eq!((name.as_str(), peer_urls[0].as_str()), ("m1", "http://localhost:2380"));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where its peers find it.
    pub peer_urls: Vec<Url>,
}

impl InitialCluster {
    /// The id of a member, as etcd computes it.
    #[must_use]
    pub fn member_id(&self, member: &InitialMember) -> MemberId {
        let urls: Vec<String> = member.peer_urls.iter().map(Url::to_string).collect();
        member_id(&urls, &self.token, None)
    }

    /// The id of the cluster, as etcd computes it.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        let ids: Vec<MemberId> = self.members.iter().map(|m| self.member_id(m)).collect();
        cluster_id(&ids)
    }

    /// The member of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&InitialMember> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// As etcd prints it: sorted by name, one `name=url` for each url.
impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for member in &self.members {
            for url in &member.peer_urls {
                write!(f, "{separator}{}={url}", member.name)?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// Reads `name=url,name=url`. A name may come more than once: a member has several urls then.
pub(crate) fn parse(text: &str) -> Result<RawInitialCluster, UrlError> {
    let mut members = RawInitialCluster::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        let url = Url::parse(url)?;
        members.entry(name.trim().to_owned()).or_default().push(url);
    }
    for urls in members.values_mut() {
        urls.sort_unstable();
    }
    Ok(members)
}

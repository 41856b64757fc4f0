//! The first start of a member: what it is called by the others, and with whom it begins.
//!
//! With `--initial-cluster-state new` all ids follow from `--initial-cluster`, so that every member
//! computes the same ones and they can start in any order. With `existing` a running member is asked
//! for them. Checks and texts are etcd's (`server/etcdserver/bootstrap.go`, `server/config`).
//!
//! What this is not: a restart. Once there is an identity in the data directory none of this counts.

mod same_urls;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use types::{MemberId, Url, Version};

use super::identity::Identity;
use super::peer::DOWNGRADE_ENABLED;
use super::peer_client::{PeerClient, RemoteCluster, RemoteMember};
use crate::config::{ClusterState, Config, InitialCluster, InitialMember};
use crate::error::{BootstrapError, chain};
use same_urls::same_urls;

/// How long a peer may take to say whether it knows this member, as in etcd.
const IS_KNOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a running member may take to say who is there, as in etcd.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long names may take to be resolved, as in etcd.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The identity of a member that starts for the first time.
pub(super) async fn bootstrap(
    config: &Config,
    peers: &PeerClient,
) -> Result<Identity, BootstrapError> {
    match config.initial_cluster.state {
        ClusterState::New => begin(config, peers).await,
        ClusterState::Existing => join(config, peers).await,
    }
}

async fn begin(config: &Config, peers: &PeerClient) -> Result<Identity, BootstrapError> {
    let cluster = &config.initial_cluster;
    let this = local(config)?;
    check_advertised(config, this).await?;
    check_duplicates(cluster)?;
    let member = cluster.member_id(this);
    if is_known(config, member, peers).await {
        return Err(BootstrapError::Bootstrapped { member });
    }
    Ok(Identity {
        member,
        cluster: cluster.cluster_id(),
    })
}

/// Whether a peer has seen this member run: then its data is lost, and beginning anew under the same
/// id would break promises that it has made. Peers that cannot be asked do not matter.
async fn is_known(config: &Config, member: MemberId, peers: &PeerClient) -> bool {
    let urls = others(config);
    let asked = urls.iter().map(|url| peers.cluster(url, IS_KNOWN_TIMEOUT));
    join_all(asked).await.into_iter().flatten().any(|cluster| {
        let known = cluster.members.iter().find(|known| known.id() == member);
        known.is_some_and(has_run)
    })
}

/// Whether a member has told the cluster its client urls; one that was only added has none.
const fn has_run(known: &RemoteMember) -> bool {
    !known.client_urls.is_empty()
}

/// The identity of a member that is restored: the checks are etcd's (`VerifyBootstrap`). Names are not
/// resolved: whoever restores is not always where the members will run.
pub(crate) fn check_restored(config: &Config) -> Result<Identity, BootstrapError> {
    let cluster = &config.initial_cluster;
    let this = local(config)?;
    check_duplicates(cluster)?;
    let sorted = |urls: &[Url]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    let (advertised, initial) = (sorted(&config.advertise_peer_urls), sorted(&this.peer_urls));
    if advertised != initial {
        return Err(differs(this, &advertised, "the urls are others"));
    }
    Ok(Identity {
        member: cluster.member_id(this),
        cluster: cluster.cluster_id(),
    })
}

async fn join(config: &Config, peers: &PeerClient) -> Result<Identity, BootstrapError> {
    local(config)?;
    check_duplicates(&config.initial_cluster)?;
    // Differs from etcd: the first member that answers may not have heard of this one yet; another
    // one may.
    let mut refusal = BootstrapError::NobodyAnswers;
    for url in others(config) {
        let existing = match peers.cluster(&url, MEMBERS_TIMEOUT).await {
            Ok(existing) => existing,
            Err(error) => {
                let (address, error) = (format!("{url}/members"), chain(&error));
                tracing::warn!(address, error, "failed to get cluster response");
                continue;
            }
        };
        if !existing.is_kvorum {
            return Err(BootstrapError::Etcd { url });
        }
        match find(config, &existing).await {
            // Differs from etcd, which takes the old id with an empty log, and may then vote for a
            // leader that lacks what this member has acknowledged.
            Ok(known) if has_run(known) => {
                return Err(BootstrapError::Bootstrapped { member: known.id() });
            }
            Ok(known) => {
                check_version(config, peers).await?;
                return Ok(Identity {
                    member: known.id(),
                    cluster: existing.id,
                });
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// What the cluster knows of this member (`membership.ValidateClusterAndAssignIDs`).
async fn find<'a>(
    config: &Config,
    existing: &'a RemoteCluster,
) -> Result<&'a RemoteMember, BootstrapError> {
    let invalid = |reason| BootstrapError::Members {
        existing: existing.to_string(),
        reason,
    };
    let initial = &config.initial_cluster;
    if existing.members.len() != initial.members.len() {
        return Err(invalid("member count is unequal".to_owned()));
    }
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    let mut this = None;
    for known in &existing.members {
        let urls = parse(&known.peer_urls);
        let mut refusal = String::new();
        let mut found = None;
        for member in &initial.members {
            match same_urls(&urls, &member.peer_urls, deadline).await {
                Ok(()) => {
                    found = Some(member);
                    break;
                }
                Err(error) => refusal = error.to_string(),
            }
        }
        let Some(member) = found else {
            return Err(invalid(format!(
                "PeerURLs: no match found for existing member ({}, [{}]), last resolver error \
                 ({refusal})",
                known.id(),
                known.peer_urls.join(" ")
            )));
        };
        if member.name == config.name {
            this = Some(known);
        }
    }
    this.ok_or_else(|| {
        invalid(format!(
            "PeerURLs: no match found for local member {:?}",
            config.name
        ))
    })
}

/// At least one other member has to be there, and none may speak another version of the cluster.
async fn check_version(config: &Config, peers: &PeerClient) -> Result<(), BootstrapError> {
    let urls = others(config);
    let asked = urls
        .iter()
        .map(|url| peers.cluster_version(url, MEMBERS_TIMEOUT));
    let (oldest, newest) = joinable(is_downgrading(&urls, peers).await);
    let mut fits = false;
    for (url, version) in urls.iter().zip(join_all(asked).await) {
        let version = match version {
            Ok(version) => version,
            Err(error) => {
                let (address, error) = (format!("{url}/version"), chain(&error));
                tracing::warn!(address, error, "failed to reach the peer URL");
                continue;
            }
        };
        let Some(cluster) = Version::parse(&version) else {
            tracing::warn!(
                "remote-peer-url" = %url,
                "remote-member-cluster-version" = version,
                "failed to parse cluster version of remote member"
            );
            continue;
        };
        let low = cluster < oldest;
        if low || cluster > newest {
            let direction = if low { "low" } else { "high" };
            tracing::warn!(
                "remote-peer-url" = %url,
                "remote-member-cluster-version" = version,
                "minimum-cluster-version-supported" = %oldest,
                "maximum-cluster-version-supported" = %newest,
                "cluster version of remote member is not compatible; too {direction}",
            );
            return Err(BootstrapError::Incompatible);
        }
        fits = true;
    }
    if fits {
        Ok(())
    } else {
        Err(BootstrapError::Incompatible)
    }
}

/// Whether the cluster is to go down to an older version, as the first says who knows.
async fn is_downgrading(urls: &[Url], peers: &PeerClient) -> bool {
    let asked = urls
        .iter()
        .map(|url| peers.downgrade_enabled(url, MEMBERS_TIMEOUT));
    for (url, answer) in urls.iter().zip(join_all(asked).await) {
        match answer {
            Ok(is_enabled) => return is_enabled,
            Err(error) => {
                let (address, error) = (format!("{url}{DOWNGRADE_ENABLED}"), chain(&error));
                tracing::warn!(address, error, "failed to get downgrade enabled status");
            }
        }
    }
    false
}

/// The clusters that a member of this version can join: up to its own; and while one goes down, only
/// one that comes from the next.
fn joinable(is_downgrading: bool) -> (Version, Version) {
    let version = |text| Version::parse(text).expect("our versions are versions");
    let own = version(api::version::ETCD_VERSION);
    if is_downgrading {
        let next = Version {
            minor: own.minor + 1,
            ..own
        };
        return (next, next);
    }
    (version(api::version::MIN_CLUSTER_VERSION), own)
}

fn local(config: &Config) -> Result<&InitialMember, BootstrapError> {
    let not_there = || BootstrapError::NotAMember {
        name: config.name.clone(),
    };
    config
        .initial_cluster
        .member(&config.name)
        .ok_or_else(not_there)
}

/// The peer urls of the other members, in etcd's order.
fn others(config: &Config) -> Vec<Url> {
    let members = config.initial_cluster.members.iter();
    let others = members.filter(|member| member.name != config.name);
    let mut urls: Vec<Url> = others.flat_map(|member| member.peer_urls.clone()).collect();
    urls.sort_unstable();
    urls
}

fn check_duplicates(cluster: &InitialCluster) -> Result<(), BootstrapError> {
    let mut all: Vec<&Url> = cluster.members.iter().flat_map(|m| &m.peer_urls).collect();
    all.sort_unstable();
    if all.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(BootstrapError::DuplicateUrl {
            cluster: cluster.to_string(),
        });
    }
    Ok(())
}

/// Whether `--initial-cluster` says of this member what it advertises
/// (`ServerConfig.advertiseMatchesCluster`).
async fn check_advertised(config: &Config, this: &InitialMember) -> Result<(), BootstrapError> {
    let advertised = &config.advertise_peer_urls;
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    match same_urls(advertised, &this.peer_urls, deadline).await {
        Ok(()) => Ok(()),
        Err(error) => Err(differs(this, advertised, &error.to_string())),
    }
}

/// What differs, in etcd's words.
fn differs(this: &InitialMember, advertised: &[Url], reason: &str) -> BootstrapError {
    let missing = |these: &[Url], those: &[Url]| -> Vec<Url> {
        let missing = these.iter().filter(|url| !those.contains(url));
        missing.cloned().collect()
    };
    let list = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
    let named = |urls: &[Url]| {
        let named = urls.iter().map(|url| format!("{}={url}", this.name));
        named.collect::<Vec<_>>().join(",")
    };
    let unadvertised = missing(&this.peer_urls, advertised);
    if !unadvertised.is_empty() {
        return BootstrapError::NotAdvertised {
            has: named(&unadvertised),
            advertised: list(advertised),
            reason: reason.to_owned(),
        };
    }
    let unknown = missing(advertised, &this.peer_urls);
    if !unknown.is_empty() {
        return BootstrapError::NotInCluster {
            has: list(&unknown),
            // etcd names here what it should be, not what it is.
            cluster: named(advertised),
        };
    }
    BootstrapError::Unresolved {
        advertised: list(advertised),
        cluster: named(advertised),
        reason: reason.to_owned(),
    }
}

/// The urls of a running member; what is no url matches none.
fn parse(urls: &[String]) -> Vec<Url> {
    urls.iter().flat_map(|url| Url::parse(url)).collect()
}

#[cfg(test)]
mod tests;

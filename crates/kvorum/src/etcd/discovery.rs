//! The members that begin a cluster, when nobody has listed them: from DNS (`--discovery-srv`), or from
//! another etcd at which they meet (`--discovery-token`, `--discovery-endpoints`).
//!
//! Of no interest once there is data. etcd's older service (`--discovery`) is not here: etcd has given it
//! up in 3.7.

mod dns;
mod join;
mod registry;
mod srv;

use std::sync::Arc;

use types::{Clock, MemberId, Url};

use crate::config::{
    Config, InitialCluster, InitialMember, RawInitialCluster, parse_initial_cluster,
};
use crate::error::{BootstrapError, DiscoveryError};
pub(crate) use dns::NameServers;

/// The members that DNS names, if it is to be asked.
pub(super) async fn from_dns(
    config: &Config,
    name_servers: &NameServers,
) -> Result<Option<InitialCluster>, BootstrapError> {
    if config.discovery.srv.is_empty() {
        return Ok(None);
    }
    let found = srv::names(config, name_servers).await;
    let found = found.map_err(|text| BootstrapError::InitialCluster { text })?;
    for node in &found {
        tracing::info!(node, "got bootstrap from DNS for etcd-server");
    }
    let raw = parse_initial_cluster(&found.join(",")).map_err(|error| {
        let text = error.to_string();
        BootstrapError::InitialCluster { text }
    })?;
    if !raw.contains_key(&config.name) {
        let text = format!(
            "cannot find local etcd member {:?} in SRV records",
            config.name
        );
        return Err(BootstrapError::InitialCluster { text });
    }
    Ok(Some(with_members(&config.initial_cluster, raw)))
}

/// The members that have registered with another etcd, if it is to be asked: this one among them. Waits
/// until all of them have.
pub(super) async fn from_service(
    config: &Config,
    member: MemberId,
    clock: &Arc<dyn Clock>,
) -> Result<Option<InitialCluster>, BootstrapError> {
    if config.discovery.endpoints.is_empty() {
        return Ok(None);
    }
    tracing::info!("Bootstrapping cluster using v3 discovery.");
    let contents = config.initial_cluster.to_string();
    let joined = join::join(&config.discovery, member, &contents, clock).await;
    let (token, endpoints) = (
        &config.discovery.token,
        config.discovery.endpoints.join(","),
    );
    let raw = joined.inspect_err(|error| {
        tracing::error!(
            "discovery-token" = token,
            "discovery-endpoints" = endpoints,
            %error,
            "discovery failed to join cluster",
        );
        tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
    })?;
    let found = with_members(&config.initial_cluster, raw);
    tracing::info!(
        "discovery-token" = token,
        "discovery-endpoints" = endpoints,
        cluster = %found,
        "discovery joined cluster successfully",
    );
    let mut urls: Vec<&Url> = found.members.iter().flat_map(|it| &it.peer_urls).collect();
    urls.sort_unstable();
    if urls.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(BootstrapError::DiscoveredDuplicate {
            cluster: found.to_string(),
        });
    }
    Ok(Some(found))
}

fn with_members(begun: &InitialCluster, raw: RawInitialCluster) -> InitialCluster {
    let member = |(name, peer_urls)| InitialMember { name, peer_urls };
    InitialCluster {
        members: raw.into_iter().map(member).collect(),
        ..begun.clone()
    }
}

impl From<DiscoveryError> for BootstrapError {
    fn from(source: DiscoveryError) -> Self {
        Self::Discovery(source)
    }
}

#[cfg(test)]
mod tests;

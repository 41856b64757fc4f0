//! Joining a cluster: as a learner, which the cluster's leader promotes when it has caught up.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kvorum::Kvorum;
use kvorum::api::etcdserverpb::Member;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::{Naming, Plan, node_of};
use crate::access::Access;
use crate::cluster::Remote;

/// How long to wait before asking again to be added.
const ADD_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A member, as `/db/info` tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MemberInfo {
    #[serde(rename = "ID", default)]
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
    #[serde(rename = "isLearner", default)]
    is_learner: bool,
}

/// What `/db/info` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Members {
    members: Vec<MemberInfo>,
}

impl From<Vec<Member>> for Members {
    fn from(members: Vec<Member>) -> Self {
        let info = |member: Member| MemberInfo {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            is_learner: member.is_learner,
        };
        Self {
            members: members.into_iter().map(info).collect(),
        }
    }
}

/// Has this server's member added, if it is not yet, and starts it.
pub(crate) async fn join(plan: &Plan, access: &Access) -> Result<Kvorum> {
    let info = access.get("/db/info").await?;
    let info: Members = serde_json::from_slice(&info).context("/db/info cannot be read")?;
    let voters = info.members.iter().filter(|member| !member.is_learner);
    let urls: Vec<String> = voters
        .flat_map(|member| member.client_urls.clone())
        .collect();
    let remote = Remote::new(&plan.layout, &urls)?;
    let name = plan.name(Naming::AsBefore)?;
    let cluster = loop {
        match be_added(plan, &name, &remote).await {
            Ok(cluster) => break cluster,
            Err(error) if !may_change(&error) => return Err(error),
            Err(error) => {
                tracing::info!("Waiting to be added to the etcd cluster: {error:#}");
                tokio::time::sleep(ADD_RETRY_INTERVAL).await;
            }
        }
    };
    tracing::info!("Starting etcd for cluster [{}]", cluster.join(" "));
    let cluster = [
        format!("--initial-cluster={}", cluster.join(",")),
        "--initial-cluster-state=existing".to_owned(),
    ];
    plan.start(&name, &cluster).await
}

/// The members with this one among them.
async fn be_added(plan: &Plan, name: &str, remote: &Remote) -> Result<Vec<String>> {
    let url = plan.peer_url();
    let members = remote.members().await?;
    let (mut cluster, mut is_added) = (Vec::new(), false);
    for member in &members {
        let Some(peer_url) = member.peer_ur_ls.first() else {
            continue;
        };
        // One that has not started has no name; if it has our url it must be us.
        let is_us = *peer_url == url && (member.name.is_empty() || member.name == name);
        is_added |= is_us;
        if !is_us && node_of(&member.name) == plan.node {
            // The next attempt may be made under another node name.
            std::fs::remove_file(plan.layout.name()).context("cannot remove the name file")?;
            bail!("duplicate node name found, please use a unique name for this node");
        }
        let member_name = if is_us { name } else { &member.name };
        cluster.push(format!("{member_name}={peer_url}"));
    }
    if !is_added {
        tracing::info!(
            "Adding member {name}={url} to etcd cluster [{}]",
            cluster.join(" ")
        );
        remote.add_learner(&url).await?;
        cluster.push(format!("{name}={url}"));
    }
    Ok(cluster)
}

/// Whether asking again may help: another learner is there, or members are down.
fn may_change(error: &anyhow::Error) -> bool {
    let Some(status) = error.downcast_ref::<Status>() else {
        return false;
    };
    let words = [
        "too many learner members",
        "unhealthy cluster",
        "request timed out",
    ];
    status.code() == Code::Unavailable || words.iter().any(|word| status.message().contains(word))
}

//! The nodes, kept in the datastore in place of Kubernetes' own: who there is, and who is ready.
//!
//! A server writes its node once it has a vote, and keeps a lease while it runs. Who is not heard of for
//! the lease's time is not ready.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use kvorum::{Client, MemberId};
use serde::{Deserialize, Serialize};
use types::{Clock, SystemClock};

use crate::datastore::{Plan, node_of};

const NODES: &str = "k3s/nodes/";
const READY: &str = "k3s/ready/";
/// Without being heard of for so long a node is not ready.
const READY_TTL: Duration = Duration::from_secs(10);
/// How long to wait before trying again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a member's removal is tried.
const REMOVAL_TIME_MAX: Duration = Duration::from_secs(45);

/// What is stored of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    address: String,
    version: String,
    /// Seconds since 1970.
    created: u64,
}

/// A node, as `get nodes` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) roles: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) version: String,
    pub(crate) address: String,
    /// Its member's name and id, if it has one.
    pub(crate) member: Option<String>,
    pub(crate) member_id: Option<String>,
    /// `leader`, `voter` or `learner`.
    pub(crate) etcd: String,
}

/// Writes this server's node, and keeps it ready until this is dropped.
pub(crate) async fn keep_ready(plan: &Plan, member: &Client) -> ! {
    loop {
        if let Err(error) = be_ready(plan, member).await {
            tracing::warn!("this node is not known to be ready: {error:#}");
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Ends when the node cannot be kept ready.
async fn be_ready(plan: &Plan, client: &Client) -> Result<()> {
    let key = format!("{NODES}{}", plan.node);
    let created = match client.get(key.as_str()).await? {
        Some(known) => serde_json::from_slice::<Record>(&known.value)?.created,
        None => unix_now(),
    };
    let record = Record {
        address: plan.address.to_string(),
        version: version(),
        created,
    };
    let lease = client.grant(READY_TTL).await?;
    client
        .put(key.as_str(), serde_json::to_vec(&record)?)
        .await?;
    let ready = format!("{READY}{}", plan.node);
    client
        .put_with_lease(ready, plan.peer_url(), &lease)
        .await?;
    Err(lease.keep().await.into())
}

fn version() -> String {
    format!("v{}+k3s-like", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn unix_now() -> u64 {
    let since_epoch = SystemClock.wall().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs()
}

/// All nodes: those that are written, and those of members that have not got that far.
pub(crate) async fn list(client: &Client) -> Result<Vec<Node>> {
    let mut nodes = BTreeMap::new();
    for pair in client.get_prefix(NODES).await? {
        let name = String::from_utf8_lossy(&pair.key[NODES.len()..]).into_owned();
        let record: Record = serde_json::from_slice(&pair.value)
            .with_context(|| format!("the record of node {name}"))?;
        let node = Node {
            name: name.clone(),
            status: "NotReady".to_owned(),
            roles: "<none>".to_owned(),
            created: record.created,
            version: record.version,
            address: record.address,
            member: None,
            member_id: None,
            etcd: "<none>".to_owned(),
        };
        nodes.insert(name, node);
    }
    let ready = client.get_prefix(READY).await?;
    let is_ready = |name: &str| {
        ready
            .iter()
            .any(|pair| pair.key[READY.len()..] == *name.as_bytes())
    };
    let leader = client.status().await?.leader;
    for known in client.members().await? {
        let name = node_of(&known.name).to_owned();
        if name.is_empty() {
            continue;
        }
        let node = nodes.entry(name.clone()).or_insert_with(|| Node {
            name: name.clone(),
            status: "NotReady".to_owned(),
            roles: String::new(),
            created: unix_now(),
            version: version(),
            address: "<unknown>".to_owned(),
            member: None,
            member_id: None,
            etcd: String::new(),
        });
        let id = MemberId(known.id);
        let role = match known.is_learner {
            true => "learner",
            false if leader == known.id => "leader",
            false => "voter",
        };
        "control-plane,etcd".clone_into(&mut node.roles);
        role.clone_into(&mut node.etcd);
        if !known.is_learner && is_ready(&name) {
            "Ready".clone_into(&mut node.status);
        }
        node.member = Some(known.name);
        node.member_id = Some(id.to_string());
    }
    Ok(nodes.into_values().collect())
}

/// Removes a node, and its member first.
pub(crate) async fn delete(client: &Client, name: &str) -> Result<()> {
    let members = client.members().await?;
    let mut is_known = client.get(format!("{NODES}{name}")).await?.is_some();
    for member in members
        .iter()
        .filter(|member| node_of(&member.name) == name)
    {
        is_known = true;
        let (member_name, id) = (&member.name, MemberId(member.id));
        tracing::info!("Removing name={member_name} id={id} from etcd");
        remove_member(client, id).await?;
    }
    if !is_known {
        bail!("nodes \"{name}\" not found");
    }
    client.delete(format!("{NODES}{name}")).await?;
    client.delete(format!("{READY}{name}")).await?;
    Ok(())
}

/// Removes a member, if it is there. A cluster of which members have just come back takes itself for
/// unhealthy for a while.
async fn remove_member(client: &Client, id: MemberId) -> Result<()> {
    let removing = async {
        loop {
            match client.remove_member(id).await {
                Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
                Err(status) if status.message().contains("unhealthy cluster") => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                removed => return removed.context("the member cannot be removed"),
            }
        }
    };
    match tokio::time::timeout(REMOVAL_TIME_MAX, removing).await {
        Ok(removed) => removed,
        Err(_elapsed) => bail!("the member cannot be removed: the cluster is unhealthy"),
    }
}

//! What goes on beside: learners are promoted, and whoever has an even number of servers is told.

use std::time::Duration;

use anyhow::Result;
use kvorum::api::etcdserverpb::Member;
use kvorum::{Client, Kvorum, MemberId};
use serde::{Deserialize, Serialize};

use crate::cluster::Remote;
use crate::datastore::Plan;
use crate::nodes::unix_now;

/// k3s looks every 15 seconds. In the process looking costs nothing, and whoever joins waits for it.
const INTERVAL: Duration = Duration::from_secs(1);
/// A learner that makes no progress for so long is removed.
const STALL_TIME_MAX: Duration = Duration::from_secs(5 * 60);
const PROGRESS_KEY: &str = "k3s/etcd/learnerProgress";

/// How far a learner was, and when it was last seen to get on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Progress {
    id: u64,
    name: String,
    raft_applied_index: u64,
    /// Seconds since 1970.
    last_progress: u64,
}

/// Runs until it is dropped. Only the leader's server does anything.
pub(crate) async fn run(plan: &Plan, member: &Kvorum) -> ! {
    let mut voters_told = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if !member.status().is_leader() {
            voters_told = 0;
            continue;
        }
        if let Err(error) = once(plan, &member.client(), &mut voters_told).await {
            tracing::warn!("Failed to manage etcd members: {error:#}");
        }
    }
}

async fn once(plan: &Plan, client: &Client, voters_told: &mut usize) -> Result<()> {
    let members = client.members().await?;
    let mut learners = members.iter().filter(|member| member.is_learner);
    // One at a time, as k3s.
    if let Some(learner) = learners.next() {
        promote(plan, client, learner).await?;
        return Ok(());
    }
    warn_of_even_number(members.len(), voters_told);
    Ok(())
}

/// Two servers go down with one, as one does: says so, once.
fn warn_of_even_number(voters: usize, told: &mut usize) {
    if *told == voters {
        return;
    }
    *told = voters;
    if voters.is_multiple_of(2) {
        let tolerated = (voters - 1) / 2;
        tracing::warn!(
            "the cluster has {voters} servers and goes down when more than {tolerated} are down, as with \
             {}: an even number of servers buys nothing, add one or remove one",
            voters - 1
        );
    }
}

/// Promotes a learner; one that cannot be promoted has to get on meanwhile.
async fn promote(plan: &Plan, client: &Client, learner: &Member) -> Result<()> {
    let id = MemberId(learner.id);
    if client.promote_member(id).await.is_ok() {
        tracing::info!("Promoted learner {}", learner.name);
        return Ok(());
    }
    let stored = client.get(PROGRESS_KEY).await?;
    let stored = stored.and_then(|pair| serde_json::from_slice::<Progress>(&pair.value).ok());
    let stored = stored.filter(|progress| progress.id == learner.id);
    let before = stored.unwrap_or_else(|| Progress {
        id: learner.id,
        name: learner.name.clone(),
        raft_applied_index: 0,
        last_progress: unix_now(),
    });
    let mut progress = before.clone();
    let remote = Remote::new(&plan.layout, &learner.client_ur_ls)?;
    if let Some(index) = remote.applied_index().await
        && index > progress.raft_applied_index
    {
        progress.raft_applied_index = index;
        progress.last_progress = unix_now();
    }
    let stalled = unix_now().saturating_sub(progress.last_progress);
    if stalled > STALL_TIME_MAX.as_secs() {
        client.remove_member(id).await?;
        tracing::warn!("Removed learner {} from etcd cluster", learner.name);
        return Ok(());
    }
    if progress != before || stalled == 0 {
        client
            .put(PROGRESS_KEY, serde_json::to_vec(&progress)?)
            .await?;
    }
    Ok(())
}

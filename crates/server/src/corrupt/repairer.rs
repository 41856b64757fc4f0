//! This member's own repair, once it is known to be corrupt.

use std::time::Duration;

use apply::{Alarm, AlarmAction, AlarmKind, Command};
use mvcc::HashKv;
use raft::HashWanted;
use types::MemberId;

use super::members;
use crate::metrics::Repaired;
use crate::serving::NotServing;
use crate::{EtcdServer, RequestError};

/// How often it is looked whether this member is known to be corrupt.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The pause after a repair that has failed, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often it is tried to compare what has come: a compaction may come in between.
const COMPARISONS_MAX: usize = 20;
const COMPARISON_PAUSE: Duration = Duration::from_millis(200);
/// How long the other member may take for its hash.
const HASH_TIMEOUT: Duration = Duration::from_secs(60);

/// It has not worked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no other member could take the leadership over")]
    Leads,
    #[error(transparent)]
    Repair(#[from] raft::RepairError),
    #[error("what has come is not what member {with} has")]
    Differs { with: MemberId },
    #[error("nobody could be compared with")]
    NotCompared,
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Repairs this member whenever it is known to be corrupt. Goes on for ever.
pub(super) async fn run(server: &EtcdServer) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !server.is_quarantined() {
            pause = FIRST_PAUSE;
            continue;
        }
        if !server.config().corrupt.repairs {
            give_up(server).await;
            continue;
        }
        let _not_serving = NotServing::begin(server, "the member is corrupt");
        match repair(server).await {
            Ok(()) => {
                server.metrics().corrupt_member_repaired(Repaired::Success);
                tracing::warn!("the corrupt member was repaired; CORRUPT is disarmed");
            }
            Err(error) => {
                server.metrics().corrupt_member_repaired(Repaired::Failure);
                tracing::error!(
                    error = reason(&error),
                    again_in = ?pause,
                    "failed to repair the corrupt member; it answers no request until then"
                );
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(PAUSE_MAX);
            }
        }
    }
}

fn reason(error: &Failure) -> String {
    error.to_string()
}

/// This member may not be repaired: the alarm becomes everybody's, as in etcd.
async fn give_up(server: &EtcdServer) {
    tracing::error!("this member is corrupt, and --corrupt-repair=false forbids to repair it");
    let raised = alarm(server, AlarmAction::Activate).await;
    if let Err(error) = raised {
        tracing::warn!(%error, "failed to raise the alarm CORRUPT");
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}

async fn repair(server: &EtcdServer) -> Result<(), Failure> {
    tracing::warn!("this member is corrupt: its state is replaced with the leader's");
    if server.is_leader() {
        hand_over(server).await?;
    }
    server.node().repair().await?;
    compare(server).await?;
    alarm(server, AlarmAction::Deactivate).await?;
    Ok(())
}

async fn alarm(server: &EtcdServer, action: AlarmAction) -> Result<(), RequestError> {
    let own = Alarm {
        member: server.config().member,
        kind: AlarmKind::Corrupt,
    };
    let command = Command::Alarm {
        action,
        member: own.member,
        alarm: Some(own.kind),
    };
    let done = server.propose_unchecked(command.by_member()).await;
    done.map(|_alarms| ())
}

/// Lets a member lead that is not corrupt.
async fn hand_over(server: &EtcdServer) -> Result<(), Failure> {
    for member in sound_members(server) {
        if server.views().cluster.is_learner(member) {
            continue;
        }
        match server.node().move_leader(member).await {
            Ok(()) => return Ok(()),
            Err(raft::MoveLeaderError::NotLeader) => return Ok(()),
            Err(error) => tracing::warn!(%error, to = %member, "the leadership was not taken over"),
        }
    }
    Err(Failure::Leads)
}

/// The members that are not known to be corrupt, the leader first.
fn sound_members(server: &EtcdServer) -> Vec<MemberId> {
    let (_me, mut others) = members(server);
    let leader = server.node().status().leader;
    others.retain(|member| !server.views().alarms.is_quarantined(*member));
    others.sort_by_key(|member| Some(*member) != leader);
    others
}

/// Whether this member now has what a sound one has.
async fn compare(server: &EtcdServer) -> Result<(), Failure> {
    for _ in 0..COMPARISONS_MAX {
        let own = server.hash_kv(None).await?;
        for with in sound_members(server) {
            match is_same(server, &own, with).await {
                Some(true) => return Ok(()),
                Some(false) => return Err(Failure::Differs { with }),
                None => {}
            }
        }
        tokio::time::sleep(COMPARISON_PAUSE).await;
    }
    Err(Failure::NotCompared)
}

/// `None`: they cannot be compared.
async fn is_same(server: &EtcdServer, own: &HashKv, with: MemberId) -> Option<bool> {
    let asked = server
        .node()
        .hash_of_peer(with, own.hash_revision, HashWanted::Now, HASH_TIMEOUT);
    let other = asked.await.ok()?;
    (other.compact_revision == own.compact_revision).then_some(other.hash == own.hash)
}

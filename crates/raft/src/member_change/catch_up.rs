//! Gives a voter its vote when it has caught up, and finishes changes that another leader began.
//!
//! A member has caught up when it has everything that the leader had a moment ago, and answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::{ChangeMembers, ServerState};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use super::changer::Changer;
use crate::leadership::{leads, matching};
use crate::membership::voters;
use crate::type_config::{Membership, TypeConfig};

/// How often the leader looks, while there is something to look for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct CatchUp {
    pub(crate) changer: Arc<Changer>,
}

impl CatchUp {
    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let raft = self.changer.leadership.raft.clone();
        let mut server = raft.server_metrics();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The leader's last entry at the last look.
        let mut last_before = None;
        loop {
            let has_work = {
                let now = server.borrow_watched();
                now.state == ServerState::Leader
                    && is_unfinished(now.membership_config.membership())
            };
            if !has_work {
                last_before = None;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = server.changed() => if changed.is_err() { return },
                _at = look.tick(), if has_work => {
                    let metrics = raft.metrics().borrow_watched().clone();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = self.look(&metrics, last_before) => {}
                    }
                    last_before = Some(metrics.last_log_index.map_or(0, |last| last + 1));
                }
            }
        }
    }

    async fn look(&self, metrics: &RaftMetrics<TypeConfig>, last_before: Option<u64>) {
        let now = &metrics.membership_config;
        if !leads(metrics) || *now != metrics.committed_membership_config {
            return;
        }
        // Somebody changes something: that comes first.
        let Ok(_turn) = self.changer.turn.try_lock() else {
            return;
        };
        let made = if now.membership().get_joint_config().len() > 1 {
            self.changer.finish_joint(now).await
        } else {
            let ready = self.ready(metrics, last_before);
            if ready.is_empty() {
                return;
            }
            for id in &ready {
                tracing::info!(member = %MemberId(*id), "a new voter has caught up");
            }
            let changes = ChangeMembers::AddVoterIds(ready);
            self.changer.write(changes, now).await
        };
        if let Err(refusal) = made {
            tracing::warn!(?refusal, "could not finish a change of the members yet");
        }
    }

    fn ready(&self, metrics: &RaftMetrics<TypeConfig>, last_before: Option<u64>) -> BTreeSet<u64> {
        let Some(last_before) = last_before else {
            return BTreeSet::new();
        };
        let leadership = &self.changer.leadership;
        catching_up(metrics.membership_config.membership())
            .filter(|id| matching(metrics, *id) >= last_before && leadership.answers(metrics, *id))
            .collect()
    }
}

/// Voters for clients that have no vote yet.
fn catching_up(membership: &Membership) -> impl Iterator<Item = u64> {
    let voters = voters(membership);
    membership
        .nodes()
        .filter(move |(id, node)| !node.is_learner && !voters.contains(id))
        .map(|(id, _)| *id)
}

fn is_unfinished(membership: &Membership) -> bool {
    membership.get_joint_config().len() > 1 || catching_up(membership).next().is_some()
}

//! Stops openraft's clock where nobody hears it.
//!
//! A tick begins elections and sends heartbeats, fifty times a second. A leader that is the only member has nobody to
//! send to and nothing to be elected for; a member that has just heard its leader begins no election for a while.
//! Without their ticks both nearly stand still while nobody asks for anything.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Instant as _, ServerState};
use tokio_util::sync::CancellationToken;

use crate::ask::ask;
use crate::membership;
use crate::node::Raft;
use crate::type_config::TypeConfig;

/// A member that has heard its leader needs no ticks for this part of an election timeout. Without a lease, as after a
/// restart or while the lead is handed over, an election may begin after a third of it (`node::settings`).
const QUIET_PART: u32 = 4;

pub(crate) struct Ticks {
    pub(crate) raft: Raft,
    pub(crate) election_timeout: Duration,
}

/// Whether openraft's clock is to go, and how long that holds if nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    ticks: bool,
    holds_for: Option<Duration>,
}

impl Ticks {
    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut server = self.raft.server_metrics();
        loop {
            let now = server.borrow_watched().clone();
            let look = async {
                let need = self.need(&now).await;
                self.raft.runtime_config().tick(need.ticks);
                match need.holds_for {
                    Some(time) => tokio::time::sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = server.changed() => if changed.is_err() { return },
                () = look => {}
            }
        }
    }

    async fn need(&self, server: &RaftServerMetrics<TypeConfig>) -> Need {
        let members = server.membership_config.membership();
        if server.state == ServerState::Leader {
            return Need {
                ticks: !membership::is_alone(server.id, members),
                holds_for: None,
            };
        }
        // Who has the only vote is elected by the next tick, whatever it has heard.
        if membership::has_only_vote(server.id, members) {
            return Need {
                ticks: true,
                holds_for: None,
            };
        }
        let quiet = self.election_timeout / QUIET_PART;
        match self.heard().await.and_then(|ago| quiet.checked_sub(ago)) {
            Some(left) if !left.is_zero() => Need {
                ticks: false,
                holds_for: Some(left),
            },
            _ => Need {
                ticks: true,
                holds_for: Some(quiet),
            },
        }
    }

    /// How long ago a leader was heard, if there is one; at first the leader of the earlier run counts as heard. A
    /// candidate is none: whoever has voted for it may want to be elected sooner.
    async fn heard(&self) -> Option<Duration> {
        let heard = ask(&self.raft, |state| {
            let at = state.vote_last_modified();
            at.filter(|_| state.vote_ref().is_committed())
                .map(|at| at.elapsed())
        });
        heard.await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use openraft::type_config::TypeConfigExt as _;

    use super::*;
    use crate::member_change::MemberChange;
    use crate::testing::Member;
    use crate::testing::group::{Group, eventually, id};
    use crate::testing::net::{Link, url};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_leader_that_was_alone_is_heard_by_who_joins_it() {
        let mut group = Group::start(1, 900).await;
        group.leader().await;
        let learner = MemberChange::Add {
            id: id(1),
            peer_urls: vec![url(1)],
            is_learner: true,
        };
        let added = group.member(0).node.change_members(learner).await;
        added.unwrap();
        group.join(1).await;
        let raft = group.member(0).node.running().raft.clone();
        // Nothing is written; answers to what came before are soon over.
        for _ in 0..5 {
            let since = TypeConfig::now();
            eventually("it answers a heartbeat", || async {
                let heard = raft.data_metrics().borrow_watched().heartbeat.clone();
                let of_learner = heard?.get(&id(1).0).copied()?;
                of_learner.filter(|at| **at > since).map(drop)
            })
            .await;
        }
        group.stop().await;
    }

    fn ticks(member: &Member) -> Ticks {
        let running = member.node.running();
        Ticks {
            raft: running.raft.clone(),
            election_timeout: running.config.election_timeout,
        }
    }

    async fn need(member: &Member) -> Need {
        let ticks = ticks(member);
        let server = ticks.raft.server_metrics().borrow_watched().clone();
        ticks.need(&server).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_hears_a_leader_needs_no_ticks_and_the_leader_does() {
        let group = Group::start(3, 901).await;
        let (leader, follower) = eventually("who leads ticks, who hears it does not", || async {
            let leader = group.leader().await;
            let follower = (leader + 1) % 3;
            let of_leader = need(group.member(leader)).await;
            let of_follower = need(group.member(follower)).await;
            let quiet = ticks(group.member(follower)).election_timeout / QUIET_PART;
            let is_bounded = of_follower.holds_for.is_some_and(|time| time <= quiet);
            (of_leader.ticks && !of_follower.ticks && is_bounded).then_some((leader, follower))
        })
        .await;
        group.isolate(leader, Link::Cut);
        eventually("it misses the leader", || async {
            need(group.member(follower)).await.ticks.then_some(())
        })
        .await;
        group.leader_among(&[follower, (leader + 2) % 3]).await;
        group.stop().await;
    }
}

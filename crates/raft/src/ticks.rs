//! Stops openraft's clock where nobody hears it.
//!
//! A tick begins elections and sends heartbeats, fifty times a second. A leader that is the only member has nobody to
//! send to and nothing to be elected for, and without its ticks an idle member nearly stands still.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio_util::sync::CancellationToken;

use crate::membership;
use crate::node::Raft;
use crate::type_config::TypeConfig;

/// Runs until the member stops.
pub(crate) async fn run(raft: Raft, stop: CancellationToken) {
    let mut server = raft.server_metrics();
    loop {
        let are_needed = !leads_alone(&server.borrow_watched());
        raft.runtime_config().tick(are_needed);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = server.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether this is the leader, and there is no other member, not even a learner.
fn leads_alone(server: &RaftServerMetrics<TypeConfig>) -> bool {
    server.state == ServerState::Leader
        && membership::is_alone(server.id, server.membership_config.membership())
}

#[cfg(test)]
mod tests {
    use openraft::type_config::TypeConfigExt as _;

    use super::*;
    use crate::member_change::MemberChange;
    use crate::testing::group::{Group, eventually, id};
    use crate::testing::net::url;

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
}

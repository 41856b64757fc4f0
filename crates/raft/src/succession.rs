//! An election without waiting, where the leader's process is gone.
//!
//! When a process dies, its system says so: connections break, and new ones are refused. A member that sees
//! this of its leader asks the others. Each that finds it gone, too, gives up that leader's lease, so that it would vote
//! for another one, and when these are a quorum, the one of them with the longest log stands at once (with a
//! pre-vote, whatever `--pre-vote` says). So it is when members start: one that led before says that it does not any
//! more. A leader that is only silent (a host without power, a link that is cut, a process that stands still) is waited
//! for, as long as `--election-timeout` says.
//!
//! What it is not: an election, or what makes one safe. Those are openraft's; this only says when. A wrong
//! guess costs a change of leaders and nothing else: no read and no write here relies on a leader's lease.
// Differs from etcd, whose members always wait for the election timeout (`raft/raft.go`, `tickElection`).

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::peerpb::LeaderGoneRequest;
use futures_util::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::ask::ask;
use crate::membership;
use crate::node::Raft;
use crate::peer::channels::{Connections, Ended, Peers, says_refused};
use crate::peer::wire;
use crate::type_config::{LogId, TypeConfig, Vote};

type Stopped = openraft::errors::Fatal<TypeConfig>;
type Server = RaftServerMetrics<TypeConfig>;

/// So many refusals are believed: the first may be of a connection that just broke.
const REFUSALS: usize = 2;

/// How often a member is asked that neither answers nor is silent, and the pause between.
const QUESTIONS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// How often it is looked again while the leader is gone and nobody has taken over: those who have to agree do
/// not see it in the same moment.
const LOOKS: usize = 5;

/// Follows the leader's connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Succession {
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    /// How long an answer may take, and the pause between two looks.
    pub(crate) heartbeat_interval: Duration,
    pub(crate) asked: Arc<Notify>,
}

/// How a member sees a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The member knows no later one, and it does not lead any more.
    pub(crate) is_gone: bool,
    /// The last entry of the member's log.
    pub(crate) last: Option<LogId>,
}

/// Why a member has not said what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoAnswer {
    /// Nobody listens there.
    Refused,
    /// The connection broke.
    Broken,
    /// It says nothing, or does not know the question.
    Silent,
}

/// A leader whose connections are watched.
struct Followed {
    connections: Arc<Connections>,
    ended: watch::Receiver<Ended>,
}

impl Followed {
    fn new(connections: Arc<Connections>) -> Self {
        let ended = connections.ended();
        Self { connections, ended }
    }

    fn is(&self, connections: &Option<Arc<Connections>>) -> bool {
        let known = connections.as_ref();
        known.is_some_and(|known| Arc::ptr_eq(&self.connections, known))
    }
}

/// Waits until a connection to the leader breaks.
async fn breaks(followed: &mut Option<Followed>) {
    let Some(followed) = followed else {
        return std::future::pending().await;
    };
    if followed.ended.changed().await.is_err() { /* the sender is with the connections, held here */
    }
}

impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Succession").finish_non_exhaustive()
    }
}

impl Succession {
    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        // Whoever led when this member stopped may be gone.
        self.asked.notify_one();
        let mut server = self.raft.server_metrics();
        let mut followed: Option<Followed> = None;
        loop {
            let leader = self.leader(&server.borrow_watched());
            let Some((vote, connections)) = leader else {
                if server.changed().await.is_err() {
                    return;
                }
                continue;
            };
            // Kept from one term to the next: a break between two looks is seen.
            if followed
                .as_ref()
                .is_none_or(|followed| !followed.is(&connections))
            {
                followed = connections.map(Followed::new);
            }
            tokio::select! {
                biased;
                changed = server.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                () = breaks(&mut followed) => {}
                () = self.asked.notified() => {}
            }
            if self.succeed(vote).await.is_err() {
                return;
            }
        }
    }

    /// The last leader that this member knows, if it could take its place, and the connections to it. One that led
    /// before it was started again has none to itself.
    fn leader(&self, server: &Server) -> Option<(Vote, Option<Arc<Connections>>)> {
        let me = *self.raft.node_id();
        let leader = server.vote.leader_id.voted_for;
        let membership = server.membership_config.membership();
        let mut voters = membership::voters(membership);
        let may_stand = voters.remove(&me) && !voters.is_empty();
        if !server.vote.committed || server.state == ServerState::Leader || !may_stand {
            return None;
        }
        if leader == me {
            return Some((server.vote, None));
        }
        let node = membership.get_node(&leader)?;
        let connections = self.peers.at(MemberId(leader), &node.peer_urls);
        Some((server.vote, Some(connections)))
    }

    async fn succeed(&self, leader: Vote) -> Result<(), Stopped> {
        for _ in 0..LOOKS {
            if !self.look(leader).await? {
                break;
            }
            tokio::time::sleep(self.heartbeat_interval).await;
        }
        Ok(())
    }

    /// Stands if it is this member's turn. Says whether the leader is gone.
    async fn look(&self, leader: Vote) -> Result<bool, Stopped> {
        let mine = self.view(leader).await?;
        if !mine.is_gone {
            return Ok(false);
        }
        let me = *self.raft.node_id();
        let server = self.raft.server_metrics().borrow_watched().clone();
        let membership = server.membership_config.membership();
        let others = membership::voters(membership)
            .into_iter()
            .filter(|id| *id != me)
            .filter_map(|id| self.peers.known(MemberId(id)));
        let views = join_all(others.map(|peer| async move {
            let answer = self.ask(&peer, leader).await;
            (answer.ok(), peer.id.0)
        }));
        let mut agreed = vec![(mine.last, me)];
        for (view, id) in views.await {
            if let Some(View { last, .. }) = view.filter(|view| view.is_gone) {
                agreed.push((last, id));
            }
        }
        let ids: BTreeSet<u64> = agreed.iter().map(|(_, id)| *id).collect();
        let is_quorum = membership
            .get_joint_config()
            .iter()
            .all(|voters| 2 * voters.intersection(&ids).count() > voters.len());
        // The longest log can be elected by all of them.
        let is_next = agreed.iter().max().is_some_and(|(_, id)| *id == me);
        if is_quorum && is_next {
            let gone = MemberId(leader.leader_id.voted_for);
            tracing::warn!(leader = %gone, "the leader's process is gone: standing for election");
            self.raft.trigger().elect(true).await?;
        }
        Ok(true)
    }

    /// What another member is told. It makes this one look by itself, too: it may be the one to stand.
    pub(crate) async fn asked(&self, leader: Vote) -> Result<View, Stopped> {
        let view = self.view(leader).await?;
        if view.is_gone {
            self.asked.notify_one();
        }
        Ok(view)
    }

    async fn view(&self, leader: Vote) -> Result<View, Stopped> {
        let look = move |state: &openraft::RaftState<TypeConfig>| {
            // One that was away may not have heard of it.
            let is_last = *state.vote_ref() <= leader;
            (is_last, state.log_ids.last().copied())
        };
        let (is_last, last) = ask(&self.raft, look).await?;
        let is_gone = is_last && self.is_gone(leader).await;
        if is_gone {
            self.give_up_lease(leader).await?;
        }
        Ok(View { is_gone, last })
    }

    /// From now on this member would vote for another leader.
    async fn give_up_lease(&self, leader: Vote) -> Result<(), Stopped> {
        let gone = leader.leader_id.voted_for;
        // One that led itself has no lease since it was started again.
        if gone != *self.raft.node_id() {
            // What is handed to another member concerns the lease only.
            let handed = TransferLeaderRequest::new(leader, gone, None);
            if self.raft.handle_transfer_leader(handed).await?.is_err() { /* only for a member that stands */
            }
        }
        Ok(())
    }

    async fn is_gone(&self, leader: Vote) -> bool {
        let id = leader.leader_id.voted_for;
        if id == *self.raft.node_id() {
            // After a restart: what was voted for is on the disk, and leads only when it is elected again.
            return self.raft.server_metrics().borrow_watched().state != ServerState::Leader;
        }
        let Some(peer) = self.peers.known(MemberId(id)) else {
            return false;
        };
        let mut refusals = 0;
        for _ in 0..QUESTIONS {
            match self.ask(&peer, leader).await {
                Ok(view) => return view.is_gone,
                Err(NoAnswer::Refused) => refusals += 1,
                Err(NoAnswer::Broken) => {}
                Err(NoAnswer::Silent) => return false,
            }
            if refusals == REFUSALS {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    async fn ask(&self, peer: &Connections, leader: Vote) -> Result<View, NoAnswer> {
        let ended = peer.ended();
        let wordless = ended.borrow().wordless;
        let mut client = peer.peer();
        let question = LeaderGoneRequest {
            leader: Some(wire::vote_to(&leader)),
        };
        let answer = client.leader_gone(question);
        match tokio::time::timeout(self.heartbeat_interval, answer).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                Ok(View {
                    is_gone: answer.gone,
                    last: answer.last.map(wire::id_from),
                })
            }
            Ok(Err(status)) => {
                peer.failed(&status);
                Err(
                    if says_refused(&status) || ended.borrow().wordless > wordless {
                        NoAnswer::Refused
                    } else if status.source().is_some() {
                        NoAnswer::Broken
                    } else {
                        NoAnswer::Silent
                    },
                )
            }
            Err(_elapsed) => Err(NoAnswer::Silent),
        }
    }
}

//! An election without waiting, where the leader's process is gone.
//!
//! When a process dies, its system says so: the streams it had open end, and new connections are refused. A member
//! that sees both of its leader asks the others. When a quorum of the voters sees it, too, the one of them with the
//! longest log stands: it says so to the others, which give up the dead leader's lease, so that they would vote for
//! it, and begins with a pre-vote, whatever `--pre-vote` says. So it is when members start: one that led before says
//! that it does not any more. A leader that is only silent (a host without power, a link that is cut, a process that
//! stands still) is waited for, as long as `--election-timeout` says.
//!
//! What it is not: an election, or what makes one safe. Those are openraft's; this only says when. A wrong
//! guess costs a change of leaders and nothing else: no read and no write here relies on a leader's lease.
// Differs from etcd, whose members always wait for the election timeout (`raft/raft.go`, `tickElection`).

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::peerpb::LeaderGoneRequest;
use api::peerpb::leader_gone_request::Reason;
use futures_util::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::ask::ask;
use crate::membership;
use crate::node::Raft;
use crate::peer::channels::{Connections, Peers, says_refused};
use crate::peer::wire;
use crate::type_config::{LogId, TypeConfig, Vote};

type Stopped = openraft::errors::Fatal<TypeConfig>;
type Server = RaftServerMetrics<TypeConfig>;

/// Who has not answered after so many heartbeats' intervals, or a quarter of an election timeout, is silent.
const ANSWER_INTERVALS: u32 = 10;

/// So many refusals in a row are believed.
const REFUSALS: usize = 2;

/// How often a member is asked that neither answers nor is silent, and the pause between.
const QUESTIONS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// How often it is looked, a heartbeat's interval apart, while the leader is gone and nobody has taken over: those who
/// have to agree do not see it in the same moment.
const LOOKS: usize = 5;

/// For so many election timeouts after looks that came to nothing, breaks are no reason to look again: an address that takes
/// connections and ends them breaks all the time.
const REST_TIMEOUTS: u32 = 10;

/// Follows the leader's connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Succession {
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) election_timeout: Duration,
    pub(crate) streams: Streams,
    /// Whose absence this member was asked for last.
    pub(crate) asked: watch::Sender<Option<Vote>>,
}

/// The streams of entries that other members have open to this one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<Mutex<BTreeMap<MemberId, usize>>>);

/// Dropped with the stream.
#[derive(Debug)]
pub(crate) struct OpenStream {
    streams: Streams,
    from: MemberId,
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
    leader: Vote,
    /// They are held so that the receiver has its sender.
    _connections: Arc<Connections>,
    ended: watch::Receiver<u64>,
}

impl Streams {
    pub(crate) fn open(&self, from: MemberId) -> OpenStream {
        *self.0.lock().entry(from).or_default() += 1;
        OpenStream {
            streams: self.clone(),
            from,
        }
    }

    fn is_open(&self, from: MemberId) -> bool {
        self.0.lock().contains_key(&from)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.streams.0.lock();
        if let Some(open) = streams.get_mut(&self.from) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.from);
            }
        }
    }
}

impl Followed {
    fn new((leader, connections): (Vote, Arc<Connections>)) -> Self {
        let mut ended = connections.ended();
        // It may have broken before it was watched.
        ended.mark_changed();
        Self {
            leader,
            _connections: connections,
            ended,
        }
    }
}

/// Waits until a connection to the leader breaks, or has broken when the rest is over.
async fn breaks(followed: Option<&mut Followed>, rests_until: Instant) {
    tokio::time::sleep_until(rests_until).await;
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
        let mut server = self.raft.server_metrics();
        let mut asked = self.asked.subscribe();
        let mut followed: Option<Followed> = None;
        let mut rests_until = Instant::now();
        // Whoever led when this member stopped may be gone: it may be itself, and then has no connection.
        let broke = |leader| (leader, Reason::Broke);
        let mut looks_at = self.last_leader(&server.borrow_watched()).map(broke);
        loop {
            if let Some((leader, reason)) = looks_at.take() {
                let Ok(is_gone) = self.succeed(leader, reason).await else {
                    return;
                };
                let rest = match reason {
                    Reason::Broke if is_gone => REST_TIMEOUTS * self.election_timeout,
                    _ => self.heartbeat_interval,
                };
                rests_until = Instant::now() + rest;
            }
            let leader = self.leader(&server.borrow_watched());
            if leader.as_ref().map(|(vote, _)| *vote) != followed.as_ref().map(|f| f.leader) {
                followed = leader.map(Followed::new);
                rests_until = Instant::now();
            }
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { return },
                changed = asked.changed() => {
                    let leader = *asked.borrow_and_update();
                    // Its sender is held here.
                    looks_at = leader.filter(|_| changed.is_ok()).map(|leader| (leader, Reason::Asked));
                }
                () = breaks(followed.as_mut(), rests_until) => {
                    looks_at = self.last_leader(&server.borrow_watched()).map(broke);
                }
            }
        }
    }

    /// The last leader that this member knows, if it could take its place.
    fn last_leader(&self, server: &Server) -> Option<Vote> {
        let may_stand = server.vote.committed && self.may_stand(server);
        may_stand.then_some(server.vote)
    }

    /// Whether it is a voter, but not the only one, and does not lead.
    fn may_stand(&self, server: &Server) -> bool {
        let mut voters = membership::voters(server.membership_config.membership());
        let is_voter = voters.remove(self.raft.node_id());
        is_voter && !voters.is_empty() && server.state != ServerState::Leader
    }

    /// The leader that this member follows, and the connections to it.
    fn leader(&self, server: &Server) -> Option<(Vote, Arc<Connections>)> {
        let vote = self.last_leader(server)?;
        let id = vote.leader_id.voted_for;
        let membership = server.membership_config.membership();
        let node = membership
            .get_node(&id)
            .filter(|_node| id != *self.raft.node_id())?;
        Some((vote, self.peers.at(MemberId(id), &node.peer_urls)))
    }

    /// Looks a few times. Says whether the leader is gone.
    async fn succeed(&self, leader: Vote, reason: Reason) -> Result<bool, Stopped> {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(self.heartbeat_interval).await;
            }
            if !self.look(leader, reason).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stands if it is this member's turn. Says whether the leader is gone.
    async fn look(&self, leader: Vote, reason: Reason) -> Result<bool, Stopped> {
        let mine = self.view(leader).await?;
        let server = self.raft.server_metrics().borrow_watched().clone();
        if !mine.is_gone || !self.may_stand(&server) {
            return Ok(false);
        }
        let agreed = self.agreed(&server, leader, reason, mine).await;
        // The longest log can be elected by all of them.
        let me = *self.raft.node_id();
        let is_next = agreed.iter().max().is_some_and(|(_, id)| *id == me);
        if !is_next || !is_quorum(&server, &agreed) {
            return Ok(true);
        }
        // Another one may stand since.
        let mine = self.view(leader).await?;
        let agreed = match mine.is_gone {
            true => self.agreed(&server, leader, Reason::Stands, mine).await,
            false => return Ok(false),
        };
        if is_quorum(&server, &agreed) {
            let gone = MemberId(leader.leader_id.voted_for);
            tracing::warn!(leader = %gone, "the leader's process is gone: standing for election");
            self.give_up_lease(leader).await?;
            self.raft.trigger().elect(true).await?;
        }
        Ok(true)
    }

    /// The voters that see the leader gone, this one included, with the last entries of their logs.
    async fn agreed(
        &self,
        server: &Server,
        leader: Vote,
        reason: Reason,
        mine: View,
    ) -> Vec<(Option<LogId>, u64)> {
        let me = *self.raft.node_id();
        let others = membership::voters(server.membership_config.membership())
            .into_iter()
            .filter(|id| *id != me)
            .filter_map(|id| self.peers.known(MemberId(id)));
        let views = join_all(others.map(|peer| async move {
            let view = self.ask(&peer, leader, reason).await.ok();
            let view = view.filter(|view| view.is_gone)?;
            Some((view.last, peer.id.0))
        }));
        let mut agreed: Vec<_> = views.await.into_iter().flatten().collect();
        agreed.push((mine.last, me));
        agreed
    }

    /// What another member is told.
    pub(crate) async fn asked(&self, leader: Vote, reason: Reason) -> Result<View, Stopped> {
        // Before it is looked: whoever asks may not wait for so long.
        if reason == Reason::Broke {
            self.asked.send_replace(Some(leader));
        }
        let view = self.view(leader).await?;
        if view.is_gone && reason == Reason::Stands {
            self.give_up_lease(leader).await?;
        }
        Ok(view)
    }

    async fn view(&self, leader: Vote) -> Result<View, Stopped> {
        let look = move |state: &openraft::RaftState<TypeConfig>| {
            // One that was away may not have heard of it.
            let is_last = *state.vote_ref() <= leader;
            let leads = state.server_state == ServerState::Leader;
            (is_last && !leads, state.log_ids.last().copied())
        };
        let (may_be_gone, last) = ask(&self.raft, look).await?;
        let is_gone = may_be_gone && self.is_gone(leader).await;
        Ok(View { is_gone, last })
    }

    /// From now on this member would vote for another leader. That cannot be taken back in this term, so it is not done
    /// before a quorum has agreed.
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

    /// Whether nobody listens where a leader is, and its own streams have ended.
    async fn is_gone(&self, leader: Vote) -> bool {
        let id = MemberId(leader.leader_id.voted_for);
        if id.0 == *self.raft.node_id() {
            // It does not lead: it was started again, and what it was elected for is on its disk.
            return true;
        }
        let Some(peer) = self.peers.known(id) else {
            return false;
        };
        let mut refusals = 0;
        for _ in 0..QUESTIONS {
            match self.ask(&peer, leader, Reason::Asked).await {
                Ok(view) => return view.is_gone,
                Err(NoAnswer::Refused) => refusals += 1,
                Err(NoAnswer::Broken) => refusals = 0,
                Err(NoAnswer::Silent) => return false,
            }
            // One that is alive may refuse connections, for its certificates' sake say, and lead on.
            if refusals >= REFUSALS && !self.streams.is_open(id) {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    async fn ask(
        &self,
        peer: &Connections,
        leader: Vote,
        reason: Reason,
    ) -> Result<View, NoAnswer> {
        let ended = peer.ended();
        let wordless = *ended.borrow();
        let mut client = peer.peer();
        let question = LeaderGoneRequest {
            leader: Some(wire::vote_to(&leader)),
            reason: reason.into(),
        };
        let answer = client.leader_gone(question);
        let patience = (self.election_timeout / 4).min(ANSWER_INTERVALS * self.heartbeat_interval);
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                Ok(View {
                    is_gone: answer.gone,
                    last: answer.last.map(wire::id_from),
                })
            }
            Ok(Err(status)) => {
                peer.failed(&status);
                Err(if says_refused(&status) || *ended.borrow() > wordless {
                    NoAnswer::Refused
                } else if status.source().is_some() {
                    NoAnswer::Broken
                } else {
                    NoAnswer::Silent
                })
            }
            Err(_elapsed) => Err(NoAnswer::Silent),
        }
    }
}

/// Whether these are a quorum; of a joint membership in both of its sides.
fn is_quorum(server: &Server, agreed: &[(Option<LogId>, u64)]) -> bool {
    let ids: BTreeSet<u64> = agreed.iter().map(|(_, id)| *id).collect();
    let mut sides = server
        .membership_config
        .membership()
        .get_joint_config()
        .iter();
    sides.all(|voters| voters.intersection(&ids).count() >= membership::quorum(voters.len()))
}

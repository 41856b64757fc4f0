//! The leader's part: checks a change and carries it out, one after the other.
//!
//! A change that moves a vote takes two entries, a joint membership and then the new one. A leader
//! that dies in between leaves the joint one behind; whoever leads next finishes it before it does
//! anything else with the members.
//!
//! What is in the log cannot be taken back: openraft goes by a membership from when it is appended,
//! and refuses another one until that is committed. A removal that leaves a quorum which does not
//! answer stays joint: its leader needs a quorum of both memberships, so within an election timeout it
//! leads no more, and neither does anybody else, while a majority of the members runs. Serializable
//! reads are all that is left. It ends by itself when enough of the voters that stay come back: the one
//! that is elected finishes it. When they never do, `--force-new-cluster` is the way, as it is in
//! etcd, where the removal commits and the cluster then has no quorum either. So before a vote is
//! taken away those who would be left are asked; without `--strict-reconfig-check` they are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::peerpb::{ChangeMembersRequest, ChangeMembersResponse};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, ReadPolicy, ServerState};
use tokio::sync::Mutex;
use types::MemberId;

use super::rules::Rules;
use super::wire;
use super::{MemberChange, MemberChangeError, Refusal};
use crate::leadership::{Leadership, matching};
use crate::membership::{quorum, voters};
use crate::node::Raft;
use crate::peer::channels::Peers;
use crate::peer::pinger::ping;
use crate::progress::Progress;
use crate::type_config::{PeerNode, StoredMembership, TypeConfig};

/// Pause before a membership that is not committed yet is looked at again.
const COMMIT_PAUSE: Duration = Duration::from_millis(10);

/// For how long a peer has answered without a gap; `None`: it does not.
pub(crate) type ConnectedFor = Arc<dyn Fn(MemberId) -> Option<Duration> + Send + Sync>;

type Changes = ChangeMembers<u64, PeerNode>;

pub(crate) struct Changer {
    pub(crate) leadership: Leadership,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cluster: apply::Cluster,
    pub(crate) connected_for: ConnectedFor,
    pub(crate) peers: Arc<Peers>,
    pub(crate) is_strict: bool,
    pub(crate) learners_max: usize,
    /// What a change may take.
    pub(crate) timeout: Duration,
    /// Whose turn it is to change something.
    pub(crate) turn: Mutex<()>,
}

/// What to do for a change that may be made.
enum Step {
    Write(Changes),
    /// The leader is to go: another one has to lead first, and do it.
    HandOver,
}

impl Changer {
    fn raft(&self) -> &Raft {
        &self.leadership.raft
    }

    /// Makes a change if this member leads. On return it is applied here; the index says with which
    /// entry, counted from 1.
    pub(crate) async fn change(&self, change: &MemberChange) -> Result<u64, Refusal> {
        let made = async {
            let _turn = self.turn.lock().await;
            self.change_in_turn(change).await
        };
        let made = tokio::time::timeout(self.timeout, made).await;
        made.unwrap_or(Err(Refusal::Unknown))
    }

    /// The same for a member that was asked and does not lead.
    pub(crate) async fn serve(&self, request: ChangeMembersRequest) -> ChangeMembersResponse {
        let outcome = match wire::change(request) {
            Some(change) => self.change(&change).await,
            // Of a later version.
            None => Err(Refusal::NotLeader),
        };
        wire::response(outcome)
    }

    async fn change_in_turn(&self, change: &MemberChange) -> Result<u64, Refusal> {
        let now = self.settled().await?;
        let step = self.check(change, &now).map_err(Refusal::Refused)?;
        if let MemberChange::Remove { id } = change
            && self.is_strict
            && !self.can_do_without(*id, &now).await
        {
            return Err(Refusal::Refused(MemberChangeError::Unhealthy));
        }
        match step {
            Step::Write(changes) => self.write(changes, &now).await,
            Step::HandOver => {
                let timeout = self.leadership.election_timeout;
                if self.leadership.hand_over(timeout).await {
                    Err(Refusal::NotLeader)
                } else {
                    Err(Refusal::Unknown)
                }
            }
        }
    }

    /// Whether the voters that are left without this one are a quorum that answers now. The rules go by
    /// pings of up to a second ago: a member that has died since counts there.
    async fn can_do_without(&self, id: MemberId, now: &StoredMembership) -> bool {
        let mut left = voters(now.membership());
        if !left.remove(&id.0) {
            return true;
        }
        let quorum = quorum(left.len());
        let me = self.leadership.member;
        let mut answered = usize::from(left.contains(&me.0));
        let others = left.iter().map(|id| MemberId(*id)).filter(|id| *id != me);
        let others = others.filter_map(|id| self.peers.known(id));
        let mut asked: FuturesUnordered<_> = others
            .map(|peer| async move { ping(&peer, self.leadership.election_timeout).await })
            .collect();
        while answered < quorum {
            match asked.next().await {
                Some(answers) => answered += usize::from(answers),
                None => return false,
            }
        }
        true
    }

    /// Waits until this member is sure to lead, and has applied every change of the members there
    /// has been. What is seen of the members then is what the next change is made to.
    async fn settled(&self) -> Result<Arc<StoredMembership>, Refusal> {
        loop {
            let linearizer = self.raft().get_read_linearizer(ReadPolicy::ReadIndex).await;
            let index = linearizer.map_err(refusal)?.read_log_id().index();
            self.progress.wait_applied(index + 1).await;
            let server = self.raft().server_metrics().borrow_watched().clone();
            if server.state != ServerState::Leader {
                return Err(Refusal::NotLeader);
            }
            let now = server.membership_config;
            if now != server.committed_membership_config {
                tokio::time::sleep(COMMIT_PAUSE).await;
                continue;
            }
            if now.membership().get_joint_config().len() > 1 {
                self.finish_joint(&now).await?;
                continue;
            }
            let index = now.log_id().map_or(0, |id| id.index + 1);
            self.progress.wait_applied(index).await;
            return Ok(now);
        }
    }

    /// Brings a change to its end that another leader began.
    pub(crate) async fn finish_joint(&self, now: &StoredMembership) -> Result<u64, Refusal> {
        tracing::info!(membership = %now.membership(), "finishing a change of the members");
        self.write(Changes::AddVoterIds(BTreeSet::new()), now).await
    }

    /// Changes exactly the membership `now`. Whoever loses a vote by it is no member any more.
    pub(crate) async fn write(
        &self,
        changes: Changes,
        now: &StoredMembership,
    ) -> Result<u64, Refusal> {
        let precondition = Precondition::LastMembershipLogId {
            last_membership_log_id: *now.log_id(),
        };
        let written = self
            .raft()
            .change_membership_if(changes, false, [precondition])
            .await;
        written
            .map(|written| written.log_id.index + 1)
            .map_err(refusal)
    }

    fn check(
        &self,
        change: &MemberChange,
        now: &StoredMembership,
    ) -> Result<Step, MemberChangeError> {
        let members = self.cluster.members();
        let rules = Rules {
            members: &members,
            leader: self.leadership.member,
            is_removed: &|id| self.cluster.is_removed(id),
            connected_for: &*self.connected_for,
            is_strict: self.is_strict,
            learners_max: self.learners_max,
        };
        match change {
            MemberChange::Add {
                id,
                peer_urls,
                is_learner,
            } => {
                rules.may_add(*id, peer_urls, *is_learner)?;
                let node = PeerNode {
                    name: String::new(),
                    peer_urls: peer_urls.clone(),
                    is_learner: *is_learner,
                };
                let nodes = BTreeMap::from([(id.0, node)]);
                Ok(Step::Write(Changes::AddNodes(nodes)))
            }
            MemberChange::Promote { id } => self.check_promotion(&rules, *id, now),
            MemberChange::Remove { id } => {
                rules.may_remove(*id)?;
                self.removal(*id, now)
            }
            MemberChange::UpdatePeerUrls { id, peer_urls } => {
                rules.may_update(*id, peer_urls)?;
                let change = |node: &mut PeerNode| node.peer_urls.clone_from(peer_urls);
                Ok(Step::Write(set_node(*id, now, change)?))
            }
        }
    }

    fn check_promotion(
        &self,
        rules: &Rules<'_>,
        id: MemberId,
        now: &StoredMembership,
    ) -> Result<Step, MemberChangeError> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let last = metrics.last_log_index.map_or(0, |last| last + 1);
        let is_peer = now.membership().get_node(&id.0).is_some();
        let matching = is_peer.then(|| match id == self.leadership.member {
            true => last,
            false => matching(&metrics, id.0),
        });
        rules.may_promote(id, matching, last)?;
        let mut changes = vec![set_node(id, now, |node| node.is_learner = false)?];
        // A tenth of the log may be long, and a voter without it could hold up every write: then
        // the vote comes as it does for a voter that was added as one.
        if matching.is_some_and(|matching| matching >= last)
            && self.leadership.answers(&metrics, id.0)
        {
            changes.push(Changes::AddVoterIds(BTreeSet::from([id.0])));
        }
        Ok(Step::Write(Changes::Batch(changes)))
    }

    fn removal(&self, id: MemberId, now: &StoredMembership) -> Result<Step, MemberChangeError> {
        let voters = voters(now.membership());
        if !voters.contains(&id.0) {
            return Ok(Step::Write(Changes::RemoveNodes(BTreeSet::from([id.0]))));
        }
        if voters.len() == 1 {
            // The other voters are still catching up: nobody could lead.
            return Err(MemberChangeError::Unhealthy);
        }
        if id == self.leadership.member {
            return Ok(Step::HandOver);
        }
        Ok(Step::Write(Changes::RemoveVoters(BTreeSet::from([id.0]))))
    }
}

fn set_node(
    id: MemberId,
    now: &StoredMembership,
    change: impl FnOnce(&mut PeerNode),
) -> Result<Changes, MemberChangeError> {
    let node = now.membership().get_node(&id.0);
    let mut node = node.cloned().ok_or(MemberChangeError::NotFound)?;
    change(&mut node);
    Ok(Changes::SetNodes(BTreeMap::from([(id.0, node)])))
}

/// What openraft's refusals say: those that may come after the first of two entries leave it open
/// what became of the change.
trait Refuses {
    fn refusal(&self) -> Refusal;
}

impl Refuses for ClientWriteError<TypeConfig> {
    fn refusal(&self) -> Refusal {
        match self {
            Self::ForwardToLeader(_) | Self::LogEntryDiscarded(_) | Self::PreconditionFailed(_) => {
                Refusal::Unknown
            }
            Self::ChangeMembershipError(ChangeMembershipError::EmptyMembership(_)) => {
                Refusal::Refused(MemberChangeError::NotEnoughStarted)
            }
            Self::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(_)) => {
                Refusal::Refused(MemberChangeError::NotFound)
            }
            Self::ChangeMembershipError(_) => Refusal::Unknown,
        }
    }
}

impl Refuses for openraft::errors::LinearizableReadError<TypeConfig> {
    fn refusal(&self) -> Refusal {
        Refusal::NotLeader
    }
}

fn refusal<E: Refuses>(error: RaftError<TypeConfig, E>) -> Refusal {
    match error {
        RaftError::APIError(error) => error.refusal(),
        RaftError::Fatal(_) => Refusal::Refused(MemberChangeError::Stopped),
    }
}

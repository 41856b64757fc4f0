//! Changes of the members: who may be added, promoted and removed, and when.
//!
//! Any member takes a change; the leader checks and carries it out (`peerpb.Leader/ChangeMembers`). What
//! clients see is etcd's: who adds a voter sees a voter. Inside, it is a learner until it has
//! caught up, so that adding it never costs the quorum; then the leader promotes it by itself.
//!
//! * `rules`: etcd's rules, as questions.
//! * `changer`: checks and carries out, at the leader.
//! * `catch_up`: promotes.
//! * `wire`: between the member that was asked and the leader.

pub(crate) mod catch_up;
pub(crate) mod changer;
mod rules;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::time::Duration;

use apply::Member;
use types::MemberId;

use crate::peer::channels::Peers;

/// Pause before a leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Add one. Its id is chosen by whoever asks; name and client urls come from itself.
    Add {
        /// Its id.
        id: MemberId,
        /// Where its peers will reach it.
        peer_urls: Vec<String>,
        /// Whether it gets no vote until it is promoted.
        is_learner: bool,
    },
    /// Give a learner a vote.
    Promote {
        /// Which.
        id: MemberId,
    },
    /// Remove one, for ever.
    Remove {
        /// Which.
        id: MemberId,
    },
    /// Its peers reach it elsewhere from now on.
    UpdatePeerUrls {
        /// Which.
        id: MemberId,
        /// Where.
        peer_urls: Vec<String>,
    },
}

/// A change of the members was not, or perhaps not, made. The texts clients see are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberChangeError {
    /// A member has this id.
    #[error("member ID already exist")]
    IdExists,
    /// A member had this id and was removed.
    #[error("member ID was removed")]
    IdRemoved,
    /// A member has one of these urls.
    #[error("Peer URLs already exists")]
    PeerUrlExists,
    /// There is no such member.
    #[error("member not found")]
    NotFound,
    /// It has a vote already.
    #[error("can only promote a learner member")]
    NotLearner,
    /// It has not caught up.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// There are as many learners as may be.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// Without this member, or with it, too few that have started would be left for a quorum.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Not all members are connected.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
    /// Not done in time; the outcome is unknown.
    #[error("request timed out")]
    Timeout,
}

/// The leadership was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveLeaderError {
    /// This member does not lead.
    #[error("not leader")]
    NotLeader,
    /// The other one is no member, or has no vote.
    #[error("bad leader transferee")]
    BadTransferee,
    /// The other one did not take it over in time.
    #[error("request timed out, leader transfer took too long")]
    Timeout,
}

/// What the leader said instead of making a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not lead; nothing was changed.
    NotLeader,
    /// Nobody knows whether it was made.
    Unknown,
    /// It may not be made.
    Refused(MemberChangeError),
}

impl MemberChange {
    /// Whether a refusal only says that the change has been made, when it was asked for before and
    /// the answer got lost.
    const fn is_made_if(&self, error: MemberChangeError) -> bool {
        matches!(
            (self, error),
            (Self::Add { .. }, MemberChangeError::IdExists)
                | (Self::Promote { .. }, MemberChangeError::NotLearner)
                | (Self::Remove { .. }, MemberChangeError::IdRemoved)
        )
    }
}

impl crate::Node {
    /// Changes the members, wherever the leader is; on return the change is seen here.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), MemberChangeError> {
        let running = self.running();
        let made = tokio::time::timeout(running.request_timeout(), self.ask_for(&change));
        tokio::select! {
            biased;
            () = running.stop.cancelled() => Err(MemberChangeError::Stopped),
            made = made => made.unwrap_or(Err(MemberChangeError::Timeout)),
        }
    }

    async fn ask_for(&self, change: &MemberChange) -> Result<(), MemberChangeError> {
        let running = self.running();
        let mut may_be_made = false;
        loop {
            match self.ask_leader(change).await {
                Ok(index) => {
                    // Who has removed itself gets no more entries.
                    let goes = matches!(change, MemberChange::Remove { id } if *id == running.config.member);
                    if !goes {
                        running.progress.wait_applied(index).await;
                    }
                    return Ok(());
                }
                Err(Refusal::NotLeader) => {}
                Err(Refusal::Unknown) => may_be_made = true,
                Err(Refusal::Refused(error)) if may_be_made && change.is_made_if(error) => {
                    return self.read_index().await.map_err(|error| {
                        tracing::debug!(%error, "cannot see a change of the members");
                        MemberChangeError::Timeout
                    });
                }
                Err(Refusal::Refused(error)) => return Err(error),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn ask_leader(&self, change: &MemberChange) -> Result<u64, Refusal> {
        let running = self.running();
        match self.status().leader {
            Some(leader) if leader == running.config.member => running.changer.change(change).await,
            Some(leader) => {
                let mut status = self.watch_status();
                let gone = status.wait_for(|status| status.leader != Some(leader));
                tokio::select! {
                    biased;
                    answer = ask_peer(&running.peers, leader, change) => answer,
                    _gone = gone => Err(Refusal::Unknown),
                }
            }
            None => Err(Refusal::NotLeader),
        }
    }

    /// The members now, as [`apply::Cluster`] shows them on this member.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.running().changer.cluster.members()
    }

    /// Lets another voter lead. Only the leader can; returns when the other one leads.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), MoveLeaderError> {
        let running = self.running();
        if self.status().leader != Some(running.config.member) {
            return Err(MoveLeaderError::NotLeader);
        }
        let timeout = running.request_timeout();
        running.changer.leadership.move_to(to, timeout).await
    }

    /// Before a stop: lets the voter lead that is closest behind, if this member leads and there is
    /// one. Whatever comes of it, the member may stop then.
    pub async fn hand_over_leadership(&self) {
        let leadership = &self.running().changer.leadership;
        if !leadership.has_heir() {
            return;
        }
        if !leadership.hand_over(leadership.election_timeout).await {
            tracing::warn!(member = %leadership.member, "could not hand the leadership over");
        }
    }
}

async fn ask_peer(peers: &Peers, leader: MemberId, change: &MemberChange) -> Result<u64, Refusal> {
    let Some(connections) = peers.known(leader) else {
        return Err(Refusal::NotLeader);
    };
    let mut client = connections.leader();
    match client.change_members(wire::request(change)).await {
        Ok(response) => wire::outcome(response.get_ref()),
        Err(status) => {
            connections.failed(&status);
            tracing::debug!(%leader, %status, "no answer to a change of the members");
            Err(Refusal::Unknown)
        }
    }
}

//! Changes of the members: who may be added, promoted and removed, and when.
//!
//! Any member takes a change; the leader checks and carries it out (`peerpb.Leader/ChangeMembers`). What
//! clients see is etcd's: who adds a voter sees a voter. Inside, it is a learner until it has
//! caught up, so that adding it never costs the quorum; then the leader promotes it by itself.

use apply::Member;
use types::MemberId;

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

impl crate::Node {
    /// Changes the members, wherever the leader is; on return the change is seen here.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), MemberChangeError> {
        todo!("{change:?}")
    }

    /// The members now, as [`apply::Cluster`] shows them on this member.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }

    /// Lets another voter lead. Only the leader can; returns when the other one leads.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), MoveLeaderError> {
        todo!("{to}")
    }

    /// Before a stop: lets the voter lead that is closest behind, if this member leads and there is
    /// one. Whatever comes of it, the member may stop then.
    pub async fn hand_over_leadership(&self) {
        todo!()
    }
}

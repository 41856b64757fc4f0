//! Changes of the members as `peerpb.Leader/ChangeMembers` carries them.

use api::peerpb::change_members_request::{Change, Member};
use api::peerpb::change_members_response::Refusal as Wire;
use api::peerpb::{ChangeMembersRequest, ChangeMembersResponse};
use types::MemberId;

use super::{MemberChange, MemberChangeError, Refusal};

pub(crate) fn request(change: &MemberChange) -> ChangeMembersRequest {
    let change = match change.clone() {
        MemberChange::Add {
            id,
            peer_urls,
            is_learner,
        } => Change::Add(Member {
            id: id.0,
            peer_urls,
            is_learner,
        }),
        MemberChange::Promote { id } => Change::Promote(id.0),
        MemberChange::Remove { id } => Change::Remove(id.0),
        MemberChange::UpdatePeerUrls { id, peer_urls } => Change::Update(Member {
            id: id.0,
            peer_urls,
            is_learner: false,
        }),
    };
    ChangeMembersRequest {
        change: Some(change),
    }
}

/// `None`: a change that this version does not know.
pub(crate) fn change(request: ChangeMembersRequest) -> Option<MemberChange> {
    Some(match request.change? {
        Change::Add(member) => MemberChange::Add {
            id: MemberId(member.id),
            peer_urls: member.peer_urls,
            is_learner: member.is_learner,
        },
        Change::Promote(id) => MemberChange::Promote { id: MemberId(id) },
        Change::Remove(id) => MemberChange::Remove { id: MemberId(id) },
        Change::Update(member) => MemberChange::UpdatePeerUrls {
            id: MemberId(member.id),
            peer_urls: member.peer_urls,
        },
    })
}

pub(crate) fn response(outcome: Result<u64, Refusal>) -> ChangeMembersResponse {
    let (refusal, index) = match outcome {
        Ok(index) => (Wire::None, index),
        Err(Refusal::NotLeader) => (Wire::NotLeader, 0),
        Err(Refusal::Unknown) => (Wire::Timeout, 0),
        Err(Refusal::Refused(error)) => (refused(error), 0),
    };
    ChangeMembersResponse {
        refusal: refusal.into(),
        index,
    }
}

const fn refused(error: MemberChangeError) -> Wire {
    match error {
        MemberChangeError::IdExists => Wire::IdExists,
        MemberChangeError::IdRemoved => Wire::IdRemoved,
        MemberChangeError::PeerUrlExists => Wire::PeerUrlExists,
        MemberChangeError::NotFound => Wire::NotFound,
        MemberChangeError::NotLearner => Wire::NotLearner,
        MemberChangeError::LearnerNotReady => Wire::LearnerNotReady,
        MemberChangeError::TooManyLearners => Wire::TooManyLearners,
        MemberChangeError::NotEnoughStarted => Wire::NotEnoughStarted,
        MemberChangeError::Unhealthy => Wire::Unhealthy,
        // A leader that stops may have made it: whoever asked finds out from the next one.
        MemberChangeError::Stopped | MemberChangeError::Timeout => Wire::Timeout,
    }
}

pub(crate) fn outcome(response: &ChangeMembersResponse) -> Result<u64, Refusal> {
    let Ok(refusal) = Wire::try_from(response.refusal) else {
        tracing::warn!(
            refusal = response.refusal,
            "the leader refuses with an unknown reason"
        );
        return Err(Refusal::Unknown);
    };
    let error = match refusal {
        Wire::None => return Ok(response.index),
        Wire::NotLeader => return Err(Refusal::NotLeader),
        Wire::Timeout => return Err(Refusal::Unknown),
        Wire::IdExists => MemberChangeError::IdExists,
        Wire::IdRemoved => MemberChangeError::IdRemoved,
        Wire::PeerUrlExists => MemberChangeError::PeerUrlExists,
        Wire::NotFound => MemberChangeError::NotFound,
        Wire::NotLearner => MemberChangeError::NotLearner,
        Wire::LearnerNotReady => MemberChangeError::LearnerNotReady,
        Wire::TooManyLearners => MemberChangeError::TooManyLearners,
        Wire::NotEnoughStarted => MemberChangeError::NotEnoughStarted,
        Wire::Unhealthy => MemberChangeError::Unhealthy,
    };
    Err(Refusal::Refused(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_outcomes_survive_the_wire() {
        let id = MemberId(u64::MAX);
        let peer_urls = vec!["http://a:1".to_owned(), "http://b:2".to_owned()];
        for sent in [
            MemberChange::Add {
                id,
                peer_urls: peer_urls.clone(),
                is_learner: true,
            },
            MemberChange::Promote { id },
            MemberChange::Remove { id },
            MemberChange::UpdatePeerUrls { id, peer_urls },
        ] {
            assert_eq!(change(request(&sent)), Some(sent));
        }
        assert_eq!(change(ChangeMembersRequest { change: None }), None);
        for sent in [
            Ok(7),
            Err(Refusal::NotLeader),
            Err(Refusal::Unknown),
            Err(Refusal::Refused(MemberChangeError::IdExists)),
            Err(Refusal::Refused(MemberChangeError::IdRemoved)),
            Err(Refusal::Refused(MemberChangeError::PeerUrlExists)),
            Err(Refusal::Refused(MemberChangeError::NotFound)),
            Err(Refusal::Refused(MemberChangeError::NotLearner)),
            Err(Refusal::Refused(MemberChangeError::LearnerNotReady)),
            Err(Refusal::Refused(MemberChangeError::TooManyLearners)),
            Err(Refusal::Refused(MemberChangeError::NotEnoughStarted)),
            Err(Refusal::Refused(MemberChangeError::Unhealthy)),
        ] {
            assert_eq!(outcome(&response(sent)), sent);
        }
        let newer = ChangeMembersResponse {
            refusal: 99,
            index: 0,
        };
        assert_eq!(outcome(&newer), Err(Refusal::Unknown));
    }
}

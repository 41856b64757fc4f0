//! etcd's rules for changes of the members, as questions to what the leader knows: who is a member,
//! who has started, and who is connected for how long
//! (`server/etcdserver/server.go` and `api/membership/cluster.go`). Nothing is changed here.

use std::time::Duration;

use apply::Member;
use types::MemberId;

use super::MemberChangeError;
use crate::membership::quorum;

/// A peer counts as connected when it has answered without a gap for so long, as in etcd
/// (`server.go`, `HealthInterval`).
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// How much of the leader's log a learner must have to be promoted, as in etcd
/// (`server.go`, `readyPercentThreshold`).
const READY_PERCENT: u64 = 90;

/// What the leader knows.
pub(super) struct Rules<'a> {
    /// All members, as clients see them.
    pub(super) members: &'a [Member],
    /// The leader.
    pub(super) leader: MemberId,
    /// Whether an id belonged to a member that was removed.
    pub(super) is_removed: &'a dyn Fn(MemberId) -> bool,
    /// For how long a peer has answered without a gap.
    pub(super) connected_for: &'a dyn Fn(MemberId) -> Option<Duration>,
    /// `--strict-reconfig-check`.
    pub(super) is_strict: bool,
    /// `--max-learners`.
    pub(super) learners_max: usize,
}

impl Rules<'_> {
    fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    fn started_voters(&self) -> usize {
        self.voters().filter(|voter| voter.is_started()).count()
    }

    fn connected_voters(&self) -> usize {
        let is_connected = |voter: &&Member| {
            voter.id == self.leader
                || (self.connected_for)(voter.id).is_some_and(|since| since > HEALTH_INTERVAL)
        };
        self.voters().filter(is_connected).count()
    }

    pub(super) fn may_add(
        &self,
        id: MemberId,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(), MemberChangeError> {
        if self.is_strict {
            self.protect_quorum_from_adding(is_learner)?;
        }
        if (self.is_removed)(id) {
            return Err(MemberChangeError::IdRemoved);
        }
        if self.member(id).is_some() {
            return Err(MemberChangeError::IdExists);
        }
        self.urls_are_free(id, peer_urls)?;
        let learners = self.members.iter().filter(|member| member.is_learner);
        if is_learner && learners.count() >= self.learners_max {
            return Err(MemberChangeError::TooManyLearners);
        }
        Ok(())
    }

    fn protect_quorum_from_adding(&self, is_learner: bool) -> Result<(), MemberChangeError> {
        let (voters, started) = (self.voters().count(), self.started_voters());
        // etcd's exception: the second member of a cluster that was restored as one member.
        let is_second = voters == 1 && started == 1;
        if !is_learner && !is_second && started < quorum(voters + 1) {
            return Err(MemberChangeError::NotEnoughStarted);
        }
        // Differs from etcd: it asks for the quorum of the cluster with the new member, which it
        // counts as one that is down (since 3.6.11; before, for all members). So in a cluster of
        // three with a dead one nothing can be added before that one is removed. Here the new
        // member has no vote before it runs and has caught up, so the quorum there is now is
        // enough, and a dead member can be replaced in either order.
        if voters > 1 && self.connected_voters() < quorum(voters) {
            return Err(MemberChangeError::Unhealthy);
        }
        Ok(())
    }

    fn urls_are_free(&self, id: MemberId, peer_urls: &[String]) -> Result<(), MemberChangeError> {
        let others = self.members.iter().filter(|member| member.id != id);
        let mut taken = others.flat_map(|member| &member.peer_urls);
        if taken.any(|url| peer_urls.contains(url)) {
            return Err(MemberChangeError::PeerUrlExists);
        }
        Ok(())
    }

    pub(super) fn may_remove(&self, id: MemberId) -> Result<(), MemberChangeError> {
        if self.is_strict {
            self.protect_quorum_from_removing(id)?;
        }
        self.must_be_member(id)?;
        // etcd refuses this one by its strict check only, and panics without it.
        if self.voters().all(|voter| voter.id == id) {
            return Err(MemberChangeError::NotEnoughStarted);
        }
        Ok(())
    }

    fn protect_quorum_from_removing(&self, id: MemberId) -> Result<(), MemberChangeError> {
        if self.member(id).is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        let left = || self.voters().filter(|voter| voter.id != id);
        let started = left().filter(|voter| voter.is_started()).count();
        if started < quorum(left().count()) {
            return Err(MemberChangeError::NotEnoughStarted);
        }
        // One that is down is no part of the quorum that works.
        if id != self.leader && (self.connected_for)(id).is_none() {
            return Ok(());
        }
        let voters = self.voters().count();
        if self.connected_voters() < 2 + voters.saturating_sub(1) / 2 {
            return Err(MemberChangeError::Unhealthy);
        }
        Ok(())
    }

    /// `matching` and `leader_matching` count entries from 1; `None`: there is no such peer.
    pub(super) fn may_promote(
        &self,
        id: MemberId,
        matching: Option<u64>,
        leader_matching: u64,
    ) -> Result<(), MemberChangeError> {
        let matching = matching.ok_or(MemberChangeError::NotFound)?;
        if matching.saturating_mul(100) < leader_matching.saturating_mul(READY_PERCENT) {
            return Err(MemberChangeError::LearnerNotReady);
        }
        // The learner counts as a voter that has started.
        let (voters, started) = (self.voters().count() + 1, self.started_voters() + 1);
        if self.is_strict && started < quorum(voters) {
            return Err(MemberChangeError::NotEnoughStarted);
        }
        let member = self.must_be_member(id)?;
        if member.is_learner {
            Ok(())
        } else {
            Err(MemberChangeError::NotLearner)
        }
    }

    pub(super) fn may_update(
        &self,
        id: MemberId,
        peer_urls: &[String],
    ) -> Result<(), MemberChangeError> {
        self.must_be_member(id)?;
        self.urls_are_free(id, peer_urls)
    }

    fn must_be_member(&self, id: MemberId) -> Result<&Member, MemberChangeError> {
        if (self.is_removed)(id) {
            return Err(MemberChangeError::IdRemoved);
        }
        self.member(id).ok_or(MemberChangeError::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    /// Members 1, 2, ... by a letter each: `v` a voter, `l` a learner; upper case: it has started.
    fn members(letters: &str) -> Vec<Member> {
        (1..)
            .zip(letters.chars())
            .map(|(id, letter)| Member {
                id: MemberId(id),
                name: if letter.is_uppercase() {
                    format!("m{id}")
                } else {
                    String::new()
                },
                peer_urls: vec![format!("http://m{id}:2380")],
                client_urls: vec![],
                is_learner: letter.eq_ignore_ascii_case(&'l'),
            })
            .collect()
    }

    /// Asks the rules of a cluster whose member 1 leads and whose member 9 was removed.
    fn ask<T>(letters: &str, down: &[u64], ask: impl FnOnce(&Rules<'_>) -> T) -> T {
        let members = members(letters);
        ask(&Rules {
            members: &members,
            leader: MemberId(1),
            is_removed: &|id| id == MemberId(9),
            connected_for: &|id| if down.contains(&id.0) { None } else { LONG },
            is_strict: true,
            learners_max: 1,
        })
    }

    fn add(letters: &str, down: &[u64], is_learner: bool) -> Result<(), MemberChangeError> {
        let urls = ["http://new:2380".to_owned()];
        ask(letters, down, |rules| {
            rules.may_add(MemberId(100), &urls, is_learner)
        })
    }

    fn remove(letters: &str, down: &[u64], id: u64) -> Result<(), MemberChangeError> {
        ask(letters, down, |rules| rules.may_remove(MemberId(id)))
    }

    #[test]
    fn adding_needs_enough_members_that_have_started() {
        use MemberChangeError::*;
        assert_eq!(add("V", &[], false), Ok(()));
        assert_eq!(add("Vv", &[], false), Err(NotEnoughStarted));
        assert_eq!(add("VV", &[], false), Ok(()));
        assert_eq!(add("VVv", &[], false), Err(NotEnoughStarted));
        assert_eq!(add("VVVv", &[], false), Ok(()));
        assert_eq!(add("VVVvv", &[], false), Err(NotEnoughStarted));
        // A learner is no part of the quorum.
        assert_eq!(add("Vv", &[], true), Ok(()));
    }

    #[test]
    fn adding_needs_the_quorum_there_is() {
        use MemberChangeError::*;
        // The wrong order: the dead member is still there.
        assert_eq!(add("VVV", &[3], false), Ok(()));
        assert_eq!(add("VVV", &[2, 3], false), Err(Unhealthy));
        assert_eq!(add("VVVVV", &[4, 5], false), Ok(()));
        assert_eq!(add("VV", &[2], true), Err(Unhealthy));
        let recently = |_: MemberId| Some(Duration::from_secs(4));
        let members = members("VVV");
        let rules = Rules {
            members: &members,
            leader: MemberId(1),
            is_removed: &|_| false,
            connected_for: &recently,
            is_strict: true,
            learners_max: 1,
        };
        assert_eq!(rules.may_add(MemberId(4), &[], false), Err(Unhealthy));
        let rules = Rules {
            is_strict: false,
            ..rules
        };
        assert_eq!(rules.may_add(MemberId(4), &[], false), Ok(()));
    }

    #[test]
    fn ids_and_urls_are_never_used_twice() {
        use MemberChangeError::*;
        let add = |id, url: &str| {
            let urls = [url.to_owned()];
            ask("VVV", &[], |rules| {
                rules.may_add(MemberId(id), &urls, false)
            })
        };
        assert_eq!(add(9, "http://new:2380"), Err(IdRemoved));
        assert_eq!(add(2, "http://new:2380"), Err(IdExists));
        assert_eq!(add(4, "http://m2:2380"), Err(PeerUrlExists));
        assert_eq!(add(4, "http://new:2380"), Ok(()));
    }

    #[test]
    fn there_are_only_so_many_learners() {
        use MemberChangeError::*;
        assert_eq!(add("VVVL", &[], true), Err(TooManyLearners));
        assert_eq!(add("VVVL", &[], false), Ok(()));
        assert_eq!(add("VVV", &[], true), Ok(()));
    }

    #[test]
    fn removing_leaves_a_quorum_that_works() {
        use MemberChangeError::*;
        assert_eq!(remove("V", &[], 1), Err(NotEnoughStarted));
        assert_eq!(remove("Vv", &[2], 2), Ok(()));
        assert_eq!(remove("Vv", &[], 1), Err(NotEnoughStarted));
        assert_eq!(remove("VVV", &[], 1), Ok(()));
        assert_eq!(remove("VVV", &[3], 3), Ok(()));
        assert_eq!(remove("VVV", &[3], 2), Err(Unhealthy));
        assert_eq!(remove("VVV", &[3], 1), Err(Unhealthy));
        assert_eq!(remove("VVv", &[], 2), Err(NotEnoughStarted));
        assert_eq!(remove("VVVL", &[2, 3], 4), Ok(()));
        assert_eq!(remove("VVV", &[7], 7), Err(NotFound));
        assert_eq!(remove("VVV", &[9], 9), Err(IdRemoved));
    }

    #[test]
    fn the_last_voter_stays_also_without_the_strict_check() {
        let members = members("VL");
        let rules = Rules {
            members: &members,
            leader: MemberId(1),
            is_removed: &|_| false,
            connected_for: &|_| None,
            is_strict: false,
            learners_max: 1,
        };
        let refused = Err(MemberChangeError::NotEnoughStarted);
        assert_eq!(rules.may_remove(MemberId(1)), refused);
        assert_eq!(rules.may_remove(MemberId(2)), Ok(()));
    }

    #[test]
    fn a_learner_is_promoted_with_nine_tenths_of_the_log() {
        use MemberChangeError::*;
        let promote = |letters: &str, id, matching| {
            ask(letters, &[], |rules| {
                rules.may_promote(MemberId(id), matching, 1000)
            })
        };
        assert_eq!(promote("VL", 2, Some(900)), Ok(()));
        assert_eq!(promote("VL", 2, Some(899)), Err(LearnerNotReady));
        assert_eq!(promote("VL", 7, None), Err(NotFound));
        assert_eq!(promote("VV", 2, Some(1000)), Err(NotLearner));
        assert_eq!(promote("VvvL", 4, Some(1000)), Err(NotEnoughStarted));
        assert_eq!(promote("VVVl", 4, Some(1000)), Ok(()));
    }

    #[test]
    fn urls_are_updated_to_free_ones() {
        use MemberChangeError::*;
        let update = |id, url: &str| {
            let urls = [url.to_owned()];
            ask("VVL", &[2, 3], |rules| {
                rules.may_update(MemberId(id), &urls)
            })
        };
        assert_eq!(update(3, "http://new:2380"), Ok(()));
        assert_eq!(update(3, "http://m3:2380"), Ok(()));
        assert_eq!(update(3, "http://m1:2380"), Err(PeerUrlExists));
        assert_eq!(update(7, "http://new:2380"), Err(NotFound));
        assert_eq!(update(9, "http://new:2380"), Err(IdRemoved));
    }
}

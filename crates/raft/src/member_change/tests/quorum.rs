//! Removals that would cost the quorum.

use super::*;

/// How long peers have to have answered for a change of the members.
const HEALTHY: Duration = Duration::from_secs(5);

/// Waits until a leader has been connected to all others for long enough, and says who leads, and
/// the two others.
async fn healthy(group: &Group) -> [usize; 3] {
    let leader = group.leader().await;
    let node = &group.member(leader).node;
    eventually("a healthy cluster", || async {
        let peers = node.peers();
        let since = peers.iter().map(|peer| peer.active_since);
        let connected = since.flatten().filter(|since| since.elapsed() > HEALTHY);
        (connected.count() == 2).then_some(())
    })
    .await;
    assert_eq!(group.leader().await, leader);
    [leader, (leader + 1) % 3, (leader + 2) % 3]
}

impl Group {
    /// Asks this member.
    async fn remove_at(&self, asked: usize, gone: usize) -> Result<(), MemberChangeError> {
        let node = &self.member(asked).node;
        node.change_members(remove(gone)).await
    }
}

#[tokio::test]
async fn a_healthy_member_stays_when_another_one_has_just_died() {
    let mut group = Group::start(3, 60).await;
    let [leader, dead, other] = healthy(&group).await;
    group.kill(dead, Loss::All);
    let refused = group.remove_at(leader, other).await;
    assert_eq!(refused, Err(MemberChangeError::Unhealthy));
    let peers = group.member(leader).node.peers();
    let peer = peers.iter().find(|peer| peer.id == id(dead)).unwrap();
    assert_eq!(peer.active_since, None);
    // Nothing was begun.
    group.put("a", "1").await;
    assert_eq!(group.leader_among(&[leader, other]).await, leader);
    assert_eq!(voters(&group.member(leader).node), ids(&[0, 1, 2]));
    // The dead one may go.
    group.change_when_healthy(remove(dead)).await;
    group.wait_for_voters(&[leader, other]).await;
    group.put("b", "2").await;
    group.stop().await;
}

#[tokio::test]
async fn nobody_goes_while_those_who_would_be_left_do_not_answer() {
    let group = Group::start(3, 61).await;
    let [leader, silent, other] = healthy(&group).await;
    // No connection breaks: only asking shows it. The leader may not go either.
    group.isolate(silent, Link::Cut);
    for gone in [other, leader] {
        let refused = group.remove_at(leader, gone).await;
        assert_eq!(refused, Err(MemberChangeError::Unhealthy));
    }
    assert_eq!(group.leader_among(&[leader, other]).await, leader);
    let node = &group.member(leader).node;
    let written = node.propose(put_command(b"a", b"1")).await;
    written.unwrap().outcome.unwrap();
    assert_eq!(voters(node), ids(&[0, 1, 2]));
    group.isolate(silent, Link::Open);
    group.wait_for_value(silent, "a", "1").await;
    group.stop().await;
}

#[tokio::test]
async fn a_removal_that_nobody_checked_ends_when_the_quorum_is_back() {
    let group = Group::start_with(3, 62, lenient).await;
    let leader = group.leader().await;
    let (silent, gone) = ((leader + 1) % 3, (leader + 2) % 3);
    group.put("a", "1").await;
    group.wait_for_value(silent, "a", "1").await;
    group.isolate(silent, Link::Cut);
    let asked = group.remove_at(leader, gone).await;
    assert_eq!(asked, Err(MemberChangeError::Timeout));
    // A majority runs, and nobody can lead.
    eventually("no leader", || async {
        let mut left = [leader, gone].into_iter();
        let none = left.all(|number| group.member(number).node.status().leader.is_none());
        none.then_some(())
    })
    .await;
    group.isolate(silent, Link::Open);
    group.wait_for_voters(&[leader, silent]).await;
    stops_as_removed(&group.member(gone).node).await;
    group.leader_among(&[leader, silent]).await;
    group.stop().await;
}

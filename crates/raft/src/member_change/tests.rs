//! Changes of the members in a group: what etcd's guide says, and what it warns of.

mod force;
mod leaders;
mod quorum;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backend::engine::Loss;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::task::JoinHandle;

use super::*;
use crate::testing::group::{Group, PATIENCE, eventually, id};
use crate::testing::net::{Link, url};
use crate::testing::put_command;
use crate::{Config, Fatal, Node};

fn lenient(config: &mut Config) {
    config.strict_reconfig_check = false;
}

fn add(number: usize, is_learner: bool) -> MemberChange {
    MemberChange::Add {
        id: id(number),
        peer_urls: vec![url(number)],
        is_learner,
    }
}

fn remove(number: usize) -> MemberChange {
    MemberChange::Remove { id: id(number) }
}

fn promote(number: usize) -> MemberChange {
    MemberChange::Promote { id: id(number) }
}

/// Who has a vote, as a member sees it.
fn voters(node: &Node) -> BTreeSet<u64> {
    let server = node.running().changer.leadership.raft.server_metrics();
    let server = server.borrow_watched();
    crate::membership::voters(server.membership_config.membership())
}

fn ids(numbers: &[usize]) -> BTreeSet<u64> {
    numbers.iter().map(|number| id(*number).0).collect()
}

impl Group {
    async fn lead(&self) -> &crate::testing::Member {
        self.member(self.leader().await)
    }

    /// Asks a member that does not lead, if there is one.
    async fn change(&self, change: MemberChange) -> Result<(), MemberChangeError> {
        let leader = self.leader().await;
        let members = self.member(leader).node.members();
        let is_member = |number: usize| members.iter().any(|member| member.id == id(number));
        let asked = self
            .running()
            .map(|(number, _)| number)
            .find(|number| *number != leader && is_member(*number));
        let asked = &self.member(asked.unwrap_or(leader)).node;
        let changed = asked.change_members(change.clone()).await;
        if changed.is_ok() {
            is_seen(asked, &change);
        }
        changed
    }

    /// Asks until the members have been connected for long enough.
    async fn change_when_healthy(&self, change: MemberChange) {
        eventually("a healthy cluster", || async {
            match self.change(change.clone()).await {
                Err(MemberChangeError::Unhealthy) => None,
                made => {
                    made.unwrap();
                    Some(())
                }
            }
        })
        .await;
    }

    async fn put(&self, key: &str, value: &str) {
        let leader = self.lead().await;
        let command = put_command(key.as_bytes(), value.as_bytes());
        leader.node.propose(command).await.unwrap().outcome.unwrap();
    }

    async fn publish(&self, number: usize) {
        let command = apply::Command::PublishMember(Member {
            id: id(number),
            name: format!("member-{number}"),
            ..Member::default()
        });
        let leader = self.lead().await;
        leader.node.propose(command).await.unwrap().outcome.unwrap();
    }

    async fn wait_for_voters(&self, numbers: &[usize]) {
        eventually("the voters", || async {
            let (_, mut running) = (0, self.running());
            running
                .all(|(number, member)| {
                    !numbers.contains(&number) || voters(&member.node) == ids(numbers)
                })
                .then_some(())
        })
        .await;
    }

    async fn wait_for_value(&self, number: usize, key: &str, value: &str) {
        eventually("a value", || async {
            (self.member(number).value(key.as_bytes())? == value.as_bytes()).then_some(())
        })
        .await;
    }
}

/// On return whoever was asked sees the change.
fn is_seen(asked: &Node, change: &MemberChange) {
    let member = |id: &MemberId| asked.members().into_iter().find(|member| member.id == *id);
    match change {
        MemberChange::Add { id, is_learner, .. } => {
            assert_eq!(member(id).unwrap().is_learner, *is_learner);
        }
        MemberChange::Promote { id } => assert!(!member(id).unwrap().is_learner),
        MemberChange::Remove { id } => {
            assert!(member(id).is_none() || *id == asked.running().config.member);
        }
        MemberChange::UpdatePeerUrls { id, peer_urls } => {
            assert_eq!(member(id).unwrap().peer_urls, *peer_urls);
        }
    }
}

async fn stops_as_removed(node: &Node) {
    let fatal = tokio::time::timeout(PATIENCE, node.fatal()).await.unwrap();
    assert!(matches!(fatal, Fatal::Removed), "{fatal}");
}

/// Writes key after key to whoever leads, until told to end.
struct Load {
    end: Arc<AtomicBool>,
    writer: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(group: &Group) -> Self {
        let nodes: Vec<Node> = group
            .running()
            .map(|(_, member)| member.node.clone())
            .collect();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let writer = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut number = 0;
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                let key = format!("load{number}");
                let leads = |node: &&Node| {
                    let status = node.status();
                    status.leader == Some(node.running().config.member)
                };
                let Some(leader) = nodes.iter().find(leads) else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                let command = put_command(key.as_bytes(), b"v");
                let written =
                    tokio::time::timeout(Duration::from_secs(2), leader.propose(command)).await;
                if matches!(written, Ok(Ok(_))) {
                    acknowledged.push(key);
                }
            }
            acknowledged
        });
        Self { end, writer }
    }

    /// The keys that were acknowledged.
    async fn end(self) -> Vec<String> {
        self.end.store(true, Ordering::Relaxed);
        self.writer.await.unwrap()
    }
}

async fn nothing_is_lost(group: &Group, number: usize, keys: &[String]) {
    assert!(!keys.is_empty());
    group.put("last", "1").await;
    group.wait_for_value(number, "last", "1").await;
    for key in keys {
        let member = group.member(number);
        assert!(member.value(key.as_bytes()).is_some(), "{key} is lost");
    }
}

#[tokio::test]
async fn adding_a_voter_that_does_not_run_stops_nothing() {
    let mut group = Group::start(1, 40).await;
    group.change(add(1, false)).await.unwrap();
    group.put("a", "1").await;
    // For clients it is a voter that has not started.
    let shown = group.member(0).node.members();
    assert_eq!(shown.len(), 2);
    let new = shown.iter().find(|member| member.id == id(1)).unwrap();
    assert_eq!((new.name.as_str(), new.is_learner), ("", false));
    assert_eq!(voters(&group.member(0).node), ids(&[0]));
    // Nobody can be added before it has started.
    assert_eq!(
        group.change(add(2, false)).await,
        Err(MemberChangeError::NotEnoughStarted)
    );
    group.join(1).await;
    group.wait_for_voters(&[0, 1]).await;
    group.wait_for_value(1, "a", "1").await;
    group.stop().await;
}

#[tokio::test]
async fn learners_are_few_and_get_their_vote_when_they_are_asked_and_ready() {
    let mut group = Group::start(1, 41).await;
    group.change(add(1, true)).await.unwrap();
    assert_eq!(
        group.change(add(2, true)).await,
        Err(MemberChangeError::TooManyLearners)
    );
    group.put("a", "1").await;
    assert_eq!(
        group.change(promote(1)).await,
        Err(MemberChangeError::LearnerNotReady)
    );
    assert_eq!(
        group.change(promote(2)).await,
        Err(MemberChangeError::NotFound)
    );
    group.join(1).await;
    group.wait_for_value(1, "a", "1").await;
    assert!(group.member(1).node.status().is_learner);
    assert_eq!(
        group.member(0).node.move_leader(id(1)).await,
        Err(MoveLeaderError::BadTransferee)
    );
    // Its new url changes nothing else about it.
    let moved = MemberChange::UpdatePeerUrls {
        id: id(1),
        peer_urls: vec![url(1), url(7)],
    };
    group.change(moved).await.unwrap();
    let learner = group.member(0).views.cluster.member(id(1)).unwrap();
    assert!(learner.is_learner);
    assert_eq!(learner.peer_urls, [url(1), url(7)]);
    eventually("a ready learner", || async {
        match group.change(promote(1)).await {
            Err(MemberChangeError::LearnerNotReady) => None,
            made => {
                made.unwrap();
                Some(())
            }
        }
    })
    .await;
    assert!(
        !group
            .member(0)
            .views
            .cluster
            .member(id(1))
            .unwrap()
            .is_learner
    );
    group.wait_for_voters(&[0, 1]).await;
    assert_eq!(
        group.change(promote(1)).await,
        Err(MemberChangeError::NotLearner)
    );
    group.stop().await;
}

#[tokio::test]
async fn a_new_member_catches_up_when_the_log_was_cut() {
    let mut group = Group::start_with(1, 48, |config| {
        config.snapshot_count = 10;
        config.snapshot_catchup_entries = 1;
    })
    .await;
    for number in 0..100 {
        group.put(&format!("key{number}"), "v").await;
    }
    let log = &group.member(0).node.running().log;
    eventually("a log that was cut", || async {
        log.purged().filter(|purged| *purged > 10)
    })
    .await;
    group.change(add(1, false)).await.unwrap();
    group.join(1).await;
    group.wait_for_value(1, "key7", "v").await;
    group.wait_for_voters(&[0, 1]).await;
    group.put("a", "1").await;
    group.wait_for_value(1, "a", "1").await;
    group.stop().await;
}

#[tokio::test]
async fn ids_and_urls_of_members_are_taken() {
    let mut group = Group::start(1, 42).await;
    group.change(add(1, true)).await.unwrap();
    let taken = MemberChange::Add {
        id: id(5),
        peer_urls: vec![url(5), url(1)],
        is_learner: false,
    };
    assert_eq!(
        group.change(taken).await,
        Err(MemberChangeError::PeerUrlExists)
    );
    assert_eq!(
        group.change(add(1, false)).await,
        Err(MemberChangeError::IdExists)
    );
    group.change(remove(1)).await.unwrap();
    assert_eq!(group.member(0).node.members().len(), 1);
    for again in [add(1, false), remove(1), add(1, true)] {
        assert_eq!(group.change(again).await, Err(MemberChangeError::IdRemoved));
    }
    assert_eq!(
        group.change(remove(7)).await,
        Err(MemberChangeError::NotFound)
    );
    assert_eq!(
        group.change(remove(0)).await,
        Err(MemberChangeError::NotEnoughStarted)
    );
    // Also not after a restart.
    group.kill(0, Loss::All);
    group.begin(0).await;
    assert_eq!(
        group.change(add(1, false)).await,
        Err(MemberChangeError::IdRemoved)
    );
    group.stop().await;
}

#[tokio::test]
async fn a_dead_member_is_replaced_as_the_guide_says() {
    let mut group = Group::start(3, 43).await;
    let leader = group.leader().await;
    let dead = (leader + 1) % 3;
    group.put("a", "1").await;
    group.kill(dead, Loss::All);
    group.change_when_healthy(remove(dead)).await;
    group.change_when_healthy(add(3, false)).await;
    group.put("b", "2").await;
    group.join(3).await;
    let left = [leader, (leader + 2) % 3, 3];
    group.wait_for_voters(&left).await;
    group.wait_for_value(3, "b", "2").await;
    group.stop().await;
}

#[tokio::test]
async fn a_dead_member_is_replaced_in_the_wrong_order() {
    let mut group = Group::start(3, 44).await;
    let leader = group.leader().await;
    let dead = (leader + 1) % 3;
    group.put("a", "1").await;
    group.kill(dead, Loss::All);
    group.change_when_healthy(add(3, false)).await;
    // The new member costs no quorum, though there are four now and two of them run.
    group.put("b", "2").await;
    group.join(3).await;
    group.wait_for_value(3, "b", "2").await;
    group.publish(3).await;
    group.change_when_healthy(remove(dead)).await;
    let left = [leader, (leader + 2) % 3, 3];
    group.wait_for_voters(&left).await;
    group.put("c", "3").await;
    group.stop().await;
}

#[tokio::test]
async fn a_removed_member_stops_and_stays_stopped() {
    let mut group = Group::start_with(3, 45, lenient).await;
    let leader = group.leader().await;
    let gone = (leader + 1) % 3;
    group.change(remove(gone)).await.unwrap();
    stops_as_removed(&group.member(gone).node).await;
    group.kill(gone, Loss::Nothing);
    group.join(gone).await;
    stops_as_removed(&group.member(gone).node).await;
    group.kill(gone, Loss::Nothing);
    group.put("a", "1").await;
    group.stop().await;
}

#[tokio::test]
async fn a_member_that_has_lost_its_data_stops_and_harms_nobody() {
    let mut group = Group::start(3, 49).await;
    group.put("a", "1").await;
    let leader = group.leader().await;
    let term = group.member(leader).node.status().term;
    let wiped = (leader + 1) % 3;
    group.wait_for_value(wiped, "a", "1").await;
    group.kill(wiped, Loss::All);
    group.disks[wiped] = crate::testing::Disks::new(77);
    group.join(wiped).await;
    let fatal = group.member(wiped).node.fatal();
    let fatal = tokio::time::timeout(PATIENCE, fatal).await.unwrap();
    assert!(matches!(fatal, Fatal::LogLost { .. }), "{fatal}");
    group.kill(wiped, Loss::Nothing);
    group.put("b", "2").await;
    assert_eq!(group.member(leader).node.status().term, term);
    group.stop().await;
}

#[tokio::test]
async fn a_change_that_a_leader_left_half_done_is_finished() {
    let group = Group::start_with(3, 46, lenient).await;
    // A leader that has just been elected has no lease yet.
    group.put("a", "1").await;
    let leader = group.leader().await;
    let raft = &group.member(leader).node.running().changer.leadership.raft;
    let now = raft
        .server_metrics()
        .borrow_watched()
        .membership_config
        .clone();
    let without: BTreeSet<u64> = ids(&[0, 1, 2])
        .into_iter()
        .filter(|voter| *voter != id((leader + 1) % 3).0)
        .collect();
    let nodes: std::collections::BTreeMap<_, _> = now
        .membership()
        .nodes()
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    let joint =
        crate::type_config::Membership::new(vec![ids(&[0, 1, 2]), without.clone()], nodes).unwrap();
    raft.append_membership(joint, crate::type_config::Payload::Blank, [])
        .await
        .unwrap();
    eventually("a membership that is not joint", || async {
        (group.member(leader).node.members().len() == 2).then_some(())
    })
    .await;
    assert_eq!(voters(&group.member(leader).node), without);
    group.stop().await;
}

#[tokio::test]
async fn members_start_in_any_order_and_again() {
    let mut group = Group::prepare(3, 47, |_config| {});
    group.begin(2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(group.member(2).node.status().leader, None);
    group.kill(2, Loss::All);
    group.begin(0).await;
    group.begin(2).await;
    group.leader_among(&[0, 2]).await;
    group.put("a", "1").await;
    group.begin(1).await;
    group.wait_for_value(1, "a", "1").await;
    // All at once.
    for number in 0..3 {
        group.kill(number, Loss::All);
    }
    for number in [1, 2, 0] {
        group.begin(number).await;
    }
    group.put("b", "2").await;
    for number in 0..3 {
        group.wait_for_value(number, "a", "1").await;
        group.wait_for_value(number, "b", "2").await;
    }
    group.stop().await;
}

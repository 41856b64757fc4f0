//! Linearizable reads of members, whoever leads.

use super::*;
use crate::ask::ask;
use crate::read_index;
use crate::type_config::{TypeConfig, Vote};
use openraft::{RaftState, ServerState};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_on_any_member_sees_every_write_that_was_acknowledged_on_any() {
    let group = Group::start(3, 120).await;
    group.leader().await;
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let writer = group.member(task % 3).node.clone();
            let reader = group.member((task / 3 + task + 1) % 3);
            let (node, views) = (reader.node.clone(), reader.views.clone());
            tokio::spawn(async move {
                let key = format!("key{task}");
                for number in 0..40 {
                    let value = number.to_string();
                    let put = put_command(key.as_bytes(), value.as_bytes());
                    writer.propose(put).await.unwrap();
                    node.read_index().await.unwrap();
                    let found = views.store.view().get(key.as_bytes()).unwrap();
                    assert_eq!(found.value(), value.as_bytes());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_confirms_no_read_and_renews_no_lease() {
    let group = Group::start(3, 121).await;
    let old = group.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != old).collect();
    let id = types::LeaseId(5);
    let grant = Command::LeaseGrant { id, ttl_s: 100 };
    let granted = group.member(old).node.propose(grant).await.unwrap();
    granted.outcome.unwrap();
    group.isolate(old, Link::Cut);
    let cut_off = group.member(old).node.clone();
    let reading = tokio::spawn({
        let node = cut_off.clone();
        async move { node.read_index().await }
    });
    let renewing = tokio::spawn(async move { cut_off.renew_lease(id).await });
    let new = group.leader_among(&others).await;
    let put = put_command(b"after", b"v");
    group.member(new).node.propose(put).await.unwrap();
    assert!(!reading.is_finished(), "nobody could confirm it");
    assert!(!renewing.is_finished(), "nobody could confirm it");
    assert!(group.member(old).value(b"after").is_none());
    group.isolate(old, Link::Open);
    // Once there is a way to the new leader both are answered, by it.
    if reading.await.unwrap().is_ok() {
        assert!(group.member(old).value(b"after").is_some());
    }
    let renewed = renewing.await.unwrap();
    assert!(matches!(renewed, Ok(Some(100)) | Err(_)), "{renewed:?}");
    group.stop().await;
}

/// What a member answered before a read began says nothing about who leads since, even if the leader has asked something
/// else meanwhile to which it would be an answer as well.
#[tokio::test(flavor = "multi_thread")]
async fn answers_from_before_a_read_confirm_nothing() {
    let (group, leader) = patient_group(122).await;
    let (soon, later) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = group.member(leader).node.clone();
    let applied = node.status().applied_index;
    group
        .net
        .set(soon, leader, Link::Slow(Duration::from_millis(600)));
    group
        .net
        .set(later, leader, Link::Slow(Duration::from_millis(900)));
    let written = tokio::spawn({
        let node = node.clone();
        async move { put(&node, "key").await }
    });
    // It goes out, and its answers are on their way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    group.net.set(leader, soon, Link::Cut);
    group.net.set(leader, later, Link::Cut);
    let read = tokio::time::timeout(Duration::from_secs(2), node.read_index()).await;
    assert!(!matches!(read, Ok(Ok(()))), "nobody could confirm it");
    // With the first of the answers it was committed; so there were both.
    assert!(node.status().applied_index > applied);
    written.await.unwrap();
    group.isolate(leader, Link::Open);
    group.stop().await;
}

/// The vote of a member, as its core has it.
async fn vote(group: &Group, number: usize) -> Vote {
    let raft = &group.member(number).node.running.raft;
    ask(raft, |state| *state.vote_ref()).await.unwrap()
}

/// What a member makes of another one's question.
async fn index_for(group: &Group, asked: usize, asker: usize, follows: Vote) -> Option<u64> {
    let look = move |state: &_| read_index::index_for(state, id(asked), id(asker), follows);
    ask(&group.member(asked).node.running.raft, look)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_three_asks_nobody_when_a_follower_does() {
    let group = Group::start_with(3, 123, |config| {
        config.election_timeout = 10 * PATIENCE;
        config.heartbeat_interval = PATIENCE;
    })
    .await;
    let first = group.member(0).node.clone();
    eventually("a leader", || async {
        first.running.raft.trigger().elect(false).await.unwrap();
        (first.status().leader == Some(id(0))).then_some(())
    })
    .await;
    let follower = group.member(1).node.clone();
    put(&follower, "key").await;
    follower.read_index().await.unwrap();
    let sent_to_the_third = || {
        let peers = first.peers();
        peers
            .iter()
            .find(|peer| peer.id == id(2))
            .unwrap()
            .sent_bytes
    };
    let before = sent_to_the_third();
    for _ in 0..300 {
        follower.read_index().await.unwrap();
    }
    // It is pinged every now and then. Heartbeats would be 300.
    let sent = sent_to_the_third() - before;
    assert!(sent < 300 * 15, "{sent} bytes");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_confirms_a_leader_only_where_both_are_a_quorum_and_follow_it() {
    let group = Group::start(3, 124).await;
    let leader = group.leader().await;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    put(&group.member(leader).node, "before").await;
    let old = vote(&group, leader).await;
    let known = group.member(leader).node.status().committed_index;
    assert_eq!(index_for(&group, leader, follower, old).await, Some(known));
    let of_another_term = Vote::new_committed(old.leader_id.term - 1, old.leader_id.voted_for);
    let stands = Vote::new(old.leader_id.term, old.leader_id.voted_for);
    let follows_another = Vote::new_committed(old.leader_id.term, id(other).0);
    for vote in [of_another_term, stands, follows_another] {
        assert_eq!(index_for(&group, leader, follower, vote).await, None);
    }
    // Itself, and somebody without a vote.
    assert_eq!(index_for(&group, leader, leader, old).await, None);
    assert_eq!(index_for(&group, leader, 7, old).await, None);
    // Who is not asked as the leader says nothing.
    assert_eq!(index_for(&group, follower, other, old).await, None);
    // As after its removal: it has still the vote that it gave itself.
    let removed = move |state: &RaftState<TypeConfig>| {
        let mut state = state.clone();
        state.server_state = ServerState::Learner;
        read_index::index_for(&state, id(leader), id(follower), old)
    };
    let raft = &group.member(leader).node.running.raft;
    assert_eq!(ask(raft, removed).await.unwrap(), None);

    group.isolate(leader, Link::Cut);
    let new = group.leader_among(&[follower, other]).await;
    put(&group.member(new).node, "after").await;
    // It does not know yet that it does not lead any more; but nobody says any more that it does.
    for number in [follower, other] {
        let follows = vote(&group, number).await;
        assert_ne!(follows, old);
        assert_eq!(index_for(&group, leader, number, follows).await, None);
    }
    group.isolate(leader, Link::Open);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_confirm_no_leader() {
    let group = Group::start(5, 125).await;
    let leader = group.leader().await;
    let follower = (leader + 1) % 5;
    put(&group.member(follower).node, "key").await;
    let follows = vote(&group, follower).await;
    assert_eq!(index_for(&group, leader, follower, follows).await, None);
    group.member(follower).node.read_index().await.unwrap();
    group.stop().await;
}

/// A core that writes to a slow disk answers nothing. Its member reads all the same: the others confirm the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reads_while_its_core_is_busy() {
    let group = Group::start(3, 126).await;
    let leader = group.leader().await;
    let follower = group.member((leader + 1) % 3).node.clone();
    put(&follower, "key").await;
    let (go_on, busy) = std::sync::mpsc::channel::<()>();
    let (begun, is_busy) = tokio::sync::oneshot::channel();
    let wait = move |_: &RaftState<TypeConfig>| {
        begun.send(()).unwrap();
        tokio::task::block_in_place(|| busy.recv()).unwrap();
    };
    follower.running.raft.external_request(wait).await.unwrap();
    is_busy.await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), follower.read_index()).await;
    go_on.send(()).unwrap();
    read.unwrap().unwrap();
    group.stop().await;
}

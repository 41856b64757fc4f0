//! States taken over while the log goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backend::engine::Loss;

use super::RepairError;
use crate::testing::group::{Group, eventually};
use crate::testing::net::Link;
use crate::testing::put_command;

fn another_than(leader: usize) -> usize {
    (leader + 1) % 3
}

/// Waits until everybody has come to a revision, and compares.
async fn same_hash(group: &Group, revision: i64) {
    eventually("all have everything", || async {
        let mut members = group.running();
        let all = members.all(|(_, member)| member.views.store.revision() == revision);
        all.then_some(())
    })
    .await;
    let hashes: Vec<u32> = group
        .running()
        .map(|(_, member)| member.views.store.hash_kv(Some(revision)).unwrap().hash)
        .collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:x?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_takes_the_leaders_state_while_others_write() {
    let group = Group::start(3, 700).await;
    let leader = group.leader().await;
    let follower = another_than(leader);
    let is_over = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writer = {
        let node = group.member(leader).node.clone();
        let (is_over, written) = (Arc::clone(&is_over), Arc::clone(&written));
        tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let number = written.load(Ordering::Relaxed);
                let command = put_command(format!("key{number}").as_bytes(), b"v");
                node.propose(command).await.unwrap().outcome.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let member = group.member(follower);
    for _ in 0..3 {
        let before = written.load(Ordering::Relaxed);
        eventually("something is written", || async {
            (written.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        member.node.repair().await.unwrap();
        // It is a member like any other: what it is asked for is carried out.
        let command = put_command(b"asked here", b"v");
        member.node.propose(command).await.unwrap().outcome.unwrap();
        member.node.read_index().await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    same_hash(&group, group.member(leader).views.store.revision()).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_comes_to_nothing_leaves_the_member_as_it_was() {
    let mut group = Group::start(3, 701).await;
    let leader = group.leader().await;
    let refused = group.member(leader).node.repair().await;
    assert_eq!(refused, Err(RepairError::Leads));
    // The leader is not to be reached; then it is not there any more.
    let follower = another_than(leader);
    group.isolate(leader, Link::Cut);
    // Whatever comes of it: another one may lead before it is asked.
    drop(group.member(follower).node.repair().await);
    group.kill(leader, Loss::All);
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let next = group.leader_among(&others).await;
    let last = *others.iter().find(|number| **number != next).unwrap();
    let member = group.member(last);
    let command = put_command(b"k", b"v");
    member.node.propose(command).await.unwrap().outcome.unwrap();
    // Nobody waits any more: the member goes on, and can be repaired.
    let repaired = tokio::time::timeout(Duration::from_secs(30), member.node.repair());
    repaired.await.unwrap().unwrap();
    assert_eq!(member.value(b"k").as_deref(), Some(&b"v"[..]));
    same_hash(&group, member.views.store.revision()).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_taken_over_survives_a_loss_of_power() {
    let mut group = Group::start(3, 702).await;
    let leader = group.leader().await;
    let follower = another_than(leader);
    for number in 0..100 {
        let command = put_command(format!("key{number}").as_bytes(), b"v");
        let applied = group.member(leader).node.propose(command).await;
        applied.unwrap().outcome.unwrap();
    }
    group.member(follower).node.repair().await.unwrap();
    group.kill(follower, Loss::All);
    group.begin(follower).await;
    let command = put_command(b"after", b"v");
    let applied = group.member(leader).node.propose(command).await;
    applied.unwrap().outcome.unwrap();
    eventually("it has everything", || async {
        group.member(follower).value(b"after").map(drop)
    })
    .await;
    same_hash(&group, group.member(follower).views.store.revision()).await;
    group.stop().await;
}

//! Leases: many that expire together, and what becomes of them when leaders change.

use std::time::Duration;

use apply::Command;
use futures_util::future::join_all;
use types::LeaseId;

use super::REVOKES_MAX;
use crate::Node;
use crate::testing::group::{Group, eventually, id};
use crate::testing::net::Link;
use crate::testing::{put_attached, put_command};

const LEASE: LeaseId = LeaseId(77);
const HOUR_S: i64 = 3600;

async fn propose(node: &Node, command: Command) {
    let applied = node.propose(command).await.unwrap();
    applied.outcome.unwrap();
}

fn key_of(lease: LeaseId) -> Vec<u8> {
    format!("of {}", lease.0).into_bytes()
}

async fn grant(node: &Node, id: LeaseId, ttl_s: i64) {
    propose(node, Command::LeaseGrant { id, ttl_s }).await;
    propose(node, put_attached(&key_of(id), id)).await;
}

/// Waits until all members have applied what this one has.
async fn all_have_applied(group: &Group, number: usize) {
    let applied = group.member(number).node.status().applied_index;
    for (_, member) in group.running() {
        eventually("it has applied as much", || async {
            (member.node.status().applied_index >= applied).then_some(())
        })
        .await;
    }
}

async fn hand_over(group: &Group, from: usize, to: usize) {
    eventually("the leader is another", || async {
        let moved = group.member(from).node.move_leader(id(to)).await;
        moved.ok().or_else(|| {
            let leader = group.member(to).node.status().leader;
            (leader == Some(id(to))).then_some(())
        })
    })
    .await;
    group.leader_among(&[to]).await;
    group.member(to).node.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_that_expire_together_are_revoked_by_few_entries() {
    const LEASES: usize = 3000;
    let group = Group::start(1, 170).await;
    group.leader().await;
    let member = group.member(0);
    member.node.wait_ready().await;
    let last = LeaseId(i64::try_from(LEASES).unwrap());
    let ids = 1..=last.0;
    join_all(ids.map(|id| grant(&member.node, LeaseId(id), 10))).await;
    assert_eq!(member.views.leases.len(), LEASES);
    assert!(member.value(&key_of(last)).is_some());
    let before = member.node.status().applied_index;
    member.clock.advance(Duration::from_secs(11));
    eventually("they are revoked", || async {
        member.views.leases.is_empty().then_some(())
    })
    .await;
    eventually("their keys are gone", || async {
        member.value(&key_of(last)).is_none().then_some(())
    })
    .await;
    let entries = member.node.status().applied_index - before;
    let needed = LEASES.div_ceil(REVOKES_MAX) as u64;
    assert!(entries <= needed + 2, "{entries} entries");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lease_has_left_survives_a_change_of_leader_and_a_renewal_begins_it_anew() {
    let group = Group::start(3, 171).await;
    let first = group.leader().await;
    let second = (first + 1) % 3;
    let node = &group.member(first).node;
    grant(node, LEASE, HOUR_S).await;
    let before = node.status().applied_index;
    group.member(first).clock.advance(Duration::from_secs(400));
    eventually("it is checkpointed", || async {
        (node.status().applied_index > before).then_some(())
    })
    .await;
    all_have_applied(&group, first).await;
    hand_over(&group, first, second).await;
    let left = group.member(first).node.remaining_ttl(LEASE).await.unwrap();
    assert!(
        left > Some(3000) && left < Some(3300),
        "of 3,200 s there are {left:?} left"
    );
    let renewed = group.member(first).node.renew_lease(LEASE).await.unwrap();
    assert_eq!(renewed, Some(HOUR_S));
    all_have_applied(&group, second).await;
    hand_over(&group, second, first).await;
    let left = group.member(first).node.remaining_ttl(LEASE).await.unwrap();
    assert!(left >= Some(HOUR_S), "{left:?}");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_revokes_nothing() {
    let group = Group::start(3, 172).await;
    let old = group.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != old).collect();
    grant(&group.member(old).node, LEASE, HOUR_S).await;
    all_have_applied(&group, old).await;
    group.isolate(old, Link::Cut);
    // It still believes that it leads, and that the lease has expired.
    group.member(old).clock.advance(Duration::from_secs(4000));
    let new = group.leader_among(&others).await;
    let renewed = group.member(new).node.renew_lease(LEASE).await.unwrap();
    assert_eq!(renewed, Some(HOUR_S));
    group.isolate(old, Link::Open);
    let put = put_command(b"after", b"v");
    propose(&group.member(old).node, put).await;
    all_have_applied(&group, new).await;
    for (_, member) in group.running() {
        assert!(member.views.leases.get(LEASE).is_some());
        assert!(member.value(&key_of(LEASE)).is_some());
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_has_expired_or_was_revoked_is_renewed_nowhere() {
    let group = Group::start(3, 173).await;
    let leader = group.leader().await;
    let revoked = LeaseId(78);
    grant(&group.member(leader).node, LEASE, 10).await;
    grant(&group.member(leader).node, revoked, 10).await;
    let revoke = Command::LeaseRevoke { id: revoked };
    propose(&group.member((leader + 1) % 3).node, revoke).await;
    for (_, member) in group.running() {
        assert_eq!(member.node.renew_lease(revoked).await.unwrap(), None);
    }
    group.member(leader).clock.advance(Duration::from_secs(10));
    for (_, member) in group.running() {
        assert_eq!(member.node.renew_lease(LEASE).await.unwrap(), None);
    }
    group.stop().await;
}

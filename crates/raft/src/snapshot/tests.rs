//! Members that are too far behind for the log.

use std::time::Duration;

use apply::Command;
use backend::engine::Loss;
use types::LeaseId;

use super::*;
use crate::Config;
use crate::testing::group::{Group, eventually, id};
use crate::testing::net::{Link, url};
use crate::testing::{Member, put_attached, put_command};
use crate::{MemberChange, Node};

const PATIENCE: Duration = Duration::from_secs(120);

/// The log is cut often and keeps little.
fn short_log(config: &mut Config) {
    config.snapshot_count = 20;
    config.snapshot_catchup_entries = 5;
    config.request_bytes_max = 1 << 20;
    config.strict_reconfig_check = false;
    // A busy machine must not change the leader.
    config.election_timeout = Duration::from_secs(5);
}

async fn propose(node: &Node, command: Command) {
    let applied = node.propose(command).await.unwrap();
    applied.outcome.unwrap();
}

/// Large values, none like the other.
fn value(number: usize, bytes: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    (0..bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

async fn fill(node: &Node, numbers: std::ops::Range<usize>, bytes: usize) {
    for number in numbers {
        let key = format!("key{number}");
        propose(node, put_command(key.as_bytes(), &value(number, bytes))).await;
    }
}

/// Waits until the logs of all members but `but` have been cut behind `index`.
async fn cut_behind(group: &Group, but: usize, index: u64) {
    for (_, member) in group.running().filter(|(number, _)| *number != but) {
        eventually("the log is cut", || async {
            let purged = member.node.purged();
            purged.filter(|purged| *purged > index).map(drop)
        })
        .await;
    }
}

async fn has_key(member: &Member, key: &str) {
    eventually("it has caught up", || async {
        member.value(key.as_bytes()).map(drop)
    })
    .await;
}

fn same_hash(one: &Member, other: &Member) {
    let revision = one.views.store.revision().min(other.views.store.revision());
    let hash = |member: &Member| member.views.store.hash_kv(Some(revision)).unwrap().hash;
    assert_eq!(hash(one), hash(other));
}

fn received(member: &Member) -> TransferMetrics {
    let mut sum = TransferMetrics::default();
    for (_, counted) in member.node.snapshot_metrics() {
        sum.success += counted.received.success;
        sum.failures += counted.received.failures;
        sum.inflights += counted.received.inflights;
        sum.bytes += counted.received.bytes;
    }
    sum
}

/// Waits until a state was installed; readers have it a little earlier.
async fn has_installed(member: &Member) {
    eventually("a state is installed", || async {
        (received(member).success >= 1).then_some(())
    })
    .await;
}

/// Two that are not this one.
fn others(number: usize) -> [usize; 2] {
    let others: Vec<usize> = (0..3).filter(|other| *other != number).collect();
    [others[0], others[1]]
}

/// A group of three, of which one follower was cut off until the log does not go back to it.
async fn one_left_behind(seed: u64, keys: usize, bytes: usize) -> (Group, usize, usize) {
    let group = Group::start_with(3, seed, short_log).await;
    let leader = group.leader().await;
    let behind = others(leader)[0];
    fill(&group.member(leader).node, 0..1, 10).await;
    has_key(group.member(behind), "key0").await;
    let at = group.member(behind).node.status().applied_index;
    group.isolate(behind, Link::Cut);
    group
        .net
        .break_connections(|from, to| from == behind || to == behind);
    fill(&group.member(leader).node, 1..keys, bytes).await;
    cut_behind(&group, behind, at + 10).await;
    (group, leader, behind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_cut_off_catches_up_by_a_state_and_the_log() {
    let (mut group, leader, behind) = one_left_behind(300, 200, 100).await;
    let node = group.member(leader).node.clone();
    let id = LeaseId(77);
    propose(&node, Command::LeaseGrant { id, ttl_s: 1000 }).await;
    propose(&node, put_attached(b"leased", id)).await;
    propose(&node, Command::Compact { revision: 100 }).await;
    let mut stream = group.member(behind).views.store.watch_stream();
    group.isolate(behind, Link::Open);
    let writer = tokio::spawn(async move { fill(&node, 200..500, 100).await });
    writer.await.unwrap();
    has_key(group.member(behind), "key499").await;
    has_installed(group.member(behind)).await;
    let lease = group.member(behind).views.leases.get(id).unwrap();
    assert_eq!(lease.keys, ["leased"]);
    same_hash(group.member(behind), group.member(leader));
    stream.request_progress();
    group.kill(behind, Loss::All);
    group.begin(behind).await;
    has_key(group.member(behind), "key499").await;
    same_hash(group.member(behind), group.member(leader));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_does_not_grow_for_a_member_that_is_slow() {
    let group = Group::start_with(3, 309, short_log).await;
    let leader = group.leader().await;
    let slow = others(leader)[0];
    let (node, slow_node) = (&group.member(leader).node, &group.member(slow).node);
    fill(node, 0..1, 10).await;
    has_key(group.member(slow), "key0").await;
    // It is alive, and takes entries all the time.
    group.isolate(slow, Link::Slow(Duration::from_millis(1500)));
    fill(node, 1..60, 512 * 1024).await;
    eventually("the log is cut before it is sent", || async {
        let had = slow_node.status().applied_index;
        (node.purged() > Some(had + 1)).then_some(())
    })
    .await;
    assert_eq!(node.status().leader, Some(id(leader)));
    group.isolate(slow, Link::Open);
    has_key(group.member(slow), "key59").await;
    has_installed(group.member(slow)).await;
    same_hash(group.member(slow), group.member(leader));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_where_it_broke_off() {
    let (group, leader, behind) = one_left_behind(310, 160, 60_000).await;
    group.isolate(behind, Link::Open);
    group
        .net
        .set(leader, behind, Link::Slow(Duration::from_millis(20)));
    for broken in 1..=2_u64 {
        eventually("something has come", || async {
            let so_far = received(group.member(behind)).bytes;
            (so_far > broken * 2_000_000).then_some(())
        })
        .await;
        group
            .net
            .break_connections(|from, to| from == leader && to == behind);
    }
    has_key(group.member(behind), "key159").await;
    has_installed(group.member(behind)).await;
    let received = received(group.member(behind));
    assert!(received.failures >= 1, "{received:?}");
    assert!(
        received.bytes < 160 * 60_000 * 3 / 2,
        "sent again: {received:?}"
    );
    same_hash(group.member(behind), group.member(leader));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_dies_takes_its_transfer_up_again() {
    let (mut group, leader, behind) = one_left_behind(320, 600, 60_000).await;
    group.isolate(behind, Link::Open);
    group
        .net
        .set(leader, behind, Link::Slow(Duration::from_millis(10)));
    eventually("more than is flushed at once has come", || async {
        (received(group.member(behind)).bytes > 20_000_000).then_some(())
    })
    .await;
    group.kill(behind, Loss::All);
    group.begin(behind).await;
    has_key(group.member(behind), "key599").await;
    let received = received(group.member(behind));
    assert!(
        received.bytes < 25_000_000,
        "all of it came again: {received:?}"
    );
    same_hash(group.member(behind), group.member(leader));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_leader_begins_anew() {
    let (mut group, leader, behind) = one_left_behind(330, 160, 60_000).await;
    group.isolate(behind, Link::Open);
    group
        .net
        .set(leader, behind, Link::Slow(Duration::from_millis(20)));
    eventually("something has come", || async {
        (received(group.member(behind)).bytes > 2_000_000).then_some(())
    })
    .await;
    group.kill(leader, Loss::All);
    has_key(group.member(behind), "key159").await;
    let other = group.leader().await;
    fill(&group.member(other).node, 160..170, 10).await;
    has_key(group.member(behind), "key169").await;
    same_hash(group.member(behind), group.member(other));
    group.begin(leader).await;
    has_key(group.member(leader), "key169").await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_learner_of_an_old_cluster_gets_the_state_first() {
    let mut group = Group::start_with(3, 340, short_log).await;
    let leader = group.leader().await;
    fill(&group.member(leader).node, 0..200, 1000).await;
    cut_behind(&group, 3, 10).await;
    let number = 3;
    group.join(number).await;
    let add = MemberChange::Add {
        id: id(number),
        peer_urls: vec![url(number)],
        is_learner: true,
    };
    group.member(leader).node.change_members(add).await.unwrap();
    has_key(group.member(number), "key199").await;
    has_installed(group.member(number)).await;
    same_hash(group.member(number), group.member(leader));
    let members = |number| group.member(number).views.cluster.members();
    eventually("it knows the members", || async {
        (members(number) == members(leader)).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_for_a_member_that_is_not_there() {
    let mut group = Group::start_with(3, 360, short_log).await;
    let leader = group.leader().await;
    let behind = others(leader)[0];
    fill(&group.member(leader).node, 0..1, 10).await;
    has_key(group.member(behind), "key0").await;
    group.kill(behind, Loss::All);
    fill(&group.member(leader).node, 1..200, 100).await;
    cut_behind(&group, behind, 150).await;
    assert_eq!(group.member(leader).node.kept_for_peers(), None);
    group.begin(behind).await;
    has_key(group.member(behind), "key199").await;
    has_installed(group.member(behind)).await;
    group.stop().await;
}

/// The sender offers again at once, and must find the member busy until the state is its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_while_the_state_is_installed_changes_nothing() {
    const KEYS: usize = 160;
    const BYTES: usize = 60_000;
    let (mut group, leader, behind) = one_left_behind(370, KEYS, BYTES).await;
    group.isolate(behind, Link::Open);
    let begun = eventually("it has begun", || async {
        group.disks[behind].state.begun()
    })
    .await;
    begun.slow_flush(Duration::from_secs(2));
    // The first value is small. The last chunk is larger than everything that is not values.
    eventually("everything has come", || async {
        (received(group.member(behind)).bytes >= ((KEYS - 1) * BYTES) as u64).then_some(())
    })
    .await;
    group
        .net
        .break_connections(|from, to| from == leader && to == behind);
    has_installed(group.member(behind)).await;
    begun.slow_flush(Duration::ZERO);
    let received = received(group.member(behind));
    assert_eq!((received.success, received.failures), (1, 0));
    fill(&group.member(leader).node, KEYS..KEYS + 10, 100).await;
    has_key(group.member(behind), "key169").await;
    group.kill(behind, Loss::All);
    group.begin(behind).await;
    has_key(group.member(behind), "key169").await;
    same_hash(group.member(behind), group.member(leader));
    group.stop().await;
}

/// The power fails between the installation of the state and the cut of the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_the_installed_state_begins_anew() {
    let (mut group, leader, behind) = one_left_behind(350, 200, 100).await;
    let log_before = group.disks[behind].log.crash(Loss::Nothing);
    group.isolate(behind, Link::Open);
    has_key(group.member(behind), "key199").await;
    has_installed(group.member(behind)).await;
    let installed = group.disks[behind].state.crash(Loss::All);
    group.kill(behind, Loss::All);
    group.disks[behind].log = Arc::new(log_before);
    group.disks[behind].state = installed;
    group.begin(behind).await;
    fill(&group.member(leader).node, 200..210, 100).await;
    has_key(group.member(behind), "key209").await;
    same_hash(group.member(behind), group.member(leader));
    tokio::time::timeout(PATIENCE, group.stop()).await.unwrap();
}

#[test]
fn a_flipped_bit_in_a_chunk_shows() {
    let record = |key: &'static [u8], value: &'static [u8]| peerpb::snapshot_chunk::Record {
        bucket: 1,
        key: key.into(),
        value: value.into(),
    };
    let right = checksum(&[record(b"ab", b"c"), record(b"d", b"e")]);
    assert_ne!(right, checksum(&[record(b"a", b"bc"), record(b"d", b"e")]));
    assert_ne!(right, checksum(&[record(b"ab", b"c"), record(b"d", b"d")]));
    assert_ne!(right, checksum(&[record(b"ab", b"c")]));
    assert_eq!(bucket(1), Some(Bucket::Key));
    assert_eq!(bucket(Bucket::RaftLog as u32), None);
    assert_eq!(bucket(99), None);
}

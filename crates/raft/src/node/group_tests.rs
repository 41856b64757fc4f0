//! Several members: elections, replication, and commands that are asked for anywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::peerpb::leader_client::LeaderClient;
use api::peerpb::leader_gone_request::Reason;
use api::peerpb::{
    ChangeMembersRequest, LeaderGoneRequest, LeaseRenewRequest, LeaseTimeToLiveRequest,
    ProposeRequest, ReadIndexRequest,
};
use apply::{Command, Reply};
use backend::engine::Loss;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::error::{FatalCell, ProposeError};
use crate::peer::channels::{Introduced, Peers, Times};
use crate::peer::handshake::Identity;
use crate::peer::wire::vote_to;
use crate::testing::errors::Errors;
use crate::testing::group::{Group, PATIENCE, eventually, id};
use crate::testing::net::{Link, url};
use crate::testing::{Disks, Member, put_command};

mod reads;

#[tokio::test(flavor = "multi_thread")]
async fn three_members_elect_one_replicate_and_apply() {
    let group = Group::start(3, 100).await;
    let leader = group.leader().await;
    for number in 0..20 {
        let command = put_command(format!("key{number}").as_bytes(), b"value");
        let applied = group.member(leader).node.propose(command).await.unwrap();
        let Reply::Put { revision, .. } = applied.outcome.unwrap() else {
            panic!("a put is answered as one");
        };
        assert_eq!(revision, number + 2);
    }
    for (_, member) in group.running() {
        eventually("every member has it", || async {
            (member.value(b"key19")? == b"value").then_some(())
        })
        .await;
    }
    group.stop().await;
}

/// Puts a key, and says at which revision.
async fn put(node: &Node, key: &str) -> i64 {
    let applied = node.propose(put_command(key.as_bytes(), b"v")).await;
    match applied.unwrap().outcome.unwrap() {
        Reply::Put { revision, .. } => revision,
        other => panic!("a put came to {other:?}"),
    }
}

/// Clients of one member, each of which puts new keys one after the other.
struct Writers {
    name: &'static str,
    stop: CancellationToken,
    clients: Vec<JoinHandle<Written>>,
    acknowledged: Arc<AtomicUsize>,
}

async fn write_new_keys(
    name: String,
    node: Node,
    acknowledged: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> Written {
    let mut written = Written::default();
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let key = format!("{name}-{number:05}");
        let put = put_command(key.as_bytes(), key.as_bytes());
        match node.propose(put).await {
            Ok(applied) => {
                applied.outcome.unwrap();
                acknowledged.fetch_add(1, Ordering::Relaxed);
                written.acknowledged.push(key);
            }
            Err(error) => written.failed.push((key, error)),
        }
    }
    written
}

/// What became of a client's puts.
#[derive(Debug, Default)]
struct Written {
    acknowledged: Vec<String>,
    failed: Vec<(String, ProposeError)>,
}

impl Writers {
    fn start(name: &'static str, node: &Node, clients: usize) -> Self {
        let stop = CancellationToken::new();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients)
            .map(|client| {
                let (node, stop) = (node.clone(), stop.clone());
                let count = Arc::clone(&acknowledged);
                let name = format!("{name}-{client}");
                tokio::spawn(write_new_keys(name, node, count, stop))
            })
            .collect();
        Self {
            name,
            stop,
            clients,
            acknowledged,
        }
    }

    /// Waits until so many more puts were acknowledged.
    async fn progress(&self, more: usize) {
        let from = self.acknowledged.load(Ordering::Relaxed);
        eventually(&format!("{} writes", self.name), || async {
            (self.acknowledged.load(Ordering::Relaxed) >= from + more).then_some(())
        })
        .await;
    }

    async fn stop(self) -> Written {
        self.stop.cancel();
        let mut all = Written::default();
        for client in self.clients {
            let written = client.await.unwrap();
            all.acknowledged.extend(written.acknowledged);
            all.failed.extend(written.failed);
        }
        all
    }
}

fn version(member: &Member, key: &str) -> Option<i64> {
    let kv = member.views.store.view().get(key.as_bytes())?;
    Some(kv.version())
}

/// Waits until all members have applied the same, then checks that every acknowledged put is there
/// once, and no other one more than once.
async fn assert_once(group: &Group, written: &[Written]) {
    let some = group.running().next().unwrap().1;
    some.node
        .propose(put_command(b"the last", b""))
        .await
        .unwrap();
    for (number, member) in group.running() {
        eventually("every member has caught up", || async {
            member.value(b"the last").map(drop)
        })
        .await;
        for written in written {
            for key in &written.acknowledged {
                assert_eq!(version(member, key), Some(1), "member {number}: {key}");
            }
            for (key, error) in &written.failed {
                let found = version(member, key);
                assert!(
                    found.is_none_or(|version| version == 1),
                    "member {number}: {key}: {error}: {found:?}"
                );
            }
        }
    }
    let revisions: BTreeSet<i64> = group
        .running()
        .map(|(_, member)| member.views.store.view().revision())
        .collect();
    assert_eq!(revisions.len(), 1, "all members have the same revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_takes_commands_and_its_clients_read_what_they_wrote() {
    let group = Group::start(3, 101).await;
    group.leader().await;
    let writers: Vec<_> = group
        .running()
        .map(|(number, member)| {
            let (node, views) = (member.node.clone(), member.views.clone());
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for round in 0..50 {
                    let key = format!("{number}-{round}");
                    revisions.push(put(&node, &key).await);
                    assert!(views.store.view().get(key.as_bytes()).is_some());
                }
                revisions
            })
        })
        .collect();
    let mut revisions = BTreeSet::new();
    for writer in writers {
        revisions.extend(writer.await.unwrap());
    }
    assert_eq!(revisions, (2..152).collect::<BTreeSet<i64>>());
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_costs_other_members_clients_nothing_but_time() {
    let mut group = Group::start(3, 102).await;
    let leader = group.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let writers: Vec<Writers> = others
        .iter()
        .zip(["one", "two"])
        .map(|(number, name)| Writers::start(name, &group.member(*number).node, 8))
        .collect();
    for writers in &writers {
        writers.progress(50).await;
    }
    group.kill(leader, Loss::All);
    for writers in &writers {
        writers.progress(50).await;
    }
    group.begin(leader).await;
    for writers in &writers {
        writers.progress(50).await;
    }
    let mut written = Vec::new();
    for writers in writers {
        written.push(writers.stop().await);
    }
    for written in &written {
        assert!(written.failed.is_empty(), "{:?}", written.failed);
    }
    assert_once(&group, &written).await;
    group.stop().await;
}

/// Three members whose elections time out when no test waits any more, and the leader they are given.
async fn patient_group(seed: u64) -> (Group, usize) {
    let group = Group::start_with(3, seed, |config| config.election_timeout = 10 * PATIENCE).await;
    let first = group.member(0).node.clone();
    eventually("the first leader", || async {
        first.running.raft.trigger().elect(false).await.unwrap();
        (first.status().leader == Some(id(0))).then_some(())
    })
    .await;
    let leader = group.leader().await;
    for (number, member) in group.running() {
        put(&member.node, &format!("from {number}")).await;
    }
    (group, leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_election_timeout_when_the_leaders_process_is_gone() {
    let (mut group, leader) = patient_group(141).await;
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let term = group.member(leader).node.status().term;
    group.kill(leader, Loss::Nothing);
    let next = eventually("another leader", || async {
        let next = group.leader_among(&others).await;
        (next != leader).then_some(next)
    })
    .await;
    assert_eq!(group.member(next).node.status().term, term + 1);
    for number in &others {
        put(&group.member(*number).node, "afterwards").await;
    }
    group.begin(leader).await;
    put(&group.member(leader).node, "returned").await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_election_timeout_when_a_quorum_is_started_again() {
    let (mut group, leader) = patient_group(143).await;
    let mut down: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    down.push(leader);
    for with_leader in [false, true, true] {
        for number in 0..3 {
            group.kill(number, Loss::Nothing);
        }
        let again = if with_leader { &down[1..] } else { &down[..2] };
        for number in again {
            group.begin(*number).await;
        }
        for number in again {
            put(&group.member(*number).node, "again").await;
        }
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_connections_break_or_that_is_silent_goes_on_leading() {
    let (group, leader) = patient_group(142).await;
    let term = group.member(leader).node.status().term;
    for _ in 0..20 {
        group.net.break_connections(|_from, _to| true);
        for (number, member) in group.running() {
            put(&member.node, &format!("again from {number}")).await;
        }
    }
    group.isolate(leader, Link::Cut);
    group
        .net
        .break_connections(|from, to| from == leader || to == leader);
    assert!(!seems_gone(&group, leader).await);
    group.isolate(leader, Link::Open);
    put(&group.member(leader).node, "afterwards").await;
    assert_eq!(group.member(leader).node.status().term, term);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_refuses_connections_goes_on_leading() {
    let (group, leader) = patient_group(144).await;
    let term = group.member(leader).node.status().term;
    group.net.refuse(leader);
    for round in 0..5 {
        assert!(!seems_gone(&group, leader).await, "{round}");
        put(&group.member(leader).node, &format!("round {round}")).await;
    }
    assert_eq!(group.member(leader).node.status().term, term);
    group.stop().await;
}

/// What one of the other members answers to the other one that has lost its leader.
async fn seems_gone(group: &Group, leader: usize) -> bool {
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let asker = &group.member(others[0]).node.running;
    let vote = asker.raft.server_metrics().borrow_watched().vote;
    let question = LeaderGoneRequest {
        leader: Some(vote_to(&vote)),
        reason: Reason::Broke.into(),
    };
    let mut other = asker.peers.known(id(others[1])).unwrap().peer();
    let answer = other.leader_gone(question).await.unwrap();
    answer.into_inner().gone
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_lose_and_repeat_no_command() {
    let group = Group::start(3, 103).await;
    let leader = group.leader().await;
    let follower = (leader + 1) % 3;
    let writers = Writers::start("follower", &group.member(follower).node, 16);
    for _ in 0..15 {
        writers.progress(10).await;
        group
            .net
            .break_connections(|from, to| from == follower && to == leader);
    }
    let written = writers.stop().await;
    assert!(written.failed.is_empty(), "{:?}", written.failed);
    assert_once(&group, &[written]).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_cut_both_ways_or_one_way_lose_and_repeat_no_acknowledged_command() {
    for seed in 0..3_usize {
        let group = Group::start(3, 110 + seed as u64).await;
        group.leader().await;
        let writers: Vec<Writers> = ["zero", "one", "two"]
            .into_iter()
            .zip(group.running())
            .map(|(name, (_, member))| Writers::start(name, &member.node, 4))
            .collect();
        for round in 0..4 {
            let leader = group.leader().await;
            match (seed + round) % 4 {
                0 => group.isolate(leader, Link::Cut),
                1 => group.net.set(leader, (leader + 1) % 3, Link::Cut),
                2 => group.net.set((leader + 1) % 3, leader, Link::Cut),
                _ => {
                    group.net.set(leader, (leader + 1) % 3, Link::Cut);
                    group.net.set(leader, (leader + 2) % 3, Link::Cut);
                }
            }
            tokio::time::sleep(Duration::from_millis(1500)).await;
            for member in 0..3 {
                group.isolate(member, Link::Open);
            }
            for writers in &writers {
                writers.progress(5).await;
            }
        }
        let mut written = Vec::new();
        for writers in writers {
            written.push(writers.stop().await);
        }
        assert_once(&group, &written).await;
        group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_renewed_and_asked_for_on_any_member() {
    let group = Group::start(3, 122).await;
    let leader = group.leader().await;
    for (number, member) in group.running() {
        let id = types::LeaseId(10 + i64::try_from(number).unwrap());
        assert_eq!(member.node.renew_lease(id).await.unwrap(), None);
        assert_eq!(member.node.remaining_ttl(id).await.unwrap(), None);
        let grant = Command::LeaseGrant { id, ttl_s: 60 };
        member.node.propose(grant).await.unwrap().outcome.unwrap();
        assert_eq!(member.node.renew_lease(id).await.unwrap(), Some(60));
        group.member(leader).clock.advance(Duration::from_secs(7));
        let left = member.node.remaining_ttl(id).await.unwrap();
        assert_eq!(left, Some(53), "asked of member {number}");
        assert_eq!(member.node.renew_lease(id).await.unwrap(), Some(60));
        assert_eq!(member.node.remaining_ttl(id).await.unwrap(), Some(60));
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_seen_and_missed() {
    let mut group = Group::start(3, 123).await;
    group.leader().await;
    let node = group.member(0).node.clone();
    let seen = |member: usize| {
        let node = node.clone();
        move || {
            let peer = node.peers().into_iter().find(|peer| peer.id == id(member));
            async move { peer }
        }
    };
    let peer = eventually("the peer is seen", || async {
        seen(1)().await.filter(|peer| peer.active_since.is_some())
    })
    .await;
    assert_eq!(peer.version, api::version::ETCD_VERSION);
    assert!(peer.round_trip.is_some());
    assert!(peer.sent_bytes > 0 && peer.received_bytes > 0);
    assert_eq!(node.peers().len(), 2);
    group.kill(1, Loss::Nothing);
    eventually("the peer is missed", || async {
        seen(1)()
            .await
            .filter(|peer| peer.active_since.is_none() && peer.failures > 0)
    })
    .await;
    group.begin(1).await;
    eventually("the peer is seen again", || async {
        seen(1)().await.filter(|peer| peer.active_since.is_some())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_cluster_is_not_listened_to() {
    let mut group = Group::start(3, 124).await;
    let leader = group.leader().await;
    let put = put_command(b"k", b"v");
    group.member(leader).node.propose(put).await.unwrap();
    let strange = (leader + 1) % 3;
    group.kill(strange, Loss::Nothing);
    group.disks[strange] = Disks::new(9999);
    group.adjust = |config| config.cluster = types::ClusterId(0xbad);
    group.begin(strange).await;
    let stranger = group.member(strange).node.clone();
    eventually("the stranger is refused", || async {
        let failures = stranger
            .peers()
            .iter()
            .map(|peer| peer.failures)
            .sum::<u64>();
        (failures > 10).then_some(())
    })
    .await;
    assert!(stranger.status().leader.is_none());
    assert!(
        stranger
            .peers()
            .iter()
            .all(|peer| peer.active_since.is_none())
    );
    let put = put_command(b"k2", b"v");
    group.member(leader).node.propose(put).await.unwrap();
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_clock_was_set_back_sends_commands_to_the_leader_it_had() {
    let mut group = Group::start(3, 129).await;
    let leader = group.leader().await;
    let term = group.member(leader).node.status().term;
    let back = (leader + 1) % 3;
    put(&group.member(back).node, "before").await;
    for loss in [Loss::Nothing, Loss::All] {
        group.kill(back, loss);
        group
            .begin_with(back, |config| {
                config.started_at -= Duration::from_secs(3600);
            })
            .await;
        put(&group.member(back).node, "after").await;
    }
    assert_eq!(group.member(leader).node.status().term, term);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_nobody_waits_for_any_more_is_not_sent() {
    let mut group = Group::prepare(3, 161, |_config| {});
    group.begin(0).await;
    let node = group.member(0).node.clone();
    for key in ["cancelled", "kept"] {
        // There is no leader yet.
        let asking = put(&node, key);
        let waited = tokio::time::timeout(Duration::from_millis(200), asking).await;
        assert!(waited.is_err());
    }
    let kept = tokio::spawn(async move { put(&node, "kept").await });
    group.begin(1).await;
    group.begin(2).await;
    assert_eq!(kept.await.unwrap(), 2, "it is the only one");
    assert!(group.member(0).value(b"cancelled").is_none());
    group.stop().await;
}

/// The leader as member `number` reaches it.
fn leader_for(group: &Group, number: usize, leader: usize) -> LeaderClient<Introduced> {
    let me = Identity {
        member: id(number),
        cluster: crate::testing::config().cluster,
    };
    let dial = group.net.dialer(number);
    let times = Times {
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        read_timeout: Duration::from_secs(5),
    };
    let peers = Peers::new(me, dial, times, FatalCell::default());
    peers.at(id(leader), &[url(leader)]).leader()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_has_no_leader() {
    let group = Group::start(3, 160).await;
    let leader = group.leader().await;
    let member = (leader + 1) % 3;
    let mut known = leader_for(&group, member, leader);
    let read = known.read_index(ReadIndexRequest::default()).await.unwrap();
    assert!(read.into_inner().index.is_some());
    let mut stranger = leader_for(&group, 7, leader);
    let refused = stranger
        .read_index(ReadIndexRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.message(), "sender not found");
    let proposals = tokio_stream::pending::<ProposeRequest>();
    let refused = stranger.propose(proposals).await.unwrap_err();
    assert_eq!(refused.message(), "sender not found");
    let renew = LeaseRenewRequest { id: 1 };
    assert!(stranger.lease_renew(renew).await.is_err());
    let left = LeaseTimeToLiveRequest { id: 1 };
    assert!(stranger.lease_time_to_live(left).await.is_err());
    let change = ChangeMembersRequest::default();
    assert!(stranger.change_members(change).await.is_err());
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_do_not_wait_for_a_slow_disk_or_for_large_appends() {
    // A busy machine is held up for a while now and then.
    const ELECTION_TIMEOUT: Duration = Duration::from_secs(3);
    let group = Group::start_with(3, 125, |config| config.election_timeout = ELECTION_TIMEOUT);
    let group = group.await;
    let leader = group.leader().await;
    let term = group.member(leader).node.status().term;
    // On both followers: there is no quorum without one of them.
    let followers: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    for follower in &followers {
        group.disks[*follower]
            .log
            .slow_flush(Duration::from_secs(3600));
    }
    let large = vec![7; 48 * 1024];
    let writers: Vec<_> = (0..200)
        .map(|number| {
            let node = group.member(leader).node.clone();
            let put = put_command(format!("key{number}").as_bytes(), &large);
            tokio::spawn(async move { node.propose(put).await })
        })
        .collect();
    // The leader goes on confirming that it leads, which takes answers to heartbeats.
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < 2 * ELECTION_TIMEOUT {
        let read = group.member(leader).node.read_index();
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("a read does not wait for a disk")
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (_, member) in group.running() {
        let status = member.node.status();
        assert_eq!((status.leader, status.term), (Some(id(leader)), term));
    }
    for follower in &followers {
        group.disks[*follower].log.slow_flush(Duration::ZERO);
    }
    for writer in writers {
        writer.abort();
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_on_a_commands_way_waits_for_a_heartbeat() {
    let group = Group::start_with(3, 126, |config| {
        config.heartbeat_interval = Duration::from_secs(4);
        config.election_timeout = Duration::from_secs(8);
    })
    .await;
    let leader = group.leader().await;
    let follower = (leader + 1) % 3;
    let one_way = Duration::from_millis(50);
    for member in 0..3 {
        group.isolate(member, Link::Slow(one_way));
    }
    let node = &group.member(follower).node;
    node.propose(put_command(b"warm", b"up")).await.unwrap();
    let mut took = Vec::new();
    for number in 0..10 {
        let begin = tokio::time::Instant::now();
        let put = put_command(format!("key{number}").as_bytes(), b"v");
        node.propose(put).await.unwrap();
        let written = begin.elapsed();
        node.read_index().await.unwrap();
        took.push((written, begin.elapsed() - written));
        // Long enough for every stream to have nothing to do.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("written and read in {took:?}, {one_way:?} to every member");
    // Two ways there and back; a busy machine may take its time, but not for all of them.
    let (written, read) = took.iter().min().unwrap();
    assert!(*written >= 4 * one_way, "{took:?}");
    assert!(*written < Duration::from_secs(2), "{took:?}");
    assert!(*read < Duration::from_secs(2), "{took:?}");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_removed_while_it_was_away_is_told_so() {
    let mut group = Group::start(3, 127).await;
    let leader = group.leader().await;
    let away = (leader + 1) % 3;
    group.kill(away, Loss::Nothing);
    let change = crate::MemberChange::Remove { id: id(away) };
    eventually("the member is removed", || async {
        let node = &group.member(leader).node;
        node.change_members(change.clone()).await.ok()
    })
    .await;
    group.begin(away).await;
    let reason = tokio::time::timeout(PATIENCE, group.member(away).node.fatal()).await;
    let reason = reason.expect("it is told");
    assert_eq!(
        reason.to_string(),
        "the member has been permanently removed from the cluster"
    );
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_members_that_are_reached_at_their_second_url_survive_the_loss_of_two() {
    let mut group = Group::start_with(5, 128, |config| {
        for peer in &mut config.initial_members {
            peer.peer_urls.insert(0, url(99));
        }
    })
    .await;
    let leader = group.leader().await;
    let survivors: Vec<usize> = (0..5)
        .filter(|number| *number != leader && *number != (leader + 1) % 5)
        .collect();
    let writers = Writers::start("survivor", &group.member(survivors[0]).node, 8);
    writers.progress(30).await;
    group.kill((leader + 1) % 5, Loss::All);
    writers.progress(30).await;
    group.kill(leader, Loss::All);
    writers.progress(30).await;
    let written = writers.stop().await;
    assert!(written.failed.is_empty(), "{:?}", written.failed);
    assert_once(&group, &[written]).await;
    group.stop().await;
}

#[tokio::test]
async fn nothing_is_an_error_in_an_ordinary_run() {
    let errors = Errors::default();
    let _collecting = tracing::subscriber::set_default(errors.clone());
    for seed in 0..5 {
        let mut group = Group::start(3, 140 + seed).await;
        let leader = group.leader().await;
        for number in 0..20 {
            put(&group.member(number % 3).node, &format!("key{number}")).await;
        }
        group
            .member((leader + 1) % 3)
            .node
            .read_index()
            .await
            .unwrap();
        // One is stopped and comes back, then they stop one after the other, the leader first.
        group.member((leader + 2) % 3).node.stop().await;
        put(&group.member(leader).node, "without").await;
        group.kill((leader + 2) % 3, Loss::Nothing);
        group.begin((leader + 2) % 3).await;
        eventually("it is back", || async {
            group.member((leader + 2) % 3).value(b"without")
        })
        .await;
        for number in [leader, (leader + 1) % 3, (leader + 2) % 3] {
            group.member(number).node.stop().await;
        }
        errors.none();
    }
}

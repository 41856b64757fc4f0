//! What a cluster answers to changes of its members, on a learner, and without a leader: the same
//! calls to three members of kvorum and to three of a real etcd, every answer compared.
//!
//! What this is not: a test of what the changes do; only of what is said about them.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use futures_util::future::{BoxFuture, join_all};
use kvorum_tests::surface::{
    ANSWER_TIMEOUT, Asked, Leader, call, compare, compare_with, next, shown, with_metadata,
};
use testkit::cluster::{Cluster, ClusterSpec, Role};
use testkit::{eventually, http};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Response, Streaming};

/// etcd gives up a request after 7 s, its two election timeouts and 5 s. Whatever takes longer than this
/// has waited for that.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Leases of one client.
const LEASES: i64 = 300;
/// A port where nobody is.
const NOBODY: &str = "http://127.0.0.1:1";

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        ..pb::PutRequest::default()
    }
}

fn range(key: &str, serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        serializable,
        ..pb::RangeRequest::default()
    }
}

fn txn(range: pb::RangeRequest) -> pb::TxnRequest {
    let op = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(range)),
    };
    pb::TxnRequest {
        success: vec![op],
        ..pb::TxnRequest::default()
    }
}

fn watch() -> pb::WatchRequest {
    use pb::watch_request::RequestUnion;
    let create = pb::WatchCreateRequest {
        key: "key".into(),
        ..pb::WatchCreateRequest::default()
    };
    pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

fn add(url: &str, is_learner: bool) -> pb::MemberAddRequest {
    pb::MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    }
}

fn update(id: u64, url: &str) -> pb::MemberUpdateRequest {
    pb::MemberUpdateRequest {
        id,
        peer_ur_ls: vec![url.to_owned()],
    }
}

const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const MEMBER_REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
const MEMBER_UPDATE: &str = "/etcdserverpb.Cluster/MemberUpdate";
const MEMBER_PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
const MOVE_LEADER: &str = "/etcdserverpb.Maintenance/MoveLeader";

/// The members as they are listed: who votes, whether it has started, how many urls it has.
fn listed(members: &[pb::Member]) -> String {
    let mut shown: Vec<String> = members
        .iter()
        .map(|member| {
            let pb::Member {
                name, is_learner, ..
            } = member;
            let urls = (member.peer_ur_ls.len(), member.client_ur_ls.len());
            // Which of them it is depends on who leads.
            let started = !name.is_empty();
            format!("started={started} learner={is_learner} urls={urls:?}")
        })
        .collect();
    // By id, and ids come from ports.
    let is_sorted = members.is_sorted_by_key(|member| member.id);
    shown.sort_unstable();
    format!("sorted={is_sorted} {shown:#?}")
}

/// The leader, and the others.
async fn roles(cluster: &Cluster) -> Result<(usize, Vec<usize>)> {
    let leader = cluster.leader().await?;
    let others = cluster.running().into_iter().filter(|&at| at != leader);
    Ok((leader, others.collect()))
}

#[tokio::test]
async fn changes_of_the_members_are_refused_alike() -> Result<()> {
    compare(async |asked| {
        let (leader, others) = roles(&asked.cluster).await?;
        let learner = asked.cluster.add(others[0], Role::Learner).await?;
        let id = asked.cluster.id(learner).await?;
        let url = asked.cluster.member(learner).peer_url();
        let list = asked.cluster.list(leader).await?;
        asked.note("list with a learner that has not started", listed(&list));
        for (who, at) in [("leader", leader), ("follower", others[0])] {
            refused_changes(asked, who, at, id, &url).await?;
        }
        let of = asked.cluster.id(others[0]).await?;
        let taken = asked.cluster.member(leader).peer_url();
        asked
            .ask("a taken url", leader, MEMBER_UPDATE, update(of, &taken))
            .await?;
        leaders_that_are_not_moved(asked, leader, others[0], id).await?;
        asked.cluster.remove(others[1], learner).await?;
        for (who, at) in [("leader", leader), ("follower", others[0])] {
            removed_member(asked, who, at, id).await?;
        }
        let list = asked.cluster.list(others[1]).await?;
        asked.note("list after a removal", listed(&list));
        Ok(())
    })
    .await
}

/// Changes that no member makes, with a learner in the cluster that has not started.
async fn refused_changes(
    asked: &mut Asked,
    who: &str,
    at: usize,
    learner: u64,
    url: &str,
) -> Result<()> {
    // An id is made of urls and the second: the same one again would be another error.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let voter = asked.cluster.id(0).await?;
    let named = |what: &str| format!("{who}: {what}");
    for (what, request) in [
        ("add no url", pb::MemberAddRequest::default()),
        ("add something else", add("foo", false)),
        ("add a path", add("http://127.0.0.1:1/x", false)),
        ("add a scheme", add("ftp://127.0.0.1:1", false)),
        ("add a second learner", add(NOBODY, true)),
        ("add a taken url", add(url, false)),
        ("add a taken url, learner", add(url, true)),
    ] {
        asked.ask(&named(what), at, MEMBER_ADD, request).await?;
    }
    for (what, id) in [
        ("promote one behind", learner),
        ("promote a voter", voter),
        ("promote nobody", 5),
    ] {
        let request = pb::MemberPromoteRequest { id };
        asked.ask(&named(what), at, MEMBER_PROMOTE, request).await?;
    }
    let request = pb::MemberRemoveRequest { id: 5 };
    asked
        .ask(&named("remove nobody"), at, MEMBER_REMOVE, request)
        .await?;
    asked
        .ask(
            &named("update nobody"),
            at,
            MEMBER_UPDATE,
            update(5, NOBODY),
        )
        .await
}

async fn leaders_that_are_not_moved(
    asked: &mut Asked,
    leader: usize,
    follower: usize,
    learner: u64,
) -> Result<()> {
    let ids = [
        ("nobody", 5),
        ("a learner", learner),
        ("the leader", asked.cluster.id(leader).await?),
    ];
    for (what, target_id) in ids {
        let request = pb::MoveLeaderRequest { target_id };
        asked
            .ask(&format!("move to {what}"), leader, MOVE_LEADER, request)
            .await?;
    }
    for target_id in [5, asked.cluster.id(follower).await?] {
        let request = pb::MoveLeaderRequest { target_id };
        asked
            .ask("move, asked of a follower", follower, MOVE_LEADER, request)
            .await?;
    }
    Ok(())
}

/// What is said of a member that has been removed.
async fn removed_member(asked: &mut Asked, who: &str, at: usize, id: u64) -> Result<()> {
    let named = |what: &str| format!("{who}: {what} one that was removed");
    let remove = pb::MemberRemoveRequest { id };
    asked
        .ask(&named("remove"), at, MEMBER_REMOVE, remove)
        .await?;
    let promote = pb::MemberPromoteRequest { id };
    asked
        .ask(&named("promote"), at, MEMBER_PROMOTE, promote)
        .await?;
    asked
        .ask(&named("update"), at, MEMBER_UPDATE, update(id, NOBODY))
        .await
}

#[tokio::test]
async fn a_member_is_added_promoted_moved_and_removed_alike() -> Result<()> {
    compare(async |asked| {
        let (leader, others) = roles(&asked.cluster).await?;
        let learner = asked.cluster.add(others[0], Role::Learner).await?;
        asked.cluster.member_mut(learner).start().await?;
        let id = asked.cluster.id(learner).await?;
        let mut client = asked.cluster.client(others[0])?.cluster;
        let promote = pb::MemberPromoteRequest { id };
        let promoted = eventually("the learner has caught up", || {
            let mut client = client.clone();
            async move { Ok(client.member_promote(promote).await?.into_inner()) }
        })
        .await?;
        asked.note("the promotion's list", listed(&promoted.members));
        asked
            .ask("promote again", leader, MEMBER_PROMOTE, promote)
            .await?;
        let moved = pb::MoveLeaderRequest { target_id: id };
        asked.ask("move", leader, MOVE_LEADER, moved).await?;
        let now = asked.cluster.leader().await?;
        asked.note("leads now", (now == learner).to_string());
        let request = pb::MemberRemoveRequest {
            id: asked.cluster.id(others[1]).await?,
        };
        let removed = eventually("the member may be removed", || {
            let mut client = client.clone();
            async move { Ok(client.member_remove(request).await?.into_inner()) }
        })
        .await?;
        asked.note("the removal's list", listed(&removed.members));
        let ended = asked.cluster.member_mut(others[1]).ended().await?;
        asked.note("the removed member's process", ended.to_string());
        let list = client.member_list(pb::MemberListRequest { linearizable: true });
        let list = list.await?.into_inner();
        let revision = list.header.context("it has a header")?.revision;
        asked.note("the list's revision", revision.to_string());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_learner_refuses_and_serves_alike() -> Result<()> {
    compare(async |asked| {
        let (leader, _) = roles(&asked.cluster).await?;
        asked
            .cluster
            .client(leader)?
            .kv
            .put(put("key"))
            .await
            .context("before there is a learner")?;
        let learner = asked.cluster.add(leader, Role::Learner).await?;
        asked.cluster.member_mut(learner).launch()?;
        let kv = asked.cluster.client(learner)?.kv;
        eventually("the learner has caught up", || async {
            let read = kv.clone().range(range("key", true)).await?;
            ensure!(read.into_inner().count == 1, "no key yet");
            Ok(())
        })
        .await?;
        for (path, leader) in [("plain", Leader::Any), ("with hasleader", Leader::Required)] {
            let channel = asked.channel(learner)?;
            for (method, answer) in on_a_learner(&channel, leader).await {
                asked.note(format!("{path}: {method}"), answer);
            }
        }
        for path in [
            "/health",
            "/health?serializable=true",
            "/livez?verbose",
            "/readyz",
            "/readyz/non_learner",
            "/readyz?exclude=non_learner&verbose",
            "/readyz/linearizable_read?verbose",
        ] {
            asked.get(learner, path).await?;
        }
        let status = asked.cluster.status(learner).await?;
        asked.note(
            "status",
            format!("{} {:?}", status.is_learner, status.errors),
        );
        Ok(())
    })
    .await
}

/// Every method that kvorum has, asked of a learner.
async fn on_a_learner(channel: &Channel, leader: Leader) -> Vec<(&'static str, String)> {
    let mut answers = Vec::new();
    for path in [
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.KV/DeleteRange",
        "/etcdserverpb.KV/Compact",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseGrant",
        "/etcdserverpb.Lease/LeaseRevoke",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Lease/LeaseTimeToLive",
        "/etcdserverpb.Lease/LeaseLeases",
        MEMBER_ADD,
        MEMBER_REMOVE,
        MEMBER_UPDATE,
        MEMBER_PROMOTE,
        MEMBER_LIST,
        MOVE_LEADER,
        "/etcdserverpb.Maintenance/Alarm",
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.Maintenance/Defragment",
        "/etcdserverpb.Maintenance/Hash",
        "/etcdserverpb.Maintenance/HashKV",
        "/etcdserverpb.Auth/AuthStatus",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/etcdserverpb.KV/Nope",
        "/foo.Bar/Baz",
    ] {
        answers.push((path, call(channel, path, (), leader).await));
    }
    let path = "/etcdserverpb.KV/Range";
    for (what, request) in [
        ("serializable range", range("key", true)),
        ("serializable range of no key", range("", true)),
        ("range", range("key", false)),
    ] {
        answers.push((what, call(channel, path, request, leader).await));
    }
    let serializable = txn(range("key", true));
    let path = "/etcdserverpb.KV/Txn";
    answers.push((
        "serializable txn",
        call(channel, path, serializable, leader).await,
    ));
    answers
}

#[tokio::test]
async fn without_a_leader_everybody_hears_the_same() -> Result<()> {
    compare(async |asked| {
        let (leader, others) = roles(&asked.cluster).await?;
        let survivor = others[0];
        let mut clients = asked.cluster.client(survivor)?;
        let granted = pb::LeaseGrantRequest { ttl: 600, id: 0 };
        let lease = clients.lease.lease_grant(granted).await?.into_inner().id;
        clients.kv.put(put("key")).await?;
        let streams = open_streams(asked, survivor, lease).await?;
        for at in [leader, others[1]] {
            asked.cluster.member_mut(at).kill()?;
        }
        let lost = until_nobody_leads(&asked.cluster, survivor).await?;
        let (asking_streams, plain) = streams;
        let channel = asked.channel(survivor)?;
        let ids = [
            asked
                .cluster
                .status(survivor)
                .await?
                .header
                .unwrap()
                .member_id,
            lease.cast_unsigned(),
        ];
        let (answers, ended) = tokio::join!(
            without_leader(&channel, ids),
            join_all(
                asking_streams
                    .into_iter()
                    .map(|stream| end_of(stream, lost))
            )
        );
        for (method, answer) in answers {
            asked.note(method, answer);
        }
        for (kind, end) in ["watch", "keep-alive"].iter().zip(ended) {
            asked.note(format!("a {kind} that asks for a leader"), end);
        }
        let still = timeout(Duration::from_millis(100), next(Ok(Response::new(plain)))).await;
        asked.note("a watch that does not", format!("{still:?}"));
        for path in [
            "/health",
            "/health?serializable=true",
            "/livez?verbose",
            "/readyz?verbose",
        ] {
            asked.get(survivor, path).await?;
        }
        let status = asked.cluster.status(survivor).await?;
        asked.note("status", format!("{} {:?}", status.leader, status.errors));
        Ok(())
    })
    .await
}

type Ending = BoxFuture<'static, String>;

/// A watch and a keep-alive that ask for a leader, and a watch that does not. All have begun.
async fn open_streams(
    asked: &Asked,
    at: usize,
    lease: i64,
) -> Result<(Vec<Ending>, Streaming<pb::WatchResponse>)> {
    let mut clients = asked.cluster.client(at)?;
    let forever = |request| {
        futures_util::StreamExt::chain(
            futures_util::stream::iter([request]),
            futures_util::stream::pending(),
        )
    };
    let request = with_metadata(forever(watch()), Leader::Required);
    let mut asking = clients.watch.watch(request).await?.into_inner();
    asking.message().await?.context("it is created")?;
    let mut plain = clients.watch.watch(forever(watch())).await?.into_inner();
    plain.message().await?.context("it is created")?;
    let once = pb::LeaseKeepAliveRequest { id: lease };
    let requests = futures_util::StreamExt::chain(
        futures_util::stream::iter([once]),
        futures_util::stream::pending(),
    );
    let request = with_metadata(requests, Leader::Required);
    let mut alive = clients.lease.lease_keep_alive(request).await?.into_inner();
    alive.message().await?.context("it is kept alive")?;
    let watch: Ending = Box::pin(async move { next(Ok(Response::new(asking))).await });
    let alive: Ending = Box::pin(async move { next(Ok(Response::new(alive))).await });
    Ok((vec![watch, alive], plain))
}

/// How a stream ends, and whether that is about three elections after the leader was lost.
async fn end_of(stream: Ending, lost: Instant) -> String {
    let end = timeout(ANSWER_TIMEOUT, stream).await;
    let soon = lost.elapsed() > Duration::from_millis(1500);
    format!("{end:?}, not at once: {soon}")
}

async fn until_nobody_leads(cluster: &Cluster, at: usize) -> Result<Instant> {
    eventually("the leader is lost", || async {
        let status = cluster.status(at).await?;
        ensure!(status.leader == 0, "{:x} leads", status.leader);
        Ok(Instant::now())
    })
    .await
}

/// Every method without a leader, at the same time; with what it says, and whether it waited for one.
async fn without_leader(channel: &Channel, [member, lease]: [u64; 2]) -> Vec<(String, String)> {
    let mut calls = Calls {
        channel,
        calls: Vec::new(),
    };
    let lease = lease.cast_signed();
    for (what, serializable) in [("range", false), ("serializable range", true)] {
        let range = range("key", serializable);
        calls.add(what, "/etcdserverpb.KV/Range", range.clone());
        calls.add(what, "/etcdserverpb.KV/Txn", txn(range));
    }
    calls.add("put", "/etcdserverpb.KV/Put", put("other"));
    let delete = pb::DeleteRangeRequest {
        key: "key".into(),
        ..pb::DeleteRangeRequest::default()
    };
    calls.add("delete", "/etcdserverpb.KV/DeleteRange", delete);
    let compact = pb::CompactionRequest {
        revision: 2,
        physical: false,
    };
    calls.add("compact", "/etcdserverpb.KV/Compact", compact);
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    calls.add("grant", "/etcdserverpb.Lease/LeaseGrant", grant);
    let revoke = pb::LeaseRevokeRequest { id: lease };
    calls.add("revoke", "/etcdserverpb.Lease/LeaseRevoke", revoke);
    let alive = pb::LeaseKeepAliveRequest { id: lease };
    calls.add("keep alive", "/etcdserverpb.Lease/LeaseKeepAlive", alive);
    let ttl = pb::LeaseTimeToLiveRequest {
        id: lease,
        keys: true,
    };
    calls.add("ttl", "/etcdserverpb.Lease/LeaseTimeToLive", ttl);
    calls.add("leases", "/etcdserverpb.Lease/LeaseLeases", ());
    for (what, linearizable) in [("linearizable list", true), ("list", false)] {
        calls.add(what, MEMBER_LIST, pb::MemberListRequest { linearizable });
    }
    calls.add("add nonsense", MEMBER_ADD, add("foo", false));
    let promote = pb::MemberPromoteRequest { id: member };
    calls.add("promote", MEMBER_PROMOTE, promote);
    let moved = pb::MoveLeaderRequest { target_id: member };
    calls.add("move", MOVE_LEADER, moved);
    for path in [
        "/etcdserverpb.Maintenance/Alarm",
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.Maintenance/Defragment",
        "/etcdserverpb.Maintenance/HashKV",
        "/grpc.health.v1.Health/Check",
    ] {
        calls.add(path, path, ());
    }
    join_all(calls.calls).await
}

struct Calls<'c> {
    channel: &'c Channel,
    calls: Vec<BoxFuture<'c, (String, String)>>,
}

impl Calls<'_> {
    /// One that asks for a leader, and one that does not.
    fn add<M>(&mut self, what: &'static str, path: &'static str, message: M)
    where
        M: prost::Message + Clone + 'static,
    {
        for leader in [Leader::Required, Leader::Any] {
            let (message, channel) = (message.clone(), self.channel);
            self.calls.push(Box::pin(async move {
                let name = format!("{what}, leader {leader:?}");
                let begun = Instant::now();
                let answer = call(channel, path, message, leader).await;
                let when = if begun.elapsed() < AT_ONCE {
                    "at once"
                } else {
                    "later"
                };
                (name, format!("{answer}, {when}"))
            }));
        }
    }
}

/// Waits until a member's metrics say that the other one does not answer.
async fn until_missed(cluster: &Cluster, at: usize, dead: u64) -> Result<()> {
    let port = cluster.member(at).client_port();
    let inactive = format!("Remote=\"{dead:x}\"}} 0");
    eventually("the dead member is missed", || async {
        let metrics = http::get(port, "/metrics").await?.body;
        let mut peers = metrics
            .lines()
            .filter(|line| line.starts_with("etcd_network_active_peers"));
        ensure!(peers.any(|line| line.ends_with(&inactive)), "it is active");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_would_cost_the_quorum_is_refused() -> Result<()> {
    compare(async |asked| {
        let (leader, others) = roles(&asked.cluster).await?;
        // All have been connected for as long as etcd wants it.
        let added = asked.cluster.add(leader, Role::Learner).await?;
        asked.cluster.remove(leader, added).await?;
        let dead = asked.cluster.id(others[1]).await?;
        let healthy = asked.cluster.id(others[0]).await?;
        asked.cluster.member_mut(others[1]).kill()?;
        until_missed(&asked.cluster, leader, dead).await?;
        let request = pb::MemberRemoveRequest { id: healthy };
        asked
            .ask("remove a healthy member", leader, MEMBER_REMOVE, request)
            .await?;
        let request = pb::MemberRemoveRequest { id: dead };
        asked
            .ask("remove the dead member", others[0], MEMBER_REMOVE, request)
            .await?;
        Ok(())
    })
    .await
}

/// Writes until it is refused, and says why it was.
async fn fill(cluster: &Cluster, at: usize) -> Result<String> {
    let mut kv = cluster.client(at)?.kv;
    loop {
        let request = pb::PutRequest {
            value: vec![b'v'; 10_000],
            ..put("key")
        };
        if let Err(refused) = kv.put(request).await {
            return Ok(shown(&refused));
        }
    }
}

/// The alarms, as a member knows them.
async fn alarms(cluster: &Cluster, at: usize) -> Result<Vec<pb::AlarmMember>> {
    let get = pb::AlarmRequest::default();
    let answer = cluster.client(at)?.maintenance.alarm(get).await?;
    Ok(answer.into_inner().alarms)
}

#[tokio::test]
async fn a_full_store_is_told_by_every_member() -> Result<()> {
    compare_with(&["--quota-backend-bytes=500000"], async |asked| {
        let (leader, others) = roles(&asked.cluster).await?;
        let refused = fill(&asked.cluster, others[0]).await?;
        asked.note("the put that is too much", refused);
        for (who, at) in [("leader", leader), ("follower", others[1])] {
            // Whoever applies above the quota raises one until it hears of another's.
            let alarms = alarms(&asked.cluster, at).await?;
            let kinds: HashSet<_> = alarms.iter().map(pb::AlarmMember::alarm).collect();
            asked.note(who, format!("alarms: {kinds:?}"));
            asked
                .ask("put", at, "/etcdserverpb.KV/Put", put("other"))
                .await?;
            asked.get(at, "/health").await?;
        }
        Ok(())
    })
    .await
}

/// A rolling change of the flag has members with different quotas for a while.
#[tokio::test]
async fn members_with_different_quotas_have_one_state_and_the_smallest_raises_the_alarm()
-> Result<()> {
    let mut cluster = ClusterSpec::kvorum(3).prepare().await?;
    cluster.member_mut(0).arg("--quota-backend-bytes=100000");
    cluster.start_all().await?;
    let asked = 1;
    // It goes on until the first member's alarm is in the log.
    let refused = fill(&cluster, asked).await?;
    ensure!(refused.contains("database space exceeded"), "{refused}");
    let smallest = cluster.id(0).await?;
    let mut hashes = Vec::new();
    for at in cluster.running() {
        let raised: Vec<u64> = alarms(&cluster, at)
            .await?
            .iter()
            .map(|alarm| alarm.member_id)
            .collect();
        ensure!(raised == [smallest], "{raised:x?}, not {smallest:x}");
        let hash = cluster.client(at)?.maintenance;
        let hash = { hash }
            .hash_kv(pb::HashKvRequest::default())
            .await?
            .into_inner();
        hashes.push((hash.hash, hash.hash_revision));
    }
    ensure!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    cluster.stop().await
}

#[tokio::test]
async fn leases_are_the_same_through_any_member() -> Result<()> {
    compare(async |asked| {
        let (_, others) = roles(&asked.cluster).await?;
        let mut leases = asked.cluster.client(others[0])?.lease;
        for id in 1..=LEASES {
            let grant = pb::LeaseGrantRequest { ttl: 500 + id, id };
            leases.lease_grant(grant).await?;
        }
        let attached = pb::PutRequest {
            lease: 7,
            ..put("key")
        };
        asked.cluster.client(others[1])?.kv.put(attached).await?;
        for at in asked.cluster.running() {
            let mut leases = asked.cluster.client(at)?.lease;
            // Some of these leases are not there.
            let ids = (1..=2 * LEASES).map(|id| pb::LeaseKeepAliveRequest { id });
            let requests = futures_util::stream::iter(ids);
            let mut alive = leases.lease_keep_alive(requests).await?.into_inner();
            let mut answers = Vec::new();
            while let Some(answer) = alive.message().await? {
                answers.push((answer.id, answer.ttl));
            }
            asked.note("keep-alives", format!("{answers:?}"));
            for id in [7, 8, 2 * LEASES] {
                let request = pb::LeaseTimeToLiveRequest { id, keys: true };
                let answer = leases.lease_time_to_live(request).await?.into_inner();
                let is_within = (0..=answer.granted_ttl).contains(&answer.ttl);
                let shown = (answer.granted_ttl, is_within, answer.keys);
                asked.note(format!("time to live of {id}"), format!("{shown:?}"));
            }
        }
        Ok(())
    })
    .await
}

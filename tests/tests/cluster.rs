//! Three members: started in any order, restarted, killed, cut off from each other.
//!
//! `KVORUM_TEST_PROGRAM=etcd` runs the same against a real etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::etcdserverpb as pb;
use api::mvccpb::Event;
use pb::watch_request::RequestUnion;
use testkit::history::revision;
use testkit::network::Fault;
use testkit::patience::patience;
use testkit::{Client, Cluster, ClusterSpec, Program, Retrying, certs, eventually, note};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

/// Clients of the rolling restart, and how they pause between requests.
const CLIENTS: usize = 6;
const CLIENT_PAUSE: Duration = Duration::from_millis(2);

async fn put(client: &Client, key: &str, value: &str) -> Result<i64> {
    let request = pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let answer = client.kv.clone().put(request).await?.into_inner();
    Ok(answer.header.context("a response has a header")?.revision)
}

#[derive(Clone, Copy)]
enum Read {
    Linearizable,
    Serializable,
}

async fn get(client: &Client, key: &str, read: Read) -> Result<Option<String>> {
    let request = pb::RangeRequest {
        key: key.into(),
        serializable: matches!(read, Read::Serializable),
        ..Default::default()
    };
    let answer = client.kv.clone().range(request).await?.into_inner();
    let value = answer.kvs.into_iter().next();
    Ok(value
        .map(|kv| String::from_utf8(kv.value.to_vec()))
        .transpose()?)
}

async fn holds(client: &Client, key: &str, value: &str) -> Result<()> {
    let found = get(client, key, Read::Linearizable).await?;
    ensure!(
        found.as_deref() == Some(value),
        "{key} is {found:?}, not {value}"
    );
    Ok(())
}

/// A watch of one key from a revision on.
struct Watch {
    _requests: tokio::sync::mpsc::Sender<pb::WatchRequest>,
    answers: tonic::Streaming<pb::WatchResponse>,
}

impl Watch {
    async fn open(client: &Client, key: &str, start_revision: i64) -> Result<Watch> {
        let (requests, queue) = tokio::sync::mpsc::channel(1);
        let create = pb::WatchCreateRequest {
            key: key.into(),
            start_revision,
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        requests.send(pb::WatchRequest { request_union }).await?;
        let opened = client
            .watch
            .clone()
            .watch(ReceiverStream::new(queue))
            .await?;
        let mut answers = opened.into_inner();
        let created = answers.message().await?.context("the watch ended")?;
        ensure!(created.created, "{created:?}");
        Ok(Watch {
            _requests: requests,
            answers,
        })
    }

    async fn next(&mut self) -> Result<Event> {
        loop {
            let answer = tokio::time::timeout(patience(), self.answers.message()).await;
            let answer = answer
                .context("no event comes")??
                .context("the watch ended")?;
            if let Some(event) = answer.events.into_iter().next() {
                return Ok(event);
            }
        }
    }
}

fn others(of: usize) -> Vec<usize> {
    (0..3).filter(|&at| at != of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_serves_every_request() -> Result<()> {
    serves_every_request(ClusterSpec::chosen(3)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_serves_every_request_over_tls() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = certs::generate(dir.path(), "client")?;
    serves_every_request(ClusterSpec::chosen(3)?.mutual_tls(certs)).await
}

async fn serves_every_request(spec: ClusterSpec) -> Result<()> {
    let cluster = spec.start().await?;
    let mut watches = Vec::new();
    for at in 0..3 {
        watches.push(Watch::open(&cluster.client(at)?, "key", 0).await?);
    }
    for at in 0..3 {
        let (client, value) = (cluster.client(at)?, format!("value{at}"));
        let written = put(&client, "key", &value).await?;
        for (other, watch) in watches.iter_mut().enumerate() {
            holds(&cluster.client(other)?, "key", &value).await?;
            let event = watch.next().await?;
            ensure!(revision(&event) == written, "{event:?}, not {written}");
        }
        let txn = pb::TxnRequest {
            success: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                    key: "txn".into(),
                    ..Default::default()
                })),
            }],
            ..Default::default()
        };
        ensure!(client.kv.clone().txn(txn).await?.into_inner().succeeded);
        let delete = pb::DeleteRangeRequest {
            key: "txn".into(),
            ..Default::default()
        };
        let deleted = client.kv.clone().delete_range(delete).await?;
        ensure!(deleted.into_inner().deleted == 1);
        let lease = lease(&client, 100 + i64::try_from(at)?).await;
        lease.with_context(|| format!("a lease at member {at}"))?;
    }
    cluster.stop().await
}

/// Grants, keeps alive and revokes a lease.
async fn lease(client: &Client, id: i64) -> Result<()> {
    let mut lease = client.lease.clone();
    let granted = lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id });
    ensure!(granted.await.context("grant")?.into_inner().id == id);
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    requests.send(pb::LeaseKeepAliveRequest { id }).await?;
    let answers = lease
        .lease_keep_alive(ReceiverStream::new(queue))
        .await
        .context("keep alive")?;
    let kept = answers
        .into_inner()
        .message()
        .await?
        .context("the stream ended")?;
    ensure!(kept.ttl == 60, "{kept:?}");
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    let left = lease
        .lease_time_to_live(request)
        .await
        .context("time to live")?
        .into_inner();
    ensure!(left.granted_ttl == 60 && left.ttl > 0, "{left:?}");
    lease.lease_revoke(pb::LeaseRevokeRequest { id }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_start_in_any_order() -> Result<()> {
    let mut cluster = ClusterSpec::chosen(3)?.prepare().await?;
    cluster.member_mut(2).launch()?;
    // One of three alone waits; how long must not matter.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(cluster.member_mut(2).exited()?.is_none(), "it did not wait");
    cluster.member_mut(0).launch()?;
    for at in [2, 0] {
        cluster.member_mut(at).ready().await?;
    }
    put(&cluster.client(0)?, "key", "before").await?;
    cluster.member_mut(1).start().await?;
    holds(&cluster.client(1)?, "key", "before").await?;
    cluster.leader().await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_restart_at_once_and_lose_nothing() -> Result<()> {
    let mut cluster = ClusterSpec::chosen(3)?.start().await?;
    for round in 0..3 {
        let value = format!("value{round}");
        put(&cluster.client(round)?, "key", &value).await?;
        for at in 0..3 {
            match round {
                0 => drop(cluster.member_mut(at).terminate().await?),
                _ => cluster.member_mut(at).kill()?,
            }
        }
        cluster.start_all().await?;
        for at in 0..3 {
            holds(&cluster.client(at)?, "key", &value).await?;
        }
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_follower_comes_back_and_catches_up() -> Result<()> {
    let mut cluster = ClusterSpec::chosen(3)?.start().await?;
    let leader = cluster.leader().await?;
    let follower = others(leader)[0];
    cluster.member_mut(follower).kill()?;
    let client = cluster.client(leader)?;
    for number in 0..20 {
        put(&client, "key", &format!("{number}")).await?;
    }
    cluster.restart(follower).await?;
    holds(&cluster.client(follower)?, "key", "19").await?;
    ensure!(cluster.leader().await? == leader, "the leader changed");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_comes_back() -> Result<()> {
    let mut cluster = ClusterSpec::chosen(3)?.start().await?;
    let leader = cluster.leader().await?;
    put(&cluster.client(leader)?, "key", "old").await?;
    let mut watch = Watch::open(&cluster.client(others(leader)[1])?, "key", 0).await?;
    cluster.member_mut(leader).kill()?;
    let survivor = cluster.client(others(leader)[0])?;
    holds_eventually(&survivor, "key", "old").await?;
    eventually("a write", || put(&survivor, "key", "new")).await?;
    watch.next().await.context("a watch at another member")?;
    cluster.leader_of(&others(leader)).await?;
    cluster.restart(leader).await?;
    holds(&cluster.client(leader)?, "key", "new").await?;
    cluster.stop().await
}

async fn holds_eventually(client: &Client, key: &str, value: &str) -> Result<()> {
    eventually("a read shows what was written", || {
        holds(client, key, value)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_serves_what_it_has_and_refuses_the_rest() -> Result<()> {
    let cluster = ClusterSpec::chosen(3)?.proxied().start().await?;
    let leader = cluster.leader().await?;
    put(&cluster.client(leader)?, "key", "before").await?;
    // The member that will be alone may be the leader itself: it must notice.
    for alone in [others(leader)[0], leader] {
        let client = cluster.client(alone)?;
        holds(&client, "key", "before").await?;
        cluster
            .network()?
            .between(&[alone], &others(alone), Fault::Drop);
        let majority = cluster.client(cluster.leader_of(&others(alone)).await?)?;
        let value = get(&client, "key", Read::Serializable).await?;
        ensure!(value.as_deref() == Some("before"), "{value:?}");
        let mut watch = Watch::open(&client, "key", 1).await?;
        watch.next().await.context("history at a minority")?;
        let written = put(&majority, "other", "after").await?;
        let write = put(&client, "key", "lost");
        let read = get(&client, "other", Read::Linearizable);
        let (write, read) = tokio::join!(write, read);
        ensure!(
            write.is_err(),
            "a write at a minority was answered: {write:?}"
        );
        ensure!(read.is_err(), "a read at a minority was answered: {read:?}");
        cluster.network()?.heal();
        holds_eventually(&client, "other", "after").await?;
        // What the minority refused may have been done since; nothing else was.
        let mut watch = Watch::open(&client, "other", written).await?;
        ensure!(revision(&watch.next().await?) == written);
        let restored = put(&majority, "key", "before");
        restored
            .await
            .or_else(|error| bail!("after the cut: {error}"))?;
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_returns_from_a_cut_does_not_depose_the_leader() -> Result<()> {
    let cluster = ClusterSpec::chosen(3)?.proxied().start().await?;
    let leader = cluster.leader().await?;
    let term = cluster.status(leader).await?.raft_term;
    let alone = others(leader)[0];
    for fault in [Fault::Drop, Fault::Reset] {
        cluster.network()?.between(&[alone], &others(alone), fault);
        let lost = || async {
            let status = cluster.status(alone).await?;
            ensure!(status.leader == 0, "it follows {:x}", status.leader);
            Ok(())
        };
        eventually("the member has lost its leader", lost).await?;
        // Time for some elections that it must not win, nor disturb.
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.network()?.heal();
        ensure!(cluster.leader().await? == leader, "another leader");
        let client = cluster.client(alone)?;
        eventually("a write", || put(&client, "key", "value")).await?;
        let now = cluster.status(leader).await?.raft_term;
        ensure!(now == term, "the term rose from {term} to {now}");
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_request() -> Result<()> {
    let mut cluster = ClusterSpec::chosen(3)?.start().await?;
    cluster.leader().await?;
    let (done, mut clients) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for number in 0..CLIENTS {
        let all = (0..3).map(|at| cluster.client(at));
        let client = Retrying::new(all.collect::<Result<_>>()?, number % 3);
        clients.spawn(write_and_read(client, number, done.clone()));
    }
    let restarted = restart_in_turn(&mut cluster).await;
    done.store(true, Ordering::SeqCst);
    let (mut requests, mut retries, mut doubts) = (0, 0, Vec::new());
    while let Some(client) = clients.join_next().await {
        let (asked, client) = client??;
        requests += asked;
        retries += client.retries();
        doubts.extend_from_slice(client.doubts());
    }
    restarted?;
    note(format_args!(
        "a rolling restart of {:?}: {requests} requests, {retries} of them sent again, {} writes \
         of which nobody knows",
        cluster.program(),
        doubts.len()
    ));
    // A real etcd leaves some, in most runs.
    ensure!(
        cluster.program() == Program::Etcd || doubts.is_empty(),
        "nobody knows what became of writes: {doubts:#?}"
    );
    cluster.stop().await
}

async fn restart_in_turn(cluster: &mut Cluster) -> Result<()> {
    for at in 0..3 {
        let status = cluster.member_mut(at).terminate().await?;
        note(format_args!("member {at} ended with {status}"));
        cluster.member_mut(at).start().await?;
        cluster.leader().await?;
    }
    Ok(())
}

/// Writes and reads its own key until the end; returns how many requests it made.
async fn write_and_read(
    mut client: Retrying,
    number: usize,
    done: Arc<AtomicBool>,
) -> Result<(usize, Retrying)> {
    let key = format!("key{number}");
    let (mut requests, mut newest) = (0, 0);
    while !done.load(Ordering::SeqCst) {
        let value = format!("{requests}");
        let revision = client.put(&key, &value).await?;
        ensure!(revision > newest, "revision {revision} after {newest}");
        newest = revision;
        let read = client.get(&key).await?;
        ensure!(read == Some(value.clone().into()), "{read:?}, not {value}");
        requests += 2;
        tokio::time::sleep(CLIENT_PAUSE).await;
    }
    Ok((requests, client))
}

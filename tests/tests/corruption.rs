//! Members whose data is not what the others have: found, told of, repaired, while clients go on.

mod corruption {
    pub(crate) mod damage;
    pub(crate) mod traffic;
}

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use testkit::{Client, Cluster, ClusterSpec, eventually, http};

use corruption::damage::{flip_in_file, flip_value};
use corruption::traffic::Traffic;

/// A value that no other key has.
const PRECIOUS: &str = "a value that must not change";
/// What becomes of it.
const FLIPPED: &str = "~ value that must not change";
const REPAIRED: &str = "kvorum_corruption_repairs_total{result=\"success\"} 1";

async fn put(client: &Client, key: &str, value: &str) -> Result<i64, tonic::Status> {
    let request = pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let answer = client.kv.clone().put(request).await?.into_inner();
    Ok(answer.header.map_or(0, |header| header.revision))
}

async fn value(client: &Client, key: &str, serializable: bool) -> Result<String> {
    let request = pb::RangeRequest {
        key: key.into(),
        serializable,
        ..Default::default()
    };
    let answer = client.kv.clone().range(request).await?.into_inner();
    let kv = answer.kvs.into_iter().next().context("the key is gone")?;
    Ok(String::from_utf8(kv.value.to_vec())?)
}

async fn alarms(client: &Client) -> Result<Vec<pb::AlarmMember>> {
    let request = pb::AlarmRequest {
        action: AlarmAction::Get.into(),
        ..Default::default()
    };
    let answer = client.maintenance.clone().alarm(request).await?;
    Ok(answer.into_inner().alarms)
}

async fn compact(client: &Client, revision: i64) -> Result<()> {
    let request = pb::CompactionRequest {
        revision,
        physical: true,
    };
    client.kv.clone().compact(request).await?;
    Ok(())
}

async fn metrics(cluster: &Cluster, at: usize) -> Result<String> {
    let port = cluster.member(at).metrics_port();
    Ok(http::get(port, "/metrics").await?.body)
}

/// Three members with a value that matters.
async fn start(spec: ClusterSpec) -> Result<Cluster> {
    let cluster = spec.start().await?;
    let client = cluster.client(0)?;
    put(&client, "precious", PRECIOUS).await?;
    for i in 0..20 {
        put(&client, &format!("other{i}"), "x").await?;
    }
    Ok(cluster)
}

fn another_than(leader: usize) -> usize {
    (leader + 1) % 3
}

/// Stops a member, changes the value in its store, starts it again, and waits until it answers. It may not be
/// healthy: the damage may be found at once.
async fn corrupt(cluster: &mut Cluster, at: usize) -> Result<()> {
    let member = cluster.member_mut(at);
    member.terminate().await?;
    flip_value(&member.data_dir(), PRECIOUS.as_bytes())?;
    member.launch()?;
    eventually("the member answers", || cluster.status(at)).await?;
    Ok(())
}

/// Waits until the member was repaired and has what the others have.
async fn is_repaired(cluster: &Cluster, at: usize) -> Result<()> {
    eventually("the member is repaired", || async {
        let metrics = metrics(cluster, at).await?;
        ensure!(metrics.contains(REPAIRED), "no repair is counted");
        Ok(())
    })
    .await?;
    for (other, member) in cluster.members().iter().enumerate() {
        let client = member.client()?;
        let found = value(&client, "precious", true).await?;
        ensure!(found == PRECIOUS, "m{other} has {found:?}");
        eventually("CORRUPT is disarmed", || async {
            let alarms = alarms(&client).await?;
            ensure!(alarms.is_empty(), "{alarms:?} stand");
            Ok(())
        })
        .await?;
    }
    hashes_are_equal(cluster).await
}

async fn hashes_are_equal(cluster: &Cluster) -> Result<()> {
    let revision = put(&cluster.client(0)?, "last", "x").await?;
    let mut hashes = Vec::new();
    for at in 0..3 {
        let client = cluster.client(at)?;
        value(&client, "last", false).await?;
        let request = pb::HashKvRequest { revision };
        let answer = client.maintenance.clone().hash_kv(request).await?;
        hashes.push(answer.into_inner().hash);
    }
    ensure!(
        hashes.iter().all(|hash| *hash == hashes[0]),
        "{hashes:x?} differ"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_found_raised_and_repaired_while_clients_notice_nothing() -> Result<()> {
    let spec = ClusterSpec::kvorum(3).arg("--corrupt-check-time=1s");
    let mut cluster = start(spec).await?;
    let follower = another_than(cluster.leader().await?);
    let client = cluster.client(follower)?;
    let mut traffic = Traffic::default();
    for at in (0..3).filter(|at| *at != follower) {
        traffic.add(cluster.client(at)?, at);
    }
    corrupt(&mut cluster, follower).await?;
    traffic.add(cluster.client(follower)?, follower);
    is_repaired(&cluster, follower).await?;
    // What is wrong in the history is repaired with the rest.
    let found = value(&client, "precious", false).await?;
    ensure!(found == PRECIOUS, "it is {found:?}");
    traffic.end().await?;
    let member = cluster.member(follower);
    member
        .logs("its state is replaced with the leader's")
        .await?;
    member.logs("the corrupt member was repaired").await?;
    // It stays so, and the member starts from what it has got.
    cluster.restart(follower).await?;
    let found = value(&cluster.client(follower)?, "precious", true).await?;
    ensure!(found == PRECIOUS, "after a restart it is {found:?}");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_leader_hands_over_and_is_repaired() -> Result<()> {
    // Found by what a compaction leaves, which is compared by default.
    let spec = ClusterSpec::kvorum(3).arg("--compact-hash-check-time=1s");
    let mut cluster = start(spec).await?;
    let leader = cluster.leader().await?;
    let corrupt_one = another_than(leader);
    corrupt(&mut cluster, corrupt_one).await?;
    let target_id = cluster.id(corrupt_one).await?;
    eventually("the corrupt member leads", || async {
        let leader = cluster.leader().await?;
        if leader != corrupt_one {
            let mut old = cluster.client(leader)?.maintenance;
            old.move_leader(pb::MoveLeaderRequest { target_id }).await?;
        }
        let leader = cluster.leader().await?;
        ensure!(leader == corrupt_one, "m{leader} leads");
        Ok(())
    })
    .await?;
    let found = value(&cluster.client(corrupt_one)?, "precious", false).await?;
    ensure!(found == FLIPPED, "nothing was flipped: {found:?}");
    let mut traffic = Traffic::default();
    for at in 0..3 {
        traffic.add(cluster.client(at)?, at);
    }
    let client = cluster.client(corrupt_one)?;
    let revision = put(&client, "a", "b").await?;
    compact(&client, revision).await?;
    is_repaired(&cluster, corrupt_one).await?;
    traffic.end().await?;
    let leader = cluster.leader().await?;
    ensure!(leader != corrupt_one, "the corrupt member leads still");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_at_the_start_repairs_or_refuses() -> Result<()> {
    let spec = ClusterSpec::kvorum(3).arg("--feature-gates=InitialCorruptCheck=true");
    let mut cluster = start(spec).await?;
    let follower = another_than(cluster.leader().await?);
    // It is healthy only when it has been repaired: no client has ever seen the wrong value.
    corrupt(&mut cluster, follower).await?;
    cluster.member_mut(follower).ready().await?;
    let found = value(&cluster.client(follower)?, "precious", true).await?;
    ensure!(found == PRECIOUS, "it serves {found:?}");
    is_repaired(&cluster, follower).await?;
    // Without repair it does not start, as in etcd.
    let member = cluster.member_mut(follower);
    member.terminate().await?;
    flip_value(&member.data_dir(), PRECIOUS.as_bytes())?;
    member.arg("--corrupt-repair=false");
    member.launch()?;
    let ended = member.ended().await?;
    ensure!(!ended.success(), "it ended well");
    let log = member.log()?;
    for text in [
        "found different hash values from remote peer",
        "found data inconsistency with peers",
    ] {
        ensure!(log.contains(text), "no {text:?} in its log");
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_repair_corrupt_stops_all_writes_as_in_etcd() -> Result<()> {
    let spec = ClusterSpec::kvorum(3)
        .arg("--compact-hash-check-time=1s")
        .arg("--corrupt-repair=false");
    let mut cluster = start(spec).await?;
    let leader = cluster.leader().await?;
    let follower = another_than(leader);
    corrupt(&mut cluster, follower).await?;
    let client = cluster.client(leader)?;
    let revision = put(&client, "a", "b").await?;
    compact(&client, revision).await?;
    let id = cluster.id(follower).await?;
    let alarm = eventually("CORRUPT is raised", || async {
        let found = alarms(&client).await?;
        found.first().copied().context("no alarm stands")
    })
    .await?;
    ensure!(alarm.member_id == id, "{alarm:?} is not of {id:x}");
    let refused = put(&client, "a", "c").await.err().context("it was taken")?;
    ensure!(
        refused.code() == tonic::Code::DataLoss
            && refused.message() == "etcdserver: corrupt cluster",
        "{refused:?}"
    );
    // Reads go on, on the corrupt member too.
    let found = value(&cluster.client(follower)?, "precious", false).await?;
    ensure!(found == FLIPPED, "it is {found:?}");
    let port = cluster.member(leader).metrics_port();
    let ready = http::get(port, "/readyz").await?;
    ensure!(
        ready.body.contains("[-]data_corruption failed"),
        "{ready:?}"
    );
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_repaired_when_there_is_no_majority() -> Result<()> {
    let spec = ClusterSpec::kvorum(2).arg("--corrupt-check-time=1s");
    let mut cluster = start(spec).await?;
    corrupt(&mut cluster, 1).await?;
    let client = cluster.client(0)?;
    let alarm = eventually("CORRUPT is raised", || async {
        let found = alarms(&client).await?;
        found.first().copied().context("no alarm stands")
    })
    .await?;
    ensure!(alarm.member_id == 0, "{alarm:?} names a member");
    let refused = put(&client, "a", "c").await.err().context("it was taken")?;
    ensure!(
        refused.message() == "etcdserver: corrupt cluster",
        "{refused:?}"
    );
    let log = format!("{}{}", cluster.member(0).log()?, cluster.member(1).log()?);
    ensure!(
        log.contains("cannot identify the corrupted members"),
        "{log}"
    );
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_that_the_disk_flips_is_refused_with_the_way_out() -> Result<()> {
    let mut cluster = start(ClusterSpec::kvorum(3)).await?;
    let victim = another_than(cluster.leader().await?);
    let member = cluster.member_mut(victim);
    member.terminate().await?;
    flip_in_file(&member.data_dir(), PRECIOUS.as_bytes())?;
    member.launch()?;
    let ended = member.ended().await?;
    ensure!(!ended.success(), "it ended well");
    let log = member.log()?;
    ensure!(log.contains("corrupt") && log.contains("restore"), "{log}");
    // The way out: a new member in its place.
    let others: Vec<usize> = (0..3).filter(|at| *at != victim).collect();
    let through = cluster.leader_of(&others).await?;
    cluster.remove(through, victim).await?;
    let added = cluster.add(through, testkit::cluster::Role::Voter).await?;
    cluster.member_mut(added).start().await?;
    let found = value(&cluster.client(added)?, "precious", false).await?;
    ensure!(found == PRECIOUS, "it is {found:?}");
    cluster.stop().await
}

//! The Maintenance service: downgrades, and alarms that stand together.
//!
//! What this is not: what a full or a broken store does; alarms are raised by hand here.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use kvorum_tests::surface::shown;
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;
use testkit::{Client, Cluster, ClusterSpec, Program, Server, Spec, eventually, http};
use tonic::{Response, Status};

/// How often a member is started whose port somebody else has for the moment.
const STARTS_MAX: usize = 8;

fn request(action: DowngradeAction, version: &str) -> pb::DowngradeRequest {
    pb::DowngradeRequest {
        action: action.into(),
        version: version.to_owned(),
    }
}

/// Asks a member for something about a downgrade; the answer's version without a patch, or the refusal.
async fn downgrade(client: &Client, action: DowngradeAction, version: &str) -> String {
    let mut maintenance = client.maintenance.clone();
    let answer = maintenance.downgrade(request(action, version));
    match answer.await {
        Ok(answer) => {
            let answer = answer.into_inner();
            assert!(answer.header.is_some());
            format!("at {}", answer.version.trim_end_matches(".0"))
        }
        Err(status) => shown(&status),
    }
}

/// The cluster's version, once it is the one of its members.
async fn cluster_minor(port: u16) -> Result<u64> {
    eventually("the cluster has a version", || async {
        let body = http::get(port, "/version").await?.body;
        let version: serde_json::Value = serde_json::from_str(&body)?;
        let minor = |name: &str| {
            let version = version[name].as_str()?.strip_prefix("3.")?;
            version.split('.').next()?.parse::<u64>().ok()
        };
        let cluster = minor("etcdcluster").with_context(|| body.clone())?;
        ensure!(Some(cluster) == minor("etcdserver"), "{body}");
        Ok(cluster)
    })
    .await
}

/// Enables a downgrade. An etcd 3.5 carries that out and answers that it timed out, so nobody waits for it.
async fn enable(server: &Server, client: &Client, version: &str) -> Result<()> {
    let enabled = eventually("there is a downgrade", || async {
        let answer = http::get(server.peer_port(), "/downgrade/enabled").await?;
        ensure!(answer.body == "true", "{answer:?}");
        Ok(())
    });
    let enable = async {
        let answer = downgrade(client, DowngradeAction::Enable, version).await;
        ensure!(answer.starts_with("at 3."), "{answer}");
        Ok(())
    };
    match server.program() {
        Program::Kvorum => {
            enable.await?;
            enabled.await
        }
        Program::Etcd => tokio::select! {
            enabled = enabled => enabled,
            failed = enable => failed,
        },
    }
}

/// etcd 3.5 says all of this as 3.6 does. (What becomes of a downgrade is another story there: its clusters
/// stay at their version until a member of the older one has come.)
#[tokio::test]
async fn a_downgrade_is_refused_in_etcds_words() -> Result<()> {
    use DowngradeAction::{Enable, Validate};
    let mut answers = Vec::new();
    for spec in [Spec::etcd(), Spec::kvorum()] {
        let server = spec.start().await?;
        let client = server.client().await?;
        let minor = cluster_minor(server.client_port()).await?;
        let mut said = Vec::new();
        let malformed = ["", "x", "3", "v3.4", "3.4.0.0", "3.4-rc", "3.4.x", "-3.4"];
        let wrong = [minor, minor - 2, minor + 1].map(|minor| format!("3.{minor}"));
        let impossible = wrong.iter().map(String::as_str).chain(["4.0", "2.3.1"]);
        for version in malformed.into_iter().chain(impossible) {
            for action in [Validate, Enable] {
                said.push(downgrade(&client, action, version).await);
            }
        }
        let below = |minor: u64| format!("3.{}", minor - 1);
        for version in [below(minor), format!("{}.7-rc.1+x", below(minor))] {
            said.push(downgrade(&client, Validate, &version).await);
        }
        enable(&server, &client, &below(minor)).await?;
        // Twice: its own version may go down after it was looked at.
        let again = eventually("it is in progress", || async {
            let now = cluster_now(server.client_port()).await?;
            let mut again = Vec::new();
            for action in [Validate, Enable] {
                again.push(downgrade(&client, action, &below(now)).await);
            }
            ensure!(now == cluster_now(server.client_port()).await?);
            Ok(again)
        });
        said.extend(again.await?);
        let unknown = pb::DowngradeRequest {
            action: 7,
            ..pb::DowngradeRequest::default()
        };
        let unknown = client.maintenance.clone().downgrade(unknown).await;
        said.push(shown(&unknown.expect_err("there is no such action")));
        let relative = |answer: String| answer.replace(&format!("3.{minor}"), "the version");
        answers.push(said.into_iter().map(relative).collect::<Vec<_>>());
        server.stop().await?;
    }
    ensure!(answers[0] == answers[1], "{answers:#?}");
    let words = answers[1].join(" ");
    for refusal in [
        "wrong downgrade",
        "invalid downgrade",
        "in progress",
        "unknown",
    ] {
        ensure!(words.contains(refusal), "{words}");
    }
    Ok(())
}

async fn cluster_now(port: u16) -> Result<u64> {
    let body = http::get(port, "/version").await?.body;
    let (_, rest) = body
        .split_once("\"etcdcluster\":\"3.")
        .context("a version")?;
    let minor = rest.split('.').next().context("a minor version")?;
    Ok(minor.parse()?)
}

/// Waits until all that run say the same of versions and downgrade.
async fn all_say(cluster: &Cluster, version: &str, target: Option<&str>) -> Result<()> {
    for at in cluster.running() {
        eventually("the member knows", || says(cluster, at, version, target)).await?;
    }
    Ok(())
}

async fn says(cluster: &Cluster, at: usize, version: &str, target: Option<&str>) -> Result<()> {
    let status = cluster.status(at).await?;
    let info = status.downgrade_info.clone().context("3.6 tells it")?;
    let expected = pb::DowngradeInfo {
        enabled: target.is_some(),
        target_version: target.unwrap_or_default().to_owned(),
    };
    ensure!(info == expected, "{info:?}");
    ensure!(status.storage_version == version, "{status:?}");
    let member = cluster.member(at);
    let told = format!(r#""etcdcluster":"{version}","storage":"{version}""#);
    let peer_port = member.listen_peer_port();
    for port in [member.client_port(), peer_port] {
        let body = http::get(port, "/version").await?.body;
        ensure!(body.contains(&told), "{body}");
    }
    let enabled = http::get(peer_port, "/downgrade/enabled").await?;
    ensure!(enabled.body == target.is_some().to_string(), "{enabled:?}");
    let short = version.trim_end_matches(".0");
    let metric = format!("etcd_cluster_version{{cluster_version=\"{short}\"}} 1");
    let metrics = http::get(member.client_port(), "/metrics").await?.body;
    ensure!(metrics.lines().any(|line| line == metric), "{metric}");
    Ok(())
}

/// As etcd 3.6: no member has to be of the older version for the cluster's to go down.
#[tokio::test]
async fn a_downgrade_takes_the_cluster_down_and_up_again() -> Result<()> {
    use DowngradeAction::{Cancel, Enable, Validate};
    let mut cluster = ClusterSpec::kvorum(3).start().await?;
    all_say(&cluster, "3.6.0", None).await?;
    let ask = async |cluster: &Cluster, at: usize, action, version: &str| {
        let client = cluster.client(at)?;
        anyhow::Ok(downgrade(&client, action, version).await)
    };
    let enabled = ask(&cluster, 0, Enable, "3.5").await?;
    ensure!(enabled.starts_with("at 3."), "{enabled}");
    all_say(&cluster, "3.5.0", Some("3.5.0")).await?;
    // By the version that the cluster has now.
    for (at, version, refusal) in [
        (
            1,
            "3.4",
            "etcdserver: cluster has a downgrade job in progress",
        ),
        (2, "3.5", "etcdserver: invalid downgrade target version"),
    ] {
        let answer = ask(&cluster, at, Validate, version).await?;
        ensure!(answer.ends_with(refusal), "{answer}");
    }
    let snapshot = pb::SnapshotRequest::default();
    let snapshot = cluster.client(1)?.maintenance.snapshot(snapshot).await?;
    let first = snapshot.into_inner().message().await?.context("a piece")?;
    ensure!(first.version.is_empty(), "databases of 3.5 do not say it");
    cluster.restart(2).await?;
    all_say(&cluster, "3.5.0", Some("3.5.0")).await?;
    let ended = ask(&cluster, 1, Cancel, "").await?;
    ensure!(ended.starts_with("at 3."), "{ended}");
    all_say(&cluster, "3.6.0", None).await?;
    // etcd 3.6 logs that there was none, and says nothing.
    ensure!(ask(&cluster, 2, Cancel, "").await? == "at 3.6");
    cluster.stop().await
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        ..pb::PutRequest::default()
    }
}

fn range(serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest {
        key: "key".into(),
        serializable,
        ..pb::RangeRequest::default()
    }
}

fn txn(op: pb::request_op::Request) -> pb::TxnRequest {
    pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(op) }],
        ..pb::TxnRequest::default()
    }
}

fn outcome<T>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_answer) => "OK".to_owned(),
        Err(status) => shown(&status),
    }
}

/// What everything is answered while alarms stand.
async fn answers(cluster: &Cluster, lease: i64) -> Result<Vec<String>> {
    use pb::request_op::Request::{RequestDeleteRange, RequestPut, RequestRange};
    let mut client = cluster.client(0)?;
    let delete = || pb::DeleteRangeRequest {
        key: "other".into(),
        ..pb::DeleteRangeRequest::default()
    };
    let grant = |id| pb::LeaseGrantRequest { ttl: 500, id };
    let compact = pb::CompactionRequest {
        revision: 2,
        physical: false,
    };
    let time_to_live = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
    let mut answers = vec![
        outcome(client.kv.put(put("key")).await),
        outcome(client.kv.range(range(false)).await),
        outcome(client.kv.range(range(true)).await),
        outcome(client.kv.delete_range(delete()).await),
        outcome(client.kv.txn(txn(RequestRange(range(false)))).await),
        outcome(client.kv.txn(txn(RequestPut(put("key")))).await),
        outcome(client.kv.txn(txn(RequestDeleteRange(delete()))).await),
        outcome(client.kv.txn(pb::TxnRequest::default()).await),
        outcome(client.kv.compact(compact).await),
        outcome(client.lease.lease_grant(grant(lease)).await),
        outcome(
            client
                .lease
                .lease_revoke(pb::LeaseRevokeRequest { id: 8 })
                .await,
        ),
        outcome(client.lease.lease_time_to_live(time_to_live).await),
        outcome(client.lease.lease_leases(pb::LeaseLeasesRequest {}).await),
        outcome(
            client
                .maintenance
                .hash_kv(pb::HashKvRequest::default())
                .await,
        ),
        outcome(
            client
                .cluster
                .member_list(pb::MemberListRequest::default())
                .await,
        ),
    ];
    let status = cluster.status(0).await?;
    let id = status.header.context("a header")?.member_id;
    let unnamed = |text: &str| text.replace(&id.to_string(), "it");
    // etcd tells them in any order.
    let errors: BTreeSet<String> = status.errors.iter().map(|text| unnamed(text)).collect();
    answers.push(format!("{errors:?}"));
    let alarms = client
        .maintenance
        .alarm(pb::AlarmRequest::default())
        .await?;
    let alarms = alarms.into_inner().alarms;
    let kinds: BTreeSet<i32> = alarms.iter().map(|alarm| alarm.alarm).collect();
    answers.push(format!("{kinds:?}"));
    Ok(answers)
}

async fn alarm(cluster: &Cluster, action: AlarmAction, kind: pb::AlarmType) -> Result<()> {
    let status = cluster.status(0).await?;
    let request = pb::AlarmRequest {
        action: action.into(),
        member_id: status.header.context("a header")?.member_id,
        alarm: kind.into(),
    };
    let mut client = cluster.client(0)?.maintenance;
    let answer = client.alarm(request).await?.into_inner();
    ensure!(answer.alarms.len() == 1, "{answer:?}");
    Ok(())
}

/// Kills the member and starts it again; with alarms it does not become healthy.
async fn start_again(cluster: &mut Cluster) -> Result<()> {
    cluster.member_mut(0).kill()?;
    for _ in 0..STARTS_MAX {
        cluster.member_mut(0).launch()?;
        let serves = eventually("it has a leader or has ended", || async {
            if let Ok(status) = cluster.status(0).await {
                ensure!(status.leader != 0, "{status:?}");
                return Ok(true);
            }
            let log = cluster.member(0).log()?;
            ensure!(log.contains("address already in use"), "it does not answer");
            Ok(false)
        });
        if serves.await? {
            return Ok(());
        }
        cluster.member_mut(0).ended().await?;
    }
    anyhow::bail!("the ports stay taken")
}

/// etcd 3.6 looks at CORRUPT first, whichever was raised first, and clearing one leaves the other. In 3.5
/// that is so after a restart only: before it, what was raised last counts, and what is cleared clears
/// the other's effect as well.
#[tokio::test]
async fn corrupt_and_nospace_together_are_answered_as_etcd_does_it() -> Result<()> {
    use AlarmAction::{Activate, Deactivate};
    use pb::AlarmType::{Corrupt, Nospace};
    let mut said = Vec::new();
    for program in [Program::Etcd, Program::Kvorum] {
        let mut cluster = ClusterSpec::of(program, 1).start().await?;
        let mut client = cluster.client(0)?;
        for key in ["key", "key", "other"] {
            client.kv.put(put(key)).await?;
        }
        for id in [7, 8, 9] {
            let grant = pb::LeaseGrantRequest { ttl: 500, id };
            client.lease.lease_grant(grant).await?;
        }
        let mut all = Vec::new();
        alarm(&cluster, Activate, Nospace).await?;
        alarm(&cluster, Activate, Corrupt).await?;
        all.push(answers(&cluster, 10).await?);
        start_again(&mut cluster).await?;
        all.push(answers(&cluster, 11).await?);
        alarm(&cluster, Deactivate, Corrupt).await?;
        start_again(&mut cluster).await?;
        all.push(answers(&cluster, 12).await?);
        alarm(&cluster, Deactivate, Nospace).await?;
        all.push(answers(&cluster, 13).await?);
        said.push(all);
        cluster.stop().await?;
    }
    ensure!(said[0] == said[1], "{said:#?}");
    ensure!(said[0][0].iter().any(|answer| answer.contains("corrupt")));
    ensure!(said[0][2].iter().any(|answer| answer.contains("space")));
    Ok(())
}

/// The other order, and without a restart: what 3.5 forgets. Whatever comes, only an alarm that was cleared
/// allows again what it forbade.
// Differs from etcd 3.5, as 3.6 does.
#[tokio::test]
async fn an_alarm_that_is_cleared_leaves_the_other() -> Result<()> {
    use AlarmAction::{Activate, Deactivate};
    use pb::AlarmType::{Corrupt, Nospace};
    let cluster = ClusterSpec::kvorum(1).start().await?;
    let mut kv = cluster.client(0)?.kv;
    let mut puts = async |text: &str| {
        let answer = outcome(kv.put(put("key")).await);
        ensure!(answer.contains(text), "{answer}");
        Ok(())
    };
    alarm(&cluster, Activate, Corrupt).await?;
    alarm(&cluster, Activate, Nospace).await?;
    puts("etcdserver: corrupt cluster").await?;
    alarm(&cluster, Deactivate, Nospace).await?;
    puts("etcdserver: corrupt cluster").await?;
    alarm(&cluster, Activate, Nospace).await?;
    alarm(&cluster, Deactivate, Corrupt).await?;
    puts("etcdserver: mvcc: database space exceeded").await?;
    alarm(&cluster, Deactivate, Nospace).await?;
    puts("OK").await?;
    cluster.stop().await
}

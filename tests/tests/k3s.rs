//! What k3s does with its embedded etcd, step by step: `--cluster-init`, servers that join, its check
//! at every start, the promotion of learners, the removal of a node, `--cluster-reset`.
//!
//! Members are processes here, with the configuration that k3s generates as flags. The same steps
//! go to a real etcd, and what both answer is compared.

#[path = "k3s/site.rs"]
mod site;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use kvorum_tests::flows::Operator;
use testkit::{Client, Program, eventually, note};
use tonic::Code;

use site::{Site, Start};

/// The text by which k3s knows that it was removed.
const REMOVED: &str = "the member has been permanently removed from the cluster";
/// The text by which k3s knows that a learner cannot do something.
const LEARNER: &str = "not supported for learner";
/// The keys that k3s itself uses.
const PROGRESS_KEY: &str = "k3s/etcd/learnerProgress";
const ADDRESSES_KEY: &str = "k3s/apiaddresses";

fn programs() -> &'static [Program] {
    if std::env::var_os("KVORUM_ONLY_ETCD").is_some() {
        return &[Program::Etcd];
    }
    &[Program::Etcd, Program::Kvorum]
}

#[tokio::test]
async fn init_joins_removal_and_cluster_reset() -> Result<()> {
    let run = async |program: Program| {
        let mut site = Site::new(program)?;
        let steps = async {
            init(&mut site).await?;
            two_servers_join(&mut site).await?;
            a_node_is_deleted(&mut site).await?;
            cluster_reset(&mut site).await
        };
        steps.await.with_context(|| format!("{program:?}"))?;
        Ok::<_, anyhow::Error>(site)
    };
    if programs().len() == 1 {
        let mut etcd = run(Program::Etcd).await?;
        for line in etcd.seen.lines() {
            note(line);
        }
        etcd.fine();
        return Ok(());
    }
    let (mut etcd, mut kvorum) = tokio::try_join!(run(Program::Etcd), run(Program::Kvorum))?;
    etcd.seen.same(&kvorum.seen)?;
    etcd.fine();
    kvorum.fine();
    Ok(())
}

/// `k3s server --cluster-init`.
async fn init(site: &mut Site) -> Result<()> {
    site.start(0, &Start::Init)?;
    site.nodes[0]
        .answers("/health?serializable=true", 200)
        .await?;
    test_at_start(site, 0).await?;
    let id = site.operator().members().await?[0].id;
    site.seen.name(id, "0");
    site.operator().put(ADDRESSES_KEY, "127.0.0.1:6443").await?;
    // HTTP has a port of its own; the port of the clients speaks gRPC only.
    let caller = site.caller();
    let version = caller.get(site.nodes[0].http, "/version").await?;
    ensure!(version.status == 200, "{version:?}");
    let on_grpc = caller.get(site.nodes[0].client, "/version").await;
    ensure!(
        !on_grpc.is_ok_and(|answer| answer.status == 200),
        "HTTP on the port for gRPC"
    );
    Ok(())
}

/// k3s's `Test()` of a member that has just started.
async fn test_at_start(site: &mut Site, at: usize) -> Result<()> {
    let operator = site.operator_at(at);
    let endpoint = &operator.endpoints[0];
    let status = eventually("there is a leader", || async {
        let status = operator.status(endpoint).await?;
        ensure!(status.leader != 0, "no leader");
        Ok(status)
    })
    .await?;
    site.seen.saw(format!(
        "status of {at}: errors {:?}, learner {}",
        status.errors, status.is_learner
    ));
    let defragment = async |mut client: Client| {
        client
            .maintenance
            .defragment(pb::DefragmentRequest {})
            .await
    };
    let defragmented = operator.ask(defragment).await;
    let refusal = defragmented.err();
    site.seen.saw(format!(
        "defragment {at}: {:?}",
        refusal.as_ref().map(tonic::Status::message)
    ));
    let alarm = |action, alarm| pb::AlarmRequest {
        action,
        member_id: 0,
        alarm,
    };
    let get = alarm(
        pb::alarm_request::AlarmAction::Get.into(),
        pb::AlarmType::None.into(),
    );
    let alarms = operator
        .ask(async |mut client| client.maintenance.alarm(get).await)
        .await;
    match alarms {
        Ok(alarms) => site
            .seen
            .saw(format!("alarms at {at}: {:?}", alarms.alarms)),
        Err(refusal) => site
            .seen
            .saw(format!("alarms at {at}: {}", refusal.message())),
    }
    if status.is_learner {
        return Ok(());
    }
    let peer_url = site.nodes[at].peer_url();
    let own = operator.member_at(&peer_url).await?;
    ensure!(own.name == site.member_names[at], "{own:?}");
    Ok(())
}

/// Two more servers; the second has to wait until the first is promoted.
async fn two_servers_join(site: &mut Site) -> Result<()> {
    let operator = site.operator();
    let first = add(site, 1).await?;
    let early = operator.try_add(&site.nodes[2].peer_url(), true).await;
    site.seen.saw_refusal("a second learner", early)?;
    let early = operator.try_promote(first).await;
    site.seen
        .saw_refusal("promote who has not started", early)?;
    join(site, 1).await?;
    what_a_learner_does(site, 1).await?;
    promote(site, 1, first).await?;
    test_at_start(site, 1).await?;
    let second = add(site, 2).await?;
    join(site, 2).await?;
    promote(site, 2, second).await?;
    test_at_start(site, 2).await
}

/// MemberAddAsLearner as k3s tries it again.
async fn add(site: &mut Site, at: usize) -> Result<u64> {
    let operator = site.operator();
    let peer_url = site.nodes[at].peer_url();
    let added = eventually("MemberAddAsLearner", || async {
        let added = operator.try_add(&peer_url, true).await;
        if let Err(refusal) = &added {
            let again = ["too many learner members", "unhealthy cluster"];
            let is_known = again.iter().any(|text| refusal.message().contains(text));
            ensure!(is_known || refusal.code() == Code::Unavailable, "{refusal}");
        }
        Ok(added?)
    })
    .await?;
    let id = added.member.context("the response has no member")?.id;
    site.seen.name(id, &at.to_string());
    Ok(id)
}

/// Starts a member with the list that the others have.
async fn join(site: &mut Site, at: usize) -> Result<()> {
    let members = site.operator().members().await?;
    let own = site.nodes[at].peer_url();
    let entry = |member: &pb::Member| {
        let url = member.peer_ur_ls.first().cloned().unwrap_or_default();
        let name = if url == own {
            &site.member_names[at]
        } else {
            &member.name
        };
        format!("{name}={url}")
    };
    let cluster: Vec<String> = members.iter().map(entry).collect();
    site.start(at, &Start::Join(cluster.join(",")))?;
    site.nodes[at]
        .answers("/health?serializable=true", 200)
        .await?;
    Ok(())
}

/// k3s expects that a learner cannot do most things, and that it says so.
async fn what_a_learner_does(site: &mut Site, at: usize) -> Result<()> {
    let learner = site.operator_at(at);
    let key = b"k3s/apiaddresses".to_vec();
    // It has caught up when it has what was put before it joined.
    let local = pb::RangeRequest {
        key: key.clone(),
        serializable: true,
        ..Default::default()
    };
    eventually("the learner has the data", || async {
        let read = async |mut client: Client| client.kv.range(local.clone()).await;
        ensure!(learner.ask(read).await?.count == 1, "not there");
        Ok(())
    })
    .await?;
    test_at_start(site, at).await?;
    let put = pb::PutRequest {
        key: key.clone(),
        ..Default::default()
    };
    let put = learner
        .ask(async |mut client| client.kv.put(put.clone()).await)
        .await;
    let text = put
        .as_ref()
        .err()
        .map(|refusal| refusal.message().to_owned());
    ensure!(text.is_some_and(|text| text.contains(LEARNER)), "{put:?}");
    saw_learner(site, "put", put)?;
    let linearizable = pb::RangeRequest {
        key,
        ..Default::default()
    };
    let read = learner
        .ask(async |mut client| client.kv.range(linearizable.clone()).await)
        .await;
    saw_learner(site, "linearizable read", read)?;
    let list = pb::MemberListRequest { linearizable: true };
    let list = learner
        .ask(async |mut client| client.cluster.member_list(list).await)
        .await;
    saw_learner(site, "member list", list)?;
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    let grant = learner
        .ask(async |mut client| client.lease.lease_grant(grant).await)
        .await;
    saw_learner(site, "lease", grant)
}

/// Notes how a learner refused something: the text is what k3s looks at, and etcd 3.6 has another code
/// for it than 3.5.
fn saw_learner<T>(site: &mut Site, what: &str, outcome: Result<T, tonic::Status>) -> Result<()> {
    let refusal = outcome.err().context("a learner does not refuse")?;
    site.seen
        .saw(format!("{what} at a learner: {}", refusal.message()));
    Ok(())
}

/// The loop on the leader: it promotes learners that make progress, which it notes in a key.
async fn promote(site: &mut Site, at: usize, id: u64) -> Result<()> {
    let operator = site.operator();
    let learner = site.operator_at(at);
    eventually("the leader promotes the learner", || async {
        let mut leader = None;
        for endpoint in &operator.endpoints {
            let status = operator.status(endpoint).await?;
            let own = status.header.context("no header")?.member_id;
            if own == status.leader {
                leader = Some(endpoint.clone());
            }
        }
        let leader = Operator::new(operator.caller.clone(), &[leader.context("no leader")?]);
        let status = learner.status(&learner.endpoints[0]).await?;
        let index = status.raft_applied_index;
        ensure!(index > 0, "no progress");
        leader
            .put(
                PROGRESS_KEY,
                &format!("{{\"id\":{id},\"raftAppliedIndex\":{index}}}"),
            )
            .await?;
        leader.try_promote(id).await?;
        Ok(())
    })
    .await?;
    site.know(at);
    // The member itself hears of it a little later.
    eventually("nobody is a learner", || async {
        let all = site.operator().all_status().await?;
        ensure!(all.iter().all(|status| !status.is_learner), "{all:?}");
        Ok(())
    })
    .await
}

/// The node is deleted; its server finds out, leaves a tombstone, and comes back as somebody else.
async fn a_node_is_deleted(site: &mut Site) -> Result<()> {
    let operator = site.operator_at(0);
    let removed = operator.member_at(&site.nodes[2].peer_url()).await?.id;
    operator.remove(removed).await?;
    site.forget(2);
    let again = operator.try_remove(removed).await;
    site.seen.saw_refusal("remove again", again)?;
    let status = site.nodes[2].ended().await?;
    site.seen
        .saw(format!("the removed member ends: {:?}", status.code()));
    let log = site.nodes[2].log()?;
    ensure!(log.contains(REMOVED), "{log}");
    // The tombstone: its data is moved aside, and the name with it.
    site.bury(2)?;
    let id = add(site, 2).await?;
    ensure!(id != removed, "an id was used twice");
    join(site, 2).await?;
    promote(site, 2, id).await?;
    test_at_start(site, 2).await
}

/// `k3s server --cluster-reset` on the first node, whose address has changed; then the others are
/// deleted and join again.
async fn cluster_reset(site: &mut Site) -> Result<()> {
    site.operator().put("kept", "over the reset").await?;
    // The reset keeps what this server knows to be committed. An etcd notes that on its disk with the
    // next entry only, so whatever was put last is lost there, acknowledged or not.
    site.operator().put("not", "the last").await?;
    let here = site.operator_at(0);
    here.get(&here.endpoints[0], "not").await?;
    for node in &mut site.nodes {
        node.kill()?;
    }
    site.forget(1);
    site.forget(2);
    site.start(0, &Start::Reset)?;
    site.nodes[0]
        .answers("/health?serializable=false", 200)
        .await?;
    let operator = site.operator();
    let members = operator.members().await?;
    ensure!(members.len() == 1, "{members:?}");
    operator.put(ADDRESSES_KEY, "").await?;
    let own = members[0].clone();
    let update = pb::MemberUpdateRequest {
        id: own.id,
        peer_ur_ls: vec![site.nodes[0].peer_local_url()],
    };
    let updated = operator
        .ask(async |mut client| client.cluster.member_update(update.clone()).await)
        .await?;
    ensure!(
        updated.members[0].peer_ur_ls == update.peer_ur_ls,
        "{updated:?}"
    );
    ensure!(
        updated.members[0].client_ur_ls == own.client_ur_ls,
        "{updated:?}"
    );
    site.nodes[0].terminate().await?;
    site.start(0, &Start::Again)?;
    site.nodes[0]
        .answers("/health?serializable=false", 200)
        .await?;
    let members = operator.members().await?;
    ensure!(members.len() == 1 && members[0].id == own.id, "{members:?}");
    ensure!(members[0].peer_ur_ls == update.peer_ur_ls, "{members:?}");
    site.seen
        .saw(format!("after the reset: {:?}", members[0].peer_ur_ls));
    // A server that was not deleted is told that it is out of the cluster.
    site.start(1, &Start::Again)?;
    site.nodes[1].ended_as_stale().await?;
    ensure!(site.nodes[1].log()?.contains(REMOVED), "it was not told");
    for at in [1, 2] {
        site.bury(at)?;
        let id = add(site, at).await?;
        join(site, at).await?;
        promote(site, at, id).await?;
    }
    for at in 0..3 {
        let here = site.operator_at(at);
        let value = here.get(&here.endpoints[0], "kept").await?;
        ensure!(value.as_deref() == Some("over the reset"), "{value:?}");
    }
    Ok(())
}

//! kubeadm's stacked etcd, step by step: `init`, `join --control-plane`, `upgrade`, `reset`, and
//! what an administrator does when a machine is lost.
//!
//! Each member has the command line of kubeadm's static pod, its certificates and its probes; the
//! client is what kubeadm's is. The same steps go to a real etcd, and what both answer is compared.

#[path = "kubeadm/control_plane.rs"]
mod control_plane;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use testkit::{Program, eventually};
use tonic::Code;

use control_plane::{ControlPlane, Release};

/// What probes are answered: kubeadm's now, and those it had before.
const PROBES: [&str; 4] = [
    "/livez",
    "/readyz",
    "/health?exclude=NOSPACE&serializable=true",
    "/health?serializable=false",
];
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// Runs the same steps on both; what they saw must be the same.
async fn on_both(steps: impl AsyncFn(&mut ControlPlane) -> Result<()>) -> Result<()> {
    let mut etcd = ControlPlane::new(Program::Etcd)?;
    let run = async |plane: &mut ControlPlane| {
        let program = plane.program();
        steps(plane).await.with_context(|| format!("{program:?}"))
    };
    if std::env::var_os("KVORUM_ONLY_ETCD").is_some() {
        run(&mut etcd).await?;
        for line in etcd.seen.lines() {
            testkit::note(line);
        }
        etcd.fine();
        return Ok(());
    }
    let mut kvorum = ControlPlane::new(Program::Kvorum)?;
    tokio::try_join!(run(&mut etcd), run(&mut kvorum))?;
    etcd.seen.same(&kvorum.seen)?;
    etcd.fine();
    kvorum.fine();
    Ok(())
}

/// What the probes of a machine are answered, all at once.
async fn probes(plane: &mut ControlPlane, node: usize, when: &str) -> Result<()> {
    for path in PROBES {
        let status = plane.nodes[node].probe(path).await?;
        plane
            .seen
            .saw(format!("{when}: {path} of {node} is {status}"));
    }
    Ok(())
}

#[tokio::test]
async fn init_joins_upgrade_and_reset() -> Result<()> {
    on_both(async |plane| {
        init(plane).await?;
        join(plane, 1).await?;
        join(plane, 2).await?;
        what_etcdctl_prints(plane).await?;
        upgrade(plane).await?;
        join(plane, 3).await?;
        reset_and_join_again(plane).await
    })
    .await
}

/// `kubeadm init`, and the preflight check of a control plane with an external etcd.
async fn init(plane: &mut ControlPlane) -> Result<()> {
    plane.boot(0, None)?;
    plane.nodes[0].answers("/readyz", 200).await?;
    probes(plane, 0, "init").await?;
    let apiserver = plane.apiserver();
    let version = apiserver.get(plane.nodes[0].client, "/version").await?;
    let version: serde_json::Value = serde_json::from_str(&version.body)?;
    let semver = version["etcdserver"].as_str().context("no version")?;
    ensure!(semver.split('.').count() == 3, "{version}");
    let members = plane.operator().members().await?;
    ensure!(members.len() == 1, "{members:?}");
    plane.seen.name(members[0].id, "0");
    plane.operator().put("before", "the joins").await
}

/// Before the manifest: are all well, and may a learner join?
async fn announce(plane: &mut ControlPlane, at: usize) -> Result<pb::MemberAddResponse> {
    let mut operator = plane.operator();
    operator.sync().await?;
    let status = operator.all_status().await?;
    plane
        .seen
        .saw(format!("join {at}: {} endpoints are healthy", status.len()));
    let peer_url = plane.nodes[at].peer_url();
    let added = operator.add_learner(&peer_url).await?;
    let new = added
        .member
        .as_ref()
        .context("the response has no member")?;
    ensure!(
        new.is_learner && new.name.is_empty() && new.peer_ur_ls == [peer_url.clone()],
        "{new:?}"
    );
    plane.seen.name(new.id, &at.to_string());
    // A join that is tried again finds that it has been here. In the same second the new id would be
    // the same too, and be told first.
    eventually("a join that is tried again is told so", || async {
        let again = operator.try_add(&peer_url, true).await;
        let again = again.err().context("one peer url was added twice")?;
        ensure!(again.code() == Code::FailedPrecondition, "{again}");
        ensure!(
            again.message() == "etcdserver: Peer URLs already exists",
            "{again}"
        );
        Ok(())
    })
    .await?;
    let full = operator.try_add("https://127.0.0.1:1", true).await;
    plane.seen.saw_refusal("another learner", full)?;
    Ok(added)
}

/// `kubeadm join --control-plane` on machine `at`.
async fn join(plane: &mut ControlPlane, at: usize) -> Result<()> {
    let added = announce(plane, at).await?;
    let id = added.member.context("the response has no member")?.id;
    let mut operator = plane.operator();
    let peer_url = plane.nodes[at].peer_url();
    let cluster = plane.initial_cluster(&added.members, at);
    plane
        .seen
        .saw_in_any_order(&format!("join {at}: --initial-cluster"), cluster.split(','));
    plane.boot(at, Some(&cluster))?;
    plane.nodes[at].answers("/livez", 200).await?;
    // It has heard of the cluster when it knows its own name; then its probes say what they will say
    // until somebody promotes it.
    eventually("the member publishes itself", || async {
        let member = operator.member_at(&peer_url).await?;
        ensure!(!member.client_ur_ls.is_empty(), "{member:?}");
        Ok(())
    })
    .await?;
    let unready = plane.nodes[at].answers("/readyz", 503).await?;
    plane
        .seen
        .saw_in_any_order(&format!("learner {at} at /readyz"), unready.body.lines());
    probes(plane, at, "learner").await?;
    let found = operator.member_at(&peer_url).await?.id;
    ensure!(found == id, "the member has another id than was announced");
    operator.promote(id).await?;
    // Who is a little behind at this moment is told that first, by etcd too.
    let again = eventually("a promotion that is tried again is told so", || async {
        let again = operator.try_promote(id).await;
        let is_behind = |refusal: &tonic::Status| refusal.message().ends_with("sync with leader");
        ensure!(!again.as_ref().is_err_and(is_behind), "it is behind");
        Ok(again)
    })
    .await?;
    plane.seen.saw_refusal("promote again", again)?;
    plane.nodes[at].answers("/readyz", 200).await?;
    probes(plane, at, "voter").await?;
    operator.sync().await?;
    let voters = operator.all_status().await?;
    let healthy = voters.len();
    plane
        .seen
        .saw(format!("joined {at}: {healthy} endpoints are healthy"));
    let before = operator
        .get(&plane.nodes[at].client_url(), "before")
        .await?;
    ensure!(before.as_deref() == Some("the joins"), "{before:?}");
    Ok(())
}

async fn what_etcdctl_prints(plane: &mut ControlPlane) -> Result<()> {
    let mut operator = plane.operator();
    operator.sync().await?;
    for style in ["table", "simple"] {
        let printed = operator.etcdctl(&["member", "list", "-w", style])?;
        let rows = printed.lines().map(control_plane::row);
        plane
            .seen
            .saw_in_any_order(&format!("member list as {style}"), rows);
    }
    for command in [
        "member list",
        "endpoint health --cluster",
        "endpoint status --cluster",
    ] {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.extend(["-w", "json"]);
        let printed: serde_json::Value = serde_json::from_str(&operator.etcdctl(&args)?)?;
        let members = printed["members"].as_array().or(printed.as_array());
        let shown = members
            .context("no list")?
            .iter()
            .map(control_plane::comparable);
        plane.seen.saw_in_any_order(command, shown);
    }
    let members = operator.members().await?;
    ensure!(members.is_sorted_by_key(|member| member.id), "{members:?}");
    // Leadership goes where it is told to, and is refused where it cannot go.
    let status = operator.all_status().await?;
    let leader = status[0].leader;
    let header =
        |status: &pb::StatusResponse| status.header.as_ref().map_or(0, |header| header.member_id);
    let other = status.iter().map(header).find(|id| *id != leader);
    let other = format!("{:x}", other.context("no other member")?);
    let moved = operator.etcdctl(&["move-leader", &other])?;
    let words: Vec<&str> = moved.split_whitespace().collect();
    let expected = format!("Leadership transferred from {leader:x} to {other}");
    ensure!(words.join(" ") == expected, "{moved}");
    eventually("all follow the new leader", || async {
        for status in operator.all_status().await? {
            ensure!(format!("{:x}", status.leader) == other, "{status:?}");
        }
        Ok(())
    })
    .await?;
    let stranger = operator.run_etcdctl(&["move-leader", "1"])?;
    plane
        .seen
        .saw(format!("move to a stranger: {:?}", stranger.status.code()));
    Ok(())
}

/// `kubeadm upgrade node` on every machine: a copy of the data, another manifest, a restart; and
/// the way back, from the copy.
async fn upgrade(plane: &mut ControlPlane) -> Result<()> {
    let operator = plane.operator();
    operator.put("upgraded", "here").await?;
    for at in [1, 0] {
        let ids = plane.ids().await?;
        plane.nodes[at].terminate().await?;
        let saved = plane.nodes[at].dir().join("kubeadm-backup-etcd");
        control_plane::copy(&plane.nodes[at].data_dir(), &saved)?;
        if at == 1 {
            // The new version does not come up; kubeadm puts back what it has saved.
            plane.boot_with(at, "--no-such-flag=true")?;
            let status = plane.nodes[at].ended().await?;
            ensure!(!status.success(), "a wrong flag was taken");
            std::fs::remove_dir_all(plane.nodes[at].data_dir())?;
            std::fs::rename(&saved, plane.nodes[at].data_dir())?;
        } else {
            plane.release = Release::Next;
        }
        // The manifest's --initial-cluster names this machine only, and has no meaning any more.
        plane.boot(at, None)?;
        plane.nodes[at].answers("/readyz", 200).await?;
        let here = plane.nodes[at].client_url();
        let value = operator.get(&here, "upgraded").await?;
        ensure!(value.as_deref() == Some("here"), "{value:?}");
        ensure!(plane.ids().await? == ids, "the members have changed");
    }
    Ok(())
}

/// `kubeadm reset` on a machine, and everything that can happen to it afterwards.
async fn reset_and_join_again(plane: &mut ControlPlane) -> Result<()> {
    let mut operator = plane.operator();
    operator.sync().await?;
    let removed = operator.member_at(&plane.nodes[3].peer_url()).await?.id;
    operator.remove(removed).await?;
    // The removed member still answers for a moment, but no more for the cluster.
    let gone = plane.nodes[3].client_url();
    operator.endpoints.retain(|endpoint| *endpoint != gone);
    let again = operator.try_remove(removed).await;
    plane.seen.saw_refusal("remove again", again)?;
    let status = plane.nodes[3].ended().await?;
    plane
        .seen
        .saw(format!("the removed member ends: {:?}", status.code()));
    let log = plane.nodes[3].log()?;
    ensure!(log.contains(REMOVED), "{log}");
    // The static pod comes back with the data of the member that was removed.
    plane.boot_again(3)?;
    plane.nodes[3].ended_as_stale().await?;
    let log = plane.nodes[3].log()?;
    ensure!(log.contains(REMOVED), "{log}");
    // Reset empties the directory; the machine joins again, as somebody else.
    std::fs::remove_dir_all(plane.nodes[3].data_dir())?;
    join(plane, 3).await?;
    let joined = operator.member_at(&plane.nodes[3].peer_url()).await?.id;
    ensure!(joined != removed, "an id was used twice");
    let count = operator.members().await?.len();
    plane.seen.saw(format!("{count} members"));
    Ok(())
}

/// A machine is lost for good: first its member is removed, then another one joins in its place.
#[tokio::test]
async fn a_dead_member_is_replaced() -> Result<()> {
    on_both(async |plane| {
        init(plane).await?;
        join(plane, 1).await?;
        join(plane, 2).await?;
        plane.nodes[2].kill()?;
        std::fs::remove_dir_all(plane.nodes[2].data_dir())?;
        let operator = plane.operator();
        let dead = operator.member_at(&plane.nodes[2].peer_url()).await?.id;
        operator.put("without", "the dead member").await?;
        // The same machine comes back empty, under its old command line: nobody believes it.
        operator.remove(dead).await?;
        join(plane, 2).await?;
        let here = plane.nodes[2].client_url();
        let value = operator.get(&here, "without").await?;
        ensure!(value.as_deref() == Some("the dead member"), "{value:?}");
        Ok(())
    })
    .await
}

/// The order that an etcd cannot take: the new member first, while the dead one still counts.
#[tokio::test]
async fn a_dead_member_is_replaced_in_the_wrong_order() -> Result<()> {
    let mut plane = ControlPlane::new(Program::Kvorum)?;
    init(&mut plane).await?;
    join(&mut plane, 1).await?;
    join(&mut plane, 2).await?;
    plane.nodes[2].kill()?;
    let mut operator = plane.operator();
    let dead = operator.member_at(&plane.nodes[2].peer_url()).await?.id;
    // A voter, as `etcdctl member add` asks for: two of four live now, but it costs no quorum.
    let peer_url = plane.nodes[3].peer_url();
    let added = eventually("MemberAdd", || async {
        Ok(operator.try_add(&peer_url, false).await?)
    })
    .await?;
    let new = added.member.context("the response has no member")?;
    ensure!(!new.is_learner, "who adds a voter sees a voter");
    operator.put("quorum", "kept").await?;
    let cluster = plane.initial_cluster(&added.members, 3);
    plane.boot(3, Some(&cluster))?;
    plane.nodes[3].answers("/readyz", 200).await?;
    let value = operator.get(&plane.nodes[3].client_url(), "quorum").await?;
    ensure!(value.as_deref() == Some("kept"), "{value:?}");
    operator.remove(dead).await?;
    // And a learner beside another dead member, as kubeadm does it.
    operator.sync().await?;
    plane.nodes[3].kill()?;
    let dead = new.id;
    std::fs::remove_dir_all(plane.nodes[2].data_dir())?;
    let added = operator.add_learner(&plane.nodes[2].peer_url()).await?;
    let cluster = plane.initial_cluster(&added.members, 2);
    plane.boot(2, Some(&cluster))?;
    plane.nodes[2].answers("/livez", 200).await?;
    let learner = added.member.context("the response has no member")?.id;
    operator.promote(learner).await?;
    plane.nodes[2].answers("/readyz", 200).await?;
    operator.remove(dead).await?;
    // The machine that was dead comes back with its old data, and hears that it is out.
    plane.boot_again(3)?;
    plane.nodes[3].ended_as_stale().await?;
    ensure!(plane.nodes[3].log()?.contains(REMOVED), "it was not told");
    let ids = plane.ids().await?;
    ensure!(
        ids.len() == 3 && ids.contains(&learner) && !ids.contains(&dead),
        "{ids:?}"
    );
    plane.fine();
    Ok(())
}

/// Two machines join at once: the second finds the first in the list, still without a name.
#[tokio::test]
async fn an_unnamed_member_is_called_by_its_id() -> Result<()> {
    let mut plane = ControlPlane::new(Program::Kvorum)?;
    plane.extra.push("--max-learners=2".to_owned());
    init(&mut plane).await?;
    let operator = plane.operator();
    let first = operator.add_learner(&plane.nodes[1].peer_url()).await?;
    let second = operator.add_learner(&plane.nodes[2].peer_url()).await?;
    let first_id = first.member.as_ref().context("no member")?.id;
    let cluster = plane.initial_cluster(&second.members, 2);
    let unnamed = format!("{first_id:x}={}", plane.nodes[1].peer_url());
    ensure!(
        cluster.split(',').any(|entry| entry == unnamed),
        "{cluster}"
    );
    plane.boot(2, Some(&cluster))?;
    let cluster = plane.initial_cluster(&first.members, 1);
    plane.nodes[2].answers("/livez", 200).await?;
    let refused = format!("{cluster},more={}", plane.nodes[3].peer_url());
    plane.boot(1, Some(&refused))?;
    ensure!(
        !plane.nodes[1].ended().await?.success(),
        "a wrong list was taken"
    );
    let cluster = plane.initial_cluster(&operator.members().await?, 1);
    plane.boot(1, Some(&cluster))?;
    for (at, response) in [(1, &first), (2, &second)] {
        let id = response.member.as_ref().context("no member")?.id;
        operator.promote(id).await?;
        plane.nodes[at].answers("/readyz", 200).await?;
    }
    plane.fine();
    Ok(())
}

//! From an etcd to kvorum and back, with the real programs on either side: snapshots, and the data
//! directory of an etcd that has stopped. Every key, revision, lease and the hash of all history have
//! to be the same.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use kvorum_tests::contents::{self, Contents, Filling, fill};
use kvorum_tests::takeover::{
    check_all, check_status, checksum, restore, run, save, succeed, text,
};
use serde_json::Value;
use testkit::{Client, ClusterSpec, Program, Spec, binaries, certs};

/// Files that are damaged by the processes; `etcdfile` has more.
const DAMAGED: usize = 24;

struct Filled {
    contents: Contents,
    /// Keeps the file.
    directory: tempfile::TempDir,
}

impl Filled {
    fn snapshot(&self) -> PathBuf {
        self.directory.path().join("snapshot.db")
    }
}

/// A snapshot of a server with this filling, and what the server held.
async fn snapshot_of(program: Program, filling: Filling) -> Result<Filled> {
    let server = Spec::of(program).start().await?;
    let mut client = server.client().await?;
    fill(&mut client, filling).await?;
    let filled = Filled {
        contents: contents::read(&mut client).await?,
        directory: tempfile::tempdir()?,
    };
    save(&server.client_url(), &[], &filled.snapshot())?;
    server.stop().await?;
    Ok(filled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcds_snapshot_becomes_members_of_ours() -> Result<()> {
    for filling in Filling::ALL {
        let filled = snapshot_of(Program::Etcd, filling).await?;
        let members = if filling == Filling::Many { 3 } else { 1 };
        let cluster = restore(&filled.snapshot(), Program::Kvorum, members, &["--no-bump"]).await?;
        let checked = check_all(cluster, &filled.contents).await;
        checked.with_context(|| format!("{filling:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_snapshot_becomes_members_of_an_etcd() -> Result<()> {
    for filling in Filling::ALL {
        let filled = snapshot_of(Program::Kvorum, filling).await?;
        check_status(&filled.snapshot())?;
        let members = if filling == Filling::Many { 3 } else { 1 };
        let cluster = restore(&filled.snapshot(), Program::Etcd, members, &[]).await?;
        let checked = check_all(cluster, &filled.contents).await;
        checked.with_context(|| format!("{filling:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_notice_that_history_was_turned_back() -> Result<()> {
    let filled = snapshot_of(Program::Etcd, Filling::Many).await?;
    let before = filled.contents.revision;
    let cluster = restore(&filled.snapshot(), Program::Kvorum, 1, &[]).await?;
    let mut client = cluster.client(0)?;
    let found = contents::read(&mut client).await?;
    ensure!(
        found.revision == before + 1_000_000_000,
        "revision {}",
        found.revision
    );
    ensure!(found.kvs == filled.contents.kvs, "the keys are the same");
    let watched = pb::RangeRequest {
        key: b"single/1".to_vec(),
        revision: before,
        ..pb::RangeRequest::default()
    };
    let refused = client.kv.range(watched).await.map(drop);
    let refused = refused
        .err()
        .context("it reads a revision that is compacted")?;
    ensure!(
        refused.message().contains("has been compacted"),
        "{refused}"
    );
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcds_data_directory_is_taken_over() -> Result<()> {
    for filling in Filling::ALL {
        migrate(filling)
            .await
            .with_context(|| format!("{filling:?}"))?;
    }
    Ok(())
}

async fn migrate(filling: Filling) -> Result<()> {
    // Next to nothing is in its database when it is killed: what its log has is replayed.
    let spec = Spec::etcd().arg("--backend-batch-interval=1h");
    let mut server = spec.start().await?;
    let mut client = server.client().await?;
    fill(&mut client, filling).await?;
    if matches!(filling, Filling::Many | Filling::Compacted) {
        contents::write_more(&mut client).await?;
    }
    let status = client.maintenance.status(pb::StatusRequest {}).await?;
    let ids = status
        .into_inner()
        .header
        .context("a status has a header")?;
    let mut cluster = ClusterSpec::kvorum(1).prepare().await?;
    let from = server.data_dir().display().to_string();
    let to = cluster.member(0).data_dir();
    let to_text = to.display().to_string();
    let kvorum = binaries::kvorum()?;
    let arguments = ["migrate", "--from", &from, "--data-dir", &to_text];
    let refused = run(&kvorum, &arguments)?;
    ensure!(text(&refused.stderr).contains("is in use"), "{refused:?}");
    server.kill()?;
    let dry = ["migrate", "--from", &from, "--dry-run", "-w", "json"];
    let dry: Value = serde_json::from_str(&succeed(&kvorum, &dry)?)?;
    ensure!(dry["member_id"] == format!("{:x}", ids.member_id), "{dry}");
    ensure!(dry["entries"].as_u64() > Some(0), "{dry}");
    ensure!(!to.join("member").exists(), "a dry run makes nothing");
    let source = checksum(&server.data_dir())?;
    succeed(&kvorum, &arguments)?;
    ensure!(
        checksum(&server.data_dir())? == source,
        "the source is as it was"
    );
    server.restart().await?;
    let expected = contents::read(&mut server.client().await?).await?;
    cluster.start_all().await?;
    let mut client = cluster.client(0)?;
    let status = client.maintenance.status(pb::StatusRequest {}).await?;
    let found = status
        .into_inner()
        .header
        .context("a status has a header")?;
    ensure!(found.cluster_id == ids.cluster_id, "the cluster's id stays");
    ensure!(found.member_id == ids.member_id, "the member's id stays");
    ensure!(found.raft_term > ids.raft_term, "the term goes on");
    check_all(cluster, &expected).await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_and_leaves_nothing() -> Result<()> {
    let filled = snapshot_of(Program::Kvorum, Filling::Many).await?;
    let whole = fs::read(filled.snapshot())?;
    let directory = tempfile::tempdir()?;
    let (damaged, to) = (directory.path().join("x.db"), directory.path().join("data"));
    let (path, to_text) = (damaged.display().to_string(), to.display().to_string());
    let kvorum = binaries::kvorum()?;
    for round in 0..DAMAGED {
        let at = whole.len() / DAMAGED * round;
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes[at] ^= 0x10,
            1 => bytes.truncate(at),
            _ => bytes[at..at + 32].fill(0xff),
        }
        fs::write(&damaged, bytes)?;
        let refused = run(
            &kvorum,
            &["snapshot", "restore", &path, "--data-dir", &to_text],
        )?;
        ensure!(
            refused.status.code() == Some(1),
            "round {round}: {refused:?}"
        );
        ensure!(!text(&refused.stderr).is_empty(), "it says why");
        ensure!(
            fs::read_dir(directory.path())?.count() == 1,
            "nothing is left"
        );
    }
    let missing = run(&kvorum, &["snapshot", "status"])?;
    ensure!(missing.status.code() == Some(128), "{missing:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_saved_over_tls_by_both_programs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let certs = certs::generate(directory.path(), "root")?;
    let server = Spec::kvorum().mutual_tls(certs.clone()).start().await?;
    let mut client = Client::lazy(&server.client_url(), Some(&certs))?;
    fill(&mut client, Filling::One).await?;
    let url = server.client_url();
    let (ca, cert, key) = (
        certs.ca.display().to_string(),
        certs.client.cert.display().to_string(),
        certs.client.key.display().to_string(),
    );
    let tls = [
        "--endpoints",
        &url,
        "--cacert",
        &ca,
        "--cert",
        &cert,
        "--key",
        &key,
    ];
    for (program, name) in [
        (binaries::etcdctl()?, "a.db"),
        (binaries::kvorum()?, "b.db"),
    ] {
        let file = directory.path().join(name);
        let path = file.display().to_string();
        let mut arguments = vec!["snapshot", "save", &path];
        arguments.extend(tls);
        let said = succeed(&program, &arguments)?;
        ensure!(
            said.contains(&format!("Snapshot saved at {path}")),
            "{said}"
        );
        check_status(&file)?;
    }
    server.stop().await
}

//! Whoever comes over to kvorum: from older etcds, with users and roles, with a hundred thousand keys, and
//! from the SQLite database of k3s. What is there must be there afterwards, and go on.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use kvorum_tests::contents::{self, Contents, Filling, becomes_equal, fill};
use kvorum_tests::kine;
use kvorum_tests::large::{self, Summary};
use kvorum_tests::takeover::{
    check_all, check_status, checksum, restore, run, save, succeed, take_place, text,
};
use serde_json::Value;
use testkit::patience::parameter;
use testkit::{Client, Cluster, ClusterSpec, Program, Server, Spec, binaries, eventually, note};
use tokio::time::Instant;

/// A key, its value, its modification and creation revisions, its lease.
type Kept<'a> = (&'a [u8], &'a [u8], i64, i64, i64);

/// The root user and its password.
const ROOT: &str = "root:root-password";
const ALICE: &str = "alice:alice-password";

const KEYS: usize = 100_000;
/// As many as a transaction may have.
const TXN_OPS: usize = 128;

/// Bytes of the values in a store, if nothing else is said.
const STORE_BYTES: u64 = 8 << 20;
/// More than any of them has.
const QUOTA: &str = "--quota-backend-bytes=17179869184";
/// Members of an etcd's cluster out of our snapshot.
const ETCD_MEMBERS: usize = 3;

/// A busy machine takes its time over passwords.
const PATIENT: [&str; 2] = ["--dial-timeout=60s", "--command-timeout=60s"];

/// `etcdctl` on a server; what it has printed.
fn etcdctl(url: &str, line: &[&str]) -> Result<String> {
    let arguments = [&PATIENT[..], &["--endpoints", url], line].concat();
    succeed(&binaries::etcdctl()?, &arguments)
}

/// What an `etcdctl` that must not succeed has complained about.
fn refused(url: &str, line: &[&str]) -> Result<String> {
    let arguments = [&PATIENT[..], &["--endpoints", url], line].concat();
    let output = run(&binaries::etcdctl()?, &arguments)?;
    let said = text(&output.stderr);
    ensure!(!output.status.success(), "{line:?} got through");
    Ok(said)
}

/// Users and roles that are worth keeping.
fn add_users(url: &str) -> Result<()> {
    for line in [
        &["user", "add", ROOT][..],
        &["user", "add", ALICE],
        &["user", "add", "nobody", "--no-password"],
        &["role", "add", "app"],
        &[
            "role",
            "grant-permission",
            "app",
            "readwrite",
            "/app/",
            "--prefix",
        ],
        &["role", "grant-permission", "app", "read", "a", "b"],
        &["role", "grant-permission", "app", "write", "one"],
        &["user", "grant-role", "alice", "app"],
        &["user", "grant-role", "root", "root"],
    ] {
        etcdctl(url, line)?;
    }
    Ok(())
}

/// All that is told of users and roles.
fn users(url: &str, who: &[&str]) -> Result<String> {
    let mut all = String::new();
    for line in [
        &["user", "list"][..],
        &["role", "list"],
        &["user", "get", "root"],
        &["user", "get", "alice"],
        &["user", "get", "nobody"],
        &["role", "get", "app"],
    ] {
        all += &etcdctl(url, &[line, who].concat())?;
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_directories_and_snapshots_of_older_etcds_are_taken_over() -> Result<()> {
    for version in ["3.4", "3.5"] {
        let Some(binary) = binaries::older_etcd(version)? else {
            note(format!(
                "NOT RUN: etcd {version} cannot be had on this machine today"
            ));
            continue;
        };
        for filling in [Filling::Empty, Filling::Many, Filling::Compacted] {
            // What its log has on top of its database is replayed, or its database has it all.
            let batch = match filling {
                Filling::Compacted => "--backend-batch-interval=100ms",
                _ => "--backend-batch-interval=1h",
            };
            let server = Spec::etcd().binary(binary.clone()).arg(batch);
            let server = server.arg("--snapshot-count=100").start().await?;
            older(server, filling)
                .await
                .with_context(|| format!("etcd {version}, {filling:?}"))?;
        }
    }
    Ok(())
}

async fn older(mut server: Server, filling: Filling) -> Result<()> {
    let url = server.client_url();
    let mut client = server.client().await?;
    fill(&mut client, filling).await?;
    add_users(&url)?;
    let expected = contents::read(&mut client).await?;
    let expected_users = users(&url, &[])?;
    let directory = tempfile::tempdir()?;
    let snapshot = directory.path().join("snapshot.db");
    save(&url, &[], &snapshot)?;
    server.kill()?;
    take_place(&mut server).await?;
    let mut client = server.client().await?;
    becomes_equal(&expected, &client)
        .await
        .context("migrated")?;
    ensure!(users(&url, &[])? == expected_users, "other users");
    contents::write_more(&mut client).await?;
    server.stop().await?;
    let cluster = restore(&snapshot, Program::Kvorum, 1, &["--no-bump"]).await?;
    ensure!(
        users(&cluster.member(0).client_url(), &[])? == expected_users,
        "other users"
    );
    check_all(cluster, &expected).await.context("restored")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_roles_and_permissions_go_along_both_ways() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (theirs, ours) = (
        directory.path().join("etcd.db"),
        directory.path().join("kvorum.db"),
    );
    // Passwords that are cheap to check: it is done often.
    let mut server = Spec::etcd().arg("--bcrypt-cost=4").start().await?;
    let url = server.client_url();
    add_users(&url)?;
    etcdctl(&url, &["put", "/app/x", "1"])?;
    etcdctl(&url, &["put", "/other", "2"])?;
    etcdctl(&url, &["auth", "enable"])?;
    let root = ["--user", ROOT];
    let expected = users(&url, &root)?;
    check_permissions(&url, &expected).context("etcd itself")?;
    save(&url, &[&PATIENT[..], &root].concat(), &theirs)?;
    server.terminate().await?;
    take_place(&mut server).await?;
    check_permissions(&url, &expected).context("migrated")?;
    let kvorum = [
        "--endpoints",
        &url,
        "snapshot",
        "save",
        &ours.display().to_string(),
    ];
    let refused = run(&binaries::kvorum()?, &kvorum)?;
    ensure!(
        text(&refused.stderr).contains("user name is empty"),
        "{refused:?}"
    );
    succeed(&binaries::kvorum()?, &[&root[..], &kvorum].concat())?;
    server.stop().await?;
    for (snapshot, program, extra) in [
        (&theirs, Program::Kvorum, &["--no-bump"][..]),
        (&ours, Program::Etcd, &[]),
        (&ours, Program::Kvorum, &[]),
    ] {
        let cluster = restore(snapshot, program, 1, extra).await?;
        check_permissions(&cluster.member(0).client_url(), &expected)
            .with_context(|| format!("restored as {program:?}"))?;
        cluster.stop().await?;
    }
    Ok(())
}

/// Every line has its own token, got with the password.
fn check_permissions(url: &str, expected: &str) -> Result<()> {
    let (root, alice) = (["--user", ROOT], ["--user", ALICE]);
    ensure!(users(url, &root)? == expected, "other users");
    let got = etcdctl(url, &[&alice[..], &["get", "/app/x"]].concat())?;
    ensure!(got == "/app/x\n1\n", "{got}");
    etcdctl(url, &[&alice[..], &["put", "/app/y", "3"]].concat())?;
    etcdctl(url, &[&alice[..], &["put", "one", "4"]].concat())?;
    let got = etcdctl(url, &[&root[..], &["get", "/other"]].concat())?;
    ensure!(got == "/other\n2\n", "{got}");
    for (line, why) in [
        (
            [&alice[..], &["get", "/other"]].concat(),
            "permission denied",
        ),
        ([&alice[..], &["get", "one"]].concat(), "permission denied"),
        (
            [&alice[..], &["user", "list"]].concat(),
            "permission denied",
        ),
        (vec!["get", "/app/x"], "user name is empty"),
        (
            vec!["--user", "alice:other", "get", "/app/x"],
            "authentication failed",
        ),
        (
            vec!["--user", "nobody:x", "get", "/app/x"],
            "authentication failed",
        ),
    ] {
        let said = refused(url, &line)?;
        ensure!(said.contains(why), "{line:?}: {said}");
    }
    Ok(())
}

/// Writes in transactions: every key, a fifth of them again, a tenth of them deleted, some with a lease.
async fn fill_many(client: &mut Client) -> Result<()> {
    let grant = pb::LeaseGrantRequest {
        ttl: 90_000,
        id: 77,
    };
    client.lease.lease_grant(grant).await?;
    let key = |number: usize| format!("/registry/pods/namespace/{number:06}").into_bytes();
    let put = |number: usize| {
        pb::request_op::Request::RequestPut(pb::PutRequest {
            key: key(number),
            value: vec![b'v'; number % 200],
            lease: if number.is_multiple_of(50) { 77 } else { 0 },
            ..pb::PutRequest::default()
        })
    };
    let delete = |number: usize| {
        pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key(number),
            ..pb::DeleteRangeRequest::default()
        })
    };
    let first = (0..KEYS).map(put);
    let again = (0..KEYS).step_by(5).map(put);
    let deleted = (0..KEYS).step_by(10).map(delete);
    let mut operations = first.chain(again).chain(deleted).peekable();
    while operations.peek().is_some() {
        let some = operations.by_ref().take(TXN_OPS);
        let some = some.map(|request| pb::RequestOp {
            request: Some(request),
        });
        let txn = pb::TxnRequest {
            success: some.collect(),
            ..pb::TxnRequest::default()
        };
        client.kv.txn(txn).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_keys_with_history_come_and_go_back() -> Result<()> {
    let mut server = Spec::etcd().start().await?;
    let mut client = server.client().await?;
    fill_many(&mut client).await?;
    let expected: Contents = contents::read(&mut client).await?;
    server.terminate().await?;
    take_place(&mut server).await?;
    let client = server.client().await?;
    becomes_equal(&expected, &client)
        .await
        .context("migrated")?;
    let directory = tempfile::tempdir()?;
    let snapshot = directory.path().join("snapshot.db");
    save(&server.client_url(), &[], &snapshot)?;
    server.stop().await?;
    for (program, extra) in [(Program::Etcd, &[][..]), (Program::Kvorum, &["--no-bump"])] {
        let cluster = restore(&snapshot, program, 1, extra).await?;
        let checked = check_all(cluster, &expected).await;
        checked.with_context(|| format!("restored as {program:?}"))?;
    }
    Ok(())
}

/// Says how long what came before took.
struct Steps {
    begun: Instant,
}

impl Steps {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
        }
    }

    fn done(&mut self, what: &str) {
        note(format!(
            "{what}: {:.1} s",
            self.begun.elapsed().as_secs_f64()
        ));
        self.begun = Instant::now();
    }
}

/// Whether every member of a cluster holds what is expected; the cluster is stopped then.
async fn check_large(
    cluster: Cluster,
    expected: &Summary,
    expected_users: &str,
    steps: &mut Steps,
) -> Result<()> {
    for at in 0..cluster.members().len() {
        let client = cluster.client(at)?;
        large::becomes_equal(expected, &client)
            .await
            .with_context(|| format!("member {at}"))?;
        let found = users(&cluster.member(at).client_url(), &[])?;
        ensure!(found == expected_users, "other users");
        steps.done(&format!("  compared member {at}"));
    }
    cluster.stop().await
}

/// As large as `KVORUM_STORE_BYTES` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_any_size_comes_and_goes_back() -> Result<()> {
    let bytes = parameter("KVORUM_STORE_BYTES", STORE_BYTES)?;
    let mut steps = Steps::begin();
    let directory = tempfile::tempdir()?;
    let (theirs, ours) = (
        directory.path().join("etcd.db"),
        directory.path().join("kvorum.db"),
    );
    let mut server = Spec::etcd().arg(QUOTA).start().await?;
    let url = server.client_url();
    large::fill(&server.client().await?, bytes).await?;
    add_users(&url)?;
    steps.done("etcd filled");
    let expected = large::read(&mut server.client().await?).await?;
    let expected_users = users(&url, &[])?;
    note(format!(
        "{} keys of {} bytes at revision {}, HashKV {:?}",
        expected.keys, expected.bytes, expected.revision, expected.hashes
    ));
    save(&url, &[], &theirs)?;
    server.terminate().await?;
    note(format!(
        "etcd's snapshot: {} bytes",
        fs::metadata(&theirs)?.len()
    ));
    steps.done("etcd's snapshot saved");

    let cluster = restore(&theirs, Program::Kvorum, 1, &["--no-bump"]).await?;
    steps.done("kvorum restored it and started");
    let url = cluster.member(0).client_url();
    save(&url, &[], &ours)?;
    steps.done("kvorum's snapshot saved");
    check_large(cluster, &expected, &expected_users, &mut steps)
        .await
        .context("restored as kvorum")?;
    check_status(&ours)?;
    note(format!(
        "kvorum's snapshot: {} bytes",
        fs::metadata(&ours)?.len()
    ));
    steps.done("both say the same of it");

    take_place(&mut server).await?;
    steps.done("kvorum migrated and started");
    large::becomes_equal(&expected, &server.client().await?)
        .await
        .context("migrated")?;
    ensure!(
        users(&server.client_url(), &[])? == expected_users,
        "other users"
    );
    steps.done("  compared");
    server.stop().await?;

    let cluster = restore(&ours, Program::Etcd, ETCD_MEMBERS, &[]).await?;
    steps.done("three etcds restored and started");
    check_large(cluster, &expected, &expected_users, &mut steps)
        .await
        .context("restored as etcd")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_k3s_come_out_of_its_sqlite_database() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let database = directory.path().join("state.db");
    let open = kine::create(&database)?;
    let mut cluster = ClusterSpec::kvorum(1).prepare().await?;
    let member = cluster.member(0);
    let (name, peer_url) = (member.name().to_owned(), member.peer_url());
    let (from, to) = (database.display().to_string(), member.data_dir());
    let (to_text, initial) = (to.display().to_string(), format!("{name}={peer_url}"));
    let migrate = [
        "migrate",
        "--from-sqlite",
        &from,
        "--data-dir",
        &to_text,
        "--name",
        &name,
    ];
    let new = [
        "--initial-cluster",
        &initial,
        "--initial-advertise-peer-urls",
        &peer_url,
    ];
    let kvorum = binaries::kvorum()?;
    let refused = run(&kvorum, &migrate)?;
    ensure!(text(&refused.stderr).contains("is in use"), "{refused:?}");
    // As it is when k3s was killed: the log beside the database has what is not in it.
    let killed = directory.path().join("killed");
    fs::create_dir(&killed)?;
    for file in ["state.db", "state.db-wal"] {
        fs::copy(directory.path().join(file), killed.join(file))?;
    }
    let log = fs::metadata(killed.join("state.db-wal"))?.len();
    ensure!(log > 0, "there is nothing in the log");
    open.close().map_err(|(_open, error)| error)?;
    let sources = [database, killed.join("state.db")];
    for source in &sources {
        let before = checksum(directory.path())?;
        let source = source.display().to_string();
        let dry = [
            "migrate",
            "--from-sqlite",
            &source,
            "--dry-run",
            "-w",
            "json",
        ];
        let said: Value = serde_json::from_str(&succeed(&kvorum, &dry)?)?;
        ensure!(said["revision"] == 8 && said["keys"] == 3, "{said}");
        ensure!(said["expiring_keys"] == 2, "{said}");
        ensure!(
            checksum(directory.path())? == before,
            "the source has changed"
        );
    }
    ensure!(!to.exists(), "a dry run makes nothing");
    let said = succeed(&kvorum, &[&migrate[..], &new].concat())?;
    ensure!(said.contains("begins anew"), "it says what is lost: {said}");
    cluster.start_all().await?;
    check_kine(&mut cluster.client(0)?).await?;
    cluster.stop().await
}

async fn check_kine(client: &mut Client) -> Result<()> {
    let found = contents::read(client).await?;
    let kept = found.kvs.iter().filter(|kv| kv.value[..] != *b"soon");
    let kept: Vec<_> = kept
        .map(|kv| {
            (
                &kv.key[..],
                &kv.value[..],
                kv.mod_revision,
                kv.create_revision,
                kv.lease,
            )
        })
        .collect();
    let expected: [Kept<'_>; 2] = [
        (b"/registry/events/default/x", b"later", 8, 8, 3660),
        (b"/registry/namespaces/default", b"two", 4, 2, 0),
    ];
    ensure!(kept == expected, "{kept:?}");
    eventually("a key expires", || async {
        let now = contents::read(&mut client.clone()).await?;
        ensure!(now.kvs.len() == 2, "{} keys", now.kvs.len());
        ensure!(now.revision == 9, "revision {}", now.revision);
        Ok(())
    })
    .await?;
    let older = pb::RangeRequest {
        key: b"x".to_vec(),
        revision: 7,
        ..pb::RangeRequest::default()
    };
    let refused = client.kv.range(older).await.map(drop);
    let refused = refused
        .err()
        .context("it reads history that is not there")?;
    ensure!(
        refused.message().contains("has been compacted"),
        "{refused}"
    );
    let put = pb::PutRequest {
        key: b"/registry/new".to_vec(),
        ..pb::PutRequest::default()
    };
    let put = client.kv.put(put).await?.into_inner();
    let at = put.header.context("a put has a header")?.revision;
    ensure!(at == 10, "revision {at}");
    Ok(())
}

//! Members that meet at another etcd, a real one: `--discovery-token`, `--discovery-endpoints`, and their
//! like. The keys that they leave there are those that etcd's own members leave.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use nix::sys::signal::Signal;
use testkit::{Client, Cluster, ClusterSpec, Server, Spec, binaries, certs, process};

/// Below it is everything of a cluster.
fn registry(token: &str) -> String {
    format!("/_etcd/registry/{token}")
}

async fn put(client: &Client, key: &str, value: &str) -> Result<()> {
    let request = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    client.kv.clone().put(request).await.map(drop)?;
    Ok(())
}

/// Says how large a cluster is to be.
async fn size(client: &Client, token: &str, size: &str) -> Result<()> {
    put(client, &format!("{}/_config/size", registry(token)), size).await
}

/// Registers somebody.
async fn register(client: &Client, token: &str, id: &str, value: &str) -> Result<()> {
    put(client, &format!("{}/members/{id}", registry(token)), value).await
}

/// All members that have registered: the end of their keys, and their values.
async fn registered(client: &Client, token: &str) -> Result<Vec<(String, String)>> {
    let prefix = format!("{}/members/", registry(token));
    let mut end = prefix.clone().into_bytes();
    *end.last_mut().context("a prefix")? += 1;
    let request = pb::RangeRequest {
        key: prefix.clone().into(),
        range_end: end,
        ..Default::default()
    };
    let found = client.kv.clone().range(request).await?.into_inner().kvs;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = found.iter();
    Ok(pairs
        .map(|kv| (text(&kv.key)[prefix.len()..].to_owned(), text(&kv.value)))
        .collect())
}

/// Members that have nothing but the token.
async fn prepare(members: usize, token: &str, endpoints: &str) -> Result<Cluster> {
    let mut cluster = ClusterSpec::kvorum(members)
        .arg(format!("--discovery-token={token}"))
        .arg(format!("--discovery-endpoints={endpoints}"))
        .prepare()
        .await?;
    for at in 0..members {
        cluster.member_mut(at).bootstrap("", "new");
    }
    Ok(cluster)
}

fn endpoint(server: &Server) -> String {
    format!("127.0.0.1:{}", server.client_port())
}

/// Runs a member where it has to end by itself.
fn refused(args: &[String]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let output: Output = process::command(&binaries::kvorum()?)
        .arg(format!("--data-dir={}", dir.path().join("data").display()))
        .args([
            "--name=late",
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--initial-advertise-peer-urls=http://127.0.0.1:1",
        ])
        .args(args)
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1),
        "{:?} {told}",
        output.status
    );
    ensure!(!told.contains("panicked"), "{told}");
    Ok(told)
}

fn flags(token: &str, endpoints: &str) -> Vec<String> {
    vec![
        format!("--discovery-token={token}"),
        format!("--discovery-endpoints={endpoints}"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_meet_at_another_etcd() -> Result<()> {
    let etcd = Spec::etcd().start().await?;
    let at = etcd.client().await?;
    size(&at, "token", "3").await?;
    // The first endpoint leads nowhere.
    let endpoints = format!("127.0.0.1:1,{}", endpoint(&etcd));
    let mut cluster = prepare(3, "token", &endpoints).await?;
    cluster.start_all().await?;
    let mut expected: Vec<(String, String)> = Vec::new();
    for member in cluster.list(0).await? {
        let value = format!("{}={}", member.name, member.peer_ur_ls[0]);
        expected.push((format!("{:x}", member.id), value));
    }
    expected.sort_unstable();
    ensure!(expected.len() == 3, "{expected:?}");
    let found = registered(&at, "token").await?;
    ensure!(found == expected, "{found:?} is not {expected:?}");
    // One more is one too many.
    let told = refused(&flags("token", &endpoint(&etcd)))?;
    let full = "failed to join discovery cluster (discovery: cluster is full)";
    ensure!(told.contains(full), "{told}");
    ensure!(registered(&at, "token").await? == expected, "it registered");
    // With data nobody is asked any more.
    etcd.stop().await?;
    cluster.restart(1).await?;
    let ignored = "discovery token is ignored since cluster already initialized";
    cluster.member(1).logs(ignored).await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_that_cannot_be_ends_the_member() -> Result<()> {
    let etcd = Spec::etcd().start().await?;
    let at = etcd.client().await?;
    size(&at, "zero", "0").await?;
    size(&at, "word", "three").await?;
    size(&at, "same", "2").await?;
    register(
        &at,
        "same",
        "1",
        "other=http://127.0.0.1:2,other=http://127.0.0.1:1",
    )
    .await?;
    size(&at, "bad", "2").await?;
    register(&at, "bad", "1", "other=nowhere").await?;
    register(&at, "bad", "2", "no member").await?;
    size(&at, "full", "1").await?;
    register(&at, "full", "1", "other=http://127.0.0.1:2").await?;
    let join = |text: &str| format!("failed to join discovery cluster (discovery: {text})");
    let same = "late=http://127.0.0.1:1,other=http://127.0.0.1:1,other=http://127.0.0.1:2";
    for (token, text) in [
        ("none", join("size key not found")),
        ("zero", join("size key is bad")),
        ("word", join("size key is bad")),
        ("full", join("cluster is full")),
        ("bad", join("invalid peer URL")),
        (
            "same",
            format!("discovery cluster {same} has duplicate url"),
        ),
    ] {
        let told = refused(&flags(token, &endpoint(&etcd)))?;
        ensure!(told.contains(&text), "{token}: {text} is not in {told}");
    }
    etcd.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_place_that_falls_silent_is_noticed() -> Result<()> {
    let etcd = Spec::etcd().start().await?;
    let at = etcd.client().await?;
    size(&at, "token", "2").await?;
    let mut cluster = prepare(2, "token", &endpoint(&etcd)).await?;
    for member in 0..2 {
        let member = cluster.member_mut(member);
        member.arg("--discovery-keepalive-time=1s");
        member.arg("--discovery-keepalive-timeout=1s");
    }
    cluster.member_mut(0).launch()?;
    cluster
        .member(0)
        .logs("waiting for peers from discovery service")
        .await?;
    etcd.signal(Signal::SIGSTOP)?;
    cluster
        .member(0)
        .logs("\"reason\":\"waiting for peers\"")
        .await?;
    etcd.signal(Signal::SIGCONT)?;
    cluster.start_all().await?;
    ensure!(cluster.list(1).await?.len() == 2, "both are members");
    cluster.stop().await?;
    etcd.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_place_that_does_not_answer_is_asked_again() -> Result<()> {
    // The kernel takes the connection, and nobody answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let endpoint = format!("127.0.0.1:{}", silent.local_addr()?.port());
    let mut cluster = prepare(1, "token", &endpoint).await?;
    let member = cluster.member_mut(0);
    member.arg("--discovery-request-timeout=100ms");
    member.arg("--discovery-dial-timeout=100ms");
    member.launch()?;
    member
        .logs("\"error\":\"context deadline exceeded\"")
        .await?;
    member.logs("retry connecting to discovery service").await?;
    member.terminate().await?;
    cluster.stop().await
}

fn etcdctl(etcd: &Server, tls: &certs::Certs, args: &[&str]) -> Result<()> {
    let show = |path: &Path| path.display().to_string();
    let output = process::command(&binaries::etcdctl()?)
        .args([
            "--endpoints",
            &etcd.client_url(),
            "--cacert",
            &show(&tls.ca),
        ])
        .args([
            "--cert",
            &show(&tls.client.cert),
            "--key",
            &show(&tls.client.key),
        ])
        .args(args)
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "etcdctl {args:?}: {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_place_may_ask_for_certificates_and_passwords() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tls = certs::generate(dir.path(), "nobody")?;
    let etcd = Spec::etcd().mutual_tls(tls.clone()).start().await?;
    let root = ["--user", "root:secret"];
    for args in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        etcdctl(&etcd, &tls, args)?;
    }
    let size = format!("{}/_config/size", registry("token"));
    etcdctl(&etcd, &tls, &[&root[..], &["put", &size, "1"]].concat())?;
    let show = |path: &Path| path.display().to_string();
    let known = [
        format!("--discovery-cacert={}", show(&tls.ca)),
        format!("--discovery-cert={}", show(&tls.client.cert)),
        format!("--discovery-key={}", show(&tls.client.key)),
    ];
    let flags = |rest: &[String]| [&flags("token", &etcd.client_url())[..], rest].concat();
    let wrong = ["--discovery-user=root:wrong".to_owned()];
    let told = refused(&flags(&[&known[..], &wrong].concat()))?;
    ensure!(
        told.contains("(etcdserver: authentication failed, invalid user ID or password)"),
        "{told}"
    );
    let told = refused(&flags(&known[..2]))?;
    let missing = "(KeyFile and CertFile must both be present[key: , cert: ";
    ensure!(told.contains(missing), "{told}");
    // Nobody is believed who is not checked; that the password arrives shows that this one is.
    let skip = [
        known[1].clone(),
        known[2].clone(),
        "--discovery-insecure-skip-tls-verify".to_owned(),
        "--discovery-insecure-transport=false".to_owned(),
    ];
    let told = refused(&flags(&[&skip[..], &wrong].concat()))?;
    ensure!(told.contains("authentication failed"), "{told}");
    let mut cluster = prepare(1, "token", &etcd.client_url()).await?;
    let member = cluster.member_mut(0);
    for flag in known {
        member.arg(flag);
    }
    member.arg("--discovery-user=root");
    member.arg("--discovery-password=secret");
    cluster.start_all().await?;
    cluster.stop().await?;
    etcd.stop().await
}

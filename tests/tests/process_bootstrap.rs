//! How members start: alone, together, and not at all. What operators read when the flags, the
//! certificates, the cluster or the disk do not fit.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use testkit::process::Process;
use testkit::{ClusterSpec, Port, Spec, binaries, eventually, process};

/// Runs kvorum where it has to end by itself, with a data directory of its own.
fn refused(args: &[&str]) -> Result<Output> {
    let dir = tempfile::tempdir()?;
    let output = process::command(&binaries::kvorum()?)
        .arg(format!("--data-dir={}", dir.path().join("data").display()))
        .args([
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
        ])
        .args(args)
        .output()?;
    ensure!(!output.status.success(), "it ran with {args:?}");
    Ok(output)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn etcdctl(args: &[&str]) -> Result<Output> {
    let mut command = Command::new(binaries::etcdctl()?);
    Ok(command.env_clear().args(args).output()?)
}

#[test]
fn flags_are_refused_in_etcds_words() -> Result<()> {
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["--feature-gates=Bogus=true"],
            2,
            "invalid value \"Bogus=true\" for flag -feature-gates: unrecognized feature gate: Bogus",
        ),
        (
            &["--listen-peer-urls=https://127.0.0.1:0"],
            1,
            "cannot listen on TLS for 127.0.0.1:0: KeyFile and CertFile are not presented",
        ),
        (
            &["--cipher-suites=TLS_BOGUS"],
            1,
            "unexpected TLS cipher suite \"TLS_BOGUS\"",
        ),
        (
            &["--initial-cluster=a=http://127.0.0.1:1", "--name=b"],
            1,
            "couldn't find local name \\\"b\\\" in the initial cluster configuration",
        ),
        (
            &[
                "--initial-cluster=default=http://127.0.0.1:1,b=http://127.0.0.1:2",
                "--initial-advertise-peer-urls=http://127.0.0.1:1",
                "--initial-cluster-state=existing",
            ],
            1,
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from \
             the given URLs",
        ),
        (
            &[
                "--peer-cert-file=/nonexistent/peer.crt",
                "--peer-key-file=/nonexistent/peer.key",
            ],
            1,
            "/nonexistent/peer.crt",
        ),
    ];
    for (args, code, text) in cases {
        let output = refused(args)?;
        let told = stderr(&output);
        ensure!(
            output.status.code() == Some(code),
            "{:?} {told}",
            output.status
        );
        ensure!(told.contains(text), "{text} is not in {told}");
        ensure!(!told.contains("panicked"), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn what_means_nothing_here_is_accepted_with_a_warning() -> Result<()> {
    let server = Spec::kvorum()
        .arg("--max-wals=3")
        .arg("--experimental-initial-corrupt-check=true")
        .arg("--experimental-watch-progress-notify-interval=5s")
        .start()
        .await?;
    let log = server.log()?;
    for text in [
        "--max-wals is accepted, but has no effect",
        "InitialCorruptCheck",
        "--experimental-watch-progress-notify-interval is deprecated in v3.6",
    ] {
        ensure!(log.contains(text), "{text} is not in {log}");
    }
    server.stop().await
}

#[tokio::test]
async fn certificates_that_the_member_makes_stay_with_its_data() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let [client, peer, http] = ports.each_ref().map(Port::number);
    let args = [
        "--name=m1".to_owned(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls=https://127.0.0.1:{client}"),
        format!("--listen-client-http-urls=https://127.0.0.1:{http}"),
        format!("--advertise-client-urls=https://127.0.0.1:{client}"),
        format!("--listen-peer-urls=https://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=https://127.0.0.1:{peer}"),
        format!("--initial-cluster=m1=https://127.0.0.1:{peer}"),
        "--auto-tls".to_owned(),
        "--peer-auto-tls".to_owned(),
    ];
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for _start in 0..2 {
        let log = dir.path().join("log");
        let mut member = Process::start(&binaries::kvorum()?, &args, &log)?;
        let endpoint = format!("--endpoints=https://127.0.0.1:{client}");
        let put = [
            "--insecure-transport=false",
            "--insecure-skip-tls-verify",
            "--command-timeout=1s",
            "put",
            "a",
            "b",
        ];
        eventually("it serves over TLS", || async {
            let output = etcdctl(&[&[endpoint.as_str()], &put[..]].concat())?;
            ensure!(output.status.success(), "{}", stderr(&output));
            Ok(())
        })
        .await
        .with_context(|| process::tail(&log, 40))?;
        for side in ["client", "peer"] {
            let fixtures = data.join("fixtures").join(side);
            seen.push(std::fs::read(fixtures.join("cert.pem"))?);
            let key = std::fs::metadata(fixtures.join("key.pem"))?;
            ensure!(key.permissions().mode() & 0o777 == 0o600, "{key:?}");
        }
        let client = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .build()?;
        let version = format!("https://127.0.0.1:{http}/version");
        let version = client.get(version).send().await?.text().await?;
        ensure!(version.contains("etcdserver"), "{version}");
        member.signal(Signal::SIGTERM)?;
        member.ended().await?;
    }
    ensure!(seen[..2] == seen[2..], "they were made again");
    Ok(())
}

#[tokio::test]
async fn a_store_with_a_wrong_bit_is_refused_with_the_way_out() -> Result<()> {
    let mut server = Spec::kvorum().start().await?;
    let mut client = server.client().await?;
    for number in 0..40 {
        let request = api::etcdserverpb::PutRequest {
            key: format!("key{number}").into(),
            value: vec![b'x'; 2000],
            ..Default::default()
        };
        client.kv.put(request).await?;
    }
    drop(client);
    server.terminate().await?;
    let data = server.data_dir();
    for store in ["log", "state"] {
        let path = data.join("member").join(store);
        let file = path.join("db");
        let whole = std::fs::read(&file)?;
        let used: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] != 0).collect();
        for part in 1..4 {
            let mut broken = whole.clone();
            broken[used[used.len() * part / 4]] ^= 1;
            std::fs::write(&file, broken)?;
            let told = start_on(&data)?;
            ensure!(told.contains(&path.display().to_string()), "{told}");
            ensure!(told.contains("remove it from the cluster"), "{told}");
            ensure!(!told.contains("panicked"), "{told}");
        }
        std::fs::write(&file, whole)?;
    }
    server.restart().await?;
    server.stop().await
}

/// What a member says that does not start on this directory.
fn start_on(data: &Path) -> Result<String> {
    Ok(stderr(&refused(&[&format!(
        "--data-dir={}",
        data.display()
    )])?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_start_in_any_order_and_alone_they_wait() -> Result<()> {
    let mut cluster = ClusterSpec::kvorum(3).prepare().await?;
    cluster.member_mut(2).launch()?;
    cluster.member(2).logs("starting local member").await?;
    // It tells who it is while it waits for the others.
    let port = cluster.member(2).listen_peer_port();
    eventually("it answers peers", || testkit::http::get(port, "/version")).await?;
    ensure!(
        !cluster
            .member(2)
            .log()?
            .contains("ready to serve client requests"),
        "it serves clients without a quorum"
    );
    cluster.member_mut(0).launch()?;
    cluster.member_mut(2).ready().await?;
    cluster.member_mut(0).ready().await?;
    cluster.member_mut(1).start().await?;
    let ids: Vec<u64> = cluster
        .list(1)
        .await?
        .iter()
        .map(|member| member.id)
        .collect();
    ensure!(ids.len() == 3, "{ids:?}");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_does_not_begin_again() -> Result<()> {
    let mut cluster = ClusterSpec::kvorum(3).start().await?;
    let id = cluster.id(1).await?;
    let member = cluster.member_mut(1);
    member.kill()?;
    member.wipe()?;
    member.launch()?;
    let status = member.ended().await?;
    let log = cluster.member(1).log()?;
    ensure!(status.code() == Some(1), "{status} {log}");
    let text = format!("member {id:x} has already been bootstrapped");
    ensure!(log.contains(&text), "{log}");
    cluster.leader_of(&[0, 2]).await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_not_added_cannot_join() -> Result<()> {
    let cluster = ClusterSpec::kvorum(3).start().await?;
    let urls: Vec<String> = (0..3).map(|at| cluster.member(at).peer_url()).collect();
    let names: Vec<&str> = (0..3).map(|at| cluster.member(at).name()).collect();
    let mut initial: Vec<String> = (names.iter().zip(&urls))
        .map(|(name, url)| format!("{name}={url}"))
        .collect();
    initial.push("stranger=http://127.0.0.1:1".to_owned());
    let stranger = [
        "--name=stranger",
        "--initial-advertise-peer-urls=http://127.0.0.1:1",
        "--initial-cluster-state=existing",
        &format!("--initial-cluster={}", initial.join(",")),
    ];
    let told = stderr(&refused(&stranger)?);
    ensure!(
        told.contains("error validating peerURLs {ClusterID:"),
        "{told}"
    );
    ensure!(told.contains("member count is unequal"), "{told}");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_etcds_cluster_cannot_be_joined() -> Result<()> {
    let etcd = ClusterSpec::etcd(1).start().await?;
    let url = etcd.member(0).peer_url();
    let joining = [
        "--name=other",
        "--initial-advertise-peer-urls=http://127.0.0.1:1",
        "--initial-cluster-state=existing",
        &format!(
            "--initial-cluster={}={url},other=http://127.0.0.1:1",
            etcd.member(0).name()
        ),
    ];
    let told = stderr(&refused(&joining)?);
    ensure!(
        told.contains(&format!("the member at {url} is an etcd")),
        "{told}"
    );
    etcd.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_member_of_a_lost_cluster_goes_on_with_force_new_cluster() -> Result<()> {
    let mut cluster = ClusterSpec::kvorum(3).start().await?;
    let endpoint = format!("--endpoints={}", cluster.member(0).client_url());
    let put = etcdctl(&[&endpoint, "put", "kept", "value"])?;
    ensure!(put.status.success(), "{}", stderr(&put));
    let id = cluster.id(0).await?;
    for at in 0..3 {
        cluster.member_mut(at).kill()?;
    }
    let member = cluster.member_mut(0);
    member.arg("--force-new-cluster");
    member.start().await?;
    ensure!(
        member.log()?.contains("forcing restart member"),
        "{}",
        member.log()?
    );
    let members = cluster.list(0).await?;
    ensure!(members.len() == 1 && members[0].id == id, "{members:?}");
    ensure!(
        members[0].peer_ur_ls == [cluster.member(0).peer_url()],
        "{members:?}"
    );
    let get = etcdctl(&[&endpoint, "get", "kept", "--print-value-only"])?;
    ensure!(get.stdout == b"value\n", "{}", stderr(&get));
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_stops_and_does_not_start_again() -> Result<()> {
    let mut cluster = ClusterSpec::kvorum(3).start().await?;
    let leader = cluster.leader().await?;
    let removed = (leader + 1) % 3;
    let id = format!("{:x}", cluster.id(removed).await?);
    let endpoint = format!("--endpoints={}", cluster.member(leader).client_url());
    // Who has just started is not counted as healthy yet.
    eventually("it is removed", || async {
        let output = etcdctl(&[&endpoint, "member", "remove", &id])?;
        ensure!(output.status.success(), "{}", stderr(&output));
        Ok(())
    })
    .await?;
    for _start in 0..2 {
        let member = cluster.member_mut(removed);
        let status = member.ended().await?;
        let log = member.log()?;
        ensure!(status.success(), "{status} {log}");
        for text in [
            "the member has been permanently removed from the cluster",
            "data-dir used by this member must be removed",
        ] {
            ensure!(log.contains(text), "{text} is not in {log}");
        }
        member.launch()?;
    }
    cluster.stop().await
}

/// What a line of a process's status says.
fn status_line(pid: &str, name: &str) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("there is such a line")?.trim().to_owned())
}

#[tokio::test]
async fn memory_stays_when_it_is_asked_for() -> Result<()> {
    let capabilities = u64::from_str_radix(&status_line("self", "CapEff:")?, 16)?;
    let (_, limit) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK)?;
    let may = limit == nix::sys::resource::RLIM_INFINITY || capabilities & (1 << 14) != 0;
    if !may {
        let told = stderr(&refused(&["--memory-mlock"])?);
        ensure!(told.contains("the process may lock"), "{told}");
        return Ok(());
    }
    for (flags, is_locked) in [(&["--memory-mlock"][..], true), (&[], false)] {
        let mut spec = Spec::kvorum();
        for flag in flags {
            spec = spec.arg(*flag);
        }
        let server = spec.start().await?;
        let locked = status_line(&server.pid()?.to_string(), "VmLck:")?;
        ensure!((locked != "0 kB") == is_locked, "{locked} with {flags:?}");
        server.stop().await?;
    }
    Ok(())
}

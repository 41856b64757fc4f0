//! The member as a process: what operators, systemd, kubelets and scripts see of it.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use testkit::{Server, Spec, binaries, certs, http, process};

/// Runs kvorum where it has to end by itself.
fn run(args: &[&str]) -> Result<Output> {
    let dir = tempfile::tempdir()?;
    let mut command = process::command(&binaries::kvorum()?);
    Ok(command.args(args).current_dir(dir.path()).output()?)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What etcdctl prints when it asks this server; it has to succeed.
fn etcdctl(server: &Server, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binaries::etcdctl()?);
    command
        .env_clear()
        .arg(format!("--endpoints={}", server.client_url()));
    let output = command.args(args).output()?;
    ensure!(output.status.success(), "{args:?}: {}", stderr(&output));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_version_is_etcds_and_then_our_own() -> Result<()> {
    let output = run(&["--version"])?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    ensure!(lines.next() == Some("etcd Version: 3.6.14"), "{text}");
    ensure!(
        lines
            .last()
            .is_some_and(|line| line.starts_with("kvorum Version: ")),
        "{text}"
    );
    Ok(())
}

#[test]
fn every_wrong_flag_is_named_at_once() -> Result<()> {
    let output = run(&[
        "--snapshot-count=many",
        "--no-such-flag",
        "--listen-client-urls=http://example.com:2379",
        "--auto-compaction-mode=sometimes",
    ])?;
    ensure!(output.status.code() == Some(2), "{:?}", output.status);
    let text = stderr(&output);
    for name in [
        "snapshot-count",
        "no-such-flag",
        "advertise-client-urls",
        "auto-compaction-mode",
    ] {
        ensure!(text.contains(name), "{name} is not named in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_data_directory_has_one_owner() -> Result<()> {
    let server = Spec::kvorum().start().await?;
    let dir = server.data_dir();
    let second = run(&[
        &format!("--data-dir={}", dir.display()),
        "--listen-client-urls=http://127.0.0.1:0",
        "--advertise-client-urls=http://127.0.0.1:0",
        "--listen-peer-urls=http://127.0.0.1:0",
    ])?;
    ensure!(second.status.code() == Some(1), "{:?}", second.status);
    let text = stderr(&second);
    ensure!(text.contains("in use by another process"), "{text}");
    ensure!(text.contains(&dir.display().to_string()), "{text}");
    server.client().await?;
    server.stop().await
}

#[tokio::test]
async fn a_taken_port_is_told_in_etcds_words_and_nothing_is_written() -> Result<()> {
    let server = Spec::kvorum().start().await?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let second = run(&[
        &format!("--data-dir={}", data.display()),
        &format!("--listen-client-urls={}", server.client_url()),
        &format!("--advertise-client-urls={}", server.client_url()),
        "--listen-peer-urls=http://127.0.0.1:0",
    ])?;
    ensure!(second.status.code() == Some(1), "{:?}", second.status);
    let words = format!(
        "listen tcp 127.0.0.1:{}: bind: address already in use",
        server.client_port()
    );
    let text = stderr(&second);
    ensure!(text.contains(&words), "{text}");
    ensure!(!data.join("member").exists(), "data was written");
    server.stop().await
}

#[tokio::test]
async fn an_etcds_data_directory_is_left_alone() -> Result<()> {
    let mut etcd = Spec::etcd().start().await?;
    etcd.terminate().await?;
    let refused = run(&[&format!("--data-dir={}", etcd.data_dir().display())])?;
    ensure!(refused.status.code() == Some(1), "{:?}", refused.status);
    let text = stderr(&refused);
    ensure!(text.contains("etcd"), "{text}");
    etcd.restart().await?;
    etcd.stop().await
}

#[tokio::test]
async fn signals_stop_it_cleanly_and_the_log_has_no_error() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Spec::kvorum().start().await?;
        // The last thing that it says at its start, and it answers before.
        let is_told = || async {
            let log = server.log()?;
            ensure!(log.contains("ready to serve client requests"), "{log}");
            Ok(())
        };
        testkit::eventually("it says that it is ready", is_told).await?;
        server.signal(signal)?;
        testkit::eventually("it ends", || std::future::ready(ended(&server))).await?;
        let log = server.log()?;
        ensure!(!log.contains("\"level\":\"error\""), "{log}");
        server.restart().await?;
        server.stop().await?;
    }
    Ok(())
}

fn ended(server: &Server) -> Result<()> {
    // A process that has ended and was not waited for yet has no memory.
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()?))?;
    ensure!(!status.contains("VmRSS"), "still running");
    Ok(())
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(testkit::patience::patience()))?;
    let mut child = process::command(&binaries::kvorum()?)
        .args([
            &format!("--data-dir={}", dir.path().join("data").display()),
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
        ])
        .env("NOTIFY_SOCKET", &path)
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let mut message = [0; 256];
    let received = socket.recv(&mut message);
    child.kill()?;
    child.wait()?;
    let text = String::from_utf8_lossy(&message[..received.context("nothing was told")?]);
    ensure!(text.contains("READY=1"), "{text}");
    Ok(())
}

#[tokio::test]
async fn over_tls_only_certificates_of_the_ca_get_in_and_probes_need_none() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ours = certs::generate(dir.path(), "client")?;
    let foreign_dir = tempfile::tempdir()?;
    let foreign = certs::generate(foreign_dir.path(), "client")?;
    let server = Spec::kvorum().mutual_tls(ours.clone()).start().await?;
    let etcdctl = |identity: &certs::Identity| -> Result<Output> {
        let mut command = Command::new(binaries::etcdctl()?);
        command
            .env_clear()
            .arg(format!("--endpoints={}", server.client_url()));
        command
            .arg("--cacert")
            .arg(&ours.ca)
            .arg("--cert")
            .arg(&identity.cert);
        command
            .arg("--key")
            .arg(&identity.key)
            .args(["--dial-timeout=1s", "--command-timeout=2s"]);
        Ok(command.args(["put", "over", "tls"]).output()?)
    };
    let let_in = etcdctl(&ours.client)?;
    ensure!(let_in.status.success(), "{}", stderr(&let_in));
    let kept_out = etcdctl(&foreign.client)?;
    ensure!(!kept_out.status.success(), "a foreign certificate got in");
    let log = server.log()?;
    ensure!(
        log.contains("rejected connection on client endpoint"),
        "{log}"
    );
    // What a person sees who forgot the s of https.
    let plain = http::get(server.client_port(), "/health").await?;
    ensure!(plain.status == 400, "{plain:?}");
    ensure!(
        plain
            .body
            .contains("Client sent an HTTP request to an HTTPS server."),
        "{plain:?}"
    );
    for path in ["/livez", "/readyz", "/health", "/metrics"] {
        let answer = http::get(server.metrics_port(), path).await?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    server.stop().await
}

#[tokio::test]
async fn ids_data_and_leases_are_kept_over_a_restart() -> Result<()> {
    let mut server = Spec::kvorum().start().await?;
    let members = etcdctl(&server, &["member", "list"])?;
    let granted = etcdctl(&server, &["lease", "grant", "600"])?;
    let lease = granted
        .split_whitespace()
        .nth(1)
        .context("no lease id")?
        .to_owned();
    etcdctl(&server, &["put", "kept", "value", "--lease", &lease])?;
    server.kill()?;
    server.restart().await?;
    ensure!(
        etcdctl(&server, &["member", "list"])? == members,
        "the members have changed"
    );
    ensure!(
        etcdctl(&server, &["get", "kept", "--print-value-only"])? == "value\n",
        "the key is gone"
    );
    let left = etcdctl(&server, &["lease", "timetolive", &lease, "--keys"])?;
    ensure!(
        left.contains("granted with TTL(600s)") && left.contains("kept"),
        "{left}"
    );
    // A lease that runs out takes its keys along, through the log.
    let granted = etcdctl(&server, &["lease", "grant", "2"])?;
    let short = granted
        .split_whitespace()
        .nth(1)
        .context("no lease id")?
        .to_owned();
    etcdctl(&server, &["put", "short", "lived", "--lease", &short])?;
    testkit::eventually("the lease expires", || {
        std::future::ready(etcdctl(&server, &["get", "short"]).and_then(|left| {
            ensure!(left.is_empty(), "still there: {left}");
            Ok(())
        }))
    })
    .await?;
    server.stop().await
}

#[tokio::test]
async fn an_idle_member_writes_nothing() -> Result<()> {
    let server = Spec::kvorum().start().await?;
    let written = || -> Result<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", server.pid()?))?;
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(line.context("no write_bytes")?.parse()?)
    };
    // What came with the start may still be on its way; then nothing must follow.
    let before = testkit::eventually("it becomes idle", || async {
        let before = written()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(before == written()?, "still writing");
        Ok(before)
    })
    .await?;
    ensure!(written()? == before, "an idle member has written");
    server.stop().await
}

#[tokio::test]
async fn an_idle_member_nearly_stands_still() -> Result<()> {
    // It is woken about 120 times in 3 s; with openraft's clock 320 times.
    const WAKEUPS_MAX: u64 = 200;
    let server = Spec::kvorum().start().await?;
    let wakeups = || -> Result<u64> {
        let mut sum = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", server.pid()?))? {
            let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else {
                // A thread that has ended.
                continue;
            };
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.context("no switches")?.trim().parse::<u64>()?;
        }
        Ok(sum)
    };
    testkit::eventually("it becomes idle", || async {
        let before = wakeups()?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let woken = wakeups()?.saturating_sub(before);
        ensure!(woken <= WAKEUPS_MAX, "woken {woken} times");
        Ok(())
    })
    .await?;
    server.stop().await
}

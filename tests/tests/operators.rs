//! `kvorum check` and `kvorum top`, as an operator runs them: before a member starts, on a cluster that is whole, and on
//! one that has lost a member.

use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::certs::Certs;
use testkit::{Cluster, ClusterSpec, binaries, eventually};

/// What a command did: its status, and what it wrote to standard output.
fn run(arguments: &[String]) -> Result<(i32, String)> {
    let mut command = Command::new(binaries::kvorum()?);
    let done = command.args(arguments).output()?;
    let status = done.status.code().context("ended by a signal")?;
    Ok((status, String::from_utf8(done.stdout)?))
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Findings of a check by level.
fn findings(report: &str, level: &str) -> Result<Vec<String>> {
    let report: Value = serde_json::from_str(report)?;
    let findings = report["findings"].as_array().context("no findings")?;
    let of_level = findings.iter().filter(|it| it["level"] == level);
    let shown = of_level.map(|it| format!("{}: {}", it["check"], it["text"]));
    Ok(shown.collect())
}

#[tokio::test]
async fn a_machine_is_checked_before_a_member_starts() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data_dir = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let check = |more: &[String]| {
        let mut line = texts(&["check", "machine", "--syncs=20", "-w", "json", "--name=m1"]);
        line.push(format!("--data-dir={}", data_dir.display()));
        line.push("--listen-peer-urls=http://127.0.0.1:0".to_owned());
        line.extend_from_slice(more);
        run(&line)
    };
    let urls = |url: String| {
        let advertised = format!("--advertise-client-urls={url}");
        vec![format!("--listen-client-urls={url}"), advertised]
    };
    // A slow machine may have a slow disk: what else could be wrong is not.
    let (_, report) = check(&urls("http://127.0.0.1:0".to_owned()))?;
    let mut errors = findings(&report, "error")?;
    errors.retain(|it| !it.starts_with("\"disk\""));
    ensure!(errors.is_empty(), "{errors:?}");
    ensure!(report.contains("fdatasync in") && report.contains("is free (--listen-client-urls)"));
    ensure!(!data_dir.exists(), "a check leaves nothing");

    let (status, report) = check(&urls(format!("http://{}", taken.local_addr()?)))?;
    let errors = findings(&report, "error")?;
    ensure!(
        status == 1 && errors.iter().any(|it| it.contains("is in use")),
        "{errors:?}"
    );

    let (status, report) = check(&texts(&["--heartbeat-interval=900", "--no-such-flag"]))?;
    let errors = findings(&report, "error")?;
    ensure!(status == 1 && errors.len() == 2, "{errors:?}");

    let file = dir.path().join("kvorum.yaml");
    std::fs::write(&file, "name: m1\nheartbeat-interval: never\n")?;
    let file = format!("--config-file={}", file.display());
    let (status, report) = run(&[texts(&["check", "machine", "-w", "json"]), vec![file]].concat())?;
    ensure!(
        status == 1 && report.contains("heartbeat-interval"),
        "{report}"
    );
    Ok(())
}

fn connection(cluster: &Cluster, certs: &Certs) -> Vec<String> {
    vec![
        format!("--endpoints={}", cluster.member(0).client_url()),
        format!("--cacert={}", certs.ca.display()),
        format!("--cert={}", certs.client.cert.display()),
        format!("--key={}", certs.client.key.display()),
    ]
}

#[tokio::test]
async fn a_cluster_is_checked_and_shown_while_it_runs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = testkit::certs::generate(dir.path(), "root")?;
    let spec = ClusterSpec::kvorum(3).mutual_tls(certs.clone());
    let mut cluster = spec.start().await?;
    let connection = connection(&cluster, &certs);
    let check = || {
        let line = texts(&["check", "cluster", "-w", "json"]);
        run(&[line, connection.clone()].concat())
    };
    eventually("the cluster is fine", || async {
        let (status, report) = check()?;
        let errors = findings(&report, "error")?;
        ensure!(status == 0 && errors.is_empty(), "{report}");
        for part in [
            "3 of 3 voters answer",
            "all agree that",
            "'s clock agrees",
            "is valid until",
        ] {
            ensure!(report.contains(part), "{part} in {report}");
        }
        Ok(())
    })
    .await?;
    let top = || {
        let line = texts(&["top", "--once", "--interval=300ms"]);
        run(&[line, connection.clone()].concat())
    };
    let (status, table) = top()?;
    ensure!(status == 0, "{table}");
    let rows = table.lines().filter(|line| line.starts_with('m')).count();
    ensure!(
        rows == 3 && table.contains("3 of 3 voters, 1 may be lost"),
        "{table}"
    );
    ensure!(
        table.contains("leader") && table.contains("follower"),
        "{table}"
    );

    cluster.member_mut(2).kill()?;
    let (status, report) = check()?;
    let errors = findings(&report, "error")?;
    ensure!(status == 1, "{report}");
    ensure!(
        errors.iter().any(|it| it.contains("member m3")),
        "{errors:?}"
    );
    let (status, table) = top()?;
    ensure!(status == 0 && table.contains("DOWN"), "{table}");
    ensure!(table.contains("2 of 3 voters, 0 may be lost"), "{table}");
    cluster.stop().await
}

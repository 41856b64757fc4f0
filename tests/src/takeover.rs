//! Ways from an etcd to kvorum and back, through the programs' command lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::{Cluster, ClusterSpec, Program, Server, binaries, process};

use crate::contents::{Contents, becomes_equal};

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(program: &Path, arguments: &[&str]) -> Result<Output> {
    let output = process::command(program)
        .args(arguments)
        .env_remove("ETCDCTL_ENDPOINTS")
        .output()?;
    Ok(output)
}

/// Runs a program that has to succeed; what it has printed.
///
/// # Errors
/// When it does not.
pub fn succeed(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(program, arguments)?;
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    ensure!(
        output.status.success(),
        "{} {arguments:?}: {}: {stdout} {stderr}",
        program.display(),
        output.status
    );
    Ok(stdout)
}

/// What a program has printed.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `etcdctl snapshot save`, with more arguments before it.
///
/// # Errors
/// When it does not succeed.
pub fn save(url: &str, more: &[&str], to: &Path) -> Result<()> {
    let to = to.display().to_string();
    let arguments = [more, &["--endpoints", url, "snapshot", "save", &to]].concat();
    succeed(&binaries::etcdctl()?, &arguments).map(drop)
}

/// etcdutl looks at every page, and both say the same of the file.
///
/// # Errors
/// When they do not.
pub fn check_status(snapshot: &Path) -> Result<()> {
    let path = snapshot.display().to_string();
    let arguments = ["snapshot", "status", &path, "-w", "json"];
    let theirs: Value = serde_json::from_str(&succeed(&binaries::etcdutl()?, &arguments)?)?;
    let ours: Value = serde_json::from_str(&succeed(&binaries::kvorum()?, &arguments)?)?;
    // Before 3.6 etcdutl counts all records as keys.
    for field in ["hash", "revision", "totalSize"] {
        ensure!(
            theirs[field] == ours[field],
            "{field}: {ours} instead of {theirs}"
        );
    }
    Ok(())
}

/// Restores every member of a cluster that has not started, and starts it.
///
/// # Errors
/// When the snapshot is refused, or the cluster does not start.
pub async fn restore(
    snapshot: &Path,
    program: Program,
    members: usize,
    extra: &[&str],
) -> Result<Cluster> {
    let mut cluster = ClusterSpec::of(program, members).prepare().await?;
    let tool = match program {
        Program::Kvorum => binaries::kvorum()?,
        Program::Etcd => binaries::etcdutl()?,
    };
    let initial: Vec<String> = cluster
        .members()
        .iter()
        .map(|member| format!("{}={}", member.name(), member.peer_url()))
        .collect();
    let initial = initial.join(",");
    for member in cluster.members() {
        let (peer_url, directory) = (member.peer_url(), member.data_dir());
        let (snapshot, directory) = (
            snapshot.display().to_string(),
            directory.display().to_string(),
        );
        let mut arguments = vec!["snapshot", "restore", &snapshot, "--data-dir", &directory];
        arguments.extend(["--name", member.name(), "--initial-cluster", &initial]);
        arguments.extend(["--initial-advertise-peer-urls", &peer_url]);
        arguments.extend(extra);
        succeed(&tool, &arguments)?;
    }
    cluster.start_all().await?;
    Ok(cluster)
}

/// Whether every member of a cluster holds what is expected; the cluster is stopped then.
///
/// # Errors
/// When one does not.
pub async fn check_all(cluster: Cluster, expected: &Contents) -> Result<()> {
    for at in 0..cluster.members().len() {
        let client = cluster.client(at)?;
        becomes_equal(expected, &client)
            .await
            .with_context(|| format!("member {at}"))?;
    }
    cluster.stop().await
}

/// Names, lengths and contents of all files.
///
/// # Errors
/// When one cannot be read.
pub fn checksum(directory: &Path) -> Result<Vec<(PathBuf, u32)>> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let checksum = crc32c::crc32c(&fs::read(&path)?);
                files.push((path, checksum));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Lets kvorum take the place of an etcd that has stopped: same ports, and what `kvorum migrate` makes
/// in the place of its data directory.
///
/// # Errors
/// When the directory is refused, or the member does not start.
pub async fn take_place(server: &mut Server) -> Result<()> {
    let from = server.data_dir();
    let to = from.with_extension("migrated");
    let (from_text, to_text) = (from.display().to_string(), to.display().to_string());
    let arguments = ["migrate", "--from", &from_text, "--data-dir", &to_text];
    succeed(&binaries::kvorum()?, &arguments)?;
    fs::rename(&from, from.with_extension("etcd"))?;
    fs::rename(&to, &from)?;
    server.become_program(Program::Kvorum);
    server.restart().await
}

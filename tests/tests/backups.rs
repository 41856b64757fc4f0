//! Backups that a member takes by itself: due, verified, thinned out and restored, in a directory and in a
//! bucket; by a follower if there is one; and to any revision or time between them.

#[path = "backups/bucket.rs"]
mod bucket;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use api::etcdserverpb as pb;
use kvorum_tests::contents::{self, Filling, becomes_equal, fill};
use serde_json::Value;
use testkit::{
    Client, Cluster, ClusterSpec, Program, Server, Spec, binaries, eventually, http, process,
};

use bucket::{ACCESS_KEY, Bucket};

fn kvorum(arguments: &[&str]) -> Result<Output> {
    let output = process::command(&binaries::kvorum()?)
        .args(arguments)
        .output()?;
    Ok(output)
}

/// What a command that has to fail says.
fn refusal(arguments: &[&str]) -> Result<String> {
    let output = kvorum(arguments)?;
    ensure!(!output.status.success(), "{arguments:?} has not failed");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A member that was restored from here.
async fn restored(source: &str, extra: &[&str]) -> Result<Cluster> {
    let mut cluster = ClusterSpec::of(Program::Kvorum, 1).prepare().await?;
    let member = cluster.member(0);
    let initial = format!("{}={}", member.name(), member.peer_url());
    let (peer_url, directory) = (member.peer_url(), member.data_dir().display().to_string());
    let mut arguments = vec!["snapshot", "restore", source, "--data-dir", &directory];
    arguments.extend([
        "--no-bump",
        "--name",
        member.name(),
        "--initial-cluster",
        &initial,
    ]);
    arguments.extend(["--initial-advertise-peer-urls", &peer_url]);
    arguments.extend(extra);
    let output = kvorum(&arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {stderr}");
    let left = member.data_dir().with_file_name(format!(
        "{}.fetch.part",
        member
            .data_dir()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
    ));
    ensure!(!left.exists(), "{} was left", left.display());
    cluster.start_all().await?;
    Ok(cluster)
}

/// The backups in a directory, as their metadata tells of them, oldest first.
fn told(directory: &Path) -> Result<Vec<Value>> {
    let mut told = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            told.push(serde_json::from_slice::<Value>(&fs::read(path)?)?);
        }
    }
    told.sort_by_key(|backup| backup["takenUnixMs"].as_i64());
    Ok(told)
}

async fn metric(port: u16, name: &str) -> Result<f64> {
    let text = http::get(port, "/metrics").await?.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.with_context(|| format!("there is no {name}"))?;
    Ok(value.trim().parse()?)
}

async fn put(client: &mut Client, key: &str, value: &[u8]) -> Result<i64> {
    let request = pb::PutRequest {
        key: key.into(),
        value: value.to_vec(),
        ..pb::PutRequest::default()
    };
    let header = client.kv.put(request).await?.into_inner().header;
    Ok(header.context("a put has a header")?.revision)
}

async fn hash_at(client: &mut Client, revision: i64) -> Result<(u32, i64)> {
    let answer = client
        .maintenance
        .hash_kv(pb::HashKvRequest { revision })
        .await?;
    let answer = answer.into_inner();
    Ok((answer.hash, answer.compact_revision))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_when_it_is_due_and_old_ones_go() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let theirs = directory.path().join("etcd-snapshot-other-1");
    fs::write(&theirs, "not ours")?;
    let server = Spec::kvorum()
        .arg("--backup-schedule=1s")
        .arg(format!("--backup-dir={}", directory.path().display()))
        .arg("--backup-retention=2")
        .arg("--backup-compression=gzip")
        .arg("--backup-age-max=100h")
        .start()
        .await?;
    let mut client = server.client().await?;
    fill(&mut client, Filling::Many).await?;
    let expected = contents::read(&mut client).await?;
    let newest = eventually("a backup of all, and no more than two", || async {
        let taken = metric(server.client_port(), "kvorum_backup_success_total").await?;
        let told = told(directory.path())?;
        let newest = told.last().context("there is none")?;
        ensure!(
            taken >= 3.0 && told.len() <= 2,
            "{taken} taken, {} there",
            told.len()
        );
        ensure!(newest["revision"] == expected.revision, "{newest}");
        Ok(newest.clone())
    })
    .await?;
    ensure!(theirs.exists(), "a file of somebody else was removed");
    let health = http::get(server.client_port(), "/health").await?;
    ensure!(
        health.body == r#"{"health":"true","reason":""}"#,
        "{health:?}"
    );
    server.stop().await?;
    let name = newest["name"].as_str().context("a name")?.to_owned();
    ensure!(
        name.starts_with("etcd-snapshot-m1-") && name.ends_with(".gz"),
        "{name}"
    );
    let newest = told(directory.path())?.pop().context("a backup")?;
    let newest = directory
        .path()
        .join(newest["name"].as_str().context("a name")?);
    for source in [newest.as_path(), directory.path()] {
        let cluster = restored(&source.display().to_string(), &[]).await?;
        becomes_equal(&expected, &cluster.client(0)?).await?;
        cluster.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_takes_backups_and_gives_them_back() -> Result<()> {
    let bucket = Bucket::start().await?;
    bucket.put("some/folder/etcd-snapshot-other-1", b"not ours");
    let directory = tempfile::tempdir()?;
    let credentials = directory.path().join("credentials");
    let text =
        format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = secret\n");
    fs::write(&credentials, text)?;
    let credentials = credentials.display();
    let server = Spec::kvorum()
        .arg("--backup-schedule=1s")
        .arg("--backup-retention=1")
        .arg("--backup-s3-bucket=backups")
        .arg("--backup-s3-folder=some/folder")
        .arg(format!("--backup-s3-endpoint={}", bucket.endpoint))
        .arg(format!("--backup-s3-credentials-file={credentials}"))
        .start()
        .await?;
    let mut client = server.client().await?;
    // More than goes in one piece.
    for at in 0..9 {
        put(&mut client, &format!("key{at}"), &vec![at; 1_400_000]).await?;
    }
    let expected = contents::read(&mut client).await?;
    eventually("a backup of all, and no more than one", || async {
        let revision = metric(server.client_port(), "kvorum_backup_last_revision").await?;
        let names = bucket.names("some/folder");
        ensure!(
            revision == expected.revision as f64 && names.len() == 3,
            "{revision}: {names:?}"
        );
        Ok(())
    })
    .await?;
    ensure!(bucket.joined() > 0, "nothing was uploaded in parts");
    server.stop().await?;
    let names = bucket.names("some/folder");
    let name = names.iter().find_map(|name| name.strip_suffix(".json"));
    let name = name.context("a backup")?;
    let endpoint = format!("--s3-endpoint={}", bucket.endpoint);
    let key = format!("--s3-credentials-file={credentials}");
    let revision = expected.revision.to_string();
    let speak = [endpoint.as_str(), key.as_str()];
    let to_revision = [&speak[..], &["--to-revision", &revision]].concat();
    let folder = "s3://backups/some/folder".to_owned();
    // A file as it is, a folder to a revision.
    for (source, extra) in [
        (format!("{folder}/{name}"), &speak[..]),
        (folder.clone(), &to_revision),
    ] {
        let cluster = restored(&source, extra).await?;
        becomes_equal(&expected, &cluster.client(0)?).await?;
        cluster.stop().await?;
    }
    let target = directory.path().join("data").display().to_string();
    let missing = format!("{folder}/none");
    let missing = ["snapshot", "restore", &missing, "--data-dir", &target];
    let text = refusal(&[&missing[..], &speak].concat())?;
    ensure!(text.contains("there is no backup"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_takes_a_backup_and_another_one_when_it_is_gone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = ClusterSpec::kvorum(3)
        .arg("--backup-schedule=2s")
        .arg(format!("--backup-dir={}", directory.path().display()))
        .arg("--backup-retention=0")
        .start()
        .await?;
    let by = |told: &Value| told["memberId"].as_str().unwrap_or_default().to_owned();
    let taker = eventually("a backup by another member than the leader", || async {
        let leader = cluster.leader().await?;
        let leader = format!("{:x}", cluster.id(leader).await?);
        let taker = told(directory.path())?.last().map(by).context("none")?;
        ensure!(taker != leader, "the leader has taken the last one");
        Ok(taker)
    })
    .await?;
    let mut at = None;
    for member in 0..3 {
        if format!("{:x}", cluster.id(member).await?) == taker {
            at = Some(member);
        }
    }
    cluster
        .member_mut(at.context("the taker is a member")?)
        .kill()?;
    eventually("a backup by another member", || async {
        let told = told(directory.path())?;
        ensure!(told.iter().map(by).any(|id| id != taker), "only by {taker}");
        Ok(())
    })
    .await?;
    cluster.stop().await
}

/// A member that archives every second, and a backup once.
async fn archiving(directory: &Path) -> Result<Server> {
    Spec::kvorum()
        .arg("--backup-schedule=100h")
        .arg(format!("--backup-dir={}", directory.display()))
        .arg("--backup-archive-interval=1s")
        .start()
        .await
}

async fn archived(server: &Server, revision: i64) -> Result<()> {
    eventually("the archive has it", || async {
        let archived = metric(server.client_port(), "kvorum_backup_archived_revision").await?;
        ensure!(archived >= revision as f64, "only {archived} of {revision}");
        Ok(())
    })
    .await
}

fn segments(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        found.extend(name.starts_with("kvorum-archive-").then_some(path));
    }
    found.sort();
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_restored_as_of_a_revision_and_of_a_time() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut server = archiving(directory.path()).await?;
    let mut client = server.client().await?;
    fill(&mut client, Filling::Many).await?;
    let first = put(&mut client, "first", b"1").await?;
    archived(&server, first).await?;
    contents::write_more(&mut client).await?;
    let middle = put(&mut client, "middle", b"2").await?;
    archived(&server, middle).await?;
    // What is noted each second has to be noted before the next write.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let now = directory.path().join("now");
    fs::write(&now, "")?;
    let time = fs::metadata(&now)?.modified()?;
    let time = time.duration_since(SystemTime::UNIX_EPOCH)?;
    server.restart().await?;
    client = server.client().await?;
    for at in 0..50 {
        put(&mut client, "last", &[at]).await?;
    }
    let last = put(&mut client, "last", b"3").await?;
    archived(&server, last).await?;
    let source = directory.path().display().to_string();
    let expected = contents::read(&mut client).await?;
    for revision in [first, middle - 1, middle, last - 7, last] {
        let cluster = restored(&source, &["--to-revision", &revision.to_string()]).await?;
        let mut found = cluster.client(0)?;
        let (theirs, ours) = (
            hash_at(&mut client, revision).await?,
            hash_at(&mut found, revision).await?,
        );
        ensure!(
            theirs == ours,
            "revision {revision}: {ours:?} instead of {theirs:?}"
        );
        let now = contents::read(&mut found).await?;
        ensure!(
            now.revision == revision,
            "{} instead of {revision}",
            now.revision
        );
        if revision == last {
            contents::check_equal(&expected, &now)?;
        }
        cluster.stop().await?;
    }
    let cluster = restored(&source, &["--to-time", &time.as_secs_f64().to_string()]).await?;
    let found = contents::read(&mut cluster.client(0)?).await?.revision;
    ensure!(found == middle, "revision {found} instead of {middle}");
    cluster.stop().await?;
    server.stop().await?;
    what_is_missing_is_refused(directory.path(), first, last)
}

/// A target that cannot be reached, a damaged segment, a missing one: nothing is made.
fn what_is_missing_is_refused(directory: &Path, first: i64, last: i64) -> Result<()> {
    let target = tempfile::tempdir()?;
    let data = target.path().join("data");
    let (source, data_dir) = (directory.display().to_string(), data.display().to_string());
    let refuse = |arguments: &[&str], words: &[&str]| {
        let line = ["snapshot", "restore", &source, "--data-dir", &data_dir];
        let text = refusal(&[&line[..], arguments].concat())?;
        for word in words {
            ensure!(text.contains(word), "no {word:?} in {text}");
        }
        ensure!(
            fs::read_dir(target.path())?.count() == 0,
            "something was left: {text}"
        );
        Ok(())
    };
    let last_text = last.to_string();
    refuse(
        &["--to-revision", &(last + 1).to_string()],
        &["no changes after revision", &last_text],
    )?;
    refuse(&["--to-time", "1000"], &["oldest backup"])?;
    refuse(
        &["--to-time", "2100-01-01T00:00:00Z"],
        &["no changes after revision", &last_text],
    )?;
    refuse(
        &["--to-revision", "1", "--to-time", "1"],
        &["exclude each other"],
    )?;
    let segments = segments(directory)?;
    ensure!(segments.len() >= 2, "{segments:?}");
    let damaged = segments.last().context("a segment")?;
    let whole = fs::read(damaged)?;
    let mut bytes = whole.clone();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(damaged, &bytes)?;
    let name = damaged
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    refuse(&["--to-revision", &last_text], &[&name])?;
    fs::write(damaged, &whole)?;
    fs::remove_file(&segments[0])?;
    refuse(&["--to-revision", &last_text], &["a segment is missing"])?;
    // The backup may hold the first write itself; what came after it is in no backup.
    refuse(
        &["--to-revision", &(first + 1).to_string()],
        &["a segment is missing"],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_a_compaction_has_passed_begins_anew_with_a_backup() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = archiving(directory.path()).await?;
    let mut client = server.client().await?;
    let mut revision = 0;
    // Until a compaction is quicker than the archive.
    for _ in 0..600 {
        revision = put(&mut client, "key", b"1").await?;
        let request = pb::CompactionRequest {
            revision,
            physical: false,
        };
        client.kv.compact(request).await?;
        if told(directory.path())?.len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let told = told(directory.path())?;
    let [.., one, other] = told.as_slice() else {
        bail!("no second backup: {told:?}");
    };
    ensure!(
        one["chain"] != other["chain"],
        "the same archive goes on: {told:?}"
    );
    revision = put(&mut client, "key", b"2").await?.max(revision);
    archived(&server, revision).await?;
    let source = directory.path().display().to_string();
    let cluster = restored(&source, &["--to-revision", &revision.to_string()]).await?;
    let mut found = cluster.client(0)?;
    ensure!(hash_at(&mut client, revision).await?.0 == hash_at(&mut found, revision).await?.0);
    cluster.stop().await?;
    server.stop().await
}

#[test]
fn every_mistake_about_backups_is_told_at_once() -> Result<()> {
    let text = refusal(&[
        "--backup-schedule=61 * * * *",
        "--backup-dir=/tmp/a",
        "--backup-s3-bucket=b",
        "--backup-s3-endpoint=host",
        "--backup-name=a/b",
    ])?;
    for word in [
        "--backup-schedule",
        "exclude each other",
        "--backup-s3-endpoint",
        "--backup-name",
    ] {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    let text = refusal(&["--backup-retention=2"])?;
    for word in [
        "--backup-schedule is missing",
        "--backup-dir or --backup-s3-bucket is missing",
    ] {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(())
}

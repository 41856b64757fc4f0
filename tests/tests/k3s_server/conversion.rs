//! A single server with SQLite becomes the first of a cluster.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use kvorum_tests::kine;
use kvorum_tests::takeover::checksum;
use serde_json::Value;

use crate::site::{K3s, Site, names_in};

const KEYS: usize = 5000;
/// Where it is, and how it is called afterwards.
const DATABASE: &str = "db/state.db";
const MIGRATED: &str = "db/state.db.migrated";
/// The row that a server with SQLite writes for itself, under a token that the new one does not have.
const BOOTSTRAP: kine::Row<'static> = ("/bootstrap/0123456789ab", 1, 0, 0, 0, 0, "sealed");

/// A database with some more rows, closed.
fn database(server: &K3s, more: &[kine::Row<'_>]) -> Result<()> {
    std::fs::create_dir_all(server.file("db"))?;
    let open = kine::create(&server.file(DATABASE))?;
    open.execute_batch("BEGIN")?;
    for row in more {
        kine::insert(&open, *row)?;
    }
    open.execute_batch("COMMIT")?;
    open.close().map_err(|(_open, error)| error)?;
    Ok(())
}

fn directory_of(server: &K3s) -> Result<Vec<String>> {
    let mut names = names_in(&server.file("db"))?;
    names.retain(|name| name != "snapshots");
    Ok(names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_servers_database_is_converted_once() -> Result<()> {
    let mut site = Site::new(2).await?;
    let path = site.servers[0].file(DATABASE);
    database_in_the_way(&mut site, &path).await?;
    let before = std::fs::read(&path)?;
    site.init(&[]).await?;
    let log = site.servers[0].log()?;
    for words in [
        "Migrating content from sqlite to etcd",
        "lose their history",
        "2 keys expire",
        "Migrated 3 keys to etcd; 1 of bootstrap data are written anew",
    ] {
        ensure!(log.contains(words), "{words:?}: {log}");
    }
    ensure!(
        directory_of(&site.servers[0])? == ["etcd", "state.db.migrated"],
        "{:?}",
        directory_of(&site.servers[0])?
    );
    ensure!(
        std::fs::read(site.servers[0].file(MIGRATED))? == before,
        "the database has changed"
    );
    // The keys have the revisions that they had.
    has_the_keys(&site, 0)?;
    site.operator(&[0]).put("after", "the conversion").await?;
    let name = std::fs::read(site.servers[0].file("db/etcd/name"))?;
    ensure!(site.servers[0].stop().await? == Some(0), "it did not stop");
    // Whatever is called so now is none of its business any more.
    std::fs::write(&path, "somebody's")?;
    site.init(&[]).await?;
    let log = site.servers[0].log()?;
    ensure!(!log.contains("Migrating content"), "{log}");
    ensure!(std::fs::read(&path)? == b"somebody's", "it is not left");
    ensure!(std::fs::read(site.servers[0].file("db/etcd/name"))? == name);
    // Who joins has its cluster's data, and says so.
    database(&site.servers[1], &[])?;
    site.join(1, &[]).await?;
    let log = site.servers[1].log()?;
    ensure!(log.contains("is not taken over"), "{log}");
    ensure!(site.servers[1].file(DATABASE).exists(), "it is gone");
    site.ready(1, 2, &[0, 1]).await?;
    has_the_keys(&site, 1)?;
    ensure!(site.get(1, "after").await?.is_some(), "it is lost");
    site.fine().await
}

/// What is refused leaves the database as it is, and says in one line what to do.
async fn database_in_the_way(site: &mut Site, path: &Path) -> Result<()> {
    let server = &mut site.servers[0];
    database(server, &[BOOTSTRAP])?;
    let db = server.file("db");
    let before = checksum(&db)?;
    server.start(&[])?;
    server
        .refuses("runs on etcd: give --cluster-init to convert it")
        .await?;
    ensure!(checksum(&db)? == before, "it was written to");
    let open = rusqlite::Connection::open(path)?;
    let count = "SELECT COUNT(*) FROM kine";
    let rows: usize = open.query_row(count, [], |row| row.get(0))?;
    ensure!(rows == kine::ROWS.len() + 1, "{rows} rows");
    server.start(&["--cluster-init"])?;
    server
        .refuses("is in use: stop the k3s or kine that runs on it first")
        .await?;
    open.close().map_err(|(_open, error)| error)?;
    let migrated = server.file(MIGRATED);
    std::fs::write(&migrated, "of another time")?;
    server.start(&["--cluster-init"])?;
    server.refuses("is there already: move it away").await?;
    std::fs::remove_file(migrated)?;
    let whole = std::fs::read(path)?;
    std::fs::write(
        path,
        "no database, but as long as one would at least have to be",
    )?;
    server.start(&["--cluster-init"])?;
    server
        .refuses("failed to migrate content from sqlite")
        .await?;
    std::fs::write(path, whole)?;
    ensure!(!server.file("db/etcd/member").exists(), "something is left");
    Ok(())
}

/// As etcdctl shows them: key, value, and both revisions.
fn has_the_keys(site: &Site, at: usize) -> Result<()> {
    let list = ["get", "--prefix", "/registry/", "-w", "json"];
    let listed: Value = serde_json::from_str(&site.operator(&[at]).etcdctl(&list)?)?;
    let kvs = listed["kvs"].as_array().context("no keys")?;
    // The third one may have expired.
    let revisions: Vec<(i64, i64)> = kvs
        .iter()
        .filter_map(|kv| {
            Some((
                kv["mod_revision"].as_i64()?,
                kv["create_revision"].as_i64()?,
            ))
        })
        .filter(|(modified, _created)| *modified != 7)
        .collect();
    ensure!(revisions == [(8, 8), (4, 2)], "{listed}");
    let shown = site.operator(&[at]).etcdctl(&[
        "get",
        "/registry/namespaces/default",
        "--print-value-only",
    ])?;
    ensure!(shown == "two\n", "{shown}");
    Ok(())
}

/// It may be killed whenever it is: the next start begins anew, or goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversion_that_is_killed_is_done_by_the_next_start() -> Result<()> {
    let mut site = Site::new(1).await?;
    let names: Vec<String> = (0..KEYS).map(|at| format!("/registry/many/{at}")).collect();
    let row = |name| (name, 1, 0, 0, 0, 0, "value");
    let rows: Vec<_> = names.iter().map(|name| row(name.as_str())).collect();
    database(&site.servers[0], &rows)?;
    // What another one that was killed has left.
    let left = site.servers[0].file("db/etcd-conversion/restore.part/member/state");
    std::fs::create_dir_all(&left)?;
    for moment in ["Migrating content", "revision", "Migrated", "is up"] {
        site.servers[0].start(&["--cluster-init"])?;
        // One that was quick has done it before it was killed.
        site.servers[0].says_one_of(&[moment, "is up"]).await?;
        site.servers[0].kill()?;
    }
    site.init(&[]).await?;
    has_all(&site)?;
    put_away(&mut site).await?;
    written_to_meanwhile(&mut site).await?;
    site.fine().await
}

fn has_all(site: &Site) -> Result<()> {
    let count = [
        "get",
        "--prefix",
        "/registry/many/",
        "--count-only",
        "-w",
        "fields",
    ];
    let shown = site.operator(&[0]).etcdctl(&count)?;
    ensure!(shown.contains(&format!("\"Count\" : {KEYS}\n")), "{shown}");
    let names = directory_of(&site.servers[0])?;
    ensure!(names == ["etcd", "state.db.migrated"], "{names:?}");
    Ok(())
}

/// The data directory as it is when all is in, and the database is not put away.
async fn unfinish(site: &mut Site) -> Result<()> {
    let server = &mut site.servers[0];
    ensure!(server.stop().await? == Some(0), "it did not stop");
    let revision = kine::ROWS.len() + KEYS;
    std::fs::write(server.file("db/etcd/converted"), revision.to_string())?;
    std::fs::rename(server.file(MIGRATED), server.file(DATABASE))?;
    Ok(())
}

async fn put_away(site: &mut Site) -> Result<()> {
    unfinish(site).await?;
    site.init(&[]).await?;
    let log = site.servers[0].log()?;
    ensure!(!log.contains("Migrating content"), "{log}");
    ensure!(!site.servers[0].file("db/etcd/converted").exists(), "{log}");
    has_all(site)
}

/// Whoever has gone back to the database must not lose what is new in it.
async fn written_to_meanwhile(site: &mut Site) -> Result<()> {
    unfinish(site).await?;
    let server = &mut site.servers[0];
    let open = rusqlite::Connection::open(server.file(DATABASE))?;
    kine::insert(&open, ("/registry/new", 1, 0, 0, 0, 0, "value"))?;
    open.close().map_err(|(_open, error)| error)?;
    server.start(&["--cluster-init"])?;
    server
        .refuses("has been written to since it was converted")
        .await?;
    // As it says: to convert it again.
    std::fs::rename(server.file("db/etcd"), server.file("db/etcd-first"))?;
    site.init(&[]).await?;
    ensure!(site.get(0, "/registry/new").await?.is_some(), "it is lost");
    Ok(())
}

//! `--cluster-init` where a single server's SQLite datastore is: its keys become a member's data, once.
//!
//! ```text
//!  db/state.db         is only read ───────> db/etcd-conversion   whatever a start before has left is begun anew
//!  db/etcd-conversion  in one step ────────> db/etcd              with a file in it that says where it comes from
//!  db/state.db         only then ──────────> db/state.db.migrated and that file goes
//! ```
//!
//! k3s puts the keys into an etcd that runs, and they get other revisions. Here the member is made with the
//! revisions that they have, so that nobody sees an object go back in time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kvorum::migrate::sqlite::KineSource;
use kvorum::{Config, Kvorum};

use super::{Naming, Plan};
use crate::bootstrap;
use crate::layout::{Layout, private_dir, read_if_there, write_private};

/// What belongs to a database of SQLite's: itself first, then what one that was not closed has beside it.
const PARTS: [&str; 4] = ["", "-wal", "-journal", "-shm"];

/// Makes the member of what the datastore holds, and starts it.
pub(crate) async fn convert(plan: &Plan) -> Result<Kvorum> {
    let worker = plan.clone();
    let converted = tokio::task::spawn_blocking(move || make_member(&worker)).await?;
    converted.context("failed to migrate content from sqlite to etcd")?;
    plan.again().await
}

/// Puts the datastore away that the member's data were made of, if that is still to be done.
pub(crate) fn finish_conversion(layout: &Layout) -> Result<()> {
    let Some(revision) = read_if_there(&layout.converted())? else {
        return Ok(());
    };
    let (from, to) = (layout.sqlite(), layout.sqlite_migrated());
    if from.exists() {
        // Its server may have been started again before the datastore was out of its sight.
        let found = KineSource::open(&from)?.summary().revision;
        if found.to_string() != revision.trim() {
            bail!(
                "{} has been written to since it was converted: move {} away to convert it again, or the \
                 database to go on without what is new in it",
                from.display(),
                layout.etcd().display()
            );
        }
    }
    for part in PARTS {
        move_if_there(&with_end(&from, part), &with_end(&to, part))?;
    }
    sync(&layout.db())?;
    fs::remove_file(layout.converted()).context("cannot end the conversion")?;
    tracing::info!("{} is {} now", from.display(), to.display());
    Ok(())
}

/// All of it, but for the start.
fn make_member(plan: &Plan) -> Result<()> {
    let layout = &plan.layout;
    let (from, work) = (layout.sqlite(), layout.conversion());
    if plan.flag("wal-dir").is_some() {
        bail!("--etcd-arg=wal-dir cannot be given for a datastore that is converted");
    }
    for part in PARTS {
        let there = with_end(&layout.sqlite_migrated(), part);
        if there.exists() {
            bail!("{} is there already: move it away", there.display());
        }
    }
    if work.exists() {
        tracing::info!("a conversion was not finished, and begins anew");
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    tracing::info!("Migrating content from sqlite to etcd");
    let name = plan.name(Naming::AsBefore)?;
    let revision = fill(plan, &name, &from, &work)?;
    write_private(&work.join(Layout::NAME), &name)?;
    write_private(&work.join(Layout::CONVERTED), &revision.to_string())?;
    sync(&work)?;
    put_in_place(layout, &work)?;
    finish_conversion(layout)
}

/// Writes the data; says at which revision they go on.
fn fill(plan: &Plan, name: &str, from: &Path, work: &Path) -> Result<i64> {
    let mut source = KineSource::open(from)?;
    // Each server writes its own, and its token may be another one.
    source.leave_out(bootstrap::PREFIX);
    let summary = source.summary();
    tracing::info!(
        "{}: {} keys, {} bytes, revision {}",
        from.display(),
        summary.keys,
        summary.bytes,
        summary.revision
    );
    for note in &summary.notes {
        tracing::warn!("{note}");
    }
    private_dir(work)?;
    let flags = plan.flags(name).into_iter().chain(plan.new_cluster(name));
    let flags = flags.chain([format!("--data-dir={}", work.display())]);
    let config = Config::builder().arguments(flags).build();
    let config = config.context("the member's flags")?;
    let made = source.migrate(&config, |_keys| ())?;
    tracing::info!(
        "Migrated {} keys to etcd; {} of bootstrap data are written anew",
        made.keys,
        made.left_out
    );
    Ok(made.revision)
}

/// In one step the member's data are there. Nothing but a member's name was there before.
fn put_in_place(layout: &Layout, work: &Path) -> Result<()> {
    let etcd = layout.etcd();
    fs::remove_file(layout.name()).context("cannot remove the name file")?;
    fs::rename(work, &etcd)
        .with_context(|| format!("cannot move {} to {}", work.display(), etcd.display()))?;
    sync(&layout.db())
}

fn move_if_there(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot move {}", from.display()))
        }
        _moved_or_not_there => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<()> {
    let opened = File::open(directory).and_then(|directory| directory.sync_all());
    opened.with_context(|| format!("cannot make {} durable", directory.display()))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

//! Snapshots in files, under k3s's names: `<base name>-<node>-<unix time>`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use kvorum::Client;
use serde::{Deserialize, Serialize};
use types::{Clock, SystemClock};

use crate::cli::SnapshotArgs;
use crate::layout::{Layout, private_dir};
use crate::log::rfc3339;
use crate::nodes::unix_now;
use crate::schedule::Schedule;

const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Where snapshots are, whose, and how many stay.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    /// The directory is k3s's own, and made if it is not there.
    is_default_dir: bool,
    node: String,
    base_name: String,
    retention: usize,
    /// `None`: they are taken when asked for only.
    schedule: Option<Schedule>,
}

/// A snapshot, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotFile {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) node_name: String,
    pub(crate) created_at: String,
    pub(crate) size: u64,
}

impl Snapshots {
    pub(crate) fn new(layout: &Layout, node: &str, arguments: &SnapshotArgs) -> Self {
        let dir = arguments.etcd_snapshot_dir.clone();
        let schedule = arguments.etcd_snapshot_schedule_cron.clone();
        Self {
            is_default_dir: dir.is_none(),
            dir: dir.unwrap_or_else(|| layout.snapshots()),
            node: node.to_owned(),
            base_name: arguments.etcd_snapshot_name.clone(),
            retention: arguments.etcd_snapshot_retention,
            schedule: (!arguments.etcd_disable_snapshots).then_some(schedule),
        }
    }

    /// Takes them when it is time, until this is dropped.
    pub(crate) async fn run(&self, client: &Client) -> ! {
        match &self.schedule {
            Some(schedule) => self.follow(schedule, client).await,
            None => tracing::info!("ETCD snapshots are disabled"),
        }
        std::future::pending().await
    }

    /// Ends when the schedule never comes up again.
    async fn follow(&self, schedule: &Schedule, client: &Client) {
        while let Some(due) = schedule.after(SystemClock.wall()) {
            while let Ok(left) = due.duration_since(SystemClock.wall()) {
                // The wall clock may be set meanwhile.
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
            let taken = self.save(client, &self.base_name).await;
            let pruned = taken.and_then(|_name| self.prune(&self.base_name, self.retention));
            if let Err(error) = pruned {
                tracing::error!("Failed to take etcd snapshot: {error:#}");
            }
        }
    }

    fn ensure_dir(&self) -> Result<()> {
        if self.is_default_dir {
            return private_dir(&self.dir);
        }
        let metadata = fs::metadata(&self.dir);
        let metadata = metadata.with_context(|| format!("cannot use {}", self.dir.display()))?;
        if !metadata.is_dir() {
            bail!("{} is not a directory", self.dir.display());
        }
        Ok(())
    }

    /// Takes one now, and says how it is called.
    pub(crate) async fn save(&self, client: &Client, base_name: &str) -> Result<String> {
        check_name(base_name)?;
        self.ensure_dir()
            .context("failed to get etcd-snapshot-dir")?;
        let mut time = unix_now();
        let (name, path) = loop {
            let name = format!("{base_name}-{}-{time}", self.node);
            let path = self.dir.join(&name);
            if !path.exists() {
                break (name, path);
            }
            time += 1;
        };
        tracing::info!("Saving etcd snapshot to {}", path.display());
        let saved = client.save_snapshot(&path).await;
        saved.context("failed to save snapshot")?;
        Ok(name)
    }

    /// All snapshots in the directory, the oldest first.
    pub(crate) fn list(&self) -> Result<Vec<SnapshotFile>> {
        self.ensure_dir()
            .context("failed to get etcd-snapshot-dir")?;
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !metadata.is_file()
                || Path::new(&name)
                    .extension()
                    .is_some_and(|end| end == "part")
            {
                continue;
            }
            let changed = metadata.modified().ok();
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let created = time_of(&name).or(changed.map(|time| time.as_secs()));
            let snapshot = SnapshotFile {
                location: format!("file://{}", entry.path().display()),
                name,
                node_name: self.node.clone(),
                created_at: rfc3339(UNIX_EPOCH + Duration::from_secs(created.unwrap_or(0))),
                size: metadata.len(),
            };
            snapshots.push((created, snapshot));
        }
        snapshots.sort_by(|one, other| (one.0, &one.1.name).cmp(&(other.0, &other.1.name)));
        Ok(snapshots
            .into_iter()
            .map(|(_created, snapshot)| snapshot)
            .collect())
    }

    /// Removes the oldest of this name until so many are left; 0 keeps all. Says which went.
    pub(crate) fn prune(&self, base_name: &str, retention: usize) -> Result<Vec<String>> {
        check_name(base_name)?;
        if retention == 0 {
            return Ok(Vec::new());
        }
        let prefix = format!("{base_name}-{}-", self.node);
        tracing::info!(
            "Applying local snapshot retention policy: retention: {retention}, snapshotPrefix: {prefix}, \
             directory: {}",
            self.dir.display()
        );
        let mut names: Vec<String> = self
            .list()?
            .into_iter()
            .map(|snapshot| snapshot.name)
            .collect();
        // What follows is the time, and nothing else: `a-b-1` is not of the node `a`.
        names.retain(|name| {
            let time = name.strip_prefix(&prefix);
            time.is_some_and(|time| time.bytes().all(|byte| byte.is_ascii_digit()))
        });
        names.truncate(names.len().saturating_sub(retention));
        for name in &names {
            let path = self.dir.join(name);
            tracing::info!("Removing local snapshot {}", path.display());
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(names)
    }

    /// Removes those that are there, and says which.
    pub(crate) fn delete(&self, names: &[String]) -> Result<Vec<String>> {
        let known = self.list()?;
        let mut deleted = Vec::new();
        for name in names {
            if !known.iter().any(|snapshot| snapshot.name == *name) {
                tracing::info!("Snapshot {name} not found locally");
                continue;
            }
            fs::remove_file(self.dir.join(name))
                .with_context(|| format!("cannot remove {name}"))?;
            tracing::info!("Snapshot {name} deleted locally");
            deleted.push(name.clone());
        }
        Ok(deleted)
    }
}

/// A name is one of a file in the directory.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        bail!("{name:?} cannot be the name of a snapshot");
    }
    Ok(())
}

/// The time at the end of a snapshot's name.
fn time_of(name: &str) -> Option<u64> {
    name.rsplit('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(dir: &Path, node: &str) -> Snapshots {
        Snapshots {
            dir: dir.to_owned(),
            is_default_dir: false,
            node: node.to_owned(),
            base_name: "etcd-snapshot".to_owned(),
            retention: 2,
            schedule: None,
        }
    }

    #[test]
    fn the_oldest_of_one_name_and_node_go() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "etcd-snapshot-a-9",
            "etcd-snapshot-a-10",
            "etcd-snapshot-a-11",
            "etcd-snapshot-a-b-1",
            "on-demand-a-1",
            "etcd-snapshot-a-12.part",
        ];
        for name in names {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let snapshots = snapshots(dir.path(), "a");
        assert_eq!(snapshots.list().unwrap().len(), 5);
        assert_eq!(snapshots.prune("etcd-snapshot", 0).unwrap(), [""; 0]);
        assert_eq!(
            snapshots.prune("etcd-snapshot", 2).unwrap(),
            ["etcd-snapshot-a-9"]
        );
        assert_eq!(snapshots.prune("etcd-snapshot", 2).unwrap(), [""; 0]);
        let gone = ["on-demand-a-1", "../x"].map(str::to_owned);
        assert_eq!(snapshots.delete(&gone).unwrap(), ["on-demand-a-1"]);
        assert!(snapshots.prune("../etcd-snapshot", 2).is_err());
        let listed = &snapshots.list().unwrap()[0];
        assert_eq!(listed.created_at, "1970-01-01T00:00:01Z");
    }
}

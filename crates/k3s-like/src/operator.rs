//! `get nodes`, `delete node` and `etcd-snapshot`: a server is asked, by the token on its disk.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use http::Method;

use crate::access::{Access, SNAPSHOT_TIMEOUT};
use crate::cli::{DeleteCommand, GetCommand, SnapshotCommand, TargetArgs};
use crate::layout::{Layout, read_if_there};
use crate::nodes::{Node, unix_now};
use crate::snapshots::SnapshotFile;
use crate::supervisor::{SnapshotRequest, SnapshotResult};
use crate::token::Token;

/// How long the cluster may take to change its members, or to find that it has no quorum.
const CLUSTER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

fn access(target: &TargetArgs) -> Result<Access> {
    let layout = Layout::new(&target.data_dir);
    let token = match &target.token {
        Some(token) => token.clone(),
        None => read_if_there(&layout.token())?
            .with_context(|| format!("there is no token in {}", layout.token().display()))?,
    };
    let token = Token::parse(&token)?;
    Access::with_file(
        &target.server,
        &token.password,
        &layout.tls_file("server-ca.crt"),
    )
}

pub(crate) async fn get(command: GetCommand) -> Result<()> {
    let GetCommand::Nodes { target, output } = command;
    let access = access(&target)?;
    let answer = access.ask(Method::GET, "/v1-k3s/nodes", Vec::new(), CLUSTER_TIMEOUT);
    let answer = answer.await?;
    if output.as_deref() == Some("json") {
        return say(&format!("{}\n", String::from_utf8_lossy(&answer)));
    }
    let is_wide = match output.as_deref() {
        None => false,
        Some("wide") => true,
        Some(other) => bail!("invalid output format: {other}"),
    };
    let nodes: Vec<Node> = serde_json::from_slice(&answer).context("the answer cannot be read")?;
    let mut rows = vec![header(
        &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
        is_wide,
    )];
    rows.extend(nodes.iter().map(|node| row(node, is_wide)));
    say(&table(&rows, 3))
}

fn header(names: &[&str], is_wide: bool) -> Vec<String> {
    let wide: &[&str] = if is_wide {
        &["INTERNAL-IP", "ETCD", "MEMBER"]
    } else {
        &[]
    };
    names
        .iter()
        .chain(wide)
        .map(|&name| name.to_owned())
        .collect()
}

fn row(node: &Node, is_wide: bool) -> Vec<String> {
    let age = age(unix_now().saturating_sub(node.created));
    let mut row = vec![
        node.name.clone(),
        node.status.clone(),
        node.roles.clone(),
        age,
        node.version.clone(),
    ];
    if is_wide {
        let id = node
            .member_id
            .clone()
            .unwrap_or_else(|| "<none>".to_owned());
        row.extend([node.address.clone(), node.etcd.clone(), id]);
    }
    row
}

/// As kubectl says it.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{minutes}m"),
        7200..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// Columns as wide as what is in them, and so many blanks between them.
fn table(rows: &[Vec<String>], blanks: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0) + blanks
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

pub(crate) async fn delete(command: DeleteCommand) -> Result<()> {
    let DeleteCommand::Node { target, name } = command;
    let path = format!("/v1-k3s/nodes/{name}");
    let answer = access(&target)?
        .ask(Method::DELETE, &path, Vec::new(), CLUSTER_TIMEOUT)
        .await?;
    say(&format!("{}\n", String::from_utf8_lossy(&answer)))
}

pub(crate) async fn snapshots(command: SnapshotCommand) -> Result<()> {
    match command {
        SnapshotCommand::Ls { target, output } => list(&target, output.as_deref()).await,
        SnapshotCommand::Save { target, name } => {
            let result = change(&target, SnapshotRequest::Save { name }).await?;
            each(&result.created, "saved")
        }
        SnapshotCommand::Delete { target, snapshots } => {
            let request = SnapshotRequest::Delete {
                snapshots: snapshots.clone(),
            };
            let result = change(&target, request).await?;
            for name in snapshots
                .iter()
                .filter(|name| !result.deleted.contains(name))
            {
                tracing::warn!("Snapshot {name} not found locally");
            }
            each(&result.deleted, "deleted")
        }
        SnapshotCommand::Prune {
            target,
            name,
            snapshot_retention,
        } => {
            let request = SnapshotRequest::Prune {
                name,
                retention: snapshot_retention,
            };
            each(&change(&target, request).await?.deleted, "deleted")
        }
    }
}

fn each(names: &[String], what: &str) -> Result<()> {
    let lines = names
        .iter()
        .map(|name| format!("Snapshot {name} {what}.\n"));
    say(&lines.collect::<String>())
}

async fn ask(target: &TargetArgs, request: &SnapshotRequest) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(request)?;
    access(target)?
        .ask(Method::POST, "/db/snapshot", body, SNAPSHOT_TIMEOUT)
        .await
}

async fn change(target: &TargetArgs, request: SnapshotRequest) -> Result<SnapshotResult> {
    let answer = ask(target, &request).await?;
    serde_json::from_slice(&answer).context("the answer cannot be read")
}

async fn list(target: &TargetArgs, output: Option<&str>) -> Result<()> {
    let answer = ask(target, &SnapshotRequest::List).await?;
    match output {
        Some("json") => return say(&format!("{}\n", String::from_utf8_lossy(&answer))),
        Some("" | "standard") | None => {}
        Some(other) => bail!("invalid output format: {other}"),
    }
    let snapshots: Vec<SnapshotFile> =
        serde_json::from_slice(&answer).context("the answer cannot be read")?;
    let mut rows = vec![header(&["Name", "Location", "Size", "Created"], false)];
    rows.extend(snapshots.into_iter().map(|snapshot| {
        let size = snapshot.size.to_string();
        vec![snapshot.name, snapshot.location, size, snapshot.created_at]
    }));
    say(&table(&rows, 1))
}

fn say(text: &str) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        let told: Vec<String> = [5, 119, 120, 7199, 7200, 172_800].map(age).into();
        assert_eq!(told, ["5s", "119s", "2m", "119m", "2h", "2d"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [["NAME", "STATUS"], ["server-1", "Ready"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, 3), "NAME       STATUS\nserver-1   Ready\n");
    }
}

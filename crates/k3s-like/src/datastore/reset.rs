//! `--cluster-reset`: the server becomes its cluster's only member, with what it has or with a snapshot.
//!
//! The member is started for a moment, and nobody can reach it meanwhile: it listens on sockets in a
//! directory of its owner.

use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use kvorum::restore::{HashCheck, Restore, RevisionBump, restore};
use kvorum::{Config, Kvorum};
use types::{Clock, SystemClock};

use super::{ADDRESSES_KEY, Naming, Plan};
use crate::layout::{private_dir, write_private};
use crate::{PROGRAM, bootstrap};

/// How far the revision goes ahead, so that who watched the cluster before notices that its history was
/// turned back. k3s leaves it, and caches outside of the server go wrong.
const REVISION_BUMP: RevisionBump = RevisionBump(1_000_000_000);

/// Resets the cluster. `password` is the token's: the datastore's authorities are encrypted with it.
pub(crate) async fn reset(plan: &Plan, password: &str, snapshot: Option<&Path>) -> Result<()> {
    match snapshot {
        Some(path) => reset_to(plan, password, path).await?,
        None => {
            let flag = plan.layout.reset_flag();
            if flag.exists() {
                bail!(
                    "Managed etcd cluster membership was previously reset, please remove the \
                     cluster-reset flag and start {PROGRAM} normally. If you need to perform another \
                     cluster reset, you must first manually delete the {} file",
                    flag.display()
                );
            }
            if !plan.layout.is_initialized() {
                bail!(
                    "etcd database not found in {}",
                    plan.layout.etcd().display()
                );
            }
            alone(plan, password).await?;
        }
    }
    tracing::info!(
        "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. \
         Backup and delete ${{datadir}}/server/db on each peer etcd server and rejoin the nodes"
    );
    Ok(())
}

/// Puts a snapshot in the data's place. If that cannot be, everything is as before.
async fn reset_to(plan: &Plan, password: &str, snapshot: &Path) -> Result<()> {
    let path = snapshot.display();
    match std::fs::metadata(snapshot) {
        Err(_not_there) => bail!("etcd: snapshot path does not exist: {path}"),
        Ok(metadata) if metadata.is_dir() => {
            bail!("etcd: snapshot path must be a file, not a directory: {path}")
        }
        Ok(_file) => {}
    }
    let etcd = plan.layout.etcd();
    private_dir(&plan.layout.db())?;
    let before = match etcd.exists() {
        true => {
            let before = plan.move_aside("old")?;
            tracing::info!("Pre-restore etcd database moved to {}", before.display());
            Some(before)
        }
        false => None,
    };
    let done = match restore_from(plan, snapshot).await {
        Ok(()) => alone(plan, password).await,
        Err(error) => Err(error),
    };
    let Err(error) = done else {
        return Ok(());
    };
    if etcd.exists() {
        std::fs::remove_dir_all(&etcd).context("cannot remove what was restored")?;
    }
    if let Some(before) = before {
        std::fs::rename(&before, &etcd).context("cannot move the database back")?;
        tracing::info!("Pre-restore etcd database moved back to {}", etcd.display());
    }
    Err(error)
}

async fn restore_from(plan: &Plan, snapshot: &Path) -> Result<()> {
    let (node, peer_url) = (&plan.node, plan.peer_url());
    let config = Config::builder()
        .name(node)
        .data_dir(plan.layout.etcd())
        .initial_advertise_peer_urls(&peer_url)
        .initial_cluster(&format!("{node}={peer_url}"))
        .build()?;
    let request = Restore {
        way: None,
        snapshot: snapshot.to_owned(),
        hash: HashCheck::Required,
        bump: Some(REVISION_BUMP),
        config,
    };
    let restored = tokio::task::spawn_blocking(move || restore(&request, |_versions| ())).await?;
    let restored = restored.with_context(|| format!("cannot restore {}", snapshot.display()))?;
    tracing::info!(
        "restored snapshot {}: {} versions, revision {}",
        snapshot.display(),
        restored.versions,
        restored.revision
    );
    Ok(())
}

/// Makes the member that is on the disk its cluster's only one, under a new name.
async fn alone(plan: &Plan, password: &str) -> Result<()> {
    let name = plan.name(Naming::Anew)?;
    let member = start_unreachable(plan, &name).await?;
    let done = take_over(plan, password, &member).await;
    member.stop().await;
    done?;
    // Against a reset again and again: whatever was written meanwhile would be lost.
    write_private(&plan.layout.reset_flag(), "")
}

async fn start_unreachable(plan: &Plan, name: &str) -> Result<Kvorum> {
    let socket = |kind: &str| {
        let path = plan.layout.etcd().join(format!("reset-{kind}.sock"));
        format!("unix://{}", path.display())
    };
    let config = Config::builder()
        .name(name)
        .data_dir(plan.layout.etcd())
        .flag("listen-client-urls", socket("client"))
        .flag("advertise-client-urls", plan.client_url())
        .flag("listen-peer-urls", socket("peer"))
        .initial_advertise_peer_urls(&plan.peer_url())
        .initial_cluster(&format!("{name}={}", plan.peer_url()))
        .flag("force-new-cluster", "true")
        .build()?;
    let member = Kvorum::start(config)
        .await
        .context("etcd cannot be started")?;
    member.wait_ready().await?;
    Ok(member)
}

async fn take_over(plan: &Plan, password: &str, member: &Kvorum) -> Result<()> {
    let client = member.client();
    client.put(ADDRESSES_KEY, "").await?;
    let members = client.members().await?;
    if members.len() != 1 {
        bail!("etcd still has more than one member");
    }
    client
        .update_member(member.member_id(), &[&plan.peer_url()])
        .await
        .context("failed to update peer url")?;
    let Some(data) = bootstrap::load(&client, password).await? else {
        return Ok(());
    };
    back_up_certificates(plan)?;
    for file in bootstrap::write(&plan.layout, &data)? {
        let path = plan.layout.tls_file(file);
        tracing::info!("Cluster reset: replacing file on disk: {}", path.display());
    }
    Ok(())
}

fn back_up_certificates(plan: &Plan) -> Result<()> {
    let from = plan.layout.tls();
    if !from.exists() {
        return Ok(());
    }
    let now = SystemClock
        .wall()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let to = plan.layout.tls_backup(now.as_secs());
    tracing::info!(
        "Cluster reset: backing up certificates directory to {}",
        to.display()
    );
    copy(&from, &to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    private_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

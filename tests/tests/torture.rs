//! Faults of every kind under concurrent clients, and a history that is checked.
//!
//! `KVORUM_TORTURE_SECONDS` is how long each of the clusters has faults, `KVORUM_SEED` which;
//! `KVORUM_TEST_PROGRAM=etcd` tortures a real etcd, on real disks. `KVORUM_TORTURE_STORY` prints what was
//! done also when all is well.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kvorum_tests::torture::{Scope, Torture};
use testkit::patience::parameter;
use testkit::{ClusterSpec, certs, note};

/// Seeds of the short runs: chosen once, without a reason.
const SEED: u64 = 20_251;
const SECONDS: u64 = 25;
/// Over TLS the faults are the same ones; connections take longer to come back.
const SECONDS_OF_TLS: u64 = 10;

async fn torture(spec: ClusterSpec, seconds: u64) -> Result<()> {
    let seed = parameter("KVORUM_SEED", SEED)?;
    let seconds = parameter("KVORUM_TORTURE_SECONDS", seconds)?;
    note(format_args!(
        "KVORUM_SEED={seed} KVORUM_TORTURE_SECONDS={seconds}"
    ));
    let scope = if seconds > SECONDS {
        Scope::FaultsAndMembers
    } else {
        Scope::Faults
    };
    let torture = Torture {
        spec,
        seed,
        duration: Duration::from_secs(seconds),
        scope,
    };
    torture.run().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_keep_every_promise_under_faults() -> Result<()> {
    torture(ClusterSpec::chosen(3)?, SECONDS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_keep_every_promise_over_tls() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = certs::generate(dir.path(), "customer")?;
    let spec = ClusterSpec::chosen(3)?.mutual_tls(certs);
    torture(spec, SECONDS_OF_TLS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_keep_every_promise_under_faults() -> Result<()> {
    torture(ClusterSpec::chosen(5)?, SECONDS).await
}

/// The checkers can fail, end to end: on disks that answer syncs and do nothing, power that fails
/// everywhere takes acknowledged writes, and that is what the report says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_lost_by_disks_that_lie_are_noticed() -> Result<()> {
    let torture = Torture {
        spec: ClusterSpec::kvorum(3),
        seed: parameter("KVORUM_SEED", SEED)?,
        duration: Duration::from_secs(2),
        scope: Scope::LyingDisks,
    };
    let noticed = torture.run().await.err().context("nothing was noticed")?;
    let report = format!("{noticed:#}");
    ensure!(report.contains("acknowledged writes are there"), "{report}");
    Ok(())
}

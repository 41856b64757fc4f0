//! A seeded random stream of requests goes to a real etcd and to kvorum; every answer is equal.
//!
//! `KVORUM_SEED` chooses the stream, `KVORUM_REQUESTS` its length.

use std::hash::{BuildHasher as _, RandomState};

use anyhow::Result;
use kvorum_tests::differential;
use testkit::patience::parameter;
use testkit::{Spec, note};

const REQUESTS: u64 = 20_000;

#[tokio::test]
async fn every_answer_is_the_same_as_etcds() -> Result<()> {
    // The standard library's hasher has random keys: another seed every time.
    let seed = parameter("KVORUM_SEED", RandomState::new().hash_one("seed"))?;
    let requests = parameter("KVORUM_REQUESTS", REQUESTS)?;
    note(format_args!(
        "KVORUM_SEED={seed} KVORUM_REQUESTS={requests}"
    ));
    // What is compared with needs no durability.
    let etcd = Spec::etcd().arg("--unsafe-no-fsync");
    let (kvorum, etcd) = tokio::try_join!(Spec::kvorum().start(), etcd.start())?;
    differential::run(&kvorum, &etcd, seed, requests).await?;
    kvorum.stop().await?;
    etcd.stop().await
}

//! A seeded random stream of requests goes to a real etcd and to kvorum; every answer is equal.
//!
//! `KVORUM_SEED` chooses the stream, `KVORUM_REQUESTS` its length.

use std::hash::{BuildHasher as _, RandomState};

use anyhow::Result;
use kvorum_tests::differential::connections::{self, Plan, Users};
use kvorum_tests::differential::{self, Wire};
use testkit::patience::parameter;
use testkit::{Spec, note};

const REQUESTS: u64 = 10_000;

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

/// As many requests on each connection.
const REQUESTS_EACH: u64 = 400;
const CONNECTIONS: u64 = 4;

async fn on_several_connections(wire: Wire, users: Users) -> Result<()> {
    let seed = parameter("KVORUM_SEED", RandomState::new().hash_one("seed"))?;
    let requests = parameter("KVORUM_REQUESTS", REQUESTS_EACH)?;
    note(format_args!(
        "KVORUM_SEED={seed} KVORUM_REQUESTS={requests}"
    ));
    let (kvorum, etcd) = (Spec::kvorum(), Spec::etcd().arg("--unsafe-no-fsync"));
    let cheap = "--bcrypt-cost=4";
    let (kvorum, etcd) = tokio::try_join!(kvorum.arg(cheap).start(), etcd.arg(cheap).start())?;
    let plan = Plan {
        connections: CONNECTIONS,
        requests,
        wire,
        users,
    };
    connections::run(&kvorum, &etcd, seed, plan).await?;
    kvorum.stop().await?;
    etcd.stop().await
}

#[tokio::test]
async fn on_several_connections_at_once() -> Result<()> {
    on_several_connections(Wire::Grpc, Users::None).await
}

#[tokio::test]
async fn on_several_connections_of_different_users() -> Result<()> {
    on_several_connections(Wire::Grpc, Users::OneEach).await
}

#[tokio::test]
async fn through_the_gateway() -> Result<()> {
    on_several_connections(Wire::Json, Users::None).await
}

#[tokio::test]
async fn through_the_gateway_by_different_users() -> Result<()> {
    on_several_connections(Wire::Json, Users::OneEach).await
}

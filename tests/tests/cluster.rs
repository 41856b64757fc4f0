//! Three members: started in any order, restarted, killed, cut off from each other.
//!
//! `KVORUM_TEST_PROGRAM=etcd` runs the same against a real etcd.

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use testkit::network::Fault;
use testkit::{Client, ClusterSpec, eventually};

async fn put(client: &Client, key: &str, value: &str) -> Result<i64> {
    let request = pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let answer = client.kv.clone().put(request).await?.into_inner();
    Ok(answer.header.context("a response has a header")?.revision)
}

async fn get(client: &Client, key: &str) -> Result<Option<String>> {
    let request = pb::RangeRequest {
        key: key.into(),
        ..Default::default()
    };
    let answer = client.kv.clone().range(request).await?.into_inner();
    let value = answer.kvs.into_iter().next();
    Ok(value
        .map(|kv| String::from_utf8(kv.value.to_vec()))
        .transpose()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_serves_every_request() -> Result<()> {
    let cluster = ClusterSpec::chosen(3)?.proxied().start().await?;
    cluster.leader().await?;
    for at in 0..3 {
        put(&cluster.client(at)?, &format!("key{at}"), "value").await?;
        for other in 0..3 {
            let value = get(&cluster.client(other)?, &format!("key{at}")).await?;
            ensure!(
                value.as_deref() == Some("value"),
                "member {other}: {value:?}"
            );
        }
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced() -> Result<()> {
    let cluster = ClusterSpec::chosen(3)?.proxied().start().await?;
    let leader = cluster.leader().await?;
    let others: Vec<usize> = (0..3).filter(|&at| at != leader).collect();
    cluster.network()?.between(&[leader], &others, Fault::Drop);
    let new = cluster.leader_of(&others).await?;
    let client = cluster.client(new)?;
    eventually("a write", || put(&client, "a", "b")).await?;
    cluster.network()?.heal();
    ensure!(
        cluster.leader().await? != leader,
        "it was deposed and back at once"
    );
    cluster.stop().await
}

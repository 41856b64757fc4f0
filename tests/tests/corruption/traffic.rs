//! Clients of all members, which notice every error and every wrong answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use testkit::{Client, note};
use tokio::task::JoinSet;

/// Between two rounds of a client.
const PAUSE: Duration = Duration::from_millis(5);

/// Requests that go on until [`Traffic::end`].
#[derive(Default)]
pub(crate) struct Traffic {
    is_over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    clients: JoinSet<Result<()>>,
}

impl Traffic {
    /// A client of a member.
    pub(crate) fn add(&mut self, client: Client, at: usize) {
        let (is_over, rounds) = (Arc::clone(&self.is_over), Arc::clone(&self.rounds));
        self.clients.spawn(async move {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                let round = round(&client, at, number).await;
                round.with_context(|| format!("round {number} on m{}", at + 1))?;
                rounds.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        });
    }

    /// Ends it.
    ///
    /// # Errors
    /// When a client has noticed something.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client??;
        }
        let rounds = self.rounds.load(Ordering::Relaxed);
        note(format_args!("{rounds} rounds of clients"));
        ensure!(rounds > 0, "nobody has asked for anything");
        Ok(())
    }
}

/// Writes, reads what was written, and changes it on condition.
async fn round(client: &Client, at: usize, number: u64) -> Result<()> {
    let (key, value) = (format!("client{at}"), format!("value{number}"));
    let put = pb::PutRequest {
        key: key.clone().into(),
        value: value.clone().into(),
        ..Default::default()
    };
    let put = client
        .kv
        .clone()
        .put(put)
        .await
        .context("put")?
        .into_inner();
    let range = pb::RangeRequest {
        key: key.clone().into(),
        ..Default::default()
    };
    let found = client.kv.clone().range(range).await.context("range")?;
    let found = found.into_inner();
    let kv = found.kvs.first().context("what was written is gone")?;
    ensure!(kv.value == value.as_bytes(), "{kv:?} is not {value}");
    let written = put.header.context("a response has a header")?.revision;
    ensure!(kv.mod_revision == written, "{kv:?} is not of {written}");
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: key.clone().into(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(written)),
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest {
        key: key.into(),
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestDeleteRange(delete)),
        }],
        ..Default::default()
    };
    let changed = client.kv.clone().txn(txn).await.context("txn")?;
    ensure!(changed.into_inner().succeeded, "somebody else has written");
    Ok(())
}

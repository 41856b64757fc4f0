//! Clients that go on while certificates change, and to which nothing may happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::etcdserverpb as pb;
use kvorum_tests::flows::Caller;
use pb::watch_request::RequestUnion;
use testkit::eventually;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use crate::group::Group;

/// Between two connections of one client: there are few cores.
const PAUSE: Duration = Duration::from_millis(20);

/// For each member: one who puts and one who watches over connections that stay, and one for each
/// port who connects anew for every request.
#[derive(Debug)]
pub(crate) struct Load {
    caller: watch::Sender<Caller>,
    stop: watch::Sender<bool>,
    /// Requests so far of those who connect anew.
    fresh: Vec<Arc<AtomicU64>>,
    tasks: JoinSet<Result<u64>>,
}

impl Load {
    /// Starts it; all are connected when it returns.
    pub(crate) async fn start(group: &Group, caller: Caller) -> Result<Load> {
        let mut load = Load {
            caller: watch::Sender::new(caller.clone()),
            stop: watch::Sender::new(false),
            fresh: Vec::new(),
            tasks: JoinSet::new(),
        };
        for node in &group.nodes {
            let client = caller.client(&node.client_url()).await?;
            let name = node.name.clone();
            load.tasks
                .spawn(put(client, name.clone(), load.stop.subscribe()));
            let client = caller.client(&node.client_url()).await?;
            load.tasks.spawn(watch(client, name, load.stop.subscribe()));
            for port in [node.client, node.peer] {
                let done = Arc::new(AtomicU64::new(0));
                load.fresh.push(Arc::clone(&done));
                let (caller, stop) = (load.caller.subscribe(), load.stop.subscribe());
                load.tasks.spawn(connect(port, done, caller, stop));
            }
        }
        load.settle().await?;
        Ok(load)
    }

    /// From now on new connections are made this way; returns when none is made the old way.
    pub(crate) async fn call_as(&self, caller: Caller) -> Result<()> {
        self.caller.send_replace(caller);
        self.settle().await
    }

    /// Waits until each of those who connect anew has done so after this call.
    pub(crate) async fn settle(&self) -> Result<()> {
        // The one under way may have begun before.
        let done = |count: &Arc<AtomicU64>| count.load(Ordering::SeqCst);
        let wanted: Vec<u64> = self.fresh.iter().map(|count| done(count) + 2).collect();
        eventually("the load goes on", || async {
            let reached = self
                .fresh
                .iter()
                .zip(&wanted)
                .all(|(count, wanted)| done(count) >= *wanted);
            ensure!(reached, "somebody has stopped");
            Ok(())
        })
        .await
    }

    /// Stops it: nobody had an error. Returns how many requests there were.
    pub(crate) async fn stop(mut self) -> Result<u64> {
        self.stop.send_replace(true);
        let mut requests = 0;
        while let Some(ended) = self.tasks.join_next().await {
            requests += ended??;
        }
        Ok(requests)
    }
}

async fn put(
    mut client: testkit::Client,
    name: String,
    stop: watch::Receiver<bool>,
) -> Result<u64> {
    let mut count = 0;
    while !*stop.borrow() {
        let put = pb::PutRequest {
            key: format!("load/{name}").into_bytes(),
            value: count.to_string().into_bytes(),
            ..Default::default()
        };
        let done = client.kv.put(put).await;
        done.with_context(|| format!("put {count} at {name}"))?;
        count += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(count)
}

/// Counts what is put at the same member: each must be seen once and in order.
async fn watch(
    mut client: testkit::Client,
    name: String,
    mut stop: watch::Receiver<bool>,
) -> Result<u64> {
    let create = pb::WatchCreateRequest {
        key: format!("load/{name}").into_bytes(),
        start_revision: 1,
        ..Default::default()
    };
    let request = pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    // The stream of requests must stay open.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut events = client.watch.watch(requests).await?.into_inner();
    let mut next = 0_u64;
    loop {
        let response = tokio::select! {
            biased;
            stopped = stop.changed() => {
                stopped?;
                return Ok(next);
            }
            response = events.message() => response.with_context(|| format!("watch at {name}"))?,
        };
        let Some(response) = response else {
            bail!("the watch at {name} has ended");
        };
        for event in response.events {
            let value = event.kv.context("an event without a key")?.value;
            ensure!(
                value == next.to_string().into_bytes(),
                "{next} at {name} was not seen"
            );
            next += 1;
        }
    }
}

async fn connect(
    port: u16,
    done: Arc<AtomicU64>,
    caller: watch::Receiver<Caller>,
    stop: watch::Receiver<bool>,
) -> Result<u64> {
    while !*stop.borrow() {
        let caller = caller.borrow().clone();
        let answer = caller.get(port, "/version").await;
        let answer = answer.with_context(|| format!("a new connection to {port}"))?;
        ensure!(answer.status == 200, "{answer:?}");
        done.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(done.load(Ordering::SeqCst))
}

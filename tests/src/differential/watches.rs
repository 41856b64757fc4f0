//! Watch streams that are open on both servers, and the comparison of what their watchers see.
//!
//! One watcher on a stream of its own, over everything from the first revision on, is the record
//! of what happened. From it follows how many events every other watcher has to get; when both
//! servers' watchers have got as many, they are compared.
//!
//! How events are spread over responses is the server's affair and not compared, but the events of
//! one revision must come in one response unless the watcher asked for fragments.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::etcdserverpb as pb;
use api::mvccpb::Event;
use pb::watch_request::RequestUnion;
use testkit::Client;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::exchange::Both;
use super::generate::{FUTURE_STREAM, WatchAction, WatchOp};
use super::normalise;

/// Requests that have no answer (a cancel of a watcher that is not there) gather here until
/// somebody reads the stream.
const REQUEST_QUEUE_LEN: usize = 4096;
/// Progress is asked for again after this: a server may be silent while a watcher catches up.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// A response that is not about events.
#[derive(Debug, Clone, PartialEq)]
struct Control(pb::WatchResponse);

/// One stream on one server.
struct Stream {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Responses,
    /// Events not yet compared, by watcher.
    events: BTreeMap<i64, Vec<Event>>,
    /// The last revision that each watcher got, and whether the rest of it is to come.
    last: BTreeMap<i64, (i64, bool)>,
    controls: Vec<Control>,
    progress: i64,
}

/// etcd opens its side of a stream with its first response: until then there is nothing to read.
enum Responses {
    Opening(Pin<Box<dyn Future<Output = Result<Opened, Status>> + Send>>),
    Open(Box<Streaming<pb::WatchResponse>>),
}

type Opened = tonic::Response<Streaming<pb::WatchResponse>>;

/// The same stream on both servers.
struct Twin {
    kvorum: Stream,
    etcd: Stream,
    /// What was asked for, by the id that both gave; with how much of the record it has seen.
    watchers: BTreeMap<i64, Watcher>,
}

struct Watcher {
    request: pb::WatchCreateRequest,
    /// The first revision whose events it gets.
    from: i64,
    compared_to: i64,
}

/// All streams.
pub(super) struct Watches {
    twins: Vec<Twin>,
    /// Everything that happened, in order.
    record: Vec<Event>,
    revision: i64,
    compact_revision: i64,
}

impl Watches {
    pub(super) async fn open(both: &Both) -> Result<Watches> {
        let mut twins = Vec::new();
        for _ in 0..=FUTURE_STREAM {
            twins.push(Twin::open(both).await?);
        }
        let (record, revision) = (Vec::new(), 1);
        let mut watches = Watches {
            twins,
            record,
            revision,
            compact_revision: 0,
        };
        let everything = pb::WatchCreateRequest {
            key: vec![0],
            range_end: vec![0],
            prev_kv: true,
            ..Default::default()
        };
        watches.create(0, everything).await?;
        Ok(watches)
    }

    pub(super) async fn request(&mut self, both: &Both, op: &WatchOp) -> Result<()> {
        match &op.action {
            WatchAction::Create(request) => self.create(op.stream, request.clone()).await,
            WatchAction::Cancel(id) => self.cancel(op.stream, *id).await,
            WatchAction::Reopen => {
                self.twins[op.stream] = Twin::open(both).await?;
                Ok(())
            }
        }
    }

    async fn create(&mut self, stream: usize, request: pb::WatchCreateRequest) -> Result<()> {
        let twin = &mut self.twins[stream];
        let union = RequestUnion::CreateRequest(request.clone());
        twin.send(union).await?;
        let created = twin.control("created").await?;
        ensure!(
            created.created,
            "not the answer to a create request: {created:?}"
        );
        if created.canceled {
            return Ok(());
        }
        let header = created.header.context("a response has a header")?;
        let from = if request.start_revision == 0 {
            header.revision + 1
        } else {
            request.start_revision
        };
        if request.start_revision > 0 && from < self.compact_revision {
            let canceled = twin.control("canceled because of compaction").await?;
            let compacted = canceled.compact_revision;
            ensure!(compacted > 0, "no compact revision: {canceled:?}");
            // Its id stays taken until it is canceled once more; until then etcd, which counts it
            // among those that have not caught up, answers no progress request on this stream.
            let cancel = pb::WatchCancelRequest {
                watch_id: created.watch_id,
            };
            twin.send(RequestUnion::CancelRequest(cancel)).await?;
            twin.control("canceled once more").await?;
            return Ok(());
        }
        for side in [&mut twin.kvorum, &mut twin.etcd] {
            // That is what the last watcher with this id got.
            side.last.remove(&created.watch_id);
        }
        let watcher = Watcher {
            request,
            from,
            compared_to: 0,
        };
        twin.watchers.insert(created.watch_id, watcher);
        // It catches up before anything else happens: etcd does that at its own pace, and a
        // compaction in between would change what it gets.
        if stream != 0 {
            self.compare_stream(stream).await?;
        }
        Ok(())
    }

    async fn cancel(&mut self, stream: usize, id: i64) -> Result<()> {
        self.compare_stream(stream).await?;
        let twin = &mut self.twins[stream];
        twin.send(RequestUnion::CancelRequest(pb::WatchCancelRequest {
            watch_id: id,
        }))
        .await?;
        // A cancel request for a watcher that is not there has no answer.
        if twin.watchers.remove(&id).is_some() {
            let canceled = twin.control("canceled").await?;
            ensure!(
                canceled.canceled && canceled.watch_id == id,
                "not canceled: {canceled:?}"
            );
        }
        Ok(())
    }

    /// Waits until all watchers have seen everything up to `revision`, and compares what they saw.
    /// Returns how many events that were.
    pub(super) async fn compare(&mut self, revision: i64) -> Result<u64> {
        let before = self.record.len();
        let twin = &mut self.twins[0];
        tokio::try_join!(
            twin.kvorum.progress_to(revision),
            twin.etcd.progress_to(revision)
        )
        .context("on the stream of everything")?;
        let (kvorum, etcd) = (twin.kvorum.take(0), twin.etcd.take(0));
        same_events(&kvorum, &etcd).context("on the stream of everything")?;
        self.record.extend(etcd);
        self.revision = revision;
        let mut events = self.record.len() - before;
        for stream in 1..self.twins.len() {
            events += self.compare_stream(stream).await?;
        }
        Ok(u64::try_from(events)?)
    }

    /// Waits until no watcher has anything to catch up with. Who has not may be canceled by the
    /// next compaction, or not: etcd catches up at its own pace.
    pub(super) async fn caught_up(&mut self) -> Result<()> {
        let revision = self.revision;
        for (stream, twin) in self.twins[..FUTURE_STREAM].iter_mut().enumerate() {
            if twin
                .watchers
                .values()
                .any(|watcher| watcher.from < i64::MAX)
            {
                let both = tokio::try_join!(
                    twin.kvorum.progress_to(revision),
                    twin.etcd.progress_to(revision)
                );
                both.with_context(|| format!("on stream {stream}"))?;
            }
        }
        Ok(())
    }

    /// Compares what the watchers of one stream saw of what is on record.
    async fn compare_stream(&mut self, stream: usize) -> Result<usize> {
        let mut events = 0;
        let twin = &mut self.twins[stream];
        for (&id, watcher) in &mut twin.watchers {
            let expected = watcher.expects(&self.record);
            watcher.compared_to = self.record.last().map_or(0, revision_of);
            let (kvorum, etcd) = (&mut twin.kvorum, &mut twin.etcd);
            let got = tokio::try_join!(
                async { kvorum.events_of(id, expected).await.context("kvorum") },
                async { etcd.events_of(id, expected).await.context("etcd") }
            );
            let compared = got.and_then(|(kvorum, etcd)| same_events(&kvorum, &etcd));
            let request = &watcher.request;
            compared.with_context(|| format!("stream {stream}, watcher {id}, {request:?}"))?;
            events += expected;
        }
        Ok(events)
    }

    pub(super) fn compacted(&mut self, revision: i64) {
        self.compact_revision = self.compact_revision.max(revision);
    }
}

impl Watcher {
    /// How many events of the record it has to get that were not compared yet.
    fn expects(&self, record: &[Event]) -> usize {
        let new = record.partition_point(|event| revision_of(event) <= self.compared_to);
        record[new..]
            .iter()
            .filter(|event| self.wants(event))
            .count()
    }

    fn wants(&self, event: &Event) -> bool {
        // etcd's filters: NOPUT = 0, NODELETE = 1; others are ignored. Events: PUT = 0, DELETE = 1.
        let filtered = self.request.filters.contains(&event.r#type);
        let key = event.kv.as_ref().map_or(&[][..], |kv| &kv.key);
        let first = if self.request.key.is_empty() {
            &[0][..]
        } else {
            &self.request.key
        };
        let inside = match self.request.range_end.as_slice() {
            [] => key == first,
            [0] => key >= first,
            end => key >= first && key < end,
        };
        inside && !filtered && revision_of(event) >= self.from
    }
}

impl Twin {
    /// Each stream has its own connection: events that nobody reads yet take up the connection's
    /// flow control window, and would hold up the requests.
    async fn open(both: &Both) -> Result<Twin> {
        let [kvorum, etcd] = &both.urls;
        let (kvorum, etcd) = tokio::try_join!(Client::connect(kvorum), Client::connect(etcd))?;
        let (kvorum, etcd) = (Stream::open(&kvorum), Stream::open(&etcd));
        Ok(Twin {
            kvorum,
            etcd,
            watchers: BTreeMap::new(),
        })
    }

    async fn send(&mut self, union: RequestUnion) -> Result<()> {
        self.kvorum.send(union.clone()).await?;
        self.etcd.send(union).await
    }

    /// The next response that is not about events; the same on both.
    async fn control(&mut self, what: &str) -> Result<pb::WatchResponse> {
        let (kvorum, etcd) = tokio::try_join!(self.kvorum.control(), self.etcd.control())
            .with_context(|| format!("waiting for {what}"))?;
        ensure!(
            kvorum == etcd,
            "responses differ\nkvorum: {kvorum:?}\netcd:   {etcd:?}"
        );
        Ok(etcd.0)
    }
}

impl Stream {
    fn open(client: &Client) -> Stream {
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE_LEN);
        let mut client = client.watch.clone();
        let opening = async move { client.watch(ReceiverStream::new(queue)).await };
        Stream {
            requests,
            responses: Responses::Opening(Box::pin(opening)),
            events: BTreeMap::new(),
            last: BTreeMap::new(),
            controls: Vec::new(),
            progress: 0,
        }
    }

    async fn send(&self, union: RequestUnion) -> Result<()> {
        let request = pb::WatchRequest {
            request_union: Some(union),
        };
        self.requests
            .send(request)
            .await
            .context("the stream has ended")
    }

    /// Takes one response in.
    async fn receive(&mut self) -> Result<()> {
        if let Responses::Opening(opening) = &mut self.responses {
            self.responses = Responses::Open(Box::new(opening.await?.into_inner()));
        }
        let Responses::Open(responses) = &mut self.responses else {
            unreachable!("it was opened just now");
        };
        let response = responses.message().await?.context("the stream has ended")?;
        let revision = response
            .header
            .as_ref()
            .context("a response has a header")?
            .revision;
        if !response.events.is_empty() {
            return self.receive_events(response, revision);
        }
        if response.created || response.canceled {
            self.controls.push(control(response));
        } else if response.watch_id == -1 {
            self.progress = self.progress.max(revision);
        } else {
            bail!("nothing was asked for that this answers: {response:?}");
        }
        Ok(())
    }

    fn receive_events(&mut self, response: pb::WatchResponse, revision: i64) -> Result<()> {
        let id = response.watch_id;
        let first = response.events.first().map_or(0, revision_of);
        let last = response.events.last().map_or(0, revision_of);
        ensure!(
            revision >= last,
            "header at {revision}, but an event of {last}"
        );
        if let Some(&(before, more)) = self.last.get(&id) {
            let split = first == before && !more;
            ensure!(
                !split,
                "watcher {id}: events of revision {first} in two responses"
            );
            ensure!(first >= before, "watcher {id}: {first} after {before}");
        }
        self.last.insert(id, (last, response.fragment));
        self.events.entry(id).or_default().extend(response.events);
        Ok(())
    }

    async fn control(&mut self) -> Result<Control> {
        let patience = testkit::patience::patience();
        while self.controls.is_empty() {
            let received = tokio::time::timeout(patience, self.receive()).await;
            received.context("no response")??;
        }
        Ok(self.controls.remove(0))
    }

    /// Asks for progress until the server says that everything up to `revision` was sent.
    async fn progress_to(&mut self, revision: i64) -> Result<()> {
        let ask = async {
            while self.progress < revision {
                self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}))
                    .await?;
                let received = tokio::time::timeout(PROGRESS_INTERVAL, self.receive()).await;
                if let Ok(received) = received {
                    received?;
                }
            }
            Ok(())
        };
        let asked = tokio::time::timeout(testkit::patience::patience(), ask).await;
        asked.with_context(|| format!("no progress to revision {revision}"))?
    }

    /// Waits until a watcher has got so many events, and takes them.
    async fn events_of(&mut self, id: i64, expected: usize) -> Result<Vec<Event>> {
        let patience = testkit::patience::patience();
        while self.events.get(&id).map_or(0, Vec::len) < expected {
            let received = tokio::time::timeout(patience, self.receive()).await;
            let got = self.events.get(&id).map_or(0, Vec::len);
            received.with_context(|| format!("{got} events came of {expected}"))??;
        }
        let events = self.take(id);
        ensure!(
            events.len() == expected,
            "{} events came of {expected}: {events:?}",
            events.len()
        );
        Ok(events)
    }

    fn take(&mut self, id: i64) -> Vec<Event> {
        self.events.remove(&id).unwrap_or_default()
    }
}

fn control(mut response: pb::WatchResponse) -> Control {
    normalise::header(&mut response.header);
    if response.compact_revision != 0 {
        // etcd finds out some time later that a watcher starts too early: the store's revision
        // may be another by then.
        response.header = None;
    }
    Control(response)
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn same_events(kvorum: &[Event], etcd: &[Event]) -> Result<()> {
    for (i, (kvorum, etcd)) in kvorum.iter().zip(etcd).enumerate() {
        ensure!(
            kvorum == etcd,
            "event {i} differs\nkvorum: {kvorum:?}\netcd:   {etcd:?}"
        );
    }
    let (kvorum, etcd) = (kvorum.len(), etcd.len());
    ensure!(
        kvorum == etcd,
        "{kvorum} events from kvorum, {etcd} from etcd"
    );
    Ok(())
}

//! What comes out of a stream for what goes in, over a real store; in etcd's form.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::encoded::etcdserverpb::WatchResponse;
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
};
use api::mvccpb;
use backend::Backend;
use bytes::{Buf as _, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::stream::{Headers, ServerWatchStream, Settings};

const INTERVAL: Duration = Duration::from_secs(5);

/// A header that shows nothing but the revision.
#[derive(Clone, Default)]
struct PlainHeaders {
    compact_revision: i64,
    events: Arc<AtomicUsize>,
}

impl Headers for PlainHeaders {
    fn at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            revision,
            ..ResponseHeader::default()
        }
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    fn count_events(&self, events: usize) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    async fn permit(&self, keys: &types::KeyRange) -> Result<(), api::rpctypes::ErrorCode> {
        match keys {
            types::KeyRange::Single(key) if key == "forbidden" => {
                Err(api::rpctypes::ErrorCode::PermissionDenied)
            }
            _ => Ok(()),
        }
    }
}

struct Fixture {
    writer: mvcc::Writer,
    headers: PlainHeaders,
    requests: mpsc::UnboundedSender<Result<WatchRequest, Status>>,
    responses: BoxStream<'static, Result<WatchResponse, Status>>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(PlainHeaders::default(), 1 << 20)
    }

    fn with(headers: PlainHeaders, response_bytes_max: usize) -> Self {
        let config = mvcc::Config {
            event_log_bytes_max: 1 << 20,
        };
        let (store, writer) = mvcc::open(Backend::in_memory().reader, &config).unwrap();
        let (requests, incoming) = mpsc::unbounded_channel();
        let incoming = stream::unfold(incoming, |mut incoming| async {
            let request = incoming.recv().await?;
            Some((request, incoming))
        });
        let settings = Settings {
            progress_notify_interval: INTERVAL,
            response_bytes_max,
        };
        let watchers = store.watch_stream();
        let stream = ServerWatchStream::new(watchers, incoming.boxed(), headers.clone(), settings);
        Self {
            writer,
            headers,
            requests,
            responses: responses(stream.into_pieces()).boxed(),
        }
    }

    fn put(&mut self, keys: &[&str], value: &str) -> i64 {
        let mut txn = self.writer.begin();
        for key in keys {
            txn.put(mvcc::Put {
                key: key.as_bytes(),
                value: value.as_bytes(),
                lease: None,
            });
        }
        let revision = txn.end();
        self.writer.publish();
        revision
    }

    fn send(&self, request: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(Ok(request)).unwrap();
    }

    fn create(&self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request));
    }

    fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    /// The next response, in one line.
    async fn next(&mut self) -> String {
        describe(&self.responses.next().await.unwrap().unwrap())
    }

    /// Whether there is nothing to send.
    fn is_silent(&mut self) -> bool {
        self.responses.next().now_or_never().is_none()
    }
}

/// The responses in what goes over the wire.
fn responses(
    pieces: impl Stream<Item = Result<Bytes, Status>>,
) -> impl Stream<Item = Result<WatchResponse, Status>> {
    pieces.flat_map(|piece| {
        let mut responses = Vec::new();
        match piece {
            Ok(mut piece) => {
                while !piece.is_empty() {
                    assert_eq!(piece.get_u8(), 0, "it is not compressed");
                    let length = piece.get_u32() as usize;
                    responses.push(Ok(WatchResponse::decode(piece.split_to(length)).unwrap()));
                }
            }
            Err(status) => responses.push(Err(status)),
        }
        stream::iter(responses)
    })
}

fn create(key: &str, range_end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..WatchCreateRequest::default()
    }
}

fn describe(response: &WatchResponse) -> String {
    let revision = response.header.as_ref().unwrap().revision;
    let mut line = format!("{} @{revision}", response.watch_id);
    for (is_set, word) in [
        (response.created, " created"),
        (response.canceled, " canceled"),
        (response.fragment, " fragment"),
    ] {
        line += if is_set { word } else { "" };
    }
    if response.compact_revision != 0 {
        line += &format!(" compacted {}", response.compact_revision);
    }
    if !response.cancel_reason.is_empty() {
        line += &format!(": {}", response.cancel_reason);
    }
    for event in &response.events {
        let event = mvccpb::Event::decode(event.clone()).unwrap();
        let kv = event.kv.unwrap();
        line += &format!(" {}={}", text(&kv.key), kv.mod_revision);
        if let Some(prev) = event.prev_kv {
            line += &format!("({})", prev.mod_revision);
        }
    }
    line
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_watcher_is_created_before_its_events_and_silent_after_it_was_canceled() {
    let mut client = Fixture::new();
    client.create(create("a", "b"));
    client.create(WatchCreateRequest {
        start_revision: 1,
        ..create("a", "")
    });
    assert_eq!(client.next().await, "0 @1 created");
    assert_eq!(client.next().await, "1 @1 created");
    client.put(&["a", "a1", "b"], "");
    let mut both = [client.next().await, client.next().await];
    both.sort();
    assert_eq!(both, ["0 @2 a=2 a1=2", "1 @2 a=2"]);
    client.cancel(0);
    client.cancel(1);
    client.cancel(1);
    client.put(&["a"], "");
    // Whether the request or the event is taken first is not said; after `canceled` there is none.
    let mut said = Vec::new();
    while said
        .iter()
        .filter(|line: &&String| line.contains("canceled"))
        .count()
        < 2
    {
        said.push(client.next().await);
    }
    assert!(client.is_silent(), "{said:?}");
    assert_eq!(
        client.headers.events.load(Ordering::Relaxed),
        3 + said.len() - 2
    );
}

#[tokio::test]
async fn refusals_are_created_and_canceled_under_no_id_with_etcds_reason() {
    let mut client = Fixture::new();
    let own_id = WatchCreateRequest {
        watch_id: 7,
        ..create("a", "")
    };
    client.create(own_id.clone());
    client.create(own_id);
    client.create(create("b", "a"));
    client.create(WatchCreateRequest {
        start_revision: -1,
        ..create("a", "")
    });
    assert_eq!(client.next().await, "7 @1 created");
    assert_eq!(
        client.next().await,
        "-1 @1 created canceled: mvcc: duplicate watch ID provided on the WatchStream"
    );
    assert_eq!(
        client.next().await,
        "-1 @1 created canceled: mvcc: watcher range is empty"
    );
    assert_eq!(
        client.next().await,
        "-1 @1 created canceled: etcdserver: mvcc: required revision has been compacted"
    );
}

#[tokio::test]
async fn a_compacted_watcher_is_canceled_with_the_revision_to_go_on_at() {
    let headers = PlainHeaders {
        compact_revision: 4,
        ..PlainHeaders::default()
    };
    let mut client = Fixture::with(headers, 1 << 20);
    for _ in 0..4 {
        client.put(&["a"], "");
    }
    client.writer.compact(4).unwrap();
    client.writer.publish();
    let past = |start_revision| WatchCreateRequest {
        start_revision,
        prev_kv: true,
        ..create("a", "")
    };
    client.create(past(3));
    assert_eq!(client.next().await, "0 @5 created");
    assert_eq!(client.next().await, "0 @0 canceled compacted 4");
    client.create(past(4));
    assert_eq!(client.next().await, "1 @5 created");
    assert_eq!(client.next().await, "1 @5 a=4 a=5(4)", "3 is in no history");
    client.cancel(0);
    assert_eq!(client.next().await, "0 @5 canceled");
}

#[tokio::test]
async fn nothing_and_zero_bytes_mean_what_they_mean_in_etcd() {
    let mut client = Fixture::new();
    client.create(create("", "\0"));
    client.create(create("", ""));
    client.create(create("c", "\0"));
    client.create(WatchCreateRequest {
        filters: vec![FilterType::Nodelete.into(), 9],
        ..create("a", "")
    });
    client.create(WatchCreateRequest {
        filters: vec![FilterType::Noput.into()],
        ..create("a", "")
    });
    for id in 0..5 {
        assert_eq!(client.next().await, format!("{id} @1 created"));
    }
    client.put(&["a", "d"], "");
    let mut said = [
        client.next().await,
        client.next().await,
        client.next().await,
    ];
    said.sort();
    assert_eq!(said, ["0 @2 a=2 d=2", "2 @2 d=2", "3 @2 a=2"]);
    assert!(client.is_silent());
}

#[tokio::test]
async fn large_revisions_are_split_for_those_who_allow_it() {
    let mut client = Fixture::with(PlainHeaders::default(), 1000);
    client.create(WatchCreateRequest {
        fragment: true,
        ..create("a", "b")
    });
    assert_eq!(client.next().await, "0 @1 created");
    client.put(&["a1", "a2", "a3"], &"v".repeat(400));
    assert_eq!(client.next().await, "0 @2 fragment a1=2 a2=2");
    assert_eq!(client.next().await, "0 @2 a3=2");
    client.create(create("a", "b"));
    assert_eq!(client.next().await, "1 @2 created");
    client.cancel(0);
    assert_eq!(client.next().await, "0 @2 canceled");
    client.put(&["a1", "a2", "a3"], &"v".repeat(400));
    assert_eq!(client.next().await, "1 @3 a1=3 a2=3 a3=3");
}

#[tokio::test]
async fn progress_is_answered_under_no_id() {
    let mut client = Fixture::new();
    client.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    client.create(create("a", ""));
    assert_eq!(client.next().await, "0 @1 created");
    client.put(&["b"], "");
    client.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    // Nobody was there to be told when the first was asked, or somebody was when it was looked at.
    assert_eq!(client.next().await, "-1 @2");
}

#[tokio::test(start_paused = true)]
async fn quiet_watchers_are_told_at_intervals_how_far_they_are() {
    let mut client = Fixture::new();
    let notified = |key, start_revision| WatchCreateRequest {
        progress_notify: true,
        start_revision,
        ..create(key, "")
    };
    client.create(notified("a", 0));
    client.create(notified("b", 0));
    client.create(create("b", ""));
    client.create(notified("future", 9));
    for id in 0..4 {
        assert_eq!(client.next().await, format!("{id} @1 created"));
    }
    client.put(&["a"], "");
    assert_eq!(client.next().await, "0 @2 a=2");
    let started = tokio::time::Instant::now();
    assert_eq!(
        client.next().await,
        "1 @2",
        "the other one has just had events"
    );
    assert_eq!(started.elapsed(), INTERVAL);
    assert_eq!(client.next().await, "0 @2");
    assert_eq!(client.next().await, "1 @2");
    assert_eq!(started.elapsed(), 2 * INTERVAL);
    client.cancel(0);
    assert_eq!(client.next().await, "0 @2 canceled");
    assert_eq!(client.next().await, "1 @2");
    assert_eq!(client.next().await, "1 @2");
    assert_eq!(started.elapsed(), 4 * INTERVAL);
}

#[tokio::test]
async fn watchers_outlive_the_clients_side_of_the_stream_but_not_its_failure() {
    let mut client = Fixture::new();
    client.create(create("a", ""));
    assert_eq!(client.next().await, "0 @1 created");
    let (unused, _) = mpsc::unbounded_channel();
    let requests = std::mem::replace(&mut client.requests, unused);
    drop(requests);
    assert!(client.is_silent());
    client.put(&["a"], "");
    assert_eq!(client.next().await, "0 @2 a=2");

    let mut client = Fixture::new();
    client
        .requests
        .send(Err(Status::resource_exhausted("too large")))
        .unwrap();
    let ended = client.responses.next().await.unwrap().unwrap_err();
    assert_eq!(ended.message(), "too large");
    assert!(client.responses.next().await.is_none());
}

#[tokio::test]
async fn who_may_not_watch_is_told_so_and_the_stream_goes_on() {
    let mut client = Fixture::new();
    client.create(create("forbidden", ""));
    client.create(create("a", ""));
    assert_eq!(
        client.next().await,
        "-1 @1 created canceled: rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    );
    assert_eq!(client.next().await, "0 @1 created");
}

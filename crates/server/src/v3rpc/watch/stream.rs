//! One watch stream of one client: requests come in, responses go out, one at a time.
//!
//! Which events there are is `mvcc`'s affair; this is their form on the wire.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use api::encoded::etcdserverpb::WatchResponse;
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest};
use api::rpctypes::ErrorCode;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use mvcc::{EventFilter, PrevKv, WatchBatch, WatchEvents, WatchStream};
use tonic::Status;
use types::{KeyRange, WatchId};

use super::fragment::fragments;
use super::progress::ProgressNotifier;

/// The id of responses that are about no watcher, or about all (`clientv3.InvalidWatchID`).
const NO_WATCHER: WatchId = WatchId(-1);

/// What a stream needs from the member besides events.
pub(super) trait Headers: Send + Sync + 'static {
    /// The header of a response that shows the store at `revision`.
    fn at(&self, revision: i64) -> ResponseHeader;
    /// Up to here, the store has forgotten what was before.
    fn compact_revision(&self) -> i64;
    /// Counts events that are sent.
    fn count_events(&self, events: usize);
    /// Whether the stream's client may watch these keys now.
    fn permit(&self, keys: &KeyRange) -> impl Future<Output = Result<(), ErrorCode>> + Send;
}

/// Bounds of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Between two notifications of progress.
    pub(super) progress_notify_interval: Duration,
    /// A larger response is split if the client allows fragments.
    pub(super) response_bytes_max: usize,
}

/// One watch stream.
pub(super) struct ServerWatchStream<R, H> {
    headers: H,
    watchers: WatchStream,
    /// `None` when the client has ended its side.
    requests: Option<R>,
    settings: Settings,
    progress: ProgressNotifier,
    /// Watchers whose responses may be split.
    fragmented: BTreeSet<WatchId>,
    /// Responses to what happened last: one, or the parts of one, or a notification for each
    /// watcher. Nothing else happens before they are sent.
    outbox: VecDeque<WatchResponse>,
}

impl<R, H> ServerWatchStream<R, H>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
    H: Headers,
{
    pub(super) fn new(watchers: WatchStream, requests: R, headers: H, settings: Settings) -> Self {
        Self {
            headers,
            watchers,
            requests: Some(requests),
            settings,
            progress: ProgressNotifier::new(settings.progress_notify_interval),
            fragmented: BTreeSet::new(),
            outbox: VecDeque::new(),
        }
    }

    /// The responses, each made when it is asked for.
    pub(super) fn into_responses(self) -> impl Stream<Item = Result<WatchResponse, Status>> + Send {
        stream::try_unfold(self, |mut stream| async move {
            let response = stream.next().await?;
            stream.headers.count_events(response.events.len());
            Ok(Some((response, stream)))
        })
    }

    /// The next response. Never ends by itself.
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            if let Some(next) = self.outbox.pop_front() {
                return Ok(next);
            }
            tokio::select! {
                request = next_request(&mut self.requests) => match request.transpose()? {
                    Some(request) => self.on_request(request).await,
                    None => self.requests = None,
                },
                batch = self.watchers.next() => match batch {
                    WatchBatch::Events(events) => self.on_events(events),
                    WatchBatch::Compacted { id, compact_revision } => {
                        self.on_compacted(id, compact_revision);
                    }
                    WatchBatch::Progress { revision } => self.on_progress(revision),
                    // The store is broken and the member about to stop.
                    WatchBatch::Failed => return Err(ErrorCode::Stopped.into()),
                },
                () = self.progress.tick() => self.on_tick(),
            }
        }
    }

    async fn on_request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.on_create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.on_cancel(WatchId(request.watch_id)),
            Some(RequestUnion::ProgressRequest(_)) => self.watchers.request_progress(),
            // A request of a later version; the stream is worth more than an error.
            None => tracing::info!("invalid watch request received in gRPC stream"),
        }
    }

    async fn on_create(&mut self, request: WatchCreateRequest) {
        if request.start_revision < 0 {
            self.refuse(ErrorCode::Compacted.text().to_owned());
            return;
        }
        let (wants_progress, fragment) = (request.progress_notify, request.fragment);
        let request = to_watch_request(request);
        // It stays allowed: what is taken away later does not end it, as in etcd.
        if let Err(error) = self.headers.permit(&request.keys).await {
            return self.refuse(not_permitted(error));
        }
        let id = match self.watchers.create(request) {
            Ok(id) => id,
            Err(error) => return self.refuse(error.to_string()),
        };
        if wants_progress {
            self.progress.add(id);
        }
        if fragment {
            self.fragmented.insert(id);
        }
        self.respond(WatchResponse {
            created: true,
            ..self.now(id)
        });
    }

    /// Answers a watcher that cannot be made.
    fn refuse(&mut self, cancel_reason: String) {
        self.respond(WatchResponse {
            created: true,
            canceled: true,
            cancel_reason,
            ..self.now(NO_WATCHER)
        });
    }

    fn on_cancel(&mut self, id: WatchId) {
        if self.watchers.cancel(id) {
            self.forget(id);
            self.respond(WatchResponse {
                canceled: true,
                ..self.now(id)
            });
        }
    }

    fn on_events(&mut self, events: WatchEvents) {
        let id = events.id;
        let response = WatchResponse {
            events: encode(&events, self.headers.compact_revision()),
            ..self.about(id, events.revision)
        };
        self.progress.sent_events(id);
        let bytes_max = match self.fragmented.contains(&id) {
            true => self.settings.response_bytes_max,
            false => usize::MAX,
        };
        self.outbox.extend(fragments(response, bytes_max));
    }

    fn on_compacted(&mut self, id: WatchId, compact_revision: i64) {
        self.forget(id);
        // As in etcd: here, and only here, the header shows no revision.
        self.respond(WatchResponse {
            canceled: true,
            compact_revision,
            ..self.about(id, 0)
        });
    }

    /// Every watcher of the stream has been given everything up to `revision`.
    fn on_progress(&mut self, revision: i64) {
        self.respond(self.about(NO_WATCHER, revision));
    }

    fn on_tick(&mut self) {
        for id in self.progress.due() {
            if let Some(revision) = self.watchers.synced_revision(id) {
                self.respond(self.about(id, revision));
            }
        }
    }

    fn respond(&mut self, response: WatchResponse) {
        self.outbox.push_back(response);
    }

    /// An empty response about a watcher, at a revision.
    fn about(&self, id: WatchId, revision: i64) -> WatchResponse {
        WatchResponse {
            header: Some(self.headers.at(revision)),
            watch_id: id.0,
            ..WatchResponse::default()
        }
    }

    /// An empty response about a watcher, at the store's revision.
    fn now(&self, id: WatchId) -> WatchResponse {
        self.about(id, self.watchers.revision())
    }

    fn forget(&mut self, id: WatchId) {
        self.progress.remove(id);
        self.fragmented.remove(&id);
    }
}

/// The next request, `None` when the client has just ended its side; after that, nothing ever.
async fn next_request<R>(requests: &mut Option<R>) -> Option<Result<WatchRequest, Status>>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Unpin,
{
    match requests {
        Some(requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

/// The events of a batch. The replaced values of the compacted revision and those before it are in
/// no history any more; that the event log may still know them must not make a difference.
fn encode(events: &WatchEvents, compact_revision: i64) -> Vec<Bytes> {
    let mut encoded = Vec::new();
    for (revision, places) in &events.revisions {
        let prev_kv = match revision.revision <= compact_revision {
            true => PrevKv::Omit,
            false => events.prev_kv,
        };
        let wanted = places.iter().map(|place| &revision.events[*place as usize]);
        encoded.extend(wanted.map(|event| event.encoded(prev_kv)));
    }
    encoded
}

/// Why a watcher is not permitted, in etcd's words: an error as Go prints one of gRPC.
fn not_permitted(error: ErrorCode) -> String {
    let (code, error) = match error {
        ErrorCode::InvalidAuthToken => ("Unauthenticated", error),
        ErrorCode::AuthOldRevision | ErrorCode::UserEmpty => ("InvalidArgument", error),
        _ => ("PermissionDenied", ErrorCode::PermissionDenied),
    };
    format!("rpc error: code = {code} desc = {}", error.text())
}

/// The watcher that a client asks for: what is empty or zero on the wire stands for something.
fn to_watch_request(request: WatchCreateRequest) -> mvcc::WatchRequest {
    // A zero byte is the smallest key.
    let key = match request.key.is_empty() {
        true => vec![0],
        false => request.key.clone(),
    };
    let filters = request.filters().map(|filter| match filter {
        FilterType::Noput => EventFilter::NoPut,
        FilterType::Nodelete => EventFilter::NoDelete,
    });
    mvcc::WatchRequest {
        id: (request.watch_id != 0).then_some(WatchId(request.watch_id)),
        keys: KeyRange::from_wire(key, request.range_end.clone()),
        start_revision: (request.start_revision != 0).then_some(request.start_revision),
        filters: filters.collect(),
        prev_kv: match request.prev_kv {
            true => PrevKv::Include,
            false => PrevKv::Omit,
        },
    }
}

//! One watch stream of one client: requests come in, responses go out, together if there are several.
//!
//! Which events there are is `mvcc`'s affair; this is their form on the wire.

use std::collections::BTreeSet;
use std::iter;
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

use super::progress::ProgressNotifier;
use super::response;

/// The id of responses that are about no watcher, or about all (`clientv3.InvalidWatchID`).
const NO_WATCHER: WatchId = WatchId(-1);

/// So many batches that are there already are taken without a look at requests and the time, which costs as much as
/// a batch.
const BATCHES_IN_A_ROW_MAX: u32 = 16;

/// A piece of responses that has so many bytes gets no more.
const PIECE_BYTES: usize = 32 * 1024;

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
    /// Batches that were taken since requests and the time were looked at.
    in_a_row: u32,
    /// Responses to what has happened, as they go over the wire.
    outbox: Vec<u8>,
    /// Events that are sent in parts, and how many of them have been. Nothing else happens before all have.
    parts: Option<(WatchEvents, usize)>,
    /// Why there are no more after those.
    failed: Option<Status>,
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
            in_a_row: 0,
            outbox: Vec::new(),
            parts: None,
            failed: None,
        }
    }

    /// The responses, as they go over the wire: in pieces of one or several, each made when it is asked for.
    pub(super) fn into_pieces(self) -> impl Stream<Item = Result<Bytes, Status>> + Send {
        // In a box: it goes from hand to hand with every piece.
        stream::try_unfold(Box::new(self), |mut stream| async move {
            Ok(Some((stream.next().await?, stream)))
        })
    }

    /// The next piece. Never ends by itself.
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            self.take_batches();
            if !self.outbox.is_empty() {
                return Ok(std::mem::take(&mut self.outbox).into());
            }
            if let Some(failed) = self.failed.take() {
                return Err(failed);
            }
            self.in_a_row = 0;
            tokio::select! {
                request = next_request(&mut self.requests) => match request.transpose()? {
                    Some(request) => self.on_request(request).await,
                    None => self.requests = None,
                },
                batch = self.watchers.next() => self.on_batch(batch),
                () = self.progress.tick() => self.on_tick(),
            }
        }
    }

    /// Takes what is there, as long as it fits into a piece.
    fn take_batches(&mut self) {
        while self.outbox.len() < PIECE_BYTES && self.failed.is_none() {
            if let Some((events, sent)) = self.parts.take() {
                self.put_part(events, sent);
                continue;
            }
            if self.in_a_row == BATCHES_IN_A_ROW_MAX {
                return;
            }
            let Some(batch) = self.watchers.try_next() else {
                return;
            };
            self.in_a_row += 1;
            self.on_batch(batch);
        }
    }

    fn on_batch(&mut self, batch: WatchBatch) {
        match batch {
            WatchBatch::Events(events) => self.on_events(events),
            WatchBatch::Compacted {
                id,
                compact_revision,
            } => self.on_compacted(id, compact_revision),
            WatchBatch::Progress { revision } => self.on_progress(revision),
            // The store is broken and the member about to stop.
            WatchBatch::Failed => self.failed = Some(ErrorCode::Stopped.into()),
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
        self.progress.sent_events(id);
        let response = self.about(id, events.revision);
        let compact_revision = self.headers.compact_revision();
        let bytes_max = self.settings.response_bytes_max;
        let is_whole = |events| {
            let encoded = encoded(events, compact_revision);
            response::first_part(&response, encoded, bytes_max).is_last
        };
        if self.fragmented.contains(&id) && !is_whole(&events) {
            self.parts = Some((events, 0));
            return;
        }
        let encoded = encoded(&events, compact_revision);
        self.headers.count_events(encoded.clone().count());
        self.put(&response, encoded);
    }

    /// The next part of events of which so many have been sent.
    fn put_part(&mut self, events: WatchEvents, sent: usize) {
        let mut response = WatchResponse {
            fragment: true,
            ..self.about(events.id, events.revision)
        };
        let rest = encoded(&events, self.headers.compact_revision()).skip(sent);
        let bytes_max = self.settings.response_bytes_max;
        let part = response::first_part(&response, rest.clone(), bytes_max);
        response.fragment = !part.is_last;
        self.headers.count_events(part.events);
        self.put(&response, rest.take(part.events));
        if !part.is_last {
            self.parts = Some((events, sent + part.events));
        }
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
        self.put(&response, iter::empty());
    }

    fn put<'a>(
        &mut self,
        response: &WatchResponse,
        events: impl Iterator<Item = &'a [u8]> + Clone,
    ) {
        let put = response::put(&mut self.outbox, response, events);
        self.failed = self.failed.take().or(put.err());
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
fn encoded(events: &WatchEvents, compact_revision: i64) -> impl Iterator<Item = &[u8]> + Clone {
    events.revisions.iter().flat_map(move |(revision, places)| {
        let prev_kv = match revision.revision <= compact_revision {
            true => PrevKv::Omit,
            false => events.prev_kv,
        };
        let wanted = places.iter().map(|place| &revision.events[*place as usize]);
        wanted.map(move |event| event.encoded(prev_kv))
    })
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

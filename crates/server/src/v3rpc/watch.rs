//! The Watch service (`server/etcdserver/api/v3rpc/watch.go`).
//!
//! One gRPC stream is one [`ServerWatchStream`]: it reads requests, asks an [`mvcc::WatchStream`] for
//! what its watchers are to be given, and puts both into responses. It has no task and no channel of its
//! own: it is the body of the response, and runs when the connection can take another message. So a client
//! that does not read holds up only itself; what it misses waits in the `mvcc` stream's bounded queue,
//! or, beyond that, in history.
//!
//! What a client can rely on:
//!
//! * `created` comes before anything else of a watcher, `canceled` after everything.
//! * All events of one revision are in one response, or, if the client allows fragments and
//!   the response would be too large, in responses of which all but the last say `fragment`.
//! * A response's header shows the revision up to which the watcher has been given everything.
//! * Progress speaks of no revision of which an event is still to come. Asked for, it comes as
//!   soon as all watchers of the stream are up to date, under watch id -1; by itself, it comes at
//!   intervals under the id of each watcher that asked for it and got no events meanwhile.
//! * When the client ends its side, its watchers go on, as in etcd. They end with the
//!   response's stream.
//!
//! Not here: the required leader and the member's stop, which end every kind of stream; they are
//! `v3rpc::interceptor`'s.

mod progress;
mod response;
mod stream;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use api::encoded::etcdserverpb::WatchResponse;
use api::encoded::etcdserverpb::watch_server::{Watch, WatchServer};
use api::etcdserverpb::WatchRequest;
use api::rpctypes::ErrorCode;
use apply::Access;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::body::Body;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use types::KeyRange;

use self::stream::{Headers, ServerWatchStream, Settings};
use super::interceptor::GZIP;
use super::own_body::WithOwnBodies;
use super::{Credentials, own_body};
use crate::{EtcdServer, framing};

/// Bytes that a response with fragments may have beyond the limit of requests.
const RESPONSE_OVERHEAD_BYTES: usize = 512 * 1024;

/// The shortest interval of progress notifications.
const PROGRESS_NOTIFY_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The service as it is called. Cheap to clone.
pub(super) type Watches = WithOwnBodies<WatchServer<WatchService>>;

/// Serves watch streams.
pub(crate) struct WatchService {
    server: EtcdServer,
    progress_notify_interval: Duration,
    jitter: RandomState,
}

impl WatchService {
    /// Serves the member's watchers.
    pub(crate) fn new(server: EtcdServer) -> Self {
        let wanted = server.config().watch_progress_notify_interval;
        if wanted < PROGRESS_NOTIFY_INTERVAL_MIN {
            tracing::warn!(
                min_watch_progress_notify_interval = ?PROGRESS_NOTIFY_INTERVAL_MIN,
                "adjusting watch progress notify interval to minimum period"
            );
        }
        Self {
            server,
            progress_notify_interval: wanted.max(PROGRESS_NOTIFY_INTERVAL_MIN),
            jitter: RandomState::new(),
        }
    }

    /// Serves them to who asks through tonic. A request's message has so many bytes at most.
    pub(super) fn serve(self, message_bytes_max: usize) -> Watches {
        let service = WatchServer::new(self);
        let service = service
            .max_decoding_message_size(message_bytes_max)
            .accept_compressed(GZIP);
        own_body::serve(service)
    }

    /// The interval with up to a tenth of it added, so that watchers that were created together are
    /// not notified together.
    fn jittered_interval(&self) -> Duration {
        let now = self.server.config().clock.now();
        let tenth = self.progress_notify_interval / 10;
        let part = self.jitter.hash_one(now) % 1000;
        self.progress_notify_interval + tenth * u32::try_from(part).unwrap_or(0) / 1000
    }
}

#[async_trait]
impl Watch for WatchService {
    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<BoxStream<WatchResponse>>, Status> {
        let config = self.server.config();
        let settings = Settings {
            progress_notify_interval: self.jittered_interval(),
            response_bytes_max: config
                .request_bytes_max
                .saturating_add(RESPONSE_OVERHEAD_BYTES),
        };
        let watchers = self.server.views().store.watch_stream();
        let headers = Face {
            credentials: Credentials::beside(&request),
            server: self.server.clone(),
        };
        let requests = request.into_inner();
        let stream = ServerWatchStream::new(watchers, requests, headers, settings);
        let pieces = stream.into_pieces().map(|piece| {
            Ok::<_, Infallible>(match piece {
                Ok(responses) => Frame::data(responses),
                Err(status) => Frame::trailers(framing::trailers(&status)),
            })
        });
        let body = Body::new(StreamBody::new(pieces));
        Ok(own_body::answer(
            futures_util::stream::empty().boxed(),
            body,
        ))
    }
}

/// The member, as the client of one stream sees it.
struct Face {
    server: EtcdServer,
    credentials: Credentials,
}

impl Headers for Face {
    fn at(&self, revision: i64) -> api::etcdserverpb::ResponseHeader {
        self.server.header_at(revision)
    }

    fn compact_revision(&self) -> i64 {
        self.server.views().store.compact_revision()
    }

    fn count_events(&self, events: usize) {
        self.server.metrics().events().inc_by(events as u64);
    }

    /// Each time anew: the stream may outlive its token.
    async fn permit(&self, keys: &KeyRange) -> Result<(), ErrorCode> {
        let allowed = self.server.allow(Access::Keys(keys), &self.credentials);
        allowed.await.map_err(|error| error.code())
    }
}

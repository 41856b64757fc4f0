//! Connections to the peers: three to each, so that none waits for another.
//!
//! They are made when they are first needed and again after they broke; a call meanwhile waits for
//! one attempt and fails with it. All urls of a peer are tried in turn. What this is not: it knows
//! no message, and never tries a call again.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api::peerpb::leader_client::LeaderClient;
use api::peerpb::peer_client::PeerClient;
use api::peerpb::raft_client::RaftClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, watch};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use transport::{Dialed, SharedDial};
use types::{MemberId, Url};

use super::PeerStatus;
use super::beats::{Beats, LateHeartbeats};
use super::handshake::{Identity, Introduction, says_removed};
use super::pinger::Observed;
use crate::error::{Fatal, FatalCell};
use crate::network::append::Confirmed;
use crate::node::Config;

/// The largest message that a peer is believed, as in etcd (`rafthttp/message.go`).
pub(crate) const MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Calls that wait for a connection. When it is full the next caller waits too; callers are the
/// fixed number of tasks that speak to a peer.
const CALLS_MAX: usize = 128;

/// What a connection may take besides an election timeout, as in etcd (`DialTimeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that a peer may send ahead on one stream, and on one connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How long things may take between members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) heartbeat_interval: Duration,
    pub(crate) election_timeout: Duration,
    /// After this long without a sign of life a connection that carries data is given up, as in etcd
    /// (`ConnReadTimeout`): data ahead of the sign may take long on a slow link.
    pub(crate) read_timeout: Duration,
}

impl Times {
    pub(crate) const fn of(config: &Config) -> Self {
        Self {
            heartbeat_interval: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            read_timeout: config.read_timeout,
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Entries and forwarded requests.
    Entries,
    /// Heartbeats, votes and pings: small, and never behind anything large.
    Heartbeats,
    /// States.
    Snapshots,
}

/// A connection with this member's introduction on every call.
pub(crate) type Introduced = InterceptedService<Channel, Introduction>;

/// All peers that were ever spoken to. Shared by everybody who speaks to them.
pub(crate) struct Peers {
    me: Identity,
    dial: SharedDial,
    times: Times,
    late_heartbeats: Arc<LateHeartbeats>,
    fatal: FatalCell,
    known: Mutex<BTreeMap<MemberId, Arc<Connections>>>,
    led_since: Mutex<Option<Instant>>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

impl Peers {
    pub(crate) fn new(me: Identity, dial: SharedDial, times: Times, fatal: FatalCell) -> Self {
        Self {
            me,
            dial,
            times,
            late_heartbeats: Arc::new(LateHeartbeats::new(times.heartbeat_interval)),
            fatal,
            known: Mutex::default(),
            led_since: Mutex::default(),
        }
    }

    pub(crate) const fn me(&self) -> Identity {
        self.me
    }

    /// The connections to a member that is reached at these urls from now on.
    pub(crate) fn at(&self, id: MemberId, urls: &[String]) -> Arc<Connections> {
        let mut known = self.known.lock();
        let connections = known
            .entry(id)
            .or_insert_with(|| Arc::new(Connections::new(self, id)));
        connections.move_to(urls);
        Arc::clone(connections)
    }

    /// The connections to a member that was spoken to before.
    pub(crate) fn known(&self, id: MemberId) -> Option<Arc<Connections>> {
        self.known.lock().get(&id).cloned()
    }

    /// When a leader was seen first that was not there before.
    pub(crate) fn led_since(&self) -> Option<Instant> {
        *self.led_since.lock()
    }

    pub(crate) fn note_new_leader(&self, at: Instant) {
        *self.led_since.lock() = Some(at);
    }

    /// Heartbeats that were not sent in time.
    pub(crate) fn late_heartbeats(&self) -> u64 {
        self.late_heartbeats.count()
    }

    /// All of them, as they were seen last.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let known: Vec<_> = self.known.lock().values().cloned().collect();
        let mut all: Vec<PeerStatus> = known.iter().map(|peer| peer.status()).collect();
        all.sort_unstable_by_key(|peer| peer.id);
        all
    }

    /// Forgets all but these.
    pub(crate) fn retain(&self, ids: &[MemberId]) {
        self.known.lock().retain(|id, _| ids.contains(id));
    }
}

/// The connections to one peer.
pub(crate) struct Connections {
    pub(crate) id: MemberId,
    route: Arc<Route>,
    introduction: Introduction,
    entries: Channel,
    heartbeats: Channel,
    snapshots: Channel,
    failures: AtomicU64,
    pub(crate) observed: Mutex<Observed>,
    pub(crate) confirmed: Arc<Confirmed>,
    pub(crate) beats: Beats,
    /// Wakes the stream of entries: it is to end, the peer is too far behind.
    pub(crate) left_behind: Arc<Notify>,
    fatal: FatalCell,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Connections {
    fn new(peers: &Peers, id: MemberId) -> Self {
        let Times {
            election_timeout,
            read_timeout,
            ..
        } = peers.times;
        let route = Arc::new(Route {
            dial: Arc::clone(&peers.dial),
            urls: RwLock::default(),
            timeout: CONNECT_TIMEOUT + election_timeout,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            ended: watch::Sender::default(),
        });
        let bulk = || channel(&route, election_timeout / 2, read_timeout);
        Self {
            id,
            introduction: Introduction::new(peers.me, id),
            entries: bulk(),
            heartbeats: channel(&route, election_timeout / 2, election_timeout),
            snapshots: bulk(),
            failures: AtomicU64::new(0),
            observed: Mutex::default(),
            confirmed: Arc::default(),
            beats: Beats::new(&peers.late_heartbeats),
            left_behind: Arc::default(),
            fatal: peers.fatal.clone(),
            route,
        }
    }

    fn move_to(&self, urls: &[String]) {
        let known = self.route.urls.read().clone();
        if !known
            .iter()
            .map(Url::as_str)
            .eq(urls.iter().map(String::as_str))
        {
            let urls = urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
            *self.route.urls.write() = urls;
        }
    }

    pub(crate) fn raft(&self, purpose: Purpose) -> RaftClient<Introduced> {
        RaftClient::new(self.introduced(purpose))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn leader(&self) -> LeaderClient<Introduced> {
        LeaderClient::new(self.introduced(Purpose::Entries))
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn peer(&self) -> PeerClient<Introduced> {
        PeerClient::new(self.introduced(Purpose::Heartbeats))
    }

    /// Changes whenever a connection ended from the other side; how many of them without a word.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.route.ended.subscribe()
    }

    fn introduced(&self, purpose: Purpose) -> Introduced {
        let channel = match purpose {
            Purpose::Entries => &self.entries,
            Purpose::Heartbeats => &self.heartbeats,
            Purpose::Snapshots => &self.snapshots,
        };
        InterceptedService::new(channel.clone(), self.introduction.clone())
    }

    /// Notes that a call failed, and what that says about this member.
    pub(crate) fn failed(&self, status: &Status) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if says_removed(status) {
            self.fatal.set(Fatal::Removed);
        }
        // Who refuses is there, and one late answer says little. A connection that broke says that
        // the peer may be gone, and who asks whether it is must not be told what a ping has seen
        // before that.
        if status.source().is_some() || status.code() == Code::Unavailable {
            self.fell_silent(tokio::time::Instant::now().into_std());
        }
    }

    /// Notes that it does not answer.
    pub(super) fn fell_silent(&self, at: Instant) {
        let mut observed = self.observed.lock();
        if observed.active_since.take().is_some() {
            tracing::warn!(peer = %self.id, "peer became inactive");
            observed.silent_since = Some(at);
        }
    }

    fn status(&self) -> PeerStatus {
        let observed = self.observed.lock().clone();
        PeerStatus {
            id: self.id,
            active_since: observed.active_since,
            round_trip: observed.round_trip,
            version: observed.version,
            sent_bytes: self.route.sent.load(Ordering::Relaxed),
            received_bytes: self.route.received.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

fn channel(route: &Arc<Route>, ping_interval: Duration, ping_timeout: Duration) -> Channel {
    // The connector knows where the peer is; the uri only names it in HTTP/2's headers.
    let endpoint = Endpoint::from_static("http://peer")
        .buffer_size(CALLS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(ping_interval)
        .keep_alive_timeout(ping_timeout)
        .keep_alive_while_idle(true);
    let route = Arc::clone(route);
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_named: Uri| {
        Arc::clone(&route).connect()
    }))
}

/// Where a peer is, and how much went there and back.
struct Route {
    dial: SharedDial,
    urls: RwLock<Arc<[Url]>>,
    timeout: Duration,
    sent: AtomicU64,
    received: AtomicU64,
    /// Told of each connection that the peer's side has ended, or its system. Counts those on which nothing had come: as if
    /// nobody listened.
    ended: watch::Sender<u64>,
}

impl Route {
    async fn connect(self: Arc<Self>) -> io::Result<TokioIo<Counted>> {
        let urls = Arc::clone(&self.urls.read());
        let mut failure = None;
        for url in urls.iter() {
            let dialled = tokio::time::timeout(self.timeout, self.dial.dial(url)).await;
            match dialled.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())) {
                Ok(connection) => {
                    return Ok(TokioIo::new(Counted {
                        connection,
                        route: self,
                        has_spoken: false,
                        has_ended: false,
                    }));
                }
                Err(error) => {
                    tracing::debug!(%url, %error, "cannot connect to a peer");
                    // One url where nobody listens says nothing of a peer that is silent at another.
                    if failure.is_none() || !is_refusal(&error) {
                        failure = Some(error);
                    }
                }
            }
        }
        let failure = failure.unwrap_or_else(|| io::Error::other("the peer has no url"));
        Err(match failure.kind() {
            kind if is_refusal(&failure) => io::Error::new(kind, Refused(failure)),
            _ => failure,
        })
    }
}

/// Nobody listens at a peer's url: its system has answered in its place.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Refused(io::Error);

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | ConnectionAborted
    )
}

/// Whether a call failed because nobody listens where the peer was. Not when a connection broke that was there.
pub(crate) fn says_refused(status: &Status) -> bool {
    let causes = std::iter::successors(status.source(), |&error| error.source());
    causes
        .filter_map(|error| error.downcast_ref::<io::Error>()?.get_ref())
        .any(|error| error.is::<Refused>())
}

/// A connection whose bytes are counted.
struct Counted {
    connection: Dialed,
    route: Arc<Route>,
    has_spoken: bool,
    has_ended: bool,
}

impl Counted {
    /// Notes what came of a read.
    fn has_read(&mut self, bytes: usize, is_over: bool) {
        self.route
            .received
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.has_spoken |= bytes > 0;
        if is_over && !std::mem::replace(&mut self.has_ended, true) {
            let is_wordless = !self.has_spoken;
            let ended = &self.route.ended;
            ended.send_modify(|wordless| *wordless += u64::from(is_wordless));
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let has_room = buffer.remaining() > 0;
        let polled = Pin::new(&mut self.connection).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        let is_over = match &polled {
            Poll::Ready(Ok(())) => has_room && read == 0,
            Poll::Ready(Err(error)) => is_refusal(error),
            Poll::Pending => false,
        };
        self.has_read(read, is_over);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.connection).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.route.sent.fetch_add(written as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use api::peerpb::ReadIndexRequest;
    use futures_util::future::BoxFuture;
    use tokio::io::{DuplexStream, duplex};
    use types::ClusterId;

    use super::*;

    /// A peer that takes connections, and says nothing.
    #[derive(Debug, Default)]
    struct Silent(Mutex<Vec<DuplexStream>>);

    impl transport::Dial for Silent {
        fn dial(&self, _url: &Url) -> BoxFuture<'static, io::Result<Dialed>> {
            let (ours, theirs) = duplex(1 << 20);
            self.0.lock().push(theirs);
            Box::pin(async move { Ok(Box::new(ours) as Dialed) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_silent_for_too_long_is_given_up() {
        for seconds in [5, 20] {
            let times = Times {
                heartbeat_interval: Duration::from_millis(100),
                election_timeout: Duration::from_secs(1),
                read_timeout: Duration::from_secs(seconds),
            };
            let me = Identity {
                member: MemberId(1),
                cluster: ClusterId(1),
            };
            let peers = Peers::new(me, Arc::new(Silent::default()), times, FatalCell::default());
            let url = "http://127.0.0.1:1".to_owned();
            let mut peer = peers.at(MemberId(2), &[url]).leader();
            let begun = tokio::time::Instant::now();
            peer.read_index(ReadIndexRequest::default())
                .await
                .unwrap_err();
            let took = begun.elapsed().as_secs_f64();
            assert!((took - seconds as f64).abs() < 2.0, "{took} of {seconds}");
        }
    }
}

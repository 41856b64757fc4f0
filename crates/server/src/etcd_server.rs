//! What every service works with: the handle on Raft, the views of the state, and the limits.
//!
//! What this is not: a service. It validates nothing and knows no protobuf.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::rpctypes::ErrorCode;
use apply::{Persister, Quota, Rejection, Reply, Request, Views};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use parking_lot::Mutex;
use raft::{MemberChangeError, MoveLeaderError, Node, ProposeError, ReadIndexError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{Clock, ClusterId, LeaseId, MemberId};

use crate::admission::Admission;
use crate::call;
use crate::corrupt::CorruptConfig;
use crate::id_generator::IdGenerator;
use crate::recent::Recent;
use crate::space_alarm::SpaceAlarm;
use crate::traffic::Traffic;
use crate::v3rpc::Passwords;
use crate::version_monitor::{self, ShownVersions};
use crate::{GrpcLimits, Metrics, SlowRequests, Traces};

/// After so many election timeouts without a leader, streams that ask for one are ended.
const LEADERLESS_ELECTIONS_MAX: u32 = 3;
/// How often the peers are looked at; Raft asks them about as often.
const PEER_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether the keys of tokens have changed.
const KEYS_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Limits and identity of a member.
#[derive(Clone)]
pub struct Config {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// `--max-request-bytes`: of a command in the log. A gRPC message may be 512 KiB larger.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--quota-backend-bytes`.
    pub quota: Quota,
    /// What clients' connections are held to.
    pub grpc: GrpcLimits,
    /// When a request is warned about.
    pub slow: SlowRequests,
    /// `--grpc-reflection`: whether clients may ask which services there are.
    pub reflection: bool,
    /// `--enable-distributed-tracing`: where the spans of calls go.
    pub traces: Option<Traces>,
    /// Whether health checks are told that the member does not serve while it is defragmented.
    pub stop_serving_on_defrag: bool,
    /// `--nospace-auto-disarm`: this member clears its NOSPACE once there is space again.
    pub disarms_nospace: bool,
    /// `--downgrade-check-time`: how often it is looked whether a downgrade has ended; zero is never.
    pub downgrade_check_interval: Duration,
    /// How members are compared, and what comes of it.
    pub corrupt: CorruptConfig,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_notify_interval: Duration,
    /// `--client-cert-auth`: certificates stand for users.
    pub client_cert_auth: bool,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// The shortest TTL that a lease can have, in seconds: it must outlive an election.
    #[must_use]
    pub fn lease_ttl_min_s(&self) -> i64 {
        let heartbeat_ms = self.heartbeat_interval.as_millis().max(1);
        let election_ticks = self.election_timeout.as_millis() / heartbeat_ms;
        let ttl_ms = (3 * election_ticks) / 2 * heartbeat_ms;
        i64::try_from(ttl_ms.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

/// A request was not carried out. `v3rpc::status` says what the client sees.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is not a valid request.
    #[error("{}", .0.text())]
    Invalid(ErrorCode),
    /// The state machine refused it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Who asks may not have it.
    #[error(transparent)]
    Auth(#[from] auth::AuthError),
    /// Raft did not carry it out.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// A linearizable read was not possible.
    #[error(transparent)]
    ReadIndex(#[from] ReadIndexError),
    /// A read was not possible at that revision.
    #[error(transparent)]
    Range(#[from] mvcc::RangeError),
    /// The member's files could not be read; it is about to stop.
    #[error(transparent)]
    Fatal(#[from] apply::Fatal),
    /// The members were not changed.
    #[error(transparent)]
    Members(#[from] MemberChangeError),
    /// The leadership was not moved.
    #[error(transparent)]
    MoveLeader(#[from] MoveLeaderError),
}

impl From<ErrorCode> for RequestError {
    fn from(code: ErrorCode) -> Self {
        Self::Invalid(code)
    }
}

/// A member, as its services see it. Cheap to clone.
#[derive(Clone)]
pub struct EtcdServer {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    node: Node,
    views: Views,
    persister: Persister,
    metrics: Metrics,
    ids: IdGenerator,
    space: SpaceAlarm,
    passwords: Passwords,
    reads: Admission,
    traffic: Traffic,
    recent: Recent,
    /// Whether health checks are told that the member serves.
    serving: watch::Sender<bool>,
    /// What `/health` says of a member that serves all the same.
    notice: Mutex<String>,
    /// Counts how often the member was found without a leader for too long.
    leader_losses: watch::Sender<u64>,
    /// What goes on after the request that it belongs to.
    leftovers: TaskTracker,
    stopping: CancellationToken,
}

impl EtcdServer {
    /// Puts a member's parts together. `stopping` ends streams when the member stops.
    #[must_use]
    pub fn new(
        config: Config,
        node: Node,
        views: Views,
        persister: Persister,
        metrics: Metrics,
        stopping: CancellationToken,
    ) -> Self {
        let passwords = Passwords::new(config.bcrypt_cost);
        let ids = IdGenerator::new(config.member, config.clock.wall());
        let (leader_losses, _) = watch::channel(0);
        let traffic = Traffic::new(Arc::clone(&config.clock));
        Self {
            shared: Arc::new(Shared {
                config,
                node,
                views,
                persister,
                metrics,
                ids,
                space: SpaceAlarm::default(),
                passwords,
                reads: Admission::default(),
                traffic,
                recent: Recent::default(),
                serving: watch::Sender::new(true),
                notice: Mutex::default(),
                leader_losses,
                leftovers: TaskTracker::new(),
                stopping,
            }),
        }
    }

    /// Limits and identity.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Raft.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// Everything that may be read.
    #[must_use]
    pub fn views(&self) -> &Views {
        &self.shared.views
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Is cancelled when the member stops: streams have to end then.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.shared.stopping
    }

    /// Does something that goes on after its request has ended, unless the member stops.
    pub(crate) fn spawn_until_stopped(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping().clone();
        self.shared.leftovers.spawn(async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Hashes passwords.
    pub(crate) fn passwords(&self) -> &Passwords {
        &self.shared.passwords
    }

    /// What `/health` says of a member that serves all the same; nothing in most cases.
    #[must_use]
    pub fn notice(&self) -> String {
        self.shared.notice.lock().clone()
    }

    /// See [`EtcdServer::notice`].
    pub fn set_notice(&self, text: impl Into<String>) {
        *self.shared.notice.lock() = text.into();
    }

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node().status().leader == Some(self.config().member)
    }

    /// Whether this member has no vote, as clients see it: a voter that is still catching up is none.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.views().cluster.is_learner(self.config().member)
    }

    /// Bytes that the state has been allocated, as etcd counts them; never 0, because clients divide
    /// by it.
    #[must_use]
    pub fn db_size(&self) -> u64 {
        self.views().store.size()
    }

    /// Bytes that live records take; like etcd's, never 0, because printers leave out or divide by 0.
    #[must_use]
    pub fn db_size_in_use(&self) -> u64 {
        self.views().store.size_in_use()
    }

    /// The versions that this member tells.
    #[must_use]
    pub fn shown_versions(&self) -> ShownVersions {
        ShownVersions::new(self.views().versions.get())
    }

    /// The state's writer, to wait for what is durable.
    #[must_use]
    pub fn persister(&self) -> &Persister {
        &self.shared.persister
    }

    /// A new lease's id.
    #[must_use]
    pub fn next_lease_id(&self) -> LeaseId {
        self.shared.ids.next_lease()
    }

    /// Proposes a command and waits until it is applied here, or for Raft's timeout.
    /// A bare command is nobody's, and refused when authentication is on.
    pub fn propose(
        &self,
        request: impl Into<Request>,
    ) -> impl Future<Output = Result<Reply, RequestError>> {
        let request = request.into();
        let space = &self.shared.space;
        let checked = match request.command.takes_space() {
            true => space.check(self, &request.command),
            false => Ok(()),
        };
        match checked {
            Ok(()) => Either::Left(self.propose_unchecked(request)),
            // Larger, and for few.
            Err(refusal) => Either::Right(Box::pin(space.refuse(self, refusal).map(Err))),
        }
    }

    /// Proposes a command whether or not there is room for it.
    pub(crate) fn propose_unchecked(
        &self,
        request: impl Into<Request>,
    ) -> impl Future<Output = Result<Reply, RequestError>> {
        let pending = self.metrics().propose();
        let started = self.config().clock.now();
        let before = self.node().status();
        let proposed = self.node().propose(request);
        proposed.map(move |proposed| {
            let applied = proposed.map_err(|error| pending.failed(self.why(error, before)))?;
            self.warn_if_slow("propose and apply", started, "", String::new);
            let reply = applied.outcome?;
            Ok(reply)
        })
    }

    /// What an error of a proposal is called that began when the status was `before`. etcd tells apart
    /// what could never be proposed, because nobody led all the time.
    fn why(&self, error: ProposeError, before: raft::Status) -> ProposeError {
        let now = self.node().status();
        let nobody_led = before.leader.is_none() && now.leader.is_none() && before.term == now.term;
        match error {
            ProposeError::Timeout
            | ProposeError::TimeoutDueToLeaderFail
            | ProposeError::TimeoutDueToConnectionLost
                if nobody_led =>
            {
                ProposeError::NoLeader
            }
            other => other,
        }
    }

    /// Returns when a local read is linearizable.
    pub async fn read_index(&self) -> Result<(), RequestError> {
        let started = self.config().clock.now();
        let read_index = self.shared.node.read_index().await;
        call::spent("read index", self.since(started));
        read_index.map_err(|error| {
            self.metrics().read_index_failed(error);
            error.into()
        })
    }

    fn since(&self, started: Instant) -> Duration {
        let now = self.config().clock.now();
        now.saturating_duration_since(started)
    }

    /// Notes a stage of a request that began at `started`, and warns about it if it took long. `prefix` and
    /// `response` are etcd's.
    pub(crate) fn warn_if_slow(
        &self,
        stage: &'static str,
        started: Instant,
        prefix: &'static str,
        response: impl FnOnce() -> String,
    ) {
        let took = self.since(started);
        call::spent(stage, took);
        if took <= self.config().slow.apply {
            return;
        }
        self.metrics().slow_apply();
        let said = call::described().unwrap_or_default();
        tracing::warn!(
            ?took,
            "expected-duration" = ?self.config().slow.apply,
            prefix,
            request = said.request,
            response = response(),
            remote = said.remote,
            user = said.user,
            "request-size" = said.request_size,
            stages = said.stages,
            "apply request took too long"
        );
    }

    /// Whether the member serves, as health checks are told.
    pub(crate) fn serving(&self) -> watch::Receiver<bool> {
        self.shared.serving.subscribe()
    }

    pub(crate) fn serving_state(&self) -> &watch::Sender<bool> {
        &self.shared.serving
    }

    /// What clients ask.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// The last minutes.
    pub(crate) fn recent(&self) -> &Recent {
        &self.shared.recent
    }

    /// Waits until a large read may run.
    pub(crate) async fn admit_read(&self) -> Result<OwnedSemaphorePermit, ErrorCode> {
        self.shared.reads.enter().await
    }

    /// Changes whenever the member has been without a leader for so long that streams which ask
    /// for one have to end.
    #[must_use]
    pub fn leader_losses(&self) -> watch::Receiver<u64> {
        self.shared.leader_losses.subscribe()
    }

    /// Watches who leads and whether the quota is kept, until the member stops. To be run once.
    pub async fn monitor(self) {
        tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => {}
            () = self.watch_leader() => {}
            () = self.shared.space.watch(&self) => {}
            () = self.watch_peers() => {}
            () = self.watch_token_keys() => {}
            () = self.shared.recent.follow(&self) => {}
            () = version_monitor::watch(&self, self.config().downgrade_check_interval) => {}
        }
        self.shared.leftovers.close();
        self.shared.leftovers.wait().await;
    }

    /// Reads the keys of tokens again when their files have changed.
    async fn watch_token_keys(&self) {
        let tokens = self.views().auth.tokens().clone();
        if !tokens.has_keys() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(KEYS_LOOK_INTERVAL).await;
            let tokens = tokens.clone();
            match tokio::task::spawn_blocking(move || tokens.reload()).await {
                Ok(Ok(true)) => tracing::info!("the keys of JWTs have changed"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the keys of JWTs cannot be used; the old ones stay")
                }
                // The runtime is going away, and the member with it.
                Err(_gone) => return,
            }
        }
    }

    /// Looks at the peers, for the metrics.
    async fn watch_peers(&self) {
        loop {
            tokio::time::sleep(PEER_LOOK_INTERVAL).await;
            self.metrics().look_at_peers(&self.node().peers());
        }
    }

    /// Counts changes of the leader, and notices when there has been none for too long.
    async fn watch_leader(&self) {
        let mut status = self.node().watch_status();
        let patience = LEADERLESS_ELECTIONS_MAX * self.config().election_timeout;
        let mut last_leader = None;
        let mut lost_at = None;
        loop {
            let leader = status.borrow_and_update().leader;
            if leader.is_some() && leader != last_leader {
                last_leader = leader;
                self.metrics().leader_changed();
            }
            // The status changes for other reasons as well; the time goes on.
            lost_at = match leader {
                Some(_) => None,
                None => lost_at.or_else(|| Some(tokio::time::Instant::now())),
            };
            tokio::select! {
                biased;
                changed = status.changed() => if changed.is_err() {
                    return;
                },
                () = wait_until(lost_at.map(|lost_at| lost_at + patience)) => {
                    self.shared.leader_losses.send_modify(|losses| *losses += 1);
                    lost_at = None;
                }
            }
        }
    }
}

/// Waits until then; for ever if there is no such time.
async fn wait_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    #[test]
    fn etcds_default_timings_give_etcds_shortest_ttl() {
        let config = Config {
            member: MemberId(1),
            cluster: ClusterId(1),
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            quota: Quota::Unlimited,
            grpc: GrpcLimits::default(),
            slow: SlowRequests::default(),
            reflection: false,
            traces: None,
            stop_serving_on_defrag: false,
            disarms_nospace: false,
            downgrade_check_interval: Duration::ZERO,
            corrupt: CorruptConfig::default(),
            watch_progress_notify_interval: Duration::from_secs(600),
            client_cert_auth: false,
            bcrypt_cost: 10,
            clock: Arc::new(SystemClock),
        };
        assert_eq!(config.lease_ttl_min_s(), 2);
    }
}

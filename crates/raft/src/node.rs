//! The handle on this member's part of the group.

#[cfg(test)]
mod group_tests;
mod parts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use apply::{Persister, Request, StateMachine, Views, Workers};
use futures_util::FutureExt as _;
use futures_util::future::{self, Either};
use openraft::SnapshotPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::SharedDial;
use types::{Buckets, ClusterId, MemberId};

use crate::apply_counts::Applications;
use crate::error::{Fatal, FatalCell, ProposeError, ReadIndexError, StartError};
use crate::lease_requests::LeaseAnswers;
use crate::log_store::{self, LogHandle, LogStore};
use crate::member_change::changer::Changer;
use crate::network::Network;
use crate::peer::channels::{Peers, Times};
use crate::peer::handshake::Identity;
use crate::peer::{PeerService, PeerStatus};
use crate::progress::Progress;
use crate::proposal_id;
use crate::proposer::{self, Applied, ProposeQueue};
use crate::read_index::ReadIndex;
use crate::repair::Repairs;
use crate::snapshot::send::Sender;
use crate::snapshot::{Counters, SnapshotMetrics};
use crate::state_machine::{self, Adapter, MachineHandle};
use crate::status::{LeaderSeen, Metrics, Status, status};
use crate::type_config::{TypeConfig, log_id};
use crate::waiters::{Outcome, Waiters};
use crate::{bootstrap, recovery};
use parts::Parts;

pub(crate) type Raft = openraft::Raft<TypeConfig, Adapter>;

/// Follows the leader, the term and the membership.
pub(crate) type ServerMetrics = openraft::type_config::alias::WatchReceiverOf<
    TypeConfig,
    openraft::metrics::RaftServerMetrics<TypeConfig>,
>;

/// What a request may take besides two elections, as in etcd (`config.go`, `ReqTimeout`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries that may be committed and not applied before commands are refused, as in etcd
/// (`v3_server.go`, `maxGapBetweenApplyAndCommitIndex`).
pub(crate) const COMMIT_APPLY_GAP_MAX: u64 = 5000;

/// What sending a whole state to a peer may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3600);

/// How to run Raft.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub member: MemberId,
    /// Its cluster: checked on every connection between members.
    pub cluster: ClusterId,
    /// The members that begin the cluster; used only when the log is empty. None: the cluster has
    /// begun, and this member waits to hear from it.
    pub initial_members: Vec<Peer>,
    /// `--force-new-cluster`: whatever the log says, this member is the only one from now on.
    pub force_new_cluster: bool,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--raft-read-timeout`.
    pub read_timeout: Duration,
    /// `--snapshot-count`: entries after which the log is cut.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`: entries left in the log for members that are a little behind.
    pub snapshot_catchup_entries: u64,
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--strict-reconfig-check`: refuse changes of the members that could cost the quorum.
    pub strict_reconfig_check: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// Where work runs that blocks on the disk.
    pub workers: Workers,
    /// The time of day at which the member starts: ids of its proposals count from there.
    pub started_at: SystemTime,
}

/// A member that begins the cluster.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Its peer urls.
    pub peer_urls: Vec<String>,
}

/// This member's part of the group. Cheap to clone. When the last one is dropped its tasks end,
/// but only [`Node::stop`] leaves nothing to replay.
#[derive(Clone)]
pub struct Node {
    running: Arc<Running>,
}

pub(crate) struct Running {
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    peer_service: PeerService,
    queue: ProposeQueue,
    reads: Arc<ReadIndex>,
    pub(crate) leases: LeaseAnswers,
    pub(crate) progress: Arc<Progress>,
    pub(crate) changer: Arc<Changer>,
    seen: LeaderSeen,
    status: watch::Receiver<Status>,
    promoted: watch::Receiver<bool>,
    pub(crate) log: Arc<LogHandle>,
    pub(crate) server: ServerMetrics,
    machine: Arc<MachineHandle>,
    transfers: Arc<Counters>,
    waiters: Arc<Waiters>,
    pub(crate) repairs: Arc<Repairs>,
    pub(crate) fatal: FatalCell,
    tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    stopped: OnceCell<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("member", &self.running.config.member)
            .finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    /// Opens the log in `log`, replays it into `state`, and takes part in elections. Returns as
    /// soon as requests can be made; [`Node::wait_ready`] waits for a leader. `views` is where the
    /// leader looks for expired leases; `dial` reaches the peers, which reach this member through
    /// [`Node::peer_service`].
    pub async fn start(
        config: Config,
        log: backend::Backend,
        state: StateMachine,
        persister: Persister,
        views: Views,
        dial: SharedDial,
    ) -> Result<Self, StartError> {
        let progress = Arc::new(Progress::default());
        let fatal = FatalCell::default();
        let (mut store, log) = log_store::open(
            log,
            Arc::clone(&progress),
            fatal.clone(),
            &config.workers,
            Some(persister.clone()),
        )?;
        persister.stands_at(state.applied().0.map_or(0, |at| at.index + 1));
        finish_installation(&mut store, &log, &state).await?;
        check_that_they_belong_together(&log, &state)?;
        if config.force_new_cluster {
            recovery::force_new_cluster(&mut store, &state, &config).await?;
        }
        let (ids, reserved_ids) = reserve_ids(&config, &log).await?;
        let waiters = Arc::new(Waiters::new(Arc::clone(&ids)));
        let (adapter, machine) = state_machine::adapt(
            state,
            persister.clone(),
            Arc::clone(&progress),
            Arc::clone(&waiters),
            config.workers.clone(),
            fatal.clone(),
        )
        .map_err(StartError::Membership)?;
        let is_pristine = log.is_pristine() && progress.applied() == 0;
        let settings = Arc::new(settings(&config).validate().map_err(StartError::Config)?);
        let me = Identity {
            member: config.member,
            cluster: config.cluster,
        };
        let times = Times::of(&config);
        let peers = Arc::new(Peers::new(me, dial, times, fatal.clone()));
        let machine = Arc::new(machine);
        let states = Arc::new(Sender {
            machine: Arc::clone(&machine),
            transfers: machine.transfers(),
            counters: Arc::default(),
            workers: config.workers.clone(),
            fatal: fatal.clone(),
        });
        let network = Network::new(Arc::clone(&peers), Arc::clone(&states));
        let raft = Raft::new(config.member.0, settings, network, store, adapter)
            .await
            .map_err(|fatal| StartError::Raft(Arc::new(fatal)))?;
        bootstrap::bootstrap(&raft, &config, is_pristine).await?;
        let parts = Parts {
            config,
            raft,
            peers,
            ids,
            reserved_ids,
            waiters,
            log: Arc::new(log),
            machine,
            states,
            progress,
            views,
            persister,
            fatal,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self {
            running: Arc::new(parts.run()),
        })
    }

    /// Holds the state of now, to be read; `None` before the first entry. While it is held, compactions
    /// remove nothing from the disk.
    pub async fn pin(&self) -> Result<Option<apply::Pinned>, Fatal> {
        self.running.machine.pin().await
    }

    /// Proposes a command and waits for its outcome on this member.
    /// A bare command is nobody's: see [`Request`].
    ///
    /// It is on its way when this returns, and what waits for its outcome is small: there are as many of these as
    /// clients wait.
    pub fn propose(
        &self,
        request: impl Into<Request>,
    ) -> impl Future<Output = Result<Applied, ProposeError>> {
        let running = &*self.running;
        let since = tokio::time::Instant::now();
        let outcome = match self.enqueue(request.into()) {
            Ok(outcome) => outcome,
            Err(refused) => return Either::Left(future::ready(Err(refused))),
        };
        let waiting = tokio::time::timeout_at(since + running.request_timeout(), outcome);
        Either::Right(waiting.map(move |outcome| match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_stopping)) => Err(ProposeError::Stopped),
            Err(_elapsed) => Err(running.why_late(since.into_std())),
        }))
    }

    fn enqueue(&self, request: Request) -> Result<Outcome, ProposeError> {
        let running = &*self.running;
        if running.progress.behind() > COMMIT_APPLY_GAP_MAX {
            return Err(ProposeError::TooManyRequests);
        }
        let encoded = request.encode();
        let bytes = encoded.len() + request_header_bytes(running.config.member);
        if bytes > running.config.request_bytes_max {
            return Err(ProposeError::TooLarge);
        }
        if running.stop.is_cancelled() {
            return Err(ProposeError::Stopped);
        }
        running.queue.push(request, encoded)
    }

    /// Waits until a local read is linearizable: everything committed before the call is applied
    /// here. Calls that wait at the same time share one round.
    pub async fn read_index(&self) -> Result<(), ReadIndexError> {
        let ready = self.running.reads.join()?;
        match tokio::time::timeout(self.running.request_timeout(), ready).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_stopping)) => Err(ReadIndexError::Stopped),
            Err(_elapsed) => Err(ReadIndexError::Timeout),
        }
    }

    /// Waits for a leader and for this member to have applied all that was committed. Returns
    /// early when the member stops or cannot go on.
    pub async fn wait_ready(&self) {
        let running = &*self.running;
        let ready = async {
            if running.raft.wait_for_recovery(None).await.is_err() {
                return;
            }
            let (mut status, mut promoted) = (running.status.clone(), running.promoted.clone());
            let Ok(led) = status
                .wait_for(|status| status.leader.is_some())
                .await
                .map(|led| *led)
            else {
                return;
            };
            if led.leader == Some(running.config.member)
                && promoted.wait_for(|promoted| *promoted).await.is_err()
            {
                // The task that promotes has gone: the member stops.
            }
        };
        tokio::select! {
            biased;
            () = ready => {}
            () = running.stop.cancelled() => {}
            _reason = running.fatal.wait() => {}
        }
    }

    /// Where Raft stands now.
    #[must_use]
    pub fn status(&self) -> Status {
        status(
            self.running.config.member,
            &self.running.server.borrow_watched(),
            &self.running.progress,
            &self.running.seen,
        )
    }

    /// Follows [`Node::status`]: leader, term and membership at once, the indexes a few times a
    /// second.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.running.status.clone()
    }

    /// What the member has done so far, for its metrics.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let (log_flushes, log_bytes) = self.running.log.flushed();
        Metrics {
            proposals_pending: self.running.queue.len() as u64,
            log_flushes,
            log_bytes,
            late_heartbeats: self.running.peers.late_heartbeats(),
            installing: self.running.transfers.installing(),
        }
    }

    /// How long writing the log took so far, and making it durable.
    #[must_use]
    pub fn log_durations(&self) -> (Buckets, Buckets) {
        self.running.log.durations()
    }

    /// What applying has come to so far on this member.
    #[must_use]
    pub fn applications(&self) -> Applications {
        self.running.machine.applications()
    }

    /// States sent to and received from each peer.
    #[must_use]
    pub fn snapshot_metrics(&self) -> Vec<(MemberId, SnapshotMetrics)> {
        self.running.transfers.all()
    }

    /// What peers ask of this member; to be served on the peer port.
    #[must_use]
    pub fn peer_service(&self) -> PeerService {
        self.running.peer_service.clone()
    }

    /// The peers as this member sees them, without itself.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.running.peers.status()
    }

    /// Waits until the member cannot go on (a broken disk, a broken log), and says why.
    pub async fn fatal(&self) -> Fatal {
        self.running.fatal.wait().await
    }

    /// Stops taking part, and returns when all that was applied is durable. A second call waits
    /// for the first.
    pub async fn stop(&self) {
        self.running
            .stopped
            .get_or_init(|| self.running.stop())
            .await;
    }
}

impl Running {
    pub(crate) fn request_timeout(&self) -> Duration {
        request_timeout(&self.config)
    }

    /// Why a command was not applied in time, told apart as etcd does (`v3_server.go`,
    /// `parseProposeCtxErr`).
    fn why_late(&self, since: Instant) -> ProposeError {
        let elected = self.peers.led_since();
        if elected.is_some_and(|at| since < at && at < since + 2 * self.config.election_timeout) {
            return ProposeError::TimeoutDueToLeaderFail;
        }
        let peers = self.peers.status();
        let is_connected = |id: MemberId| {
            let peer = peers.iter().find(|peer| peer.id == id);
            peer.is_some_and(|peer| peer.active_since.is_some_and(|at| at <= since))
        };
        let me = self.config.member;
        let reaches_leader = match proposer::leader(&self.server) {
            None => true,
            Some(leader) if leader.member == me => {
                let server = self.server.borrow_watched();
                let voters = server.membership_config.membership().voter_ids();
                let voters: Vec<MemberId> = voters.map(MemberId).collect();
                let connected = voters.iter().filter(|id| **id == me || is_connected(**id));
                connected.count() > voters.len() / 2
            }
            Some(leader) => is_connected(leader.member),
        };
        if reaches_leader {
            ProposeError::Timeout
        } else {
            ProposeError::TimeoutDueToConnectionLost
        }
    }

    /// Whether somebody waits for the outcome of a command.
    pub(crate) fn is_proposing(&self) -> bool {
        self.queue.len() > 0 || !self.waiters.is_idle()
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "raft did not stop");
        }
        if let Err(error) = self.machine.close().await {
            let error = crate::error::Chain(&error);
            tracing::error!(%error, "the state was not made durable; the log will be replayed");
        }
        self.log.close().await;
        tracing::info!(member = %self.config.member, "raft has stopped");
    }
}

fn request_timeout(config: &Config) -> Duration {
    REQUEST_TIMEOUT + 2 * config.election_timeout
}

#[cfg(test)]
impl Node {
    /// The last entry of the log that was purged.
    pub(crate) fn purged(&self) -> Option<u64> {
        self.running.log.purged()
    }

    /// What a forwarder is made of.
    pub(crate) fn forwarding(
        &self,
    ) -> (
        Raft,
        Arc<Peers>,
        Arc<Waiters>,
        Arc<proposal_id::ProposalIds>,
    ) {
        let ids = proposal_id::ProposalIds::unbounded(MemberId(1), std::time::UNIX_EPOCH);
        let ids = Arc::new(ids);
        let waiters = Arc::new(Waiters::new(Arc::clone(&ids)));
        let running = &self.running;
        (
            running.raft.clone(),
            Arc::clone(&running.peers),
            waiters,
            ids,
        )
    }

    /// The entry after which the log is kept for members that are being sent a state.
    pub(crate) fn kept_for_peers(&self) -> Option<u64> {
        self.running.machine.transfers().needed()
    }
}

/// What etcd's header of a replicated request adds to its length: a tag, a length and the request's
/// id, a varint whose highest bits are the lowest of the member's id (`pkg/idutil`). Ours has no such
/// header; it is counted so that both take requests of the same size.
const fn request_header_bytes(member: MemberId) -> usize {
    if member.0 & 0x8000 == 0 { 13 } else { 14 }
}

/// The ids of this member's proposals, and who may reserve more.
async fn reserve_ids(
    config: &Config,
    log: &LogHandle,
) -> Result<(Arc<proposal_id::ProposalIds>, watch::Sender<u64>), StartError> {
    let reserved = proposal_id::reserve(config.member, config.started_at, log).await;
    let (ids, reserved) = reserved.map_err(StartError::LogWrite)?;
    Ok((Arc::new(ids), reserved))
}

/// A state that was received from another member is put in its place before the log is cut there. When
/// the member was stopped between the two, the log ends before it or holds what never was committed:
/// it begins anew after the state. That the vote is at least as new tells such a log from a lost one.
async fn finish_installation(
    store: &mut LogStore,
    log: &LogHandle,
    state: &StateMachine,
) -> Result<(), StartError> {
    let (applied, _) = state.applied();
    let Some(at) = state.installed().filter(|at| applied == Some(*at)) else {
        return Ok(());
    };
    let at = log_id(at.term, at.index);
    if log.holds(at) || log.voted_term() < Some(at.leader_id.term) {
        return Ok(());
    }
    tracing::info!(
        index = at.index + 1,
        "the raft log begins after the state that was received"
    );
    log.begin_after(store, at)
        .await
        .map_err(StartError::LogWrite)
}

/// The state follows the log, and the log is cut only where the state is durable. Where that does not
/// hold one of the two was lost, and openraft would go on with what is left.
fn check_that_they_belong_together(
    log: &LogHandle,
    state: &StateMachine,
) -> Result<(), StartError> {
    let applied = state.applied().0.map(|at| at.index);
    let last = log.last();
    if let Some(applied) = applied.filter(|applied| last < Some(*applied)) {
        return Err(StartError::LogLost { applied, last });
    }
    if let Some(purged) = log.purged().filter(|purged| applied < Some(*purged)) {
        return Err(StartError::StateLost { applied, purged });
    }
    Ok(())
}

/// Entries in one request to a peer. What bounds a request is how much is read for it (`log_store`); this is for entries
/// so small that a member that was away would catch up round trip by round trip.
const ENTRIES_PER_REQUEST_MAX: u64 = 512;

/// Pauses before a peer that was not there is tried again. Appends to it only begin again after the
/// pause, while heartbeats go out all the time: the longest pause is what a member that returns
/// stays behind for nothing.
const BACKOFF: &str = "20ms 50ms 100ms 200ms ...400ms";

/// Steps of the commit index that wait to be applied. When it is full openraft's core waits, and the member answers
/// nobody meanwhile.
const STATE_MACHINE_QUEUE_LEN: u64 = 64 * 1024;

/// openraft's settings. Those that are not named here have openraft's values.
///
/// * An election: openraft's followers wait for the leader's lease, which is `election_timeout_max`,
///   and then for a random time between the two timeouts; the first one stands between 1 and 1.33
///   of etcd's `--election-timeout`, where etcd's stand between 1 and 2. No member stands before
///   the timeout that was asked for, but for those that have no lease to wait for: after a restart, and
///   when a leader has handed over or is known to be gone.
/// * A leader that loses its quorum refuses writes when its lease has run out, but goes on leading,
///   and its heartbeats would keep members that it still reaches from electing another one with
///   members that it does not reach. So it falls silent for as long as an election takes, as etcd's
///   leader steps down (check-quorum).
/// * `install_snapshot_timeout` is handed to the network and bounds the whole transfer of a state.
/// * `replication_lag_threshold` and the chunk sizes are for calls that are not used here.
/// * A removed leader: one hands its leadership over before it is removed (`member_change`); that it
///   steps down a moment after it has gone is openraft's default, for when that has failed.
/// * `allow_log_reversion` stays off: a member that has lost what it once confirmed must not vote
///   again under its old id.
fn settings(config: &Config) -> openraft::Config {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election = millis(config.election_timeout);
    let heartbeat_interval = millis(config.heartbeat_interval).max(1);
    // Not below the heartbeats: those who pass such a timeout get the nearest that can work.
    let election_timeout_min = election.div_ceil(3).max(heartbeat_interval + 1);
    let election_timeout_max = 2 * election_timeout_min;
    openraft::Config {
        cluster_name: "kvorum".to_owned(),
        heartbeat_interval,
        election_timeout_min,
        election_timeout_max,
        quorum_loss_probe_interval: Some(2 * election_timeout_max),
        enable_pre_vote: Some(config.pre_vote),
        // A leader that restarts in its term could write another entry under an index that its
        // peers already have from it; a new term cannot.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: ENTRIES_PER_REQUEST_MAX,
        backoff: BACKOFF.to_owned(),
        // Whatever is committed while a member's state is replaced waits there (`repair`).
        state_machine_channel_size: Some(STATE_MACHINE_QUEUE_LEN),
        // The log cutter decides both by what the entries hold.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..openraft::Config::default()
    }
}

#[cfg(test)]
mod settings_tests {
    use super::*;

    #[test]
    fn settings_hold_for_every_timeout_that_etcd_takes() {
        for (heartbeat, election) in [(100, 1000), (500, 5000), (1, 5), (10, 50), (1000, 50_000)] {
            let config = Config {
                heartbeat_interval: Duration::from_millis(heartbeat),
                election_timeout: Duration::from_millis(election),
                ..crate::testing::config()
            };
            let settings = settings(&config).validate().unwrap();
            let first = settings.election_timeout_max + settings.election_timeout_min;
            assert!(first >= election, "{first} before {election}");
        }
    }
}

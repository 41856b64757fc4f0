//! What every service works with: the handle on Raft, the views of the state, and the limits.
//!
//! What this is not: a service. It validates nothing and knows no protobuf.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::rpctypes::ErrorCode;
use apply::{AlarmKind, Command, Persister, Quota, Rejection, Reply, Views};
use raft::{Node, ProposeError, ReadIndexError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::{Clock, ClusterId, LeaseId, MemberId};

use crate::Metrics;
use crate::id_generator::IdGenerator;

/// A request that takes longer is warned about (etcd's `--warning-apply-duration`).
const WARNING_APPLY_DURATION: Duration = Duration::from_millis(100);
/// After so many election timeouts without a leader, streams that ask for one are ended.
const LEADERLESS_ELECTIONS_MAX: u32 = 3;

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
    /// `--watch-progress-notify-interval`.
    pub watch_progress_notify_interval: Duration,
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
    /// Counts how often the member was found without a leader for too long.
    leader_losses: watch::Sender<u64>,
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
        let ids = IdGenerator::new(config.member, config.clock.wall());
        let (leader_losses, _) = watch::channel(0);
        Self {
            shared: Arc::new(Shared {
                config,
                node,
                views,
                persister,
                metrics,
                ids,
                leader_losses,
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

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node().status().leader == Some(self.config().member)
    }

    /// Bytes that the state takes on the disk; never 0, because clients divide by it.
    #[must_use]
    pub fn db_size(&self) -> u64 {
        // A state that cannot be measured is about to stop the member for better reasons.
        self.shared.persister.size_on_disk().unwrap_or(1).max(1)
    }

    /// Bytes that live records take; like etcd's, never 0, because printers leave out or divide by 0.
    #[must_use]
    pub fn db_size_in_use(&self) -> u64 {
        self.views().store.size_in_use().max(1)
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
    pub async fn propose(&self, command: Command) -> Result<Reply, RequestError> {
        if command.takes_space() && self.is_full() {
            return Err(Rejection::NoSpace.into());
        }
        let metrics = self.metrics();
        let pending = metrics.propose();
        let started = self.config().clock.now();
        let proposed = self.shared.node.propose(command).await;
        let applied = proposed.map_err(|error| pending.failed(error))?;
        self.warn_if_slow(started, "");
        let reply = applied.outcome?;
        metrics.applied(&reply);
        Ok(reply)
    }

    /// Returns when a local read is linearizable.
    pub async fn read_index(&self) -> Result<(), RequestError> {
        let read_index = self.shared.node.read_index().await;
        read_index.map_err(|error| {
            self.metrics().read_index_failed(error);
            error.into()
        })
    }

    /// Warns about a request that began at `started`, if it took long.
    pub fn warn_if_slow(&self, started: Instant, prefix: &'static str) {
        let took = self.config().clock.now().saturating_duration_since(started);
        if took <= WARNING_APPLY_DURATION {
            return;
        }
        self.metrics().slow_apply();
        tracing::warn!(
            ?took,
            "expected-duration" = ?WARNING_APPLY_DURATION,
            prefix,
            "apply request took too long"
        );
    }

    /// Changes whenever the member has been without a leader for so long that streams which ask
    /// for one have to end.
    #[must_use]
    pub fn leader_losses(&self) -> watch::Receiver<u64> {
        self.shared.leader_losses.subscribe()
    }

    /// Watches who leads, until the member stops: counts changes, and notices when there has been
    /// nobody for too long. To be run once.
    pub async fn monitor_leader(self) {
        let mut status = self.node().watch_status();
        let mut last_leader = None;
        loop {
            let leader = status.borrow_and_update().leader;
            if leader.is_some() && leader != last_leader {
                last_leader = leader;
                self.metrics().leader_changed();
            }
            let patience = LEADERLESS_ELECTIONS_MAX * self.config().election_timeout;
            tokio::select! {
                () = self.shared.stopping.cancelled() => return,
                changed = status.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(patience), if leader.is_none() => {
                    self.shared.leader_losses.send_modify(|losses| *losses += 1);
                }
            }
        }
    }

    /// Whether the NOSPACE alarm stands. Applying would refuse the command as well; asking here
    /// keeps a full member's log from filling up with what it refuses.
    fn is_full(&self) -> bool {
        self.views()
            .alarms
            .list()
            .iter()
            .any(|alarm| alarm.kind == AlarmKind::NoSpace)
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
            watch_progress_notify_interval: Duration::from_secs(600),
            clock: Arc::new(SystemClock),
        };
        assert_eq!(config.lease_ttl_min_s(), 2);
    }
}

//! What the tests of this crate share: members on disks that can be told to fail, and groups of them.

pub(crate) mod errors;
pub(crate) mod group;
pub(crate) mod net;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use apply::{Command, Put, PutLease, PutValue, Quota, Views, Workers};
use backend::Backend;
use backend::engine::{Engine, FaultyDisk, FaultyEngine, Loss};
use bytes::Bytes;
use parking_lot::Mutex;
use types::{Clock, ClusterId, LeaseId, MemberId};

use crate::type_config::Proposed;
use crate::{Config, Node, Peer, StartError};

pub(crate) const MEMBER: MemberId = MemberId(0x8e9e_05c5_2164_694d);

pub(crate) fn put_command(key: &[u8], value: &[u8]) -> Command {
    put_with_lease(key, value, PutLease::Detach)
}

pub(crate) fn put_attached(key: &[u8], lease: LeaseId) -> Command {
    put_with_lease(key, b"", PutLease::Attach(lease))
}

fn put_with_lease(key: &[u8], value: &[u8], lease: PutLease) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key),
        value: PutValue::New(Bytes::copy_from_slice(value)),
        lease,
        prev_kv: false,
    })
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Proposed {
    let request = apply::Request::from(put_command(key, value));
    Proposed {
        encoded: request.encode(),
        request,
    }
}

/// Nobody waits.
pub(crate) fn waiters() -> Arc<crate::waiters::Waiters> {
    let ids = crate::proposal_id::ProposalIds::unbounded(MEMBER, SystemTime::UNIX_EPOCH);
    Arc::new(crate::waiters::Waiters::new(Arc::new(ids)))
}

/// A clock that stands until it is moved.
#[derive(Debug)]
pub(crate) struct StandingClock {
    now: Mutex<Instant>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a place to begin; it stands from then on"
)]
impl Default for StandingClock {
    fn default() -> Self {
        Self {
            now: Mutex::new(Instant::now()),
        }
    }
}

impl StandingClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.now.lock() += by;
    }
}

impl Clock for StandingClock {
    fn now(&self) -> Instant {
        *self.now.lock()
    }
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

/// A way to peers that are not there.
pub(crate) fn nobody() -> transport::SharedDial {
    Arc::new(transport::Dialer::new(None, None))
}

/// A member's two disks.
#[derive(Clone)]
pub(crate) struct Disks {
    pub(crate) log: Arc<FaultyEngine>,
    pub(crate) state: FaultyDisk,
}

impl Disks {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            log: Arc::new(FaultyEngine::new(2 * seed)),
            state: FaultyDisk::new(2 * seed + 1),
        }
    }

    /// What a loss of power now would leave. The state first: it follows the log.
    pub(crate) fn crash(&self, loss: Loss) -> Self {
        let state = self.state.crash(loss);
        Self {
            log: Arc::new(self.log.crash(loss)),
            state,
        }
    }
}

pub(crate) fn backend(engine: &Arc<FaultyEngine>) -> Backend {
    Backend::with_engine(Arc::clone(engine) as Arc<dyn Engine>).unwrap()
}

pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) views: Views,
    pub(crate) clock: Arc<StandingClock>,
}

pub(crate) fn config() -> Config {
    Config {
        member: MEMBER,
        cluster: ClusterId(0xcdf8_1819_4e3a_8c32),
        force_new_cluster: false,
        started_at: types::SystemClock.wall(),
        snapshot_catchup_entries: 5000,
        pre_vote: true,
        strict_reconfig_check: true,
        learners_max: 1,
        workers: Workers::Threads,
        initial_members: vec![Peer {
            id: MEMBER,
            name: "default".to_owned(),
            peer_urls: vec!["http://localhost:2380".to_owned()],
        }],
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        read_timeout: Duration::from_secs(5),
        snapshot_count: 10_000,
        request_bytes_max: 64 * 1024,
    }
}

pub(crate) fn state_config(clock: Arc<dyn Clock>) -> apply::Config {
    apply::Config {
        quota: Quota::Unlimited,
        clock,
        tokens: auth::Tokens::simple(Arc::new(types::SystemClock)),
        mvcc: mvcc::Config {
            event_log_bytes_max: 1 << 20,
        },
        scrub: apply::ScrubSteps::UNLIMITED,
        workers: Workers::Threads,
    }
}

impl Member {
    pub(crate) async fn start(disks: &Disks, config: Config) -> Self {
        Self::on(backend(&disks.log), disks.state.open().unwrap(), config).await
    }

    pub(crate) async fn on(log: Backend, state: Backend, config: Config) -> Self {
        Self::among(log, state, config, nobody()).await
    }

    pub(crate) async fn among(
        log: Backend,
        state: Backend,
        config: Config,
        dial: transport::SharedDial,
    ) -> Self {
        Self::try_among(log, state, config, dial).await.unwrap()
    }

    pub(crate) async fn try_among(
        log: Backend,
        state: Backend,
        config: Config,
        dial: transport::SharedDial,
    ) -> Result<Self, StartError> {
        let clock = Arc::new(StandingClock::default());
        let state_config = apply::Config {
            workers: config.workers.clone(),
            ..state_config(Arc::clone(&clock) as Arc<dyn Clock>)
        };
        let (state, views, persister) = apply::open(state, &state_config).unwrap();
        let node = Node::start(config, log, state, persister, views.clone(), dial).await?;
        Ok(Self { node, views, clock })
    }

    pub(crate) async fn ready(disks: &Disks, config: Config) -> Self {
        let member = Self::start(disks, config).await;
        let ready = tokio::time::timeout(Duration::from_secs(10), member.node.wait_ready());
        ready.await.expect("the member becomes ready");
        member
    }

    pub(crate) fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.views
            .store
            .view()
            .get(key)
            .map(|kv| kv.value().to_vec())
    }
}

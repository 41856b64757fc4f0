//! What a member is made of, and the tasks that it runs.

use std::sync::Arc;

use apply::{Persister, Views};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Config, Raft, Running, request_timeout};
use crate::error::{FatalCell, vital};
use crate::forward::Forwarder;
use crate::leader_duties::LeaderDuties;
use crate::leadership::Leadership;
use crate::lease_entries::LeaseEntries;
use crate::lease_requests::LeaseAnswers;
use crate::log_cutter::LogCutter;
use crate::log_store::LogHandle;
use crate::member_change::catch_up::CatchUp;
use crate::member_change::changer::Changer;
use crate::peer::PeerService;
use crate::peer::channels::Peers;
use crate::peer::hashes::Hashes;
use crate::peer::leader_service::LeaderService;
use crate::peer::pinger::Pinger;
use crate::peer::service::{PingService, RaftService};
use crate::progress::Progress;
use crate::proposal_id::{ProposalIds, Reserving};
use crate::proposer::{self, ProposeQueue};
use crate::read_index::{ReadIndex, Rounds};
use crate::repair::Repairs;
use crate::snapshot::receive::{Means, Receiver};
use crate::snapshot::send::Sender;
use crate::state_machine::MachineHandle;
use crate::status::{LeaderSeen, Removal, Status, StatusTask};
use crate::succession::{Streams, Succession};
use crate::ticks::Ticks;
use crate::waiters::Waiters;
use crate::watchdog;

/// What a member is made of, before its tasks run.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) raft: Raft,
    pub(super) peers: Arc<Peers>,
    pub(super) ids: Arc<ProposalIds>,
    pub(super) reserved_ids: watch::Sender<u64>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) log: Arc<LogHandle>,
    pub(super) machine: Arc<MachineHandle>,
    pub(super) states: Arc<Sender>,
    pub(super) progress: Arc<Progress>,
    pub(super) views: Views,
    pub(super) persister: Persister,
    pub(super) fatal: FatalCell,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Parts {
    /// Starts the tasks: all of them are tracked, and end when `stop` is cancelled.
    pub(super) fn run(self) -> Running {
        let queue = self.propose();
        let (reads, leases) = self.read();
        let changer = self.change_members();
        let repairs = Arc::<Repairs>::default();
        let receiver = self.receiver(&repairs);
        let seen = LeaderSeen::default();
        let succession = self.follow_leader();
        let peer_service = self.serve(&leases, &changer, receiver.clone(), &seen, succession);
        let promoted = self.lead();
        self.cut_log(receiver);
        let status = self.follow_status(&seen);
        self.watch();
        let reserving = Reserving {
            ids: Arc::clone(&self.ids),
            log: Arc::clone(&self.log),
            reserved: self.reserved_ids,
        };
        let reserving = reserving.run(self.stop.clone());
        let part = "the reserving of ids";
        self.tasks.spawn(vital(part, self.fatal.clone(), reserving));
        let server = self.raft.server_metrics();
        Running {
            config: self.config,
            raft: self.raft,
            peers: self.peers,
            peer_service,
            queue,
            reads,
            leases,
            progress: self.progress,
            changer,
            seen,
            status,
            promoted,
            server,
            log: self.log,
            machine: self.machine,
            transfers: Arc::clone(&self.states.counters),
            waiters: self.waiters,
            repairs,
            fatal: self.fatal,
            tasks: self.tasks,
            stop: self.stop,
            stopped: OnceCell::new(),
        }
    }

    /// Runs a task that the member cannot go on without.
    fn spawn(&self, part: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(vital(part, self.fatal.clone(), task));
    }

    fn propose(&self) -> ProposeQueue {
        let forwarder = Forwarder {
            raft: self.raft.clone(),
            peers: Arc::clone(&self.peers),
            waiters: Arc::clone(&self.waiters),
            ids: Arc::clone(&self.ids),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
            current: None,
        };
        let (queue, proposer) = proposer::proposer(
            self.raft.clone(),
            Arc::clone(&self.waiters),
            Arc::clone(&self.ids),
            forwarder,
        );
        self.spawn("the proposer", proposer.run(self.stop.clone()));
        queue
    }

    fn read(&self) -> (Arc<ReadIndex>, LeaseAnswers) {
        let reads = Arc::new(ReadIndex::default());
        let rounds = Rounds {
            reads: Arc::clone(&reads),
            raft: self.raft.clone(),
            peers: Arc::clone(&self.peers),
            progress: Arc::clone(&self.progress),
            patience: self.config.election_timeout,
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        self.spawn("the read index", rounds.run());
        let leases = LeaseAnswers {
            reads: Arc::clone(&reads),
            progress: Arc::clone(&self.progress),
            views: self.views.clone(),
            entries: self.lease_entries(),
        };
        (reads, leases)
    }

    fn lease_entries(&self) -> LeaseEntries {
        LeaseEntries {
            raft: self.raft.clone(),
            ids: Arc::clone(&self.ids),
        }
    }

    fn change_members(&self) -> Arc<Changer> {
        let changer = Arc::new(self.changer());
        let catch_up = CatchUp {
            changer: Arc::clone(&changer),
        };
        let catching_up = catch_up.run(self.stop.clone());
        self.spawn("the members' catching up", catching_up);
        changer
    }

    /// The leader's part of changing the members.
    fn changer(&self) -> Changer {
        let peers = Arc::clone(&self.peers);
        let connected_for = move |id| {
            let connections = peers.known(id)?;
            let since = connections.observed.lock().active_since?;
            let now = tokio::time::Instant::now().into_std();
            Some(now.saturating_duration_since(since))
        };
        let config = &self.config;
        Changer {
            leadership: Leadership {
                member: config.member,
                raft: self.raft.clone(),
                election_timeout: config.election_timeout,
            },
            progress: Arc::clone(&self.progress),
            cluster: self.views.cluster.clone(),
            connected_for: Arc::new(connected_for),
            peers: Arc::clone(&self.peers),
            is_strict: config.strict_reconfig_check,
            learners_max: config.learners_max,
            timeout: request_timeout(config),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Takes states that a leader sends.
    fn receiver(&self, repairs: &Arc<Repairs>) -> Receiver {
        Receiver::new(Means {
            raft: self.raft.clone(),
            machine: Arc::clone(&self.machine),
            persister: self.persister.clone(),
            workers: self.config.workers.clone(),
            counters: Arc::clone(&self.states.counters),
            cluster: self.views.cluster.clone(),
            repairs: Arc::clone(repairs),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        })
    }

    fn serve(
        &self,
        leases: &LeaseAnswers,
        changer: &Arc<Changer>,
        receiver: Receiver,
        seen: &LeaderSeen,
        succession: Succession,
    ) -> PeerService {
        let raft = RaftService {
            raft: self.raft.clone(),
            receiver,
            seen: seen.clone(),
            streams: succession.streams.clone(),
            fatal: self.fatal.clone(),
            stop: self.stop.clone(),
        };
        let leader = LeaderService {
            raft: self.raft.clone(),
            progress: Arc::clone(&self.progress),
            forwarded: Arc::default(),
            changer: Arc::clone(changer),
            leases: leases.clone(),
            peers: Arc::clone(&self.peers),
            states: Arc::clone(&self.states),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        let ping = PingService {
            progress: Arc::clone(&self.progress),
            hashes: Hashes::new(self.views.clone(), self.config.workers.clone()),
            succession,
        };
        let cluster = self.views.cluster.clone();
        PeerService::new(self.peers.me(), cluster, raft, leader, ping)
    }

    /// What is to be done where this member leads. Says whether it does, and is ready.
    fn lead(&self) -> watch::Receiver<bool> {
        let (promoted, promoted_now) = watch::channel(false);
        let duties = LeaderDuties {
            raft: self.raft.clone(),
            views: self.views.clone(),
            entries: self.lease_entries(),
            machine: Arc::clone(&self.machine),
            election_timeout: self.config.election_timeout,
            promoted,
        };
        self.spawn("the lessor", duties.run(self.stop.clone()));
        promoted_now
    }

    fn cut_log(&self, receiver: Receiver) {
        let cutter = LogCutter {
            raft: self.raft.clone(),
            log: Arc::clone(&self.log),
            progress: Arc::clone(&self.progress),
            snapshot_count: self.config.snapshot_count,
            catch_up_entries: self.config.snapshot_catchup_entries,
            transfers: self.machine.transfers(),
            receiver,
            peers: Arc::clone(&self.peers),
        };
        self.spawn("the log cutter", cutter.run(self.stop.clone()));
    }

    /// Takes the leader's place when its process is gone.
    fn follow_leader(&self) -> Succession {
        let succession = Succession {
            raft: self.raft.clone(),
            peers: Arc::clone(&self.peers),
            heartbeat_interval: self.config.heartbeat_interval,
            election_timeout: self.config.election_timeout,
            streams: Streams::default(),
            asked: watch::Sender::default(),
        };
        let following = succession.clone().run(self.stop.clone());
        self.spawn("the leader's succession", following);
        succession
    }

    fn follow_status(&self, seen: &LeaderSeen) -> watch::Receiver<Status> {
        let follow = StatusTask {
            member: self.config.member,
            raft: self.raft.clone(),
            progress: Arc::clone(&self.progress),
            removal: Removal {
                cluster: self.views.cluster.clone(),
                fatal: self.fatal.clone(),
            },
            seen: seen.clone(),
            election_timeout: self.config.election_timeout,
            started: tokio::time::Instant::now(),
            status: watch::Sender::default(),
        };
        let status = follow.subscribe();
        self.spawn("the status", follow.run(self.stop.clone()));
        status
    }

    /// Looks after what runs by itself, and after the peers.
    fn watch(&self) {
        let (fatal, stop) = (&self.fatal, &self.stop);
        let raft = watchdog::raft(self.raft.clone(), fatal.clone(), stop.clone());
        self.tasks.spawn(raft);
        let persister = self.persister.clone();
        let persister = watchdog::persister(persister, fatal.clone(), stop.clone());
        self.tasks.spawn(persister);
        let clockwork =
            Arc::clone(&self.machine).run_clockwork(Arc::clone(&self.progress), stop.clone());
        self.spawn("the state's clockwork", clockwork);
        let ticks = Ticks {
            raft: self.raft.clone(),
            election_timeout: self.config.election_timeout,
        };
        self.spawn("the ticks", ticks.run(stop.clone()));
        let pinger = Pinger {
            peers: Arc::clone(&self.peers),
            raft: self.raft.clone(),
            election_timeout: self.config.election_timeout,
        };
        self.spawn("the pinger", pinger.run(stop.clone()));
    }
}

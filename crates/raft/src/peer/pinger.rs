//! Asks every peer about once a second whether it is there: on the connection of the heartbeats, so
//! that a peer that answers here can also be led.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::peerpb;
use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use super::channels::{Connections, Peers};
use crate::node::Raft;
use crate::proposer::leader;
use crate::type_config::TypeConfig;

/// How often a peer is asked.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// What the pings have shown of a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Since when it has answered without a gap.
    pub(crate) active_since: Option<Instant>,
    /// Until when it had answered, when it does not.
    pub(crate) silent_since: Option<Instant>,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) version: String,
    pub(crate) applied_index: u64,
}

pub(crate) struct Pinger {
    pub(crate) peers: Arc<Peers>,
    pub(crate) raft: Raft,
    pub(crate) election_timeout: Duration,
}

type Addresses = Vec<(MemberId, Vec<String>)>;

impl Pinger {
    /// Runs until the member stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut server = self.raft.server_metrics();
        let mut look = tokio::time::interval(PING_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Addresses::new();
        let mut led = None;
        loop {
            let now_led = leader(&server);
            if now_led.is_some() && now_led != led {
                self.peers
                    .note_new_leader(tokio::time::Instant::now().into_std());
            }
            led = now_led;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = server.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if self.addresses(&server.borrow_watched()) == known {
                        continue;
                    }
                }
                _at = look.tick() => {}
            }
            known = self.addresses(&server.borrow_watched());
            let connections = self.connections(&known);
            let pings = connections
                .iter()
                .map(|peer| ping(peer, self.election_timeout));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _all = join_all(pings) => {}
            }
        }
    }

    /// Where the other members are.
    fn addresses(&self, server: &RaftServerMetrics<TypeConfig>) -> Addresses {
        let me = self.peers.me().member;
        let nodes = server.membership_config.membership().nodes();
        nodes
            .map(|(id, node)| (MemberId(*id), node.peer_urls.clone()))
            .filter(|(id, _)| *id != me)
            .collect()
    }

    fn connections(&self, addresses: &Addresses) -> Vec<Arc<Connections>> {
        let ids: Vec<MemberId> = addresses.iter().map(|(id, _)| *id).collect();
        self.peers.retain(&ids);
        addresses
            .iter()
            .map(|(id, urls)| self.peers.at(*id, urls))
            .collect()
    }
}

/// Asks a peer now, and notes what comes of it. Says whether it has answered.
pub(crate) async fn ping(peer: &Connections, patience: Duration) -> bool {
    let asked = tokio::time::Instant::now();
    let mut client = peer.peer();
    let answer = tokio::time::timeout(patience, client.ping(peerpb::PingRequest {})).await;
    let pong = match answer {
        Ok(Ok(pong)) => pong.into_inner(),
        Ok(Err(status)) => {
            peer.failed(&status);
            tracing::debug!(peer = %peer.id, %status, "peer does not answer");
            peer.fell_silent(asked.into_std());
            return false;
        }
        Err(_elapsed) => {
            peer.failed(&tonic::Status::deadline_exceeded("no answer to a ping"));
            peer.fell_silent(asked.into_std());
            return false;
        }
    };
    let mut observed = peer.observed.lock();
    if observed.active_since.is_none() {
        tracing::info!(peer = %peer.id, "peer became active");
        observed.active_since = Some(asked.into_std());
    }
    observed.silent_since = None;
    observed.round_trip = Some(asked.elapsed());
    observed.version = pong.version;
    observed.applied_index = pong.applied_index;
    true
}

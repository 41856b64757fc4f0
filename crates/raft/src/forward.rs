//! Proposals of this member on their way to another one that leads (`peerpb.Leader/Propose`).
//!
//! One task for the leader of a term sends them ahead of their answers, in order. When the stream breaks
//! the task opens another one and sends again what has no answer: the leader knows proposals by their
//! ids, and takes each once. It gives up when the term is over; then [`waiters`](crate::waiters) knows
//! what to do with them.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::peerpb;
use api::peerpb::propose_response::Outcome;
use futures_util::StreamExt;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use crate::error::ProposeError;
use crate::node::{Raft, ServerMetrics};
use crate::peer::channels::Peers;
use crate::proposal_id::ProposalIds;
use crate::proposer::{Leader, PROPOSALS_IN_FLIGHT_MAX, leader};
use crate::type_config::Proposal;
use crate::waiters::Waiters;

/// Proposals on one stream without an answer. Those that their callers have given up still count
/// here; when it is full the stream is opened anew, without them.
const UNANSWERED_MAX: usize = 4 * PROPOSALS_IN_FLIGHT_MAX;

/// Pause before a stream that broke is opened again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Sends proposals to whoever leads.
pub(crate) struct Forwarder {
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) ids: Arc<ProposalIds>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// The task for the leader of a term, and where it takes proposals.
    pub(crate) current: Option<(Leader, mpsc::Sender<u64>)>,
}

impl Forwarder {
    /// Sends a proposal that [`Waiters`] holds. Waits when the task has no room: a second one for the
    /// same term would leave what the first has sent without an answer.
    pub(crate) async fn send(&mut self, leader: Leader, id: u64) {
        if let Some((current, proposals)) = &self.current
            && *current == leader
            && proposals.send(id).await.is_ok()
        {
            return;
        }
        // Another leader, or a task that has ended: it saw the end of its term.
        let (sender, proposals) = mpsc::channel(UNANSWERED_MAX);
        let forwarding = Forwarding {
            leader,
            server: self.raft.server_metrics(),
            peers: Arc::clone(&self.peers),
            waiters: Arc::clone(&self.waiters),
            ids: Arc::clone(&self.ids),
            proposals,
            unanswered: VecDeque::from([id]),
            doubtful: HashSet::new(),
        };
        self.tasks.spawn(forwarding.run(self.stop.clone()));
        self.current = Some((leader, sender));
    }
}

/// The task for one leader of one term.
struct Forwarding {
    leader: Leader,
    server: ServerMetrics,
    peers: Arc<Peers>,
    waiters: Arc<Waiters>,
    ids: Arc<ProposalIds>,
    proposals: mpsc::Receiver<u64>,
    /// Sent, in order.
    unanswered: VecDeque<u64>,
    /// Of these, what was sent on a stream that broke: the leader of then may have appended it and
    /// not remember, if it was started anew since.
    doubtful: HashSet<u64>,
}

/// Why a stream is at its end.
enum End {
    /// It broke, after this many answers.
    Broken { answers: usize },
    /// There is nothing to do for this task any more.
    Over,
}

impl Forwarding {
    async fn run(mut self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let end = tokio::select! {
                biased;
                () = stop.cancelled() => End::Over,
                end = self.stream() => end,
            };
            match end {
                End::Over => return,
                End::Broken { answers: 0 } => pause = (2 * pause).min(PAUSE_MAX),
                End::Broken { .. } => pause = FIRST_PAUSE,
            }
            self.doubtful = self.unanswered.iter().copied().collect();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Runs one stream to its end.
    async fn stream(&mut self) -> End {
        if !self.leads() {
            return End::Over;
        }
        // Whether the leader can be reached or not: the proposer must not wait for that.
        while let Ok(id) = self.proposals.try_recv() {
            self.unanswered.push_back(id);
        }
        self.unanswered
            .retain(|id| self.waiters.sent(*id, self.leader.term).is_some());
        let Some(peer) = self.peers.known(self.leader.member) else {
            return End::Broken { answers: 0 };
        };
        let Some(number) = self.ids.next().await else {
            return End::Over;
        };
        let (requests, outgoing) = mpsc::channel(UNANSWERED_MAX + 1);
        for id in self.unanswered.clone() {
            if self.request(id, number, &requests).is_err() {
                return End::Broken { answers: 0 };
            }
        }
        let mut client = peer.leader();
        let mut opening = pin!(client.propose(ReceiverStream::new(outgoing)));
        let mut responses: Option<Streaming<peerpb::ProposeResponse>> = None;
        let mut answers = 0;
        loop {
            tokio::select! {
                biased;
                changed = self.server.changed() => {
                    if changed.is_err() || !self.leads() {
                        return End::Over;
                    }
                }
                opened = &mut opening, if responses.is_none() => match opened {
                    Ok(stream) => responses = Some(stream.into_inner()),
                    Err(status) => {
                        peer.failed(&status);
                        return End::Broken { answers };
                    }
                },
                answer = next(&mut responses) => match answer {
                    Some(Ok(answer)) => {
                        let is_refusal = matches!(
                            answer.outcome(),
                            Outcome::NotLeader | Outcome::TooManyRequests
                        );
                        if is_refusal && self.doubtful.contains(&answer.id) {
                            // It is asked again, until its term is over: an entry of a higher
                            // one decides.
                            return End::Broken { answers: 0 };
                        }
                        answers += 1;
                        self.answered(&answer);
                    }
                    Some(Err(status)) => {
                        peer.failed(&status);
                        return End::Broken { answers };
                    }
                    None => return End::Broken { answers },
                },
                id = self.proposals.recv() => {
                    // None: there is another task for another leader.
                    let Some(id) = id else { return End::Over };
                    self.unanswered.push_back(id);
                    if self.request(id, number, &requests).is_err() {
                        return End::Broken { answers };
                    }
                }
            }
        }
    }

    fn leads(&self) -> bool {
        leader(&self.server) == Some(self.leader)
    }

    /// `Err`: too much is on its way.
    fn request(
        &self,
        id: u64,
        stream: u64,
        requests: &mpsc::Sender<peerpb::ProposeRequest>,
    ) -> Result<(), ()> {
        if self.unanswered.len() > UNANSWERED_MAX {
            return Err(());
        }
        let Some(proposal) = self.waiters.sent(id, self.leader.term) else {
            return Ok(());
        };
        let request = request(&proposal, self.leader.term, stream);
        requests.try_send(request).map_err(|_full| ())
    }

    fn answered(&mut self, answer: &peerpb::ProposeResponse) {
        let term = self.leader.term;
        self.unanswered.retain(|id| *id != answer.id);
        match answer.outcome() {
            // It is answered when it is applied here.
            Outcome::Applied => {}
            Outcome::NotLeader => self.waiters.refused(answer.id, term),
            Outcome::TooManyRequests => {
                self.waiters
                    .fail(answer.id, term, ProposeError::TooManyRequests);
            }
            // An entry of a higher term decides.
            Outcome::Unknown => {}
        }
    }
}

fn request(proposal: &Proposal, term: u64, stream: u64) -> peerpb::ProposeRequest {
    let commands = proposal.commands();
    peerpb::ProposeRequest {
        id: proposal.id(),
        term,
        stream,
        commands: commands
            .iter()
            .map(|command| command.encoded.clone())
            .collect(),
    }
}

/// The next answer of a stream that may not be open yet.
async fn next(
    responses: &mut Option<Streaming<peerpb::ProposeResponse>>,
) -> Option<Result<peerpb::ProposeResponse, tonic::Status>> {
    match responses {
        Some(responses) => responses.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use types::MemberId;

    use super::*;
    use crate::testing::group::Group;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_without_room_stays_the_only_one_of_its_term() {
        let group = Group::start(1, 150).await;
        let (raft, peers, waiters, ids) = group.member(0).node.forwarding();
        let leader = Leader {
            member: MemberId(7),
            term: 3,
        };
        let (room, mut proposals) = mpsc::channel(1);
        let mut forwarder = Forwarder {
            raft,
            peers,
            waiters,
            ids,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            current: Some((leader, room)),
        };
        forwarder.send(leader, 1).await;
        let waits = tokio::time::timeout(Duration::from_millis(20), forwarder.send(leader, 2));
        assert!(waits.await.is_err(), "there is no room");
        assert_eq!(proposals.recv().await, Some(1));
        forwarder.send(leader, 3).await;
        assert_eq!(proposals.recv().await, Some(3));
        assert!(forwarder.tasks.is_empty(), "another task has begun");
        group.stop().await;
    }
}

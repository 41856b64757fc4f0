//! Linearizable reads: those that come at the same time share one round.
//!
//! A reader joins the next round and waits. One task runs the rounds, one after the other: it takes
//! everybody who has joined, has the leader confirm that it still leads and say how far the log is
//! committed, waits until that is applied here, and lets them all go. Where another member leads,
//! the round is one question to it (`peerpb.Leader/ReadIndex`), which joins a round there. Who comes
//! while a round runs waits for the next one: the commit index of the running one may be older than
//! what a client has seen elsewhere.
//!
//! A leader makes sure that it leads by hearing from a quorum, after the reads began, that they follow it. The question
//! of a follower says that already of the follower. With three members both are a quorum, and the leader answers at once
//! ([`index_for`]); etcd asks everybody here, too.

use std::sync::Arc;
use std::time::Duration;

use api::peerpb::ReadIndexRequest;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RaftError;
use openraft::{RaftState, ReadPolicy, ServerState};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::MemberId;

use crate::ask::ask;
use crate::error::ReadIndexError;
use crate::membership;
use crate::node::{Raft, ServerMetrics};
use crate::peer::channels::Peers;
use crate::peer::wire;
use crate::progress::Progress;
use crate::proposer::{is_replaced, leader};
use crate::type_config::{TypeConfig, Vote};

/// Readers that wait for a round. Who comes when it is full is told to come later; each belongs to
/// a request that is being served, so the server's own limits come first.
const READERS_MAX: usize = 64 * 1024;

/// Pause before a leader is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How long a read waits for the core of this member to say whom it follows.
const VOTE_PATIENCE: Duration = Duration::from_millis(10);

/// Those who want to read here.
type Reader = oneshot::Sender<Result<(), ReadIndexError>>;

/// Those who want to know the index of a round that this member has confirmed as the leader.
type Asker = oneshot::Sender<u64>;

/// The round that is being gathered.
#[derive(Debug, Default)]
pub(crate) struct ReadIndex {
    joined: Mutex<Joined>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Joined {
    readers: Vec<Reader>,
    askers: Vec<Asker>,
    closed: bool,
}

impl Joined {
    fn len(&self) -> usize {
        self.readers.len() + self.askers.len()
    }
}

/// What rounds are run with.
pub(crate) struct Rounds {
    pub(crate) reads: Arc<ReadIndex>,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) progress: Arc<Progress>,
    /// How long a leader may take to answer before it is asked again, or another one.
    pub(crate) patience: Duration,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl ReadIndex {
    /// Joins the next round, to read here.
    pub(crate) fn join(
        &self,
    ) -> Result<oneshot::Receiver<Result<(), ReadIndexError>>, ReadIndexError> {
        let (reader, ready) = oneshot::channel();
        self.add(|joined| joined.readers.push(reader))?;
        Ok(ready)
    }

    /// Joins the next round as one who asks the leader: says how far the log is committed, counted
    /// from 1. Closes without an answer if this member does not lead.
    pub(crate) fn ask(&self) -> Result<oneshot::Receiver<u64>, ReadIndexError> {
        let (asker, index) = oneshot::channel();
        self.add(|joined| joined.askers.push(asker))?;
        Ok(index)
    }

    fn add(&self, add: impl FnOnce(&mut Joined)) -> Result<(), ReadIndexError> {
        let first = {
            let mut joined = self.joined.lock();
            if joined.closed {
                return Err(ReadIndexError::Stopped);
            }
            if joined.len() >= READERS_MAX {
                return Err(ReadIndexError::Timeout);
            }
            add(&mut joined);
            joined.len() == 1
        };
        if first {
            self.notify.notify_one();
        }
        Ok(())
    }

    fn take(&self) -> (Vec<Reader>, Vec<Asker>) {
        let mut joined = self.joined.lock();
        (
            std::mem::take(&mut joined.readers),
            std::mem::take(&mut joined.askers),
        )
    }
}

/// A round came to nothing.
enum Failed {
    /// Another one may not.
    Again,
    /// Raft has stopped.
    Stopped,
}

impl Rounds {
    /// Runs rounds until the member stops.
    pub(crate) async fn run(self) {
        let server = self.raft.server_metrics();
        loop {
            let round = async {
                self.reads.notify.notified().await;
                self.round(&server).await;
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = round => {}
            }
        }
        let mut joined = self.reads.joined.lock();
        joined.closed = true;
        joined.readers.clear();
        joined.askers.clear();
    }

    /// Without a leader this goes on asking for one as long as a reader waits.
    async fn round(&self, server: &ServerMetrics) {
        let (mut readers, askers) = self.reads.take();
        let mut askers = Some(askers);
        loop {
            let led_by = leader(server).map(|leader| leader.member);
            let confirmed = match led_by {
                Some(me) if me.0 == *self.raft.node_id() => self.confirm(&mut askers).await,
                Some(other) => tokio::select! {
                    biased;
                    asked = self.ask(other) => asked,
                    // It may be gone without a word.
                    () = is_replaced(server, other) => Err(Failed::Again),
                },
                None => Err(Failed::Again),
            };
            // Whoever asks this member because it leads is not to wait for another leader.
            askers = None;
            match confirmed {
                Ok(index) => return self.release_at(index, readers),
                Err(Failed::Stopped) => return release(readers, Err(ReadIndexError::Stopped)),
                Err(Failed::Again) => {}
            }
            readers.retain(|reader| !reader.is_closed());
            if readers.is_empty() {
                return;
            }
            if wait_for_news(server, led_by.is_none()).await.is_err() {
                return release(readers, Err(ReadIndexError::Stopped));
            }
        }
    }

    /// As the leader: makes sure that this member still is.
    async fn confirm(&self, askers: &mut Option<Vec<Asker>>) -> Result<u64, Failed> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => {
                let index = linearizer.read_log_id().index() + 1;
                for asker in askers.take().into_iter().flatten() {
                    if asker.send(index).is_err() { /* it has given up waiting */ }
                }
                Ok(index)
            }
            Err(RaftError::APIError(_no_leader)) => Err(Failed::Again),
            Err(RaftError::Fatal(_)) => Err(Failed::Stopped),
        }
    }

    async fn ask(&self, leader: MemberId) -> Result<u64, Failed> {
        let peer = self.peers.known(leader).ok_or(Failed::Again)?;
        let mut client = peer.leader();
        let follows = self.follows(leader).await?;
        let follows = follows.as_ref().map(wire::vote_to);
        let call = client.read_index(ReadIndexRequest { follows });
        match tokio::time::timeout(self.patience, call).await {
            Ok(Ok(answer)) => answer.into_inner().index.ok_or(Failed::Again),
            Ok(Err(status)) => {
                peer.failed(&status);
                Err(Failed::Again)
            }
            Err(_elapsed) => Err(Failed::Again),
        }
    }

    /// This member's vote, where it is of use to the leader.
    async fn follows(&self, leader: MemberId) -> Result<Option<Vote>, Failed> {
        let both = [*self.raft.node_id(), leader.0].into();
        let are_quorum = {
            let server = self.raft.server_metrics();
            let server = server.borrow_watched();
            membership::are_quorum(both, server.membership_config.membership())
        };
        if !are_quorum {
            return Ok(None);
        }
        // What the core says: what it publishes may be older than a vote that it has given to another member.
        let vote = ask(&self.raft, |state| *state.vote_ref());
        match tokio::time::timeout(VOTE_PATIENCE, vote).await {
            Ok(Ok(vote)) => Ok(Some(vote)),
            Ok(Err(_fatal)) => Err(Failed::Stopped),
            // The leader can do without.
            Err(_elapsed) => Ok(None),
        }
    }

    /// Lets readers go when the state is as far as that. The next round does not wait for it.
    fn release_at(&self, index: u64, readers: Vec<Reader>) {
        if self.progress.applied() >= index {
            return release(readers, Ok(()));
        }
        let (progress, stop) = (Arc::clone(&self.progress), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = progress.wait_applied(index) => release(readers, Ok(())),
            }
        });
    }
}

/// How far the log is committed, counted from 1, if `me` is sure to lead because `asker` has said that `follows` was its
/// vote: at that time nobody could have been elected later without the one or the other. `None`: others have to be asked.
///
/// As with every leader, what it knows to be committed may be old until an entry of its own term is.
pub(crate) fn index_for(
    state: &RaftState<TypeConfig>,
    me: MemberId,
    asker: MemberId,
    follows: Vote,
) -> Option<u64> {
    // Who has been removed may have kept a vote for itself, and leads nobody.
    let leads = state.server_state == ServerState::Leader
        && *state.vote_ref() == follows
        && follows == Vote::new_committed(follows.leader_id.term, me.0);
    let membership = state.membership_state.effective().membership();
    let committed = state.local_committed()?;
    let is_sure = leads
        && committed.leader_id.term == follows.leader_id.term
        && membership::are_quorum([me.0, asker.0].into(), membership);
    is_sure.then(|| committed.index + 1)
}

fn release(readers: Vec<Reader>, answer: Result<(), ReadIndexError>) {
    for reader in readers {
        if reader.send(answer).is_err() {
            // receiver gone: the reader has given up waiting
        }
    }
}

/// A short pause, and where there is no leader until something changes, but not for long: readers
/// may have given up meanwhile.
async fn wait_for_news(server: &ServerMetrics, needs_leader: bool) -> Result<(), RaftStopped> {
    if !needs_leader {
        tokio::time::sleep(RETRY_PAUSE).await;
        return Ok(());
    }
    let mut server = server.clone();
    let news = async {
        while leader(&server).is_none() {
            // Without this a member whose Raft has died would look again and again, and never wait.
            server.changed().await.map_err(|_gone| RaftStopped)?;
        }
        Ok(())
    };
    // No news: look again.
    let news = tokio::time::timeout(10 * RETRY_PAUSE, news).await;
    news.unwrap_or(Ok(()))
}

/// It will have no leader again.
struct RaftStopped;

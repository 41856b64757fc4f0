//! What only the leader knows of leases: any member may be asked, and asks the leader.
//!
//! The leader answers when it has made sure that it still leads and has applied all that was
//! committed before: a lease whose grant a client has seen is there.

use std::sync::Arc;
use std::time::Duration;

use api::peerpb::lease_renew_response::Outcome as Renewed;
use api::peerpb::lease_time_to_live_response::Outcome as Remaining;
use api::peerpb::{LeaseRenewRequest, LeaseTimeToLiveRequest};
use apply::{Command, NotPrimary, RenewError, Views};
use types::LeaseId;

use crate::ReadIndexError;
use crate::lease_entries::LeaseEntries;
use crate::node::Running;
use crate::peer::channels::Connections;
use crate::progress::Progress;
use crate::proposer::{is_replaced, leader};
use crate::read_index::ReadIndex;

/// Pause before a leader is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How often a lease is tried to be renewed whose checkpoint has to be taken back first.
const TRIES: usize = 3;

/// What is asked of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseQuestion {
    /// Give it its full TTL again; how many seconds is that?
    Renew(LeaseId),
    /// How many seconds has it left?
    Remaining(LeaseId),
}

/// Answers as the leader. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LeaseAnswers {
    pub(crate) reads: Arc<ReadIndex>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) views: Views,
    pub(crate) entries: LeaseEntries,
}

/// This member does not lead, or cannot make sure that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotLeader;

impl LeaseAnswers {
    /// `None`: there is no such lease.
    pub(crate) async fn answer(&self, question: LeaseQuestion) -> Result<Option<i64>, NotLeader> {
        let confirmed = self.reads.ask().map_err(|_stopped| NotLeader)?;
        let index = confirmed.await.map_err(|_not_leading| NotLeader)?;
        self.progress.wait_applied(index).await;
        match question {
            LeaseQuestion::Renew(id) => self.renew(id).await,
            LeaseQuestion::Remaining(id) => {
                let left = self.views.renewer.remaining_ttl_s(id);
                left.map_err(|NotPrimary| NotLeader)
            }
        }
    }

    async fn renew(&self, id: LeaseId) -> Result<Option<i64>, NotLeader> {
        // A checkpoint comes every few minutes: the second time it is another one.
        for _ in 0..TRIES {
            match self.views.renewer.renew(id) {
                Ok(ttl_s) => return Ok(Some(ttl_s)),
                Err(RenewError::NotFound) => return Ok(None),
                // Who does not lead knows nothing of them.
                Err(RenewError::NotPrimary) => return Err(NotLeader),
                Err(RenewError::Checkpointed) => self.take_back(id).await?,
            }
        }
        Err(NotLeader)
    }

    /// Takes back a checkpoint: the next leader must not give a lease less than it is given now.
    async fn take_back(&self, id: LeaseId) -> Result<(), NotLeader> {
        let server = self.entries.raft.server_metrics();
        let term = leader(&server).ok_or(NotLeader)?.term;
        let nothing = Command::LeaseCheckpoint {
            leases: vec![(id, 0)],
        };
        let taken_back = self.entries.apply(vec![nothing], term).await;
        taken_back.map_err(|_not_applied| NotLeader)
    }
}

impl crate::Node {
    /// Gives a lease its full TTL again, and says how many seconds that is; `None`: there is no such
    /// lease. The leader has confirmed that it leads.
    pub async fn renew_lease(&self, id: LeaseId) -> Result<Option<i64>, ReadIndexError> {
        self.running().ask_of_lease(LeaseQuestion::Renew(id)).await
    }

    /// The seconds a lease has left; `None`: there is no such lease.
    pub async fn remaining_ttl(&self, id: LeaseId) -> Result<Option<i64>, ReadIndexError> {
        self.running()
            .ask_of_lease(LeaseQuestion::Remaining(id))
            .await
    }
}

impl Running {
    /// Asks whoever leads, until somebody answers or time is up.
    async fn ask_of_lease(&self, question: LeaseQuestion) -> Result<Option<i64>, ReadIndexError> {
        let asked = async {
            loop {
                if let Some(answer) = self.ask_leader_of_lease(question).await {
                    return answer;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(ReadIndexError::Stopped),
            answer = tokio::time::timeout(self.request_timeout(), asked) => match answer {
                Ok(answer) => Ok(answer),
                Err(_elapsed) if leader(&self.server).is_none() => Err(ReadIndexError::NoLeader),
                Err(_elapsed) => Err(ReadIndexError::Timeout),
            }
        }
    }

    /// `None`: nobody who leads has answered.
    async fn ask_leader_of_lease(&self, question: LeaseQuestion) -> Option<Option<i64>> {
        let leader = leader(&self.server)?.member;
        if leader == self.config.member {
            return self.leases.answer(question).await.ok();
        }
        let peer = self.peers.known(leader)?;
        let answer = tokio::time::timeout(self.config.election_timeout, ask(&peer, question));
        tokio::select! {
            biased;
            answer = answer => answer.ok()?,
            // It may be gone without a word.
            () = is_replaced(&self.server, leader) => None,
        }
    }
}

async fn ask(peer: &Connections, question: LeaseQuestion) -> Option<Option<i64>> {
    let mut client = peer.leader();
    let answer = match question {
        LeaseQuestion::Renew(LeaseId(id)) => client
            .lease_renew(LeaseRenewRequest { id })
            .await
            .map(|answer| match answer.into_inner().outcome {
                Some(Renewed::TtlS(0)) => Some(None),
                Some(Renewed::TtlS(ttl_s)) => Some(Some(ttl_s)),
                Some(Renewed::NotLeader(_)) | None => None,
            }),
        LeaseQuestion::Remaining(LeaseId(id)) => client
            .lease_time_to_live(LeaseTimeToLiveRequest { id })
            .await
            .map(|answer| match answer.into_inner().outcome {
                Some(Remaining::RemainingS(-1)) => Some(None),
                Some(Remaining::RemainingS(left_s)) => Some(Some(left_s)),
                Some(Remaining::NotLeader(_)) | None => None,
            }),
    };
    answer.unwrap_or_else(|status| {
        peer.failed(&status);
        None
    })
}

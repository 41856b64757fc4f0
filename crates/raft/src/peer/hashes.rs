//! What members compare: HashKV of one, asked for by another (`peerpb.Peer/HashKv`).
//!
//! In etcd this is `/members/hashkv` over HTTP (`server/etcdserver/corrupt.go`). What this is not: a judgement
//! on who is right.

use std::sync::Arc;
use std::time::Duration;

use api::peerpb;
use api::peerpb::hash_kv_response::Refusal;
use apply::{Views, Workers};
use tokio::sync::Semaphore;
use types::MemberId;

use crate::node::Node;

/// Hashes that are made for peers at the same time: each reads the whole store. Who comes meanwhile is told that
/// there is none.
const HASHES_MAX: usize = 1;

/// How long it is waited for the revision that is asked for. Whoever asks has it already.
const REVISION_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked whether it is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Which hash is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashWanted {
    /// Of all that is there now.
    Now,
    /// The one that a compaction has left.
    OfCompaction,
}

/// What a peer has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHash {
    /// The hash.
    pub hash: u32,
    /// History was gone up to here.
    pub compact_revision: i64,
    /// The store's revision then.
    pub revision: i64,
}

/// A peer has no hash for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerHashError {
    /// The revision is compacted there.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// It has not come there.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// It makes another one, or cannot.
    #[error("it cannot make a hash now")]
    Busy,
    /// It has not answered.
    #[error("{reason}")]
    NoAnswer {
        /// Why.
        reason: String,
    },
}

impl PeerHashError {
    fn no_answer(reason: impl ToString) -> Self {
        Self::NoAnswer {
            reason: reason.to_string(),
        }
    }
}

/// Answers peers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hashes {
    views: Views,
    workers: Workers,
    turns: Arc<Semaphore>,
}

impl Hashes {
    pub(crate) fn new(views: Views, workers: Workers) -> Self {
        Self {
            views,
            workers,
            turns: Arc::new(Semaphore::new(HASHES_MAX)),
        }
    }

    pub(crate) async fn answer(&self, request: peerpb::HashKvRequest) -> peerpb::HashKvResponse {
        self.make(request)
            .await
            .unwrap_or_else(|refusal| peerpb::HashKvResponse {
                refusal: refusal.into(),
                ..peerpb::HashKvResponse::default()
            })
    }

    async fn make(
        &self,
        request: peerpb::HashKvRequest,
    ) -> Result<peerpb::HashKvResponse, Refusal> {
        let store = self.views.store.clone();
        let peerpb::HashKvRequest {
            revision,
            of_compaction,
        } = request;
        let arrival = async {
            while store.revision() < revision {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        if tokio::time::timeout(REVISION_TIMEOUT, arrival)
            .await
            .is_err()
        {
            return Err(Refusal::FutureRevision);
        }
        let is_remembered = of_compaction && self.is_remembered(revision);
        if revision < store.compact_revision() && !is_remembered {
            return Err(Refusal::Compacted);
        }
        let turn = Arc::clone(&self.turns).try_acquire_owned();
        let turn = turn.map_err(|_taken| Refusal::Busy)?;
        let hashed = self.workers.run(move || {
            // Until it is made: whoever asks may be gone before.
            let _turn = turn;
            match of_compaction {
                true => store.hash_kv(Some(revision)),
                false => store.hash_kv_now(revision),
            }
        });
        let hashed = hashed.await.map_err(|_panic| Refusal::Busy)?;
        let hash = hashed.map_err(|error| {
            tracing::warn!(%error, "requested-revision" = revision, "failed to get hashKV");
            Refusal::Busy
        })?;
        Ok(peerpb::HashKvResponse {
            refusal: Refusal::None.into(),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
            revision: hash.current_revision,
        })
    }

    fn is_remembered(&self, revision: i64) -> bool {
        let hashes = self.views.store.compaction_hashes();
        hashes.iter().any(|hash| hash.revision == revision)
    }
}

impl Node {
    /// Asks a peer for its hash at a revision.
    pub async fn hash_of_peer(
        &self,
        peer: MemberId,
        revision: i64,
        wanted: HashWanted,
        timeout: Duration,
    ) -> Result<PeerHash, PeerHashError> {
        let unknown = || PeerHashError::no_answer("nobody knows where the member is");
        let peer = self.running().peers.known(peer).ok_or_else(unknown)?;
        let mut client = peer.peer();
        let call = client.hash_kv(peerpb::HashKvRequest {
            revision,
            of_compaction: wanted == HashWanted::OfCompaction,
        });
        let answer = match tokio::time::timeout(timeout, call).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(PeerHashError::no_answer(status.message())),
            Err(_elapsed) => return Err(PeerHashError::no_answer("context deadline exceeded")),
        };
        match answer.refusal() {
            Refusal::None => Ok(PeerHash {
                hash: answer.hash,
                compact_revision: answer.compact_revision,
                revision: answer.revision,
            }),
            Refusal::Compacted => Err(PeerHashError::Compacted),
            Refusal::FutureRevision => Err(PeerHashError::FutureRevision),
            Refusal::Busy => Err(PeerHashError::Busy),
        }
    }
}

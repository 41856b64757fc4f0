//! The KV service: reads and writes of keys.

use api::encoded::etcdserverpb::kv_server::Kv;
use api::encoded::etcdserverpb::{DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse};
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};
use api::rpctypes::ErrorCode;
use apply::{Command, RangeOp, RangeReply, Reply, Txn};
use mvcc::ReadView;
use tonic::{Request, Response, Status, async_trait};

use super::validate::{Consistency, TxnAccess};
use super::{reply, validate};
use crate::{EtcdServer, RequestError};

/// Serves keys.
pub(crate) struct KvService {
    server: EtcdServer,
}

impl KvService {
    /// Serves the member's keys.
    pub(crate) fn new(server: EtcdServer) -> Self {
        Self { server }
    }

    async fn execute_txn(&self, txn: Txn, access: TxnAccess) -> Result<TxnResponse, RequestError> {
        let server = &self.server;
        let (revision, txn) = match access {
            TxnAccess::Write => match server.propose(Command::Txn(txn)).await? {
                Reply::Txn { revision, txn } => (revision, txn),
                other => unreachable!("a transaction is answered as one, not with {other:?}"),
            },
            TxnAccess::Read(consistency) => server.read_txn(&txn, consistency).await?,
        };
        Ok(reply::txn(server.header_at(revision), &txn))
    }
}

#[async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        // A learner gives what it has, and nothing that others would have to agree on.
        if !request.get_ref().serializable && self.server.node().status().is_learner {
            return Err(ErrorCode::NotSupportedForLearner.into());
        }
        let (range, consistency) = validate::range(request.into_inner())?;
        let (revision, range) = self.server.read_range(&range, consistency).await?;
        Ok(Response::new(reply::range(
            self.server.header_at(revision),
            &range,
        )))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let put = validate::put(request.into_inner())?;
        match self.server.propose(Command::Put(put)).await? {
            Reply::Put { revision, put } => Ok(Response::new(reply::put(
                self.server.header_at(revision),
                &put,
            ))),
            other => unreachable!("a put is answered as one, not with {other:?}"),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let delete = validate::delete_range(request.into_inner())?;
        match self.server.propose(Command::DeleteRange(delete)).await? {
            Reply::DeleteRange {
                revision,
                delete_range,
            } => {
                let header = self.server.header_at(revision);
                Ok(Response::new(reply::delete_range(header, &delete_range)))
            }
            other => unreachable!("a delete is answered as one, not with {other:?}"),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let ops_max = self.server.config().txn_ops_max;
        let (txn, access) = validate::txn(request.into_inner(), ops_max)?;
        Ok(Response::new(self.execute_txn(txn, access).await?))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let CompactionRequest { revision, physical } = request.into_inner();
        self.server.propose(Command::Compact { revision }).await?;
        if physical {
            self.server.views().store.compacted(revision).await;
        }
        Ok(Response::new(CompactionResponse {
            header: Some(self.server.header()),
        }))
    }
}

impl EtcdServer {
    /// Reads a range, and says at which revision the store was.
    pub(crate) async fn read_range(
        &self,
        range: &RangeOp,
        consistency: Consistency,
    ) -> Result<(i64, RangeReply), RequestError> {
        let started = self.config().clock.now();
        let view = self.read_view(consistency).await?;
        let reply = apply::execute_range(&view, range)?;
        self.metrics().ranges(1);
        self.warn_if_slow(started, "read-only range ");
        Ok((view.revision(), reply))
    }

    async fn read_txn(
        &self,
        txn: &Txn,
        consistency: Consistency,
    ) -> Result<(i64, apply::TxnReply), RequestError> {
        let started = self.config().clock.now();
        let view = self.read_view(consistency).await?;
        let reply = apply::execute_read_only_txn(&view, txn)?;
        self.metrics().ranges(reply.responses.len());
        self.warn_if_slow(started, "read-only txn ");
        Ok((view.revision(), reply))
    }

    /// The store, fresh enough.
    async fn read_view(&self, consistency: Consistency) -> Result<ReadView, RequestError> {
        if consistency == Consistency::Linearizable {
            self.read_index().await?;
        }
        Ok(self.views().store.view())
    }
}

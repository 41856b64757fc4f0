//! The KV service: reads and writes of keys.

use std::sync::Arc;

use api::encoded::etcdserverpb::kv_server::{Kv, KvServer};
use api::encoded::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RangeStreamResponse, TxnRequest, TxnResponse, request_op,
};
use api::etcdserverpb::{CompactionRequest, CompactionResponse};
use api::rpctypes::ErrorCode;
use apply::{Access, Command, Guard, Op, RangeOp, RangeReply, Reply, Txn, TxnReply};
use futures_util::FutureExt as _;
use futures_util::future::{self, Either};
use mvcc::ReadView;
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};
use types::KeyRange;

use super::interceptor::GZIP;
use super::own_body::WithOwnBodies;
use super::validate::{Consistency, TxnAccess};
use super::{Credentials, large_range, own_body, range_stream, reply, validate};
use crate::traffic::Kind;
use crate::{EtcdServer, RequestError};

/// The service as it is called. Cheap to clone.
pub(super) type Keys = WithOwnBodies<KvServer<KvService>>;

/// Serves keys.
pub(super) struct KvService {
    server: EtcdServer,
}

impl KvService {
    pub(super) fn new(server: EtcdServer) -> Arc<Self> {
        Arc::new(Self { server })
    }

    /// Serves the member's keys to who asks through tonic. A request's message has so many bytes at most.
    pub(super) fn serve(self: Arc<Self>, message_bytes_max: usize) -> Keys {
        let service = KvServer::from_arc(self);
        let service = service
            .max_decoding_message_size(message_bytes_max)
            .accept_compressed(GZIP);
        own_body::serve(service)
    }

    async fn execute_txn(
        &self,
        credentials: &Credentials,
        txn: Txn,
        access: TxnAccess,
    ) -> Result<TxnResponse, RequestError> {
        let server = &self.server;
        let (revision, txn) = match access {
            TxnAccess::Write => match self.propose(credentials, Command::Txn(txn)).await? {
                Reply::Txn { revision, txn } => (revision, txn),
                other => unreachable!("a transaction is answered as one, not with {other:?}"),
            },
            TxnAccess::Read(consistency) => server.read_txn(credentials, txn, consistency).await?,
        };
        Ok(reply::txn(server.header_at(revision), txn))
    }

    async fn propose(
        &self,
        credentials: &Credentials,
        command: Command,
    ) -> Result<Reply, RequestError> {
        let asker = self.server.asker(credentials).await?;
        self.server.propose(command.asked_by(asker)).await
    }
}

/// The calls, however they came.
impl KvService {
    pub(super) fn answer_range(
        &self,
        credentials: &Credentials,
        request: RangeRequest,
    ) -> impl Future<Output = Result<RangeResponse, Status>> {
        let server = &self.server;
        // A learner gives what it has, and nothing that others would have to agree on.
        if !request.serializable && server.is_learner() {
            let refused = ErrorCode::NotSupportedForLearner;
            return Either::Left(future::ready(Err(refused.into())));
        }
        let timed = server.traffic().time(Kind::Read, &request.key);
        let (range, consistency) = match validate::range(request) {
            Ok(range) => range,
            Err(refused) => return Either::Left(future::ready(Err(refused.into()))),
        };
        let read = server.read_range(credentials, range, consistency);
        Either::Right(read.map(move |read| {
            let _timed = timed;
            let (revision, range) = read?;
            Ok(reply::range(server.header_at(revision), range))
        }))
    }

    pub(super) async fn answer_put(
        &self,
        credentials: &Credentials,
        request: PutRequest,
    ) -> Result<PutResponse, Status> {
        let _timed = self.server.traffic().time(Kind::Write, &request.key);
        let put = validate::put(request)?;
        match self.propose(credentials, Command::Put(put)).await? {
            Reply::Put { revision, put } => Ok(reply::put(self.server.header_at(revision), put)),
            other => unreachable!("a put is answered as one, not with {other:?}"),
        }
    }

    pub(super) async fn answer_delete_range(
        &self,
        credentials: &Credentials,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        let _timed = self.server.traffic().time(Kind::Write, &request.key);
        let delete = Command::DeleteRange(validate::delete_range(request)?);
        match self.propose(credentials, delete).await? {
            Reply::DeleteRange {
                revision,
                delete_range,
            } => {
                crate::call::answered_with(delete_range.deleted);
                let header = self.server.header_at(revision);
                Ok(reply::delete_range(header, delete_range))
            }
            other => unreachable!("a delete is answered as one, not with {other:?}"),
        }
    }

    pub(super) async fn answer_txn(
        &self,
        credentials: &Credentials,
        request: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        let mut timed = self.server.traffic().time(Kind::Write, key_of(&request));
        let (txn, access) = validate::txn(request, self.server.config().txn_ops_max)?;
        if matches!(access, TxnAccess::Read(_)) {
            timed.is_a(Kind::Read);
        }
        Ok(self.execute_txn(credentials, txn, access).await?)
    }

    pub(super) async fn answer_compact(
        &self,
        credentials: &Credentials,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        let CompactionRequest { revision, physical } = request;
        self.propose(credentials, Command::Compact { revision })
            .await?;
        if physical {
            self.server.views().store.compacted(revision).await;
        }
        Ok(CompactionResponse {
            header: Some(self.server.header()),
        })
    }
}

#[async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let answer = self.answer_range(&credentials, request.into_inner());
        answer.await.map(large_range::answer)
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<BoxStream<RangeStreamResponse>>, Status> {
        let credentials = Credentials::beside(&request);
        let wanted = range_stream::check(request.into_inner())?;
        let stream = self.server.range_stream(&credentials, wanted);
        Ok(Response::new(stream.await?))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let answer = self.answer_put(&credentials, request.into_inner());
        answer.await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let answer = self.answer_delete_range(&credentials, request.into_inner());
        answer.await.map(Response::new)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let answer = self.answer_txn(&credentials, request.into_inner());
        answer.await.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let answer = self.answer_compact(&credentials, request.into_inner());
        answer.await.map(Response::new)
    }
}

impl EtcdServer {
    /// Reads a range, and says at which revision the store was.
    pub(crate) fn read_range(
        &self,
        credentials: &Credentials,
        range: RangeOp,
        consistency: Consistency,
    ) -> impl Future<Output = Result<(i64, RangeReply), RequestError>> {
        let started = self.config().clock.now();
        async move {
            let access = Access::Keys(&range.keys);
            let (guard, view) = self.read_view(access, credentials, consistency).await?;
            let (revision, cost) = (view.revision(), Cost::of(&range));
            let begun = self.config().clock.now();
            let reply = cost
                .spend(self, move || apply::execute_range(&view, &range))
                .await?;
            let took = self.config().clock.now().saturating_duration_since(begun);
            self.metrics().range_took(reply.is_ok(), took);
            let reply = reply?;
            guard.check_again()?;
            self.metrics().ranges(1);
            crate::call::answered_with(reply.count);
            self.warn_if_slow("read", started, "read-only range ", || response_of(&reply));
            Ok((revision, reply))
        }
    }

    async fn read_txn(
        &self,
        credentials: &Credentials,
        txn: Txn,
        consistency: Consistency,
    ) -> Result<(i64, TxnReply), RequestError> {
        let started = self.config().clock.now();
        let access = Access::ReadTxn(&txn);
        let (guard, view) = self.read_view(access, credentials, consistency).await?;
        let (revision, cost) = (view.revision(), Cost::of_txn(&txn));
        let reply = cost
            .spend(self, move || apply::execute_read_only_txn(&view, &txn))
            .await??;
        guard.check_again()?;
        self.metrics().ranges(reply.responses.len());
        self.warn_if_slow("read", started, "read-only txn ", String::new);
        Ok((revision, reply))
    }

    /// Reads where it holds up nobody, when it is its turn. Given up before that, it is not read at all.
    pub(crate) async fn read_aside<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let _permit = self.admit_read().await?;
        match AbortOnDropHandle::new(tokio::task::spawn_blocking(read)).await {
            Ok(result) => Ok(result),
            // The runtime refuses only when it is going away, and the member with it.
            Err(_) => Err(ErrorCode::Stopped.into()),
        }
    }

    /// The store, fresh enough, if who asks may read this of it.
    pub(crate) async fn read_view(
        &self,
        access: Access<'_>,
        credentials: &Credentials,
        consistency: Consistency,
    ) -> Result<(Guard, ReadView), RequestError> {
        if consistency == Consistency::Linearizable {
            self.read_index().await?;
        }
        if !matches!(credentials, Credentials::Member) {
            self.wait_sound().await?;
        }
        let guard = self.guard(access, credentials).await?;
        Ok((guard, self.views().store.view()))
    }
}

/// The key that a transaction is mostly about: the first one that it names.
fn key_of(txn: &TxnRequest) -> &[u8] {
    if let Some(compare) = txn.compare.first() {
        return &compare.key;
    }
    let op = txn.success.first().or_else(|| txn.failure.first());
    match op.and_then(|op| op.request.as_ref()) {
        Some(request_op::Request::RequestRange(range)) => &range.key,
        Some(request_op::Request::RequestPut(put)) => &put.key,
        Some(request_op::Request::RequestDeleteRange(delete)) => &delete.key,
        Some(request_op::Request::RequestTxn(_)) | None => &[],
    }
}

/// A range's response, as etcd logs it.
fn response_of(range: &RangeReply) -> String {
    let size: usize = range.kvs.iter().map(|kv| kv.encoded().len()).sum();
    format!("range_response_count:{} size:{size}", range.kvs.len())
}

/// Whether a read may hold up an async thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// Single keys from memory.
    Light,
    /// Many keys, or history, which may have to come from the disk.
    Heavy,
}

impl Cost {
    fn of(range: &RangeOp) -> Self {
        match range.keys {
            KeyRange::Single(_) if range.at.is_none() => Self::Light,
            _ => Self::Heavy,
        }
    }

    fn of_txn(txn: &Txn) -> Self {
        let mut ops = txn.success.iter().chain(&txn.failure);
        let light = ops.all(|op| matches!(op, Op::Range(range) if Self::of(range) == Self::Light));
        if light { Self::Light } else { Self::Heavy }
    }

    /// Reads here, or where it holds up nobody.
    async fn spend<T: Send + 'static>(
        self,
        server: &EtcdServer,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        match self {
            Self::Light => Ok(read()),
            // Larger, and a small part of what it waits for.
            Self::Heavy => Box::pin(server.read_aside(read)).await,
        }
    }
}

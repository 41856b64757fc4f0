//! The Lock service (`server/etcdserver/api/v3lock`): a lock is a key that lives as long as its lease.

use api::encoded::v3lockpb::lock_server::Lock;
use api::etcdserverpb::ResponseHeader;
use api::etcdserverpb::request_op::Request as Op;
use api::rpctypes::ErrorCode;
use api::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status, async_trait};

use super::concurrency;
use super::undo::Undo;
use super::v3client::{Caller, CallersClient, V3Client};
use crate::EtcdServer;

/// What a lock whose lease has ended meanwhile is called.
const SESSION_EXPIRED: &str = "mutex: session is expired";

/// Serves locks.
pub(crate) struct LockService {
    server: EtcdServer,
    client: V3Client,
}

impl LockService {
    /// Serves locks with what this client asks.
    pub(crate) const fn new(server: EtcdServer, client: V3Client) -> Self {
        Self { server, client }
    }

    /// Queues up, and waits until it is this lease's turn.
    async fn acquire(
        &self,
        client: &mut CallersClient,
        request: &LockRequest,
    ) -> Result<(ResponseHeader, Vec<u8>), Status> {
        let lease = concurrency::session(client, request.lease).await?;
        let prefix = concurrency::prefix_of(&request.name);
        let key = concurrency::key_of(&prefix, lease);
        let owner = Op::RequestRange(concurrency::first_created(&prefix));
        let own = Op::RequestRange(concurrency::get(&key));
        let queue_up = concurrency::if_then_else(
            concurrency::created_at(&key, 0),
            [concurrency::put(&key, b"", lease), owner.clone()],
            [own, owner],
        );
        let queued = client.txn(queue_up).await?;
        let header = queued.header.unwrap_or_default();
        // Who holds or waits for the lock with this lease already, does so with the same key.
        let created = match concurrency::found(&queued.responses, 0) {
            Some(own) => own.create_revision,
            None => header.revision,
        };
        let owner = concurrency::found(&queued.responses, 1);
        if owner.is_none_or(|owner| owner.create_revision == created) {
            return Ok((header, key));
        }
        let undo = self.dequeue(client, &key);
        concurrency::wait_deletes(client, &prefix, created - 1).await?;
        let own = client.range(concurrency::get(&key)).await?;
        undo.forget();
        if own.kvs.is_empty() {
            return Err(Status::unknown(SESSION_EXPIRED));
        }
        Ok((own.header.unwrap_or_default(), key))
    }

    /// Gives up the place in the queue, unless that is forgotten: nobody waits there any more.
    fn dequeue(&self, client: &CallersClient, key: &[u8]) -> Undo {
        let (mut client, key) = (client.clone(), key.to_vec());
        Undo::unless_forgotten(&self.server, async move {
            client.delete(key).await.map(|_deleted| ())
        })
    }
}

#[async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let mut client = self.client.on_behalf_of(caller);
        let (header, key) = tokio::select! {
            biased;
            acquired = self.acquire(&mut client, &request) => acquired?,
            () = self.server.stopping().cancelled() => return Err(ErrorCode::Stopped.into()),
        };
        Ok(Response::new(LockResponse {
            header: Some(header),
            key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let mut client = self.client.on_behalf_of(caller);
        let header = client.delete(request.key).await?.header;
        Ok(Response::new(UnlockResponse { header }))
    }
}

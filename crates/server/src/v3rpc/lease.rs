//! The Lease service.
//!
//! Any member is asked; what only the leader knows, it is asked for by `raft::Node`.

use api::encoded::etcdserverpb::lease_server::Lease;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use api::rpctypes::ErrorCode;
use apply::{Command, Reply};
use futures_util::{Stream, StreamExt};
use raft::ReadIndexError;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use types::LeaseId;

use crate::{EtcdServer, RequestError};

/// The longest TTL, in seconds.
const TTL_MAX_S: i64 = 9_000_000_000;
/// Keep-alives of one stream that are on their way at a time; when it is full, the next one is read
/// when the first of these has been answered. They share rounds, so that a client with
/// thousands of leases on one stream waits for a few rounds and not for thousands.
const KEEP_ALIVES_IN_FLIGHT_MAX: usize = 256;

/// Serves leases.
pub(crate) struct LeaseService {
    server: EtcdServer,
}

impl LeaseService {
    /// Serves the member's leases.
    pub(crate) fn new(server: EtcdServer) -> Self {
        Self { server }
    }
}

#[async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let (id, ttl_s) = self.server.lease_to_grant(request.get_ref())?;
        let revision = done(
            self.server
                .propose(Command::LeaseGrant { id, ttl_s })
                .await?,
        );
        Ok(Response::new(LeaseGrantResponse {
            header: Some(self.server.header_at(revision)),
            id: id.0,
            ttl: ttl_s,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let id = LeaseId(request.get_ref().id);
        let revision = done(self.server.propose(Command::LeaseRevoke { id }).await?);
        let header = Some(self.server.header_at(revision));
        Ok(Response::new(LeaseRevokeResponse { header }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<BoxStream<LeaseKeepAliveResponse>>, Status> {
        let answers = keep_alive(self.server.clone(), request.into_inner());
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(
            self.server.lease_time_to_live(&request).await?,
        ))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.server.views().leases.list();
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(self.server.header()),
            leases: leases
                .into_iter()
                .map(|id| LeaseStatus { id: id.0 })
                .collect(),
        }))
    }
}

/// The revision of the answer to a grant or revoke.
fn done(reply: Reply) -> i64 {
    match reply {
        Reply::Done { revision } => revision,
        other => unreachable!("a lease command is answered with a revision, not {other:?}"),
    }
}

/// Answers keep-alives, in their order.
fn keep_alive(
    server: EtcdServer,
    requests: Streaming<LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> {
    requests
        .map(move |request| {
            let server = server.clone();
            async move { Ok(server.keep_lease_alive(request?.id).await?) }
        })
        .buffered(KEEP_ALIVES_IN_FLIGHT_MAX)
}

impl EtcdServer {
    /// The id and TTL that a lease gets: the client's id or a new one, at least the shortest TTL.
    fn lease_to_grant(&self, request: &LeaseGrantRequest) -> Result<(LeaseId, i64), RequestError> {
        if request.ttl > TTL_MAX_S {
            return Err(ErrorCode::LeaseTTLTooLarge.into());
        }
        let id = match request.id {
            0 => self.next_lease_id(),
            id => LeaseId(id),
        };
        Ok((id, request.ttl.max(self.config().lease_ttl_min_s())))
    }

    /// Gives a lease its full TTL again; a TTL of 0 says that there is none.
    async fn keep_lease_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, RequestError> {
        // The header is taken first: it must not show a later revision than the renewal.
        let header = Some(self.header());
        let renewed = self.node().renew_lease(LeaseId(id)).await;
        let ttl = renewed.map_err(|error| self.lease_error(error))?;
        Ok(LeaseKeepAliveResponse {
            header,
            id,
            ttl: ttl.unwrap_or(0),
        })
    }

    /// Tells what a lease has left, and its keys; a TTL of -1 says that there is none.
    async fn lease_time_to_live(
        &self,
        request: &LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, RequestError> {
        let id = LeaseId(request.id);
        // The leader knows the time, every member the keys.
        let (ttl, read) = tokio::join!(self.node().remaining_ttl(id), self.node().read_index());
        let ttl = ttl.map_err(|error| self.lease_error(error))?;
        read.map_err(|error| self.lease_error(error))?;
        let found = ttl.zip(self.views().leases.get(id));
        let header = Some(self.header());
        Ok(match found {
            Some((ttl, lease)) => LeaseTimeToLiveResponse {
                header,
                id: id.0,
                ttl,
                granted_ttl: lease.granted_ttl_s,
                keys: if request.keys {
                    lease.keys.into_iter().map(Into::into).collect()
                } else {
                    vec![]
                },
            },
            None => LeaseTimeToLiveResponse {
                header,
                id: id.0,
                ttl: -1,
                granted_ttl: 0,
                keys: vec![],
            },
        })
    }

    /// The leader was not heard. etcd says whether there was one to ask.
    fn lease_error(&self, error: ReadIndexError) -> RequestError {
        match error {
            ReadIndexError::NoLeader => ErrorCode::NoLeader.into(),
            ReadIndexError::Timeout if self.node().status().leader.is_none() => {
                ErrorCode::NoLeader.into()
            }
            other => other.into(),
        }
    }
}

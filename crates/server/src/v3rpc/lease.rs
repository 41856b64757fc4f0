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
use apply::{Access, Command, Guard, Reply};
use futures_util::{Stream, StreamExt};
use raft::ReadIndexError;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use types::LeaseId;

use super::Credentials;
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
        let credentials = Credentials::beside(&request);
        let (id, ttl_s) = self.server.lease_to_grant(request.get_ref())?;
        let asker = self.server.asker(&credentials).await?;
        let grant = Command::LeaseGrant { id, ttl_s }.asked_by(asker);
        let revision = done(self.server.propose(grant).await?);
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
        let asker = self.server.asker(&Credentials::beside(&request)).await?;
        let id = LeaseId(request.get_ref().id);
        let revoke = Command::LeaseRevoke { id }.asked_by(asker);
        let revision = done(self.server.propose(revoke).await?);
        let header = Some(self.server.header_at(revision));
        Ok(Response::new(LeaseRevokeResponse { header }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<BoxStream<LeaseKeepAliveResponse>>, Status> {
        let credentials = Credentials::beside(&request);
        let answers = keep_alive(self.server.clone(), credentials, request.into_inner());
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let request = request.into_inner();
        let answer = self.server.lease_time_to_live(&credentials, &request);
        Ok(Response::new(answer.await?))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let guard = self.server.guard(Access::LeaseList, &credentials).await;
        let guard = guard?;
        let leases = self.server.views().leases.list();
        guard.check_again().map_err(RequestError::from)?;
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
    credentials: Credentials,
    requests: Streaming<LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> {
    requests
        .map(move |request| {
            let (server, credentials) = (server.clone(), credentials.clone());
            async move { Ok(server.keep_lease_alive(&credentials, request?.id).await?) }
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
    async fn keep_lease_alive(
        &self,
        credentials: &Credentials,
        id: i64,
    ) -> Result<LeaseKeepAliveResponse, RequestError> {
        self.allow(Access::LeaseRenew(LeaseId(id)), credentials)
            .await?;
        // The header is taken first: it must not show a later revision than the renewal.
        let header = Some(self.header());
        let renewed = self.node().renew_lease(LeaseId(id)).await;
        let ttl = renewed.map_err(|error| self.lease_error(error))?;
        self.metrics().lease_renewed();
        Ok(LeaseKeepAliveResponse {
            header,
            id,
            ttl: ttl.unwrap_or(0),
        })
    }

    /// Tells what a lease has left, and its keys; a TTL of -1 says that there is none.
    async fn lease_time_to_live(
        &self,
        credentials: &Credentials,
        request: &LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, RequestError> {
        let id = LeaseId(request.id);
        let asker = self.asker(credentials).await?;
        let access = match request.keys {
            true => Access::LeaseKeys(id),
            false => Access::LeaseTimeToLive(id),
        };
        let guard = Guard::new(access, asker, &self.views().auth, &self.views().leases)?;
        // The leader knows the time, every member the keys.
        let (ttl, read) = tokio::join!(self.node().remaining_ttl(id), self.node().read_index());
        let ttl = ttl.map_err(|error| self.lease_error(error))?;
        read.map_err(|error| self.lease_error(error))?;
        let found = ttl.zip(self.views().leases.get(id));
        if let (true, Some((_, lease))) = (request.keys, &found) {
            // Keys may have been attached meanwhile: those that are shown are those that are allowed.
            guard.permit(access, lease)?;
            guard.check_again()?;
        }
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

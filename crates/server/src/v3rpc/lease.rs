//! The Lease service.

use ::lease::RenewError;
use api::encoded::etcdserverpb::lease_server::Lease;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use api::rpctypes::ErrorCode;
use apply::{Command, Reply};
use futures_util::{Stream, StreamExt, stream};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use types::LeaseId;

use crate::{EtcdServer, RequestError};

/// The longest TTL, in seconds.
const TTL_MAX_S: i64 = 9_000_000_000;

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
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        self.server.read_index().await?;
        let views = self.server.views();
        let found = views
            .leases
            .get(LeaseId(id))
            .zip(views.renewer.remaining_ttl_s(LeaseId(id)));
        let header = Some(self.server.header());
        Ok(Response::new(match found {
            Some((lease, ttl)) => LeaseTimeToLiveResponse {
                header,
                id,
                ttl,
                granted_ttl: lease.granted_ttl_s,
                keys: if keys {
                    lease.keys.into_iter().map(Into::into).collect()
                } else {
                    vec![]
                },
            },
            None => LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                granted_ttl: 0,
                keys: vec![],
            },
        }))
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

/// Answers keep-alives one by one: the next request is read when the client has taken the answer.
fn keep_alive(
    server: EtcdServer,
    requests: Streaming<LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> {
    stream::try_unfold((server, requests), |(server, mut requests)| async move {
        let Some(request) = requests.message().await? else {
            return Ok(None);
        };
        let answer = server.keep_lease_alive(request.id).await?;
        Ok(Some((answer, (server, requests))))
    })
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
        // Leadership has to be certain: a leader of the past must not renew.
        self.read_index().await?;
        let ttl = match self.views().renewer.renew(LeaseId(id)) {
            Ok(ttl) => ttl,
            Err(RenewError::NotFound) => 0,
            Err(RenewError::NotPrimary) => return Err(ErrorCode::NoLeader.into()),
        };
        Ok(LeaseKeepAliveResponse { header, id, ttl })
    }
}

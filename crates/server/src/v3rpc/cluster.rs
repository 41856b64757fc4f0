//! The Cluster service: who belongs to the cluster, and changes of that
//! (`server/etcdserver/api/v3rpc/member.go`).
//!
//! What this is not: the rules for changes; the leader checks them (`raft::MemberChange`).

use std::time::UNIX_EPOCH;

use api::encoded::etcdserverpb::cluster_server::Cluster;
use api::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use api::rpctypes::ErrorCode;
use raft::{MemberChange, MemberChangeError};
use tonic::{Request, Response, Status, async_trait};
use types::{MemberId, Url};

use crate::{EtcdServer, RequestError};

/// Serves the members.
pub(crate) struct ClusterService {
    server: EtcdServer,
}

impl ClusterService {
    /// Serves the cluster that the member belongs to.
    pub(crate) fn new(server: EtcdServer) -> Self {
        Self { server }
    }
}

#[async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let request = request.into_inner();
        let peer_urls = valid_urls(&request.peer_ur_ls)?;
        let id = self.server.id_of_new_member(&peer_urls);
        let change = MemberChange::Add {
            id,
            peer_urls: peer_urls.clone(),
            is_learner: request.is_learner,
        };
        self.server.change_members(change).await?;
        // Name and client urls are empty until it has started.
        let member = Member {
            id: id.0,
            name: String::new(),
            peer_ur_ls: peer_urls,
            client_ur_ls: Vec::new(),
            is_learner: request.is_learner,
        };
        Ok(Response::new(MemberAddResponse {
            header: Some(self.server.header_without_revision()),
            member: Some(member),
            members: self.server.wire_members(),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let id = MemberId(request.get_ref().id);
        self.server
            .change_members(MemberChange::Remove { id })
            .await?;
        let header = Some(self.server.header_without_revision());
        let mut members = self.server.wire_members();
        // Who has removed itself may not see that it has.
        members.retain(|member| member.id != id.0);
        Ok(Response::new(MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        // Differs from etcd: it takes any text here, and then every member panics over it.
        let change = MemberChange::UpdatePeerUrls {
            id: MemberId(request.id),
            peer_urls: valid_urls(&request.peer_ur_ls)?,
        };
        self.server.change_members(change).await?;
        let header = Some(self.server.header_without_revision());
        let members = self.server.wire_members();
        Ok(Response::new(MemberUpdateResponse { header, members }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.server.read_index().await?;
        }
        let header = Some(self.server.header_without_revision());
        let members = self.server.wire_members();
        Ok(Response::new(MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let id = MemberId(request.get_ref().id);
        self.server.promote_member(id).await?;
        let header = Some(self.server.header_without_revision());
        let members = self.server.wire_members();
        Ok(Response::new(MemberPromoteResponse { header, members }))
    }
}

impl EtcdServer {
    /// A new id: that of the urls and of this second, as etcd makes it.
    fn id_of_new_member(&self, peer_urls: &[String]) -> MemberId {
        let since_epoch = self.config().clock.wall().duration_since(UNIX_EPOCH);
        let added_at = since_epoch.unwrap_or_default().as_secs();
        types::member_id(peer_urls, "", Some(added_at))
    }

    /// Changes the members. Where nobody led all the time, the error is the one that etcd gives
    /// for this change then.
    async fn change_members(&self, change: MemberChange) -> Result<(), RequestError> {
        let without_leader = match change {
            MemberChange::Add { .. } => ErrorCode::Unhealthy,
            MemberChange::Promote { .. } => ErrorCode::NoLeader,
            MemberChange::Remove { .. } | MemberChange::UpdatePeerUrls { .. } => ErrorCode::Timeout,
        };
        match self.node().change_members(change).await {
            Err(MemberChangeError::Timeout) if self.node().status().leader.is_none() => {
                Err(without_leader.into())
            }
            outcome => Ok(outcome?),
        }
    }

    async fn promote_member(&self, id: MemberId) -> Result<(), RequestError> {
        let promoted = self.change_members(MemberChange::Promote { id }).await;
        let refusal = promoted.as_ref().err().map(RequestError::code);
        self.metrics().learner_promoted(refusal);
        promoted
    }

    /// The members as this member knows them, by id.
    fn wire_members(&self) -> Vec<Member> {
        let members = self.views().cluster.members();
        members.into_iter().map(wire_member).collect()
    }
}

/// The urls as they are stored: sorted.
fn valid_urls(urls: &[String]) -> Result<Vec<String>, ErrorCode> {
    let parsed: Result<Vec<Url>, _> = urls.iter().map(|url| Url::parse(url)).collect();
    let mut valid = parsed.map_err(|_text| ErrorCode::MemberBadURLs)?;
    if valid.is_empty() {
        return Err(ErrorCode::MemberBadURLs);
    }
    valid.sort_unstable();
    Ok(valid.iter().map(Url::to_string).collect())
}

fn wire_member(member: apply::Member) -> Member {
    Member {
        id: member.id.0,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_sorted_as_etcd_does_it() {
        let urls = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            valid_urls(&texts)
        };
        assert_eq!(
            urls(&[" http://b:2", "http://a:1"]),
            Ok(vec!["http://a:1".to_owned(), "http://b:2".to_owned()])
        );
        for bad in [
            &[][..],
            &["foo"],
            &[""],
            &["http://a"],
            &["http://a:1/x"],
            &["http://a:1", "ftp://a:1"],
        ] {
            assert_eq!(urls(bad), Err(ErrorCode::MemberBadURLs), "{bad:?}");
        }
    }
}

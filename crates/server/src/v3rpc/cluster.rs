//! The Cluster service. Changes of membership are not built yet.

use api::encoded::etcdserverpb::cluster_server::Cluster;
use api::etcdserverpb::{Member, MemberListRequest, MemberListResponse};
use tonic::{Request, Response, Status, async_trait};

use crate::EtcdServer;

/// Serves the list of members.
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
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.server.read_index().await?;
        }
        let members = self
            .server
            .views()
            .cluster
            .members()
            .into_iter()
            .map(wire_member)
            .collect();
        let header = Some(self.server.header_without_revision());
        Ok(Response::new(MemberListResponse { header, members }))
    }
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

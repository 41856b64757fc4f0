//! Changes of the members, by etcd's rules.

use api::etcdserverpb as pb;
use tonic::Status;
use types::MemberId;

use super::Client;

impl Client {
    /// The members.
    ///
    /// # Errors
    ///
    /// As etcd's `MemberList`.
    pub async fn members(&self) -> Result<Vec<pb::Member>, Status> {
        let request = pb::MemberListRequest { linearizable: true };
        let list = self.cluster_client().member_list(request).await?;
        Ok(list.into_inner().members)
    }

    /// Adds a voter, which then is to be started, and says which id it has.
    ///
    /// # Errors
    ///
    /// As etcd's `MemberAdd`.
    pub async fn add_member(&self, peer_urls: &[&str]) -> Result<MemberId, Status> {
        self.add(peer_urls, false).await
    }

    /// Adds a learner: it gets everything and has no vote until it is promoted.
    ///
    /// # Errors
    ///
    /// As etcd's `MemberAdd`.
    pub async fn add_learner(&self, peer_urls: &[&str]) -> Result<MemberId, Status> {
        self.add(peer_urls, true).await
    }

    async fn add(&self, peer_urls: &[&str], is_learner: bool) -> Result<MemberId, Status> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: peer_urls.iter().map(|&url| url.to_owned()).collect(),
            is_learner,
        };
        let added = self.cluster_client().member_add(request).await?;
        let id = added.into_inner().member.map(|member| member.id);
        Ok(MemberId(id.unwrap_or_default()))
    }

    /// Gives a learner its vote.
    ///
    /// # Errors
    ///
    /// As etcd's `MemberPromote`: above all while it is behind.
    pub async fn promote_member(&self, id: MemberId) -> Result<(), Status> {
        let request = pb::MemberPromoteRequest { id: id.0 };
        self.cluster_client()
            .member_promote(request)
            .await
            .map(drop)
    }

    /// Removes a member.
    ///
    /// # Errors
    ///
    /// As etcd's `MemberRemove`: above all when the quorum would be lost.
    pub async fn remove_member(&self, id: MemberId) -> Result<(), Status> {
        let request = pb::MemberRemoveRequest { id: id.0 };
        self.cluster_client().member_remove(request).await.map(drop)
    }

    /// Tells the cluster a member's new urls.
    ///
    /// # Errors
    ///
    /// As etcd's `MemberUpdate`.
    pub async fn update_member(&self, id: MemberId, peer_urls: &[&str]) -> Result<(), Status> {
        let request = pb::MemberUpdateRequest {
            id: id.0,
            peer_ur_ls: peer_urls.iter().map(|&url| url.to_owned()).collect(),
        };
        self.cluster_client().member_update(request).await.map(drop)
    }

    /// Hands the leadership over. To be asked of the leader.
    ///
    /// # Errors
    ///
    /// As etcd's `MoveLeader`.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Status> {
        let request = pb::MoveLeaderRequest { target_id: to.0 };
        self.maintenance_client()
            .move_leader(request)
            .await
            .map(drop)
    }
}

//! The messages of a log. Names and numbers are etcd's (`walpb`, `raftpb`, `etcdserverpb`); of the
//! requests, those that change something that a state of ours has.

use api::encoded::etcdserverpb::{DeleteRangeRequest, PutRequest, TxnRequest};
use api::etcdserverpb::{
    AlarmRequest, AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest,
};
use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(int64, tag = "1")]
    pub(super) kind: i64,
    #[prost(uint32, tag = "2")]
    pub(super) crc: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(uint64, tag = "1")]
    pub(super) node_id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) cluster_id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Snapshot {
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HardState {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) vote: u64,
    #[prost(uint64, tag = "3")]
    pub(super) commit: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(uint64, tag = "3")]
    pub(super) index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) data: Bytes,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeKind {
    /// It gets a vote.
    AddNode = 0,
    /// It goes.
    RemoveNode = 1,
    /// Its urls change.
    UpdateNode = 2,
    /// It comes without a vote.
    AddLearnerNode = 3,
}

/// A change of the members.
#[derive(Clone, PartialEq, Message)]
pub struct ConfChange {
    /// What becomes of the member.
    #[prost(enumeration = "ConfChangeKind", tag = "2")]
    pub kind: i32,
    /// Which.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// The member in JSON, with its urls.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ConfChangeSingle {
    #[prost(enumeration = "ConfChangeKind", tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    node_id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ConfChangeV2 {
    #[prost(message, repeated, tag = "2")]
    changes: Vec<ConfChangeSingle>,
    #[prost(bytes = "bytes", tag = "3")]
    context: Bytes,
}

impl ConfChangeV2 {
    pub(super) fn into_changes(self) -> Vec<ConfChange> {
        let context = self.context;
        let changes = self.changes.into_iter();
        let change = |single: ConfChangeSingle| ConfChange {
            kind: single.kind,
            node_id: single.node_id,
            context: context.clone(),
        };
        changes.map(change).collect()
    }
}

/// A request of the old store: how members told their names before 3.6.
#[derive(Clone, PartialEq, Message)]
pub struct V2Request {
    /// What to do.
    #[prost(string, tag = "2")]
    pub method: String,
    /// With what.
    #[prost(string, tag = "3")]
    pub path: String,
    /// The value.
    #[prost(string, tag = "4")]
    pub value: String,
}

/// A member tells its name and urls.
#[derive(Clone, PartialEq, Message)]
pub struct MemberAttributes {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// What it tells.
    #[prost(message, optional, tag = "2")]
    pub attributes: Option<Attributes>,
}

/// What a member tells.
#[derive(Clone, PartialEq, Message)]
pub struct Attributes {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Where clients reach it.
    #[prost(string, repeated, tag = "2")]
    pub client_urls: Vec<String>,
}

/// Who asked for a request.
#[derive(Clone, PartialEq, Message)]
pub struct RequestHeader {
    /// The user; empty where nobody says who asks.
    #[prost(string, tag = "2")]
    pub username: String,
    /// The revision of users and roles that was known of then.
    #[prost(uint64, tag = "3")]
    pub auth_revision: u64,
}

/// A request in the log.
#[derive(Clone, PartialEq, Message)]
pub struct InternalRaftRequest {
    /// Who asked.
    #[prost(message, optional, tag = "100")]
    pub header: Option<RequestHeader>,
    /// A request of the old store.
    #[prost(message, optional, tag = "2")]
    pub v2: Option<V2Request>,
    /// Writes a key.
    #[prost(message, optional, tag = "4")]
    pub put: Option<PutRequest>,
    /// Deletes keys.
    #[prost(message, optional, tag = "5")]
    pub delete_range: Option<DeleteRangeRequest>,
    /// A transaction.
    #[prost(message, optional, tag = "6")]
    pub txn: Option<TxnRequest>,
    /// Drops history.
    #[prost(message, optional, tag = "7")]
    pub compaction: Option<CompactionRequest>,
    /// Makes a lease.
    #[prost(message, optional, tag = "8")]
    pub lease_grant: Option<LeaseGrantRequest>,
    /// Removes a lease.
    #[prost(message, optional, tag = "9")]
    pub lease_revoke: Option<LeaseRevokeRequest>,
    /// Raises or clears an alarm.
    #[prost(message, optional, tag = "10")]
    pub alarm: Option<AlarmRequest>,
    /// Users and roles count from now on.
    #[prost(message, optional, tag = "1000")]
    pub auth_enable: Option<AuthEnableRequest>,
    /// They do not any more.
    #[prost(message, optional, tag = "1011")]
    pub auth_disable: Option<AuthDisableRequest>,
    /// Adds a user.
    #[prost(message, optional, tag = "1100")]
    pub auth_user_add: Option<AuthUserAddRequest>,
    /// Deletes a user.
    #[prost(message, optional, tag = "1101")]
    pub auth_user_delete: Option<AuthUserDeleteRequest>,
    /// Changes a user's password.
    #[prost(message, optional, tag = "1103")]
    pub auth_user_change_password: Option<AuthUserChangePasswordRequest>,
    /// Grants a role to a user.
    #[prost(message, optional, tag = "1104")]
    pub auth_user_grant_role: Option<AuthUserGrantRoleRequest>,
    /// Takes a role away from a user.
    #[prost(message, optional, tag = "1105")]
    pub auth_user_revoke_role: Option<AuthUserRevokeRoleRequest>,
    /// Adds a role.
    #[prost(message, optional, tag = "1200")]
    pub auth_role_add: Option<AuthRoleAddRequest>,
    /// Deletes a role.
    #[prost(message, optional, tag = "1201")]
    pub auth_role_delete: Option<AuthRoleDeleteRequest>,
    /// Grants a permission to a role.
    #[prost(message, optional, tag = "1203")]
    pub auth_role_grant_permission: Option<AuthRoleGrantPermissionRequest>,
    /// Takes a permission away from a role.
    #[prost(message, optional, tag = "1204")]
    pub auth_role_revoke_permission: Option<AuthRoleRevokePermissionRequest>,
    /// A member tells its name and client urls.
    #[prost(message, optional, tag = "1301")]
    pub cluster_member_attr_set: Option<MemberAttributes>,
}

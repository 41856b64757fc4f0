//! What is replicated: domain commands, with a codec of their own.
//!
//! Protobuf's magic values are gone here: `server::v3rpc::validate` has turned them into types.

mod auth_codec;
pub(crate) mod codec;
mod request;

use std::fmt;

use api::authpb::Permission;
use bytes::Bytes;
use types::{KeyRange, LeaseId, MemberId, Version};

use crate::{AlarmKind, Member};

pub use request::{Asker, Request};

/// One command of the replicated log.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Write a key.
    Put(Put),
    /// Delete keys.
    DeleteRange(DeleteRange),
    /// A transaction that may write. Also allowed: one that only reads.
    Txn(Txn),
    /// Drop history up to this revision.
    Compact {
        /// The revision.
        revision: i64,
    },
    /// Make a lease. Id and TTL are final: the proposer has chosen the one and bounded the other.
    LeaseGrant {
        /// Its id.
        id: LeaseId,
        /// Its TTL in seconds.
        ttl_s: i64,
    },
    /// Remove a lease and delete its keys.
    LeaseRevoke {
        /// Its id.
        id: LeaseId,
    },
    /// Note what leases have left, in seconds, for whoever leads next; 0: their full TTLs. Those that are
    /// not there do not matter.
    LeaseCheckpoint {
        /// Which, and how much.
        leases: Vec<(LeaseId, i64)>,
    },
    /// Raise, clear or list alarms.
    Alarm {
        /// What to do.
        action: AlarmAction,
        /// The member concerned; 0 for all.
        member: MemberId,
        /// Which alarm; `None` for all.
        alarm: Option<AlarmKind>,
    },
    /// A member tells its name and client urls.
    PublishMember(Member),
    /// Change users, roles or the switch.
    Auth(AuthCommand),
    /// The leader has found out which version all members speak.
    ClusterVersionSet {
        /// The cluster's version from now on.
        version: Version,
    },
    /// Enable a downgrade, or end it.
    DowngradeInfoSet {
        /// Where the cluster is to go down to; `None`: there is no downgrade any more.
        target: Option<Version>,
    },
}

/// A change of users and roles, or of the switch.
#[derive(Clone, PartialEq)]
pub enum AuthCommand {
    /// Switch authentication on.
    Enable,
    /// Switch it off.
    Disable,
    /// A user whose password has been checked gets a token.
    Authenticate {
        /// Who.
        user: String,
        /// What a simple token begins with.
        token_prefix: String,
    },
    /// Add a user.
    UserAdd {
        /// Its name.
        name: String,
        /// Base64 of the hash of its password; empty if it has none.
        hashed_password: String,
        /// Whether it has none.
        no_password: bool,
    },
    /// Delete a user.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// Change a user's password.
    UserChangePassword {
        /// Its name.
        name: String,
        /// As in [`AuthCommand::UserAdd`].
        hashed_password: String,
    },
    /// Grant a role to a user.
    UserGrantRole {
        /// To whom.
        user: String,
        /// Which.
        role: String,
    },
    /// Take a role away from a user.
    UserRevokeRole {
        /// From whom.
        user: String,
        /// Which.
        role: String,
    },
    /// Add a role.
    RoleAdd {
        /// Its name.
        name: String,
    },
    /// Delete a role.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// Grant a permission to a role.
    RoleGrantPermission {
        /// To which.
        role: String,
        /// What; as it is stored.
        permission: Option<Permission>,
    },
    /// Take a permission away from a role.
    RoleRevokePermission {
        /// From which.
        role: String,
        /// On which range, as it was granted.
        key: Bytes,
        /// See `key`.
        range_end: Bytes,
    },
}

// What a password was hashed to stays out of logs.
impl fmt::Debug for AuthCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enable => "Enable",
            Self::Disable => "Disable",
            Self::Authenticate { .. } => "Authenticate",
            Self::UserAdd { .. } => "UserAdd",
            Self::UserDelete { .. } => "UserDelete",
            Self::UserChangePassword { .. } => "UserChangePassword",
            Self::UserGrantRole { .. } => "UserGrantRole",
            Self::UserRevokeRole { .. } => "UserRevokeRole",
            Self::RoleAdd { .. } => "RoleAdd",
            Self::RoleDelete { .. } => "RoleDelete",
            Self::RoleGrantPermission { .. } => "RoleGrantPermission",
            Self::RoleRevokePermission { .. } => "RoleRevokePermission",
        })
    }
}

/// What to do with an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// List.
    Get,
    /// Raise.
    Activate,
    /// Clear.
    Deactivate,
    /// Raise CORRUPT as the member's own affair: the others go on, and it takes their state.
    Quarantine,
}

/// The value of a [`Put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutValue {
    /// This one.
    New(Bytes),
    /// The one the key has (`ignore_value`).
    Keep,
}

/// The lease of a [`Put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutLease {
    /// None.
    Detach,
    /// This one.
    Attach(LeaseId),
    /// The one the key has (`ignore_lease`).
    Keep,
}

/// Write a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: PutValue,
    /// Its lease.
    pub lease: PutLease,
    /// Whether to return the key-value that is replaced.
    pub prev_kv: bool,
}

/// Delete keys.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteRange {
    /// Which.
    pub keys: KeyRange,
    /// Whether to return the key-values that are deleted.
    pub prev_kv: bool,
}

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    Key,
    /// The version.
    Version,
    /// The create revision.
    Create,
    /// The mod revision.
    Mod,
    /// The value.
    Value,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// As found.
    None,
    /// Lowest first.
    Ascend,
    /// Highest first.
    Descend,
}

/// Read keys: a request of its own, and an operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeOp {
    /// Which keys.
    pub keys: KeyRange,
    /// At which revision; `None` for the current one. So does a negative one by itself; as an
    /// operation of a transaction it is one that has been compacted, once anything has.
    pub at: Option<i64>,
    /// At most so many; `None` for all.
    pub limit: Option<usize>,
    /// Sorted by what.
    pub sort_target: SortTarget,
    /// In which order.
    pub sort_order: SortOrder,
    /// Without values.
    pub keys_only: bool,
    /// Without key-values.
    pub count_only: bool,
    /// Only key-values whose mod revision is at least this (`None`: any), and so on.
    pub min_mod_revision: Option<i64>,
    /// See `min_mod_revision`.
    pub max_mod_revision: Option<i64>,
    /// See `min_mod_revision`.
    pub min_create_revision: Option<i64>,
    /// See `min_mod_revision`.
    pub max_create_revision: Option<i64>,
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Read.
    Range(RangeOp),
    /// Write.
    Put(Put),
    /// Delete.
    DeleteRange(DeleteRange),
    /// A transaction inside the transaction.
    Txn(Txn),
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn {
    /// All must hold for `success`.
    pub compare: Vec<Compare>,
    /// What to do if they do.
    pub success: Vec<Op>,
    /// What to do if they do not.
    pub failure: Vec<Op>,
}

/// How a compare compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOperator {
    /// `==`
    Equal,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `!=`
    NotEqual,
}

/// What a compare compares, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value.
    Value(Bytes),
    /// The lease id.
    Lease(i64),
}

/// A condition on every key of a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// Which keys.
    pub keys: KeyRange,
    /// How.
    pub operator: CompareOperator,
    /// What, with what.
    pub target: CompareTarget,
}

/// Bytes of the log are not a command of this version.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode a command of the log: {reason}")]
pub struct DecodeError {
    /// What was wrong.
    pub reason: String,
}

impl Command {
    /// Whether a full store refuses the command: whether it may add anything.
    #[must_use]
    pub fn takes_space(&self) -> bool {
        crate::quota::cost(self) > 0
    }

    /// Whether the command goes before others when there are too many: it makes a store smaller, or
    /// repairs it.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        match self {
            Self::LeaseRevoke { .. }
            | Self::LeaseCheckpoint { .. }
            | Self::Compact { .. }
            | Self::Alarm { .. } => true,
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::LeaseGrant { .. }
            | Self::PublishMember(_)
            | Self::Auth(_)
            | Self::ClusterVersionSet { .. }
            | Self::DowngradeInfoSet { .. } => false,
        }
    }
}

impl Txn {
    /// Whether the transaction may be answered from a read view, without the log: all it does is
    /// read, and nothing in it nests.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success
            .iter()
            .chain(&self.failure)
            .all(|op| matches!(op, Op::Range(_)))
    }
}

//! Refusals, and what can be wrong with a store.

use bytes::Bytes;

/// Somebody may not do something, or a change of users or roles cannot be made: an answer to the
/// client, the same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Authentication is to be switched on without a user root.
    #[error("root user does not exist")]
    RootUserNotExist,
    /// ... or without the role root granted to it.
    #[error("root user does not have root role")]
    RootRoleNotExist,
    /// A new user has the name of another.
    #[error("user already exists")]
    UserAlreadyExist,
    /// A name is empty, or nobody says who asks.
    #[error("user name is empty")]
    UserEmpty,
    /// There is no such user.
    #[error("user not found")]
    UserNotFound,
    /// A new role has the name of another.
    #[error("role already exists")]
    RoleAlreadyExist,
    /// There is no such role.
    #[error("role not found")]
    RoleNotFound,
    /// A role's name is empty.
    #[error("role name is empty")]
    RoleEmpty,
    /// A permission is to be granted, but none is given.
    #[error("permission not given")]
    PermissionNotGiven,
    /// A wrong name or password.
    #[error("authentication failed, invalid user ID or password")]
    AuthFailed,
    /// A password for a user who has none.
    #[error("authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// The user may not do this.
    #[error("permission denied")]
    PermissionDenied,
    /// A role is to be taken away from a user who does not have it.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// A permission is to be taken away from a role that does not have it.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// Authentication is off.
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    /// Users or roles have changed since it was found out who asks.
    #[error("revision in header is old")]
    AuthOldRevision,
    /// The token is not valid, or not any more.
    #[error("invalid auth token")]
    InvalidAuthToken,
    /// A change that would leave nobody with the right to change anything; or a range that is none.
    #[error("invalid auth management")]
    InvalidAuthMgmt,
    /// A token is to be signed with a key that can only verify.
    #[error("token signing attempted with verify-only key")]
    VerifyOnly,
}

/// The users and roles could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The backend failed.
    #[error("cannot read users and roles")]
    Read(#[from] backend::ReadError),
    /// A record has a key that its bucket cannot hold.
    #[error(transparent)]
    Key(#[from] backend::schema::KeyError),
    /// A record's value is not of the form of its bucket.
    #[error("the record at {key:?} of bucket {bucket} is not of the form that it should have")]
    Malformed {
        /// Its bucket.
        bucket: backend::Bucket,
        /// Its key.
        key: Bytes,
    },
    /// A record's value is not a message of its bucket.
    #[error("the record at {key:?} of bucket {bucket} cannot be decoded")]
    Decode {
        /// Its bucket.
        bucket: backend::Bucket,
        /// Its key.
        key: Bytes,
        /// What was wrong.
        #[source]
        source: prost::DecodeError,
    },
}

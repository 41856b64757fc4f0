//! What a lease request can be refused for, and what can be wrong with the stored leases.

use types::LeaseId;

/// A lease was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// There is a lease of that id.
    #[error("lease already exists")]
    Exists,
}

/// There is no such lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lease not found")]
pub struct NotFound;

/// A lease was not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// There is no such lease, or it has expired and its revocation is on its way.
    #[error("lease not found")]
    NotFound,
    /// This member does not lead, so it knows nothing about expiry. The lease may well live: the
    /// client must not be told that it is gone.
    #[error("not a primary lessor")]
    NotPrimary,
    /// The log holds what it had left once: that is to be taken back first, by a checkpoint of
    /// nothing.
    #[error("the lease is checkpointed")]
    Checkpointed,
}

/// This member does not lead, so it knows nothing about expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a primary lessor")]
pub struct NotPrimary;

/// The leases could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The backend failed.
    #[error("cannot read the leases")]
    Read(#[from] backend::ReadError),
    /// A record has a key that cannot be a lease's.
    #[error(transparent)]
    Key(#[from] backend::schema::KeyError),
    /// A record is not a lease.
    #[error("the record of lease {id} is not a leasepb.Lease")]
    Decode {
        /// The lease.
        id: LeaseId,
        /// What was wrong.
        #[source]
        source: prost::DecodeError,
    },
    /// A lease is stored under another lease's key.
    #[error("the record of lease {id} holds lease {found}")]
    Misplaced {
        /// The lease whose key it is.
        id: LeaseId,
        /// The lease that is there.
        found: LeaseId,
    },
}

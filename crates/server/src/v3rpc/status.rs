//! What a client sees of a failure: the one way from our errors to etcd's table.

use api::rpctypes::ErrorCode;
use apply::Rejection;
use auth::AuthError;
use mvcc::RangeError;
use raft::{MemberChangeError, MoveLeaderError, ProposeError, ReadIndexError};
use tonic::Status;

use crate::RequestError;

impl RequestError {
    /// The row of etcd's table that stands for this failure.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(code) => *code,
            Self::Rejected(rejection) => of_rejection(rejection),
            Self::Auth(error) => of_auth(*error),
            Self::Propose(error) => of_propose(*error),
            Self::ReadIndex(error) => of_read_index(*error),
            Self::Range(error) => of_range(error),
            Self::Fatal(_) => ErrorCode::Stopped,
            Self::Members(error) => of_member_change(*error),
            Self::MoveLeader(error) => of_move_leader(*error),
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        error.code().into()
    }
}

fn of_rejection(rejection: &Rejection) -> ErrorCode {
    match rejection {
        Rejection::KeyNotFound => ErrorCode::KeyNotFound,
        Rejection::LeaseNotFound => ErrorCode::LeaseNotFound,
        Rejection::LeaseExists => ErrorCode::LeaseExist,
        Rejection::Compacted => ErrorCode::Compacted,
        Rejection::FutureRevision => ErrorCode::FutureRev,
        Rejection::NoSpace => ErrorCode::NoSpace,
        Rejection::Corrupt => ErrorCode::Corrupt,
        Rejection::Auth(error) => of_auth(*error),
    }
}

const fn of_auth(error: AuthError) -> ErrorCode {
    match error {
        AuthError::RootUserNotExist => ErrorCode::RootUserNotExist,
        AuthError::RootRoleNotExist => ErrorCode::RootRoleNotExist,
        AuthError::UserAlreadyExist => ErrorCode::UserAlreadyExist,
        AuthError::UserEmpty => ErrorCode::UserEmpty,
        AuthError::UserNotFound => ErrorCode::UserNotFound,
        AuthError::RoleAlreadyExist => ErrorCode::RoleAlreadyExist,
        AuthError::RoleNotFound => ErrorCode::RoleNotFound,
        AuthError::RoleEmpty => ErrorCode::RoleEmpty,
        AuthError::PermissionNotGiven => ErrorCode::PermissionNotGiven,
        AuthError::AuthFailed => ErrorCode::AuthFailed,
        AuthError::NoPasswordUser => ErrorCode::NoPasswordUser,
        AuthError::PermissionDenied => ErrorCode::PermissionDenied,
        AuthError::RoleNotGranted => ErrorCode::RoleNotGranted,
        AuthError::PermissionNotGranted => ErrorCode::PermissionNotGranted,
        AuthError::AuthNotEnabled => ErrorCode::AuthNotEnabled,
        AuthError::AuthOldRevision => ErrorCode::AuthOldRevision,
        AuthError::InvalidAuthToken => ErrorCode::InvalidAuthToken,
        AuthError::InvalidAuthMgmt => ErrorCode::InvalidAuthMgmt,
        AuthError::VerifyOnly => ErrorCode::VerifyOnly,
    }
}

fn of_propose(error: ProposeError) -> ErrorCode {
    match error {
        ProposeError::NoLeader => ErrorCode::NotProposed,
        ProposeError::TooManyRequests => ErrorCode::RequestTooManyRequests,
        ProposeError::TooLarge => ErrorCode::RequestTooLarge,
        ProposeError::Stopped => ErrorCode::Stopped,
        ProposeError::LeaderChanged => ErrorCode::LeaderChanged,
        ProposeError::Timeout => ErrorCode::Timeout,
        ProposeError::TimeoutDueToLeaderFail => ErrorCode::TimeoutDueToLeaderFail,
        ProposeError::TimeoutDueToConnectionLost => ErrorCode::TimeoutDueToConnectionLost,
    }
}

fn of_read_index(error: ReadIndexError) -> ErrorCode {
    match error {
        // Whether there is no leader or none that answers: etcd calls it the same for a read.
        ReadIndexError::NoLeader => ErrorCode::Timeout,
        ReadIndexError::Stopped => ErrorCode::Stopped,
        ReadIndexError::LeaderChanged => ErrorCode::LeaderChanged,
        ReadIndexError::Timeout => ErrorCode::Timeout,
    }
}

fn of_range(error: &RangeError) -> ErrorCode {
    match error {
        RangeError::Compacted { .. } => ErrorCode::Compacted,
        RangeError::FutureRevision => ErrorCode::FutureRev,
        // The member stops over this; the client has to go elsewhere.
        RangeError::Store(_) => ErrorCode::Stopped,
    }
}

fn of_member_change(error: MemberChangeError) -> ErrorCode {
    match error {
        MemberChangeError::IdExists => ErrorCode::MemberExist,
        // etcd does not tell the two apart on the wire.
        MemberChangeError::IdRemoved | MemberChangeError::NotFound => ErrorCode::MemberNotFound,
        MemberChangeError::PeerUrlExists => ErrorCode::PeerURLExist,
        MemberChangeError::NotLearner => ErrorCode::MemberNotLearner,
        MemberChangeError::LearnerNotReady => ErrorCode::LearnerNotReady,
        MemberChangeError::TooManyLearners => ErrorCode::TooManyLearners,
        MemberChangeError::NotEnoughStarted => ErrorCode::MemberNotEnoughStarted,
        MemberChangeError::Unhealthy => ErrorCode::Unhealthy,
        MemberChangeError::Stopped => ErrorCode::Stopped,
        MemberChangeError::Timeout => ErrorCode::Timeout,
    }
}

fn of_move_leader(error: MoveLeaderError) -> ErrorCode {
    match error {
        MoveLeaderError::NotLeader => ErrorCode::NotLeader,
        MoveLeaderError::BadTransferee => ErrorCode::BadLeaderTransferee,
        MoveLeaderError::Timeout => ErrorCode::TimeoutLeaderTransfer,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn seen(error: impl Into<RequestError>) -> (Code, String) {
        let status = Status::from(error.into());
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn refusals_are_etcds_errors() {
        for (rejection, code, text) in [
            (
                Rejection::KeyNotFound,
                Code::InvalidArgument,
                "etcdserver: key not found",
            ),
            (
                Rejection::LeaseNotFound,
                Code::NotFound,
                "etcdserver: requested lease not found",
            ),
            (
                Rejection::LeaseExists,
                Code::FailedPrecondition,
                "etcdserver: lease already exists",
            ),
            (
                Rejection::Compacted,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (
                Rejection::FutureRevision,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (
                Rejection::NoSpace,
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
            (
                Rejection::Corrupt,
                Code::DataLoss,
                "etcdserver: corrupt cluster",
            ),
        ] {
            assert_eq!(seen(rejection), (code, text.to_owned()));
        }
    }

    #[test]
    fn rafts_failures_are_etcds_errors() {
        for (error, code, text) in [
            (
                ProposeError::NoLeader,
                Code::DeadlineExceeded,
                "context deadline exceeded",
            ),
            (
                ProposeError::TooManyRequests,
                Code::Unknown,
                "etcdserver: too many requests",
            ),
            (
                ProposeError::TooLarge,
                Code::InvalidArgument,
                "etcdserver: request is too large",
            ),
            (
                ProposeError::Stopped,
                Code::Unavailable,
                "etcdserver: server stopped",
            ),
            (
                ProposeError::LeaderChanged,
                Code::Unavailable,
                "etcdserver: leader changed",
            ),
            (
                ProposeError::Timeout,
                Code::Unavailable,
                "etcdserver: request timed out",
            ),
        ] {
            assert_eq!(seen(error), (code, text.to_owned()));
        }
        assert_eq!(
            seen(ReadIndexError::Timeout),
            (
                Code::Unavailable,
                "etcdserver: request timed out".to_owned()
            )
        );
    }

    #[test]
    fn refused_changes_of_the_members_are_etcds_errors() {
        for (error, code, text) in [
            (
                MemberChangeError::IdExists,
                Code::FailedPrecondition,
                "etcdserver: member ID already exist",
            ),
            (
                MemberChangeError::IdRemoved,
                Code::NotFound,
                "etcdserver: member not found",
            ),
            (
                MemberChangeError::PeerUrlExists,
                Code::FailedPrecondition,
                "etcdserver: Peer URLs already exists",
            ),
            (
                MemberChangeError::NotFound,
                Code::NotFound,
                "etcdserver: member not found",
            ),
            (
                MemberChangeError::NotLearner,
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member",
            ),
            (
                MemberChangeError::LearnerNotReady,
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            (
                MemberChangeError::TooManyLearners,
                Code::FailedPrecondition,
                "etcdserver: too many learner members in cluster",
            ),
            (
                MemberChangeError::NotEnoughStarted,
                Code::Unknown,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
            (
                MemberChangeError::Unhealthy,
                Code::Unavailable,
                "etcdserver: unhealthy cluster",
            ),
            (
                MemberChangeError::Stopped,
                Code::Unavailable,
                "etcdserver: server stopped",
            ),
            (
                MemberChangeError::Timeout,
                Code::Unavailable,
                "etcdserver: request timed out",
            ),
        ] {
            assert_eq!(seen(error), (code, text.to_owned()));
        }
    }

    #[test]
    fn a_leadership_that_was_not_moved_is_etcds_error() {
        for (error, code, text) in [
            (
                MoveLeaderError::NotLeader,
                Code::FailedPrecondition,
                "etcdserver: not leader",
            ),
            (
                MoveLeaderError::BadTransferee,
                Code::FailedPrecondition,
                "etcdserver: bad leader transferee",
            ),
            (
                MoveLeaderError::Timeout,
                Code::Unknown,
                "etcdserver: request timed out, leader transfer took too long",
            ),
        ] {
            assert_eq!(seen(error), (code, text.to_owned()));
        }
    }
}

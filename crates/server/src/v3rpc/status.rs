//! What a client sees of a failure: the one way from our errors to etcd's table.

use api::rpctypes::ErrorCode;
use apply::Rejection;
use mvcc::RangeError;
use raft::{ProposeError, ReadIndexError};
use tonic::Status;

use crate::RequestError;

impl RequestError {
    /// The row of etcd's table that stands for this failure.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(code) => *code,
            Self::Rejected(rejection) => of_rejection(rejection),
            Self::Propose(error) => of_propose(*error),
            Self::ReadIndex(error) => of_read_index(*error),
            Self::Range(error) => of_range(error),
            Self::Fatal(_) => ErrorCode::Stopped,
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
    }
}

fn of_propose(error: ProposeError) -> ErrorCode {
    match error {
        ProposeError::NoLeader => ErrorCode::NoLeader,
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
        ReadIndexError::NoLeader => ErrorCode::NoLeader,
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
                Code::Unavailable,
                "etcdserver: no leader",
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
}

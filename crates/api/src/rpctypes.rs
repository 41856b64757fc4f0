//! Every error that a client of kvorum can see: its gRPC code and its exact text.
//!
//! Go clients recognise errors by their text (`api/v3rpc/rpctypes/error.go`), so a text here never
//! changes. What this is not: the decision which error a failure becomes; that is
//! `server::v3rpc::status`.

use tonic::{Code, Status};

/// Makes the enum and its table from one list of rows.
macro_rules! error_codes {
    ($($name:ident, $code:ident, $text:literal;)*) => {
        /// A client-visible error of etcd's table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl ErrorCode {
            /// Every error there is, in etcd's order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The gRPC code that etcd's table gives it.
            #[must_use]
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }

            /// Its text.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

error_codes! {
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientAPIVersion, InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRev, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    LeaseExist, FailedPrecondition, "etcdserver: lease already exists";
    LeaseTTLTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    WatchCanceled, Cancelled, "etcdserver: watch canceled";
    MemberExist, FailedPrecondition, "etcdserver: member ID already exist";
    PeerURLExist, FailedPrecondition, "etcdserver: Peer URLs already exists";
    MemberNotEnoughStarted, FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members";
    MemberBadURLs, InvalidArgument, "etcdserver: given member URLs are invalid";
    MemberNotFound, NotFound, "etcdserver: member not found";
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady, FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    ClusterIDMismatch, FailedPrecondition, "etcdserver: cluster ID mismatch";
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    RequestTooManyRequests, ResourceExhausted, "etcdserver: too many requests";
    RootUserNotExist, FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleNotExist, FailedPrecondition, "etcdserver: root user does not have root role";
    UserAlreadyExist, FailedPrecondition, "etcdserver: user name already exists";
    UserEmpty, InvalidArgument, "etcdserver: user name is empty";
    UserNotFound, FailedPrecondition, "etcdserver: user name not found";
    RoleAlreadyExist, FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound, FailedPrecondition, "etcdserver: role name not found";
    RoleEmpty, InvalidArgument, "etcdserver: role name is empty";
    AuthFailed, InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven, InvalidArgument, "etcdserver: permission not given";
    PermissionDenied, PermissionDenied, "etcdserver: permission denied";
    RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted, FailedPrecondition, "etcdserver: permission is not granted to the role";
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    InvalidAuthToken, Unauthenticated, "etcdserver: invalid auth token";
    InvalidAuthMgmt, InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision, InvalidArgument, "etcdserver: revision of auth store is old";
    NoLeader, Unavailable, "etcdserver: no leader";
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    NotCapable, FailedPrecondition, "etcdserver: not capable";
    Stopped, Unavailable, "etcdserver: server stopped";
    Timeout, Unavailable, "etcdserver: request timed out";
    TimeoutDueToLeaderFail, Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost, Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex, Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
    NotSupportedForLearner, FailedPrecondition, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    WrongDowngradeVersionFormat, InvalidArgument, "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion, InvalidArgument, "etcdserver: invalid downgrade target version";
    ClusterVersionUnavailable, FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess, FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade, FailedPrecondition, "etcdserver: no inflight downgrade job";
    Canceled, Cancelled, "etcdserver: request canceled";
    DeadlineExceeded, DeadlineExceeded, "etcdserver: context deadline exceeded";
    // Not in etcd's table, but on its wire all the same: Go's own words for a write that found no leader.
    NotProposed, DeadlineExceeded, "context deadline exceeded";
    TimeoutLeaderTransfer, Unknown, "etcdserver: request timed out, leader transfer took too long";
    NoPasswordUser, Unknown, "auth: authentication failed, password was given for no password user";
    VerifyOnly, Unknown, "auth: token signing attempted with verify-only key";
    PasswordTooLong, Unknown, "bcrypt: password length exceeds 72 bytes";
    UnknownMethod, Unknown, "etcdserver: unknown method";
}

impl ErrorCode {
    /// The code that a client sees. etcd hands out two errors in their client-side form, which has
    /// no code, so that they arrive as `Unknown`.
    #[must_use]
    pub const fn wire_code(self) -> Code {
        match self {
            Self::MemberNotEnoughStarted | Self::RequestTooManyRequests => Code::Unknown,
            _ => self.code(),
        }
    }
}

impl From<ErrorCode> for Status {
    fn from(error: ErrorCode) -> Self {
        Self::new(error.wire_code(), error.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, code on the wire and text, frozen: whoever changes a row has to change it twice.
    const FROZEN: &[(&str, i32, &str)] = &[
        ("EmptyKey", 3, "etcdserver: key is not provided"),
        ("KeyNotFound", 3, "etcdserver: key not found"),
        ("ValueProvided", 3, "etcdserver: value is provided"),
        ("LeaseProvided", 3, "etcdserver: lease is provided"),
        (
            "TooManyOps",
            3,
            "etcdserver: too many operations in txn request",
        ),
        (
            "DuplicateKey",
            3,
            "etcdserver: duplicate key given in txn request",
        ),
        (
            "InvalidClientAPIVersion",
            3,
            "etcdserver: invalid client api version",
        ),
        ("InvalidSortOption", 3, "etcdserver: invalid sort option"),
        (
            "Compacted",
            11,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            "FutureRev",
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("NoSpace", 8, "etcdserver: mvcc: database space exceeded"),
        ("LeaseNotFound", 5, "etcdserver: requested lease not found"),
        ("LeaseExist", 9, "etcdserver: lease already exists"),
        ("LeaseTTLTooLarge", 11, "etcdserver: too large lease TTL"),
        ("WatchCanceled", 1, "etcdserver: watch canceled"),
        ("MemberExist", 9, "etcdserver: member ID already exist"),
        ("PeerURLExist", 9, "etcdserver: Peer URLs already exists"),
        (
            "MemberNotEnoughStarted",
            2,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        (
            "MemberBadURLs",
            3,
            "etcdserver: given member URLs are invalid",
        ),
        ("MemberNotFound", 5, "etcdserver: member not found"),
        (
            "MemberNotLearner",
            9,
            "etcdserver: can only promote a learner member",
        ),
        (
            "LearnerNotReady",
            9,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        (
            "TooManyLearners",
            9,
            "etcdserver: too many learner members in cluster",
        ),
        ("ClusterIDMismatch", 9, "etcdserver: cluster ID mismatch"),
        ("RequestTooLarge", 3, "etcdserver: request is too large"),
        ("RequestTooManyRequests", 2, "etcdserver: too many requests"),
        (
            "RootUserNotExist",
            9,
            "etcdserver: root user does not exist",
        ),
        (
            "RootRoleNotExist",
            9,
            "etcdserver: root user does not have root role",
        ),
        (
            "UserAlreadyExist",
            9,
            "etcdserver: user name already exists",
        ),
        ("UserEmpty", 3, "etcdserver: user name is empty"),
        ("UserNotFound", 9, "etcdserver: user name not found"),
        (
            "RoleAlreadyExist",
            9,
            "etcdserver: role name already exists",
        ),
        ("RoleNotFound", 9, "etcdserver: role name not found"),
        ("RoleEmpty", 3, "etcdserver: role name is empty"),
        (
            "AuthFailed",
            3,
            "etcdserver: authentication failed, invalid user ID or password",
        ),
        ("PermissionNotGiven", 3, "etcdserver: permission not given"),
        ("PermissionDenied", 7, "etcdserver: permission denied"),
        (
            "RoleNotGranted",
            9,
            "etcdserver: role is not granted to the user",
        ),
        (
            "PermissionNotGranted",
            9,
            "etcdserver: permission is not granted to the role",
        ),
        (
            "AuthNotEnabled",
            9,
            "etcdserver: authentication is not enabled",
        ),
        ("InvalidAuthToken", 16, "etcdserver: invalid auth token"),
        ("InvalidAuthMgmt", 3, "etcdserver: invalid auth management"),
        (
            "AuthOldRevision",
            3,
            "etcdserver: revision of auth store is old",
        ),
        ("NoLeader", 14, "etcdserver: no leader"),
        ("NotLeader", 9, "etcdserver: not leader"),
        ("LeaderChanged", 14, "etcdserver: leader changed"),
        ("NotCapable", 9, "etcdserver: not capable"),
        ("Stopped", 14, "etcdserver: server stopped"),
        ("Timeout", 14, "etcdserver: request timed out"),
        (
            "TimeoutDueToLeaderFail",
            14,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        (
            "TimeoutDueToConnectionLost",
            14,
            "etcdserver: request timed out, possibly due to connection lost",
        ),
        (
            "TimeoutWaitAppliedIndex",
            14,
            "etcdserver: request timed out, waiting for the applied index took too long",
        ),
        ("Unhealthy", 14, "etcdserver: unhealthy cluster"),
        ("Corrupt", 15, "etcdserver: corrupt cluster"),
        (
            "NotSupportedForLearner",
            9,
            "etcdserver: rpc not supported for learner",
        ),
        (
            "BadLeaderTransferee",
            9,
            "etcdserver: bad leader transferee",
        ),
        (
            "WrongDowngradeVersionFormat",
            3,
            "etcdserver: wrong downgrade target version format",
        ),
        (
            "InvalidDowngradeTargetVersion",
            3,
            "etcdserver: invalid downgrade target version",
        ),
        (
            "ClusterVersionUnavailable",
            9,
            "etcdserver: cluster version not found during downgrade",
        ),
        (
            "DowngradeInProcess",
            9,
            "etcdserver: cluster has a downgrade job in progress",
        ),
        (
            "NoInflightDowngrade",
            9,
            "etcdserver: no inflight downgrade job",
        ),
        ("Canceled", 1, "etcdserver: request canceled"),
        (
            "DeadlineExceeded",
            4,
            "etcdserver: context deadline exceeded",
        ),
        ("NotProposed", 4, "context deadline exceeded"),
        (
            "TimeoutLeaderTransfer",
            2,
            "etcdserver: request timed out, leader transfer took too long",
        ),
        (
            "NoPasswordUser",
            2,
            "auth: authentication failed, password was given for no password user",
        ),
        (
            "VerifyOnly",
            2,
            "auth: token signing attempted with verify-only key",
        ),
        (
            "PasswordTooLong",
            2,
            "bcrypt: password length exceeds 72 bytes",
        ),
        ("UnknownMethod", 2, "etcdserver: unknown method"),
    ];

    #[test]
    fn the_table_is_etcds() {
        let table: Vec<(String, i32, &str)> = ErrorCode::ALL
            .iter()
            .map(|error| (format!("{error:?}"), error.wire_code() as i32, error.text()))
            .collect();
        let frozen: Vec<(String, i32, &str)> = FROZEN
            .iter()
            .map(|&(name, code, text)| (name.to_owned(), code, text))
            .collect();
        assert_eq!(table, frozen);
    }

    #[test]
    fn two_errors_lose_their_code_on_the_wire() {
        let odd: Vec<ErrorCode> = ErrorCode::ALL
            .iter()
            .copied()
            .filter(|error| error.code() != Status::from(*error).code())
            .collect();
        assert_eq!(
            odd,
            [
                ErrorCode::MemberNotEnoughStarted,
                ErrorCode::RequestTooManyRequests
            ]
        );
    }
}

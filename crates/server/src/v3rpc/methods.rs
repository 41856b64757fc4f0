//! Every gRPC method that is served. What is not in this table does not exist for clients: they get
//! what an etcd answers that does not know the method yet.

/// A method.
pub(crate) struct Method {
    /// Its path on the wire.
    pub(crate) path: &'static str,
    /// How many messages go each way.
    pub(crate) kind: MethodKind,
    /// Whether a learner answers it.
    pub(crate) learner: Learner,
    /// Who may call it.
    pub(crate) admits: Admits,
    /// Where its path's last slash is.
    name_at: usize,
}

/// Who may call a method when authentication is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admits {
    /// Everybody.
    Everybody,
    /// Who says a name and can prove it.
    Somebody,
    /// Who may do everything.
    Root,
    /// It depends on the request, and the method asks (`apply::Access`).
    ByRequest,
}

/// How many messages go each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodKind {
    /// One and one.
    Unary,
    /// One, then many.
    ServerStream,
    /// Many and many.
    BidiStream,
}

/// Whether a learner answers a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learner {
    /// It does, or the method itself knows for which requests.
    Answers,
    /// It does not.
    Refuses,
}

/// Every method that is served.
pub(crate) const METHODS: &[Method] = &[
    method(
        "/etcdserverpb.KV/Range",
        MethodKind::Unary,
        Learner::Answers,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.KV/Put",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.KV/Txn",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.KV/RangeStream",
        MethodKind::ServerStream,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.KV/DeleteRange",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.KV/Compact",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Watch/Watch",
        MethodKind::BidiStream,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Lease/LeaseGrant",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Somebody,
    ),
    method(
        "/etcdserverpb.Lease/LeaseRevoke",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Somebody,
    ),
    method(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        MethodKind::BidiStream,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Lease/LeaseTimeToLive",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Somebody,
    ),
    method(
        "/etcdserverpb.Lease/LeaseLeases",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Cluster/MemberAdd",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Cluster/MemberRemove",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Cluster/MemberUpdate",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Cluster/MemberPromote",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Cluster/MemberList",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Somebody,
    ),
    method(
        "/etcdserverpb.Maintenance/Alarm",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Maintenance/Status",
        MethodKind::Unary,
        Learner::Answers,
        Admits::Somebody,
    ),
    method(
        "/etcdserverpb.Maintenance/Snapshot",
        MethodKind::ServerStream,
        Learner::Answers,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Maintenance/MoveLeader",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Maintenance/Defragment",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Maintenance/Downgrade",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Maintenance/Hash",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Maintenance/HashKV",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Root,
    ),
    method(
        "/etcdserverpb.Auth/AuthStatus",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Everybody,
    ),
    method(
        "/v3lockpb.Lock/Lock",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/v3lockpb.Lock/Unlock",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/v3electionpb.Election/Campaign",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/v3electionpb.Election/Proclaim",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/v3electionpb.Election/Leader",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/v3electionpb.Election/Observe",
        MethodKind::ServerStream,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/v3electionpb.Election/Resign",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/AuthEnable",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/AuthDisable",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/Authenticate",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Everybody,
    ),
    method(
        "/etcdserverpb.Auth/UserAdd",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/UserGet",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/UserList",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/UserDelete",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/UserChangePassword",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/UserGrantRole",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/UserRevokeRole",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/RoleAdd",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/RoleGet",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/RoleList",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/RoleDelete",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/RoleGrantPermission",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/etcdserverpb.Auth/RoleRevokePermission",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::ByRequest,
    ),
    method(
        "/grpc.health.v1.Health/Check",
        MethodKind::Unary,
        Learner::Refuses,
        Admits::Everybody,
    ),
    method(
        "/grpc.health.v1.Health/Watch",
        MethodKind::ServerStream,
        Learner::Refuses,
        Admits::Everybody,
    ),
];

/// Services of etcd; for the words in which an unknown method is refused.
const SERVICES: &[&str] = &[
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
    "grpc.health.v1.Health",
];

const fn method(path: &'static str, kind: MethodKind, learner: Learner, admits: Admits) -> Method {
    Method {
        path,
        kind,
        learner,
        admits,
        name_at: last_slash(path.as_bytes()),
    }
}

const fn last_slash(path: &[u8]) -> usize {
    let mut at = path.len() - 1;
    while path[at] != b'/' {
        at -= 1;
    }
    at
}

impl Method {
    /// The service's name and the method's.
    pub(crate) fn names(&self) -> (&'static str, &'static str) {
        (&self.path[1..self.name_at], &self.path[self.name_at + 1..])
    }
}

impl MethodKind {
    /// As the metrics call it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// The place of the method with this path in the table.
pub(crate) fn find(path: &str) -> Option<usize> {
    METHODS.iter().position(|method| method.path == path)
}

/// What grpc-go says of a path that it does not serve.
pub(crate) fn unknown(path: &str) -> String {
    match split(path) {
        Some((service, method)) if SERVICES.contains(&service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("malformed method name: {path:?}"),
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/').unwrap_or(path).rsplit_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_refused_in_grpc_gos_words() {
        for (path, words) in [
            (
                "/etcdserverpb.KV/Nope",
                "unknown method Nope for service etcdserverpb.KV",
            ),
            ("/foo.Bar/Baz", "unknown service foo.Bar"),
            ("/foo", "malformed method name: \"/foo\""),
        ] {
            assert!(find(path).is_none());
            assert_eq!(unknown(path), words);
        }
    }

    #[test]
    fn every_method_belongs_to_a_known_service() {
        for method in METHODS {
            assert!(SERVICES.contains(&method.names().0), "{}", method.path);
        }
    }
}

//! Whoever has no right to something does not get it, whatever they try: every method that there is, as gRPC and
//! through the gateway, by every kind of stranger; and whatever else a member listens to.
//!
//! What this is not: a comparison. `auth`, `auth_cluster` and `differential` compare answers with a real etcd's;
//! here is asked whether one is given at all.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use api::authpb::Permission;
use api::authpb::permission::Type;
use api::etcdserverpb as pb;
use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::compare::{CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::watch_request::RequestUnion;
use api::{v3electionpb as election, v3lockpb as lock};
use kvorum_tests::raw_http::{Ask, ask};
use kvorum_tests::surface::{Leader, call};
use prost::Message;
use prost_reflect::DescriptorPool;
use testkit::{Client, Server, Spec};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// What nobody here may know.
const SECRET: &str = "the-secret-value";
const SECRET_KEY: &str = "z/the-secret-key";
const PASSWORD: &str = "the-secret-password";
/// The lease that the secret is on.
const LEASE: i64 = 4242;

/// Methods that answer everybody: to become somebody, and to see whether one has to be.
const FOR_EVERYBODY: [&str; 2] = [
    "/etcdserverpb.Auth/Authenticate",
    "/etcdserverpb.Auth/AuthStatus",
];
/// Methods that answer every user, to a request that is not about others' keys.
const FOR_USERS: [&str; 6] = [
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    // Each their own.
    "/etcdserverpb.Auth/UserGet",
];

/// A member with a secret, and tokens of those who must not have it.
struct Target {
    server: Server,
    channel: Channel,
    strangers: Vec<(&'static str, String)>,
}

impl Target {
    async fn start() -> Result<Target> {
        let elsewhere = Spec::kvorum().arg("--bcrypt-cost=4").start().await?;
        let channel = Channel::from_shared(elsewhere.client_url())?
            .connect()
            .await?;
        let foreign = set_up(&channel).await?;
        elsewhere.stop().await?;
        let server = Spec::kvorum().arg("--bcrypt-cost=4").arg("--enable-pprof");
        let server = server.start().await?;
        let channel = Channel::from_shared(server.client_url())?.connect().await?;
        let root = set_up(&channel).await?;
        let ended = log_in(&channel, "deleted").await?;
        let mut auth = AuthClient::new(channel.clone());
        let name = "deleted".to_owned();
        let delete = by(&root, pb::AuthUserDeleteRequest { name });
        auth.user_delete(delete).await?;
        let strangers = vec![
            ("nobody", String::new()),
            ("a forger", "abcdefghijklmnop.3".to_owned()),
            ("a gambler", "abcdefghijklmnop.1".to_owned()),
            ("another cluster's root", foreign),
            ("one who was deleted", ended),
            ("one without a role", log_in(&channel, "norole").await?),
            ("one with other keys", log_in(&channel, "other").await?),
            ("one who may write it", log_in(&channel, "writer").await?),
        ];
        Ok(Target {
            server,
            channel,
            strangers,
        })
    }

    /// Those who are no users at all.
    fn outsiders(&self) -> &[(&'static str, String)] {
        &self.strangers[..5]
    }

    fn users(&self) -> &[(&'static str, String)] {
        &self.strangers[5..7]
    }
}

fn by<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let token = token.parse().expect("a token is ASCII");
        request.metadata_mut().insert("token", token);
    }
    request
}

async fn log_in(channel: &Channel, name: &str) -> Result<String> {
    let request = pb::AuthenticateRequest {
        name: name.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let mut auth = AuthClient::new(channel.clone());
    Ok(auth.authenticate(request).await?.into_inner().token)
}

/// Users, roles and the secret; and root's token.
async fn set_up(channel: &Channel) -> Result<String> {
    let mut auth = AuthClient::new(channel.clone());
    for name in ["root", "norole", "other", "writer", "deleted"] {
        let add = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: PASSWORD.to_owned(),
            ..Default::default()
        };
        auth.user_add(add).await?;
        let name = name.to_owned();
        auth.role_add(pb::AuthRoleAddRequest { name }).await?;
    }
    let (write, all) = (Type::Write, Type::Readwrite);
    for (name, kind, key, range_end) in [("other", all, "a", "c"), ("writer", write, "z", "z0")] {
        let grant = pb::AuthRoleGrantPermissionRequest {
            name: name.to_owned(),
            perm: Some(Permission {
                perm_type: kind.into(),
                key: key.into(),
                range_end: range_end.into(),
            }),
        };
        auth.role_grant_permission(grant).await?;
    }
    for name in ["root", "other", "writer"] {
        let (user, role) = (name.to_owned(), name.to_owned());
        let grant = pb::AuthUserGrantRoleRequest { user, role };
        auth.user_grant_role(grant).await?;
    }
    let client = Client::over(channel);
    let lease = pb::LeaseGrantRequest {
        id: LEASE,
        ttl: 3600,
    };
    client.lease.clone().lease_grant(lease).await?;
    for (key, lease) in [(SECRET_KEY, LEASE), ("a", 0), ("z/lock/1", 0)] {
        let put = pb::PutRequest {
            key: key.into(),
            value: SECRET.into(),
            lease,
            ..Default::default()
        };
        client.kv.clone().put(put).await?;
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    log_in(channel, "root").await
}

fn pool() -> Result<DescriptorPool> {
    Ok(DescriptorPool::decode(api::FILE_DESCRIPTOR_SET)?)
}

/// A request that somebody without rights to the secret must be refused; of a method that this test does not
/// know, an empty one.
fn forbidden(path: &str) -> Vec<u8> {
    let (service, _) = path.rsplit_once('/').unwrap_or_default();
    match service {
        "/etcdserverpb.Auth" => forbidden_of_auth(path),
        "/v3lockpb.Lock" | "/v3electionpb.Election" => forbidden_of_recipes(path),
        _ => forbidden_of_keys(path),
    }
}

fn forbidden_of_keys(path: &str) -> Vec<u8> {
    let range = pb::RangeRequest {
        key: SECRET_KEY.into(),
        ..Default::default()
    };
    match path {
        "/etcdserverpb.KV/Range" | "/etcdserverpb.KV/RangeStream" => range.encode_to_vec(),
        "/etcdserverpb.KV/Put" => pb::PutRequest {
            key: b"y".to_vec(),
            ..Default::default()
        }
        .encode_to_vec(),
        "/etcdserverpb.KV/DeleteRange" => pb::DeleteRangeRequest {
            key: b"a".to_vec(),
            range_end: vec![0],
            ..Default::default()
        }
        .encode_to_vec(),
        "/etcdserverpb.KV/Txn" => pb::TxnRequest {
            success: vec![op(Op::RequestRange(range))],
            ..Default::default()
        }
        .encode_to_vec(),
        "/etcdserverpb.Watch/Watch" => pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: SECRET_KEY.into(),
                start_revision: 1,
                prev_kv: true,
                fragment: true,
                progress_notify: true,
                ..Default::default()
            })),
        }
        .encode_to_vec(),
        "/etcdserverpb.Lease/LeaseRevoke" => pb::LeaseRevokeRequest { id: LEASE }.encode_to_vec(),
        "/etcdserverpb.Lease/LeaseKeepAlive" => {
            pb::LeaseKeepAliveRequest { id: LEASE }.encode_to_vec()
        }
        _ => Vec::new(),
    }
}

fn forbidden_of_recipes(path: &str) -> Vec<u8> {
    match path {
        "/v3lockpb.Lock/Lock" => lock::LockRequest {
            name: b"y".to_vec(),
            lease: LEASE,
        }
        .encode_to_vec(),
        "/v3lockpb.Lock/Unlock" => lock::UnlockRequest { key: b"y".to_vec() }.encode_to_vec(),
        "/v3electionpb.Election/Campaign" => election::CampaignRequest {
            name: b"y".to_vec(),
            lease: LEASE,
            ..Default::default()
        }
        .encode_to_vec(),
        "/v3electionpb.Election/Leader" => election::LeaderRequest {
            name: b"z/lock".to_vec(),
        }
        .encode_to_vec(),
        "/v3electionpb.Election/Observe" => election::LeaderRequest {
            name: b"z/lock".to_vec(),
        }
        .encode_to_vec(),
        "/v3electionpb.Election/Proclaim" | "/v3electionpb.Election/Resign" => {
            election::ResignRequest {
                leader: Some(election::LeaderKey {
                    name: b"y".to_vec(),
                    key: b"y/1".to_vec(),
                    rev: 1,
                    lease: LEASE,
                }),
            }
            .encode_to_vec()
        }
        _ => Vec::new(),
    }
}

fn forbidden_of_auth(path: &str) -> Vec<u8> {
    let name = "root".to_owned();
    match path {
        "/etcdserverpb.Auth/UserGet" => pb::AuthUserGetRequest { name }.encode_to_vec(),
        "/etcdserverpb.Auth/RoleGet" => pb::AuthRoleGetRequest { role: name }.encode_to_vec(),
        "/etcdserverpb.Auth/UserAdd" => pb::AuthUserAddRequest {
            name: "mine".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
        "/etcdserverpb.Auth/UserDelete" => pb::AuthUserDeleteRequest {
            name: "other".to_owned(),
        }
        .encode_to_vec(),
        "/etcdserverpb.Auth/UserChangePassword" => pb::AuthUserChangePasswordRequest {
            name,
            hashed_password: "JDJh".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
        "/etcdserverpb.Auth/UserGrantRole" => pb::AuthUserGrantRoleRequest {
            user: "other".to_owned(),
            role: name,
        }
        .encode_to_vec(),
        _ => Vec::new(),
    }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

/// What a call is answered first, byte by byte. A stream that ends at once is an error: that is how who may not
/// observe an election is refused.
async fn asked(
    channel: &Channel,
    path: &str,
    token: &str,
    request: Vec<u8>,
) -> Result<String, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path
        .parse()
        .map_err(|_no_path| Status::unknown("no path"))?;
    let requests = tokio_stream::once(request);
    let request = by(token, requests);
    let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
    let answer = answers.message().await?;
    let answer = answer.ok_or_else(|| Status::unknown("the end"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Messages as their bytes.
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        to: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut item);
        Ok(Some(item))
    }
}

/// Whether an answer is a refusal: an error, or a watcher that was canceled at once.
fn is_refusal(answer: &Result<String, Status>) -> bool {
    match answer {
        Err(_) => true,
        Ok(text) => {
            text.contains("permission denied")
                || text.contains("user name is empty")
                || text.contains("invalid auth token")
        }
    }
}

/// The paths of all methods that clients call.
fn methods_of_clients() -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for service in pool()?.services() {
        let name = service.full_name();
        if name.starts_with("etcdserverpb.") || name.starts_with("v3") {
            let methods = service.methods();
            paths.extend(methods.map(|method| format!("/{name}/{}", method.name())));
        }
    }
    Ok(paths)
}

#[tokio::test]
async fn every_method_refuses_every_stranger() -> Result<()> {
    let target = Target::start().await?;
    let mut wrong = BTreeSet::new();
    let mut tried = 0;
    for path in methods_of_clients()? {
        let answers_all = FOR_EVERYBODY.contains(&path.as_str());
        for (who, token) in target.outsiders() {
            let answer = asked(&target.channel, &path, token, forbidden(&path)).await;
            if !is_refusal(&answer) && !answers_all {
                wrong.insert(format!("{path} to {who}: {answer:?}"));
            }
        }
        let answers_users = answers_all || FOR_USERS.contains(&path.as_str());
        for (who, token) in target.users() {
            let answer = asked(&target.channel, &path, token, forbidden(&path)).await;
            let is_refused = is_refusal(&answer);
            let shows = answer.is_ok_and(|answer| answer.contains(SECRET));
            if shows || !(is_refused || answers_users) {
                wrong.insert(format!("{path} to {who}"));
            }
        }
        tried += 1;
    }
    ensure!(tried > 45, "only {tried} methods were tried");
    ensure!(wrong.is_empty(), "{wrong:#?}");
    unharmed(&target).await?;
    target.server.stop().await
}

/// The secret is where it was, on its lease, and root is still root.
async fn unharmed(target: &Target) -> Result<()> {
    let root = log_in(&target.channel, "root").await?;
    let client = Client::over(&target.channel);
    let range = pb::RangeRequest {
        key: SECRET_KEY.into(),
        ..Default::default()
    };
    let answer = client
        .kv
        .clone()
        .range(by(&root, range))
        .await?
        .into_inner();
    let kv = answer.kvs.first().context("the secret is there")?;
    ensure!((kv.lease, kv.version) == (LEASE, 1), "{kv:?}");
    let users = by(&root, pb::AuthUserListRequest {});
    let users = AuthClient::new(target.channel.clone())
        .user_list(users)
        .await?;
    let users = users.into_inner().users;
    ensure!(users == ["norole", "other", "root", "writer"], "{users:?}");
    Ok(())
}

fn range(key: impl Into<Vec<u8>>, range_end: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        range_end: range_end.to_vec(),
        ..Default::default()
    }
}

/// Ways to learn a little of what one has no right to, by reading.
fn peeks() -> Vec<(&'static str, Op)> {
    let counted = pb::RangeRequest {
        count_only: true,
        ..range(SECRET_KEY, b"")
    };
    let local = pb::RangeRequest {
        serializable: true,
        revision: 2,
        keys_only: true,
        ..range(SECRET_KEY, b"")
    };
    vec![
        ("a range over everything", range([0], &[0])),
        ("a range from a key on", range("a", &[0])),
        ("a range that ends too late", range("a", b"z0")),
        ("a range that begins too early", range([0], b"b")),
        ("how many there are", counted),
        ("an old revision, here", local),
    ]
    .into_iter()
    .map(|(what, range)| (what, Op::RequestRange(range)))
    .collect()
}

/// Ways to learn or to change something by a transaction, a put, or a deletion.
fn tricks() -> Vec<(&'static str, Op)> {
    let put = |key: &str, lease| {
        Op::RequestPut(pb::PutRequest {
            key: key.into(),
            lease,
            ..Default::default()
        })
    };
    let compare = |target: CompareTarget, union: TargetUnion| {
        let compare = pb::Compare {
            target: target.into(),
            key: SECRET_KEY.into(),
            target_union: Some(union),
            ..Default::default()
        };
        Op::RequestTxn(pb::TxnRequest {
            compare: vec![compare],
            ..Default::default()
        })
    };
    let within = |request: Op| {
        Op::RequestTxn(pb::TxnRequest {
            failure: vec![op(request)],
            ..Default::default()
        })
    };
    let guess = TargetUnion::Value(SECRET.into());
    let version = TargetUnion::Version(1);
    let lease = TargetUnion::Lease(LEASE);
    let deleted = pb::DeleteRangeRequest {
        key: b"a".to_vec(),
        range_end: vec![0],
        prev_kv: true,
    };
    let read = Op::RequestRange(range(SECRET_KEY, b""));
    vec![
        ("what its value is", compare(CompareTarget::Value, guess)),
        (
            "which version it has",
            compare(CompareTarget::Version, version),
        ),
        ("on which lease it is", compare(CompareTarget::Lease, lease)),
        ("the branch that does not run", within(read)),
        ("a branch of a branch", within(within(put("y", 0)))),
        ("a key of one's own on a lease of others", put("a", LEASE)),
        ("what is deleted", Op::RequestDeleteRange(deleted)),
    ]
}

#[tokio::test]
async fn no_trick_gets_around_permissions() -> Result<()> {
    let target = Target::start().await?;
    let client = Client::over(&target.channel);
    let denied = "etcdserver: permission denied";
    let other = &target.strangers[6].1;
    for (what, request) in peeks().into_iter().chain(tricks()) {
        let inner = pb::TxnRequest {
            success: vec![op(request.clone())],
            ..Default::default()
        };
        let deeper = pb::TxnRequest {
            failure: vec![op(Op::RequestTxn(inner.clone()))],
            ..Default::default()
        };
        for (depth, txn) in [inner, deeper].into_iter().enumerate() {
            let answer = client.kv.clone().txn(by(other, txn)).await;
            let refusal = answer.err().map(|status| status.message().to_owned());
            ensure!(
                refusal.as_deref() == Some(denied),
                "{what}, {depth}: {refusal:?}"
            );
        }
        if let Op::RequestRange(range) = request {
            let answer = client.kv.clone().range(by(other, range.clone())).await;
            ensure!(
                answer.is_err_and(|status| status.message() == denied),
                "{what}"
            );
            let streamed = client.kv.clone().range_stream(by(other, range)).await;
            let refused = match streamed {
                Err(status) => Err(status),
                Ok(stream) => stream.into_inner().message().await,
            };
            ensure!(
                refused.is_err_and(|status| status.message() == denied),
                "{what}, streamed"
            );
        }
    }
    writing_is_not_reading(&target).await?;
    unharmed(&target).await?;
    target.server.stop().await
}

/// Who may write a key need not be able to read it; and whose keys are on a lease is shown to who may read them.
async fn writing_is_not_reading(target: &Target) -> Result<()> {
    let client = Client::over(&target.channel);
    let denied = "etcdserver: permission denied";
    let writer = &target.strangers[7].1;
    let put = pb::PutRequest {
        key: SECRET_KEY.into(),
        ignore_value: true,
        ignore_lease: true,
        prev_kv: true,
        ..Default::default()
    };
    let answer = client.kv.clone().put(by(writer, put)).await;
    ensure!(
        answer.is_err_and(|status| status.message() == denied),
        "a previous value"
    );
    let keys = pb::LeaseTimeToLiveRequest {
        id: LEASE,
        keys: true,
    };
    for (who, token) in &target.strangers {
        let answer = client
            .lease
            .clone()
            .lease_time_to_live(by(token, keys))
            .await;
        ensure!(answer.is_err(), "keys of a lease to {who}: {answer:?}");
        let list = by(token, pb::LeaseLeasesRequest {});
        let answer = client.lease.clone().lease_leases(list).await;
        ensure!(answer.is_err(), "leases to {who}: {answer:?}");
    }
    Ok(())
}

async fn tells_no_secret(port: u16, path: &str) -> Result<()> {
    for request in [Ask::get(path), Ask::post(path, "{}")] {
        let told = ask(port, &request).await?.body;
        for secret in [SECRET, SECRET_KEY, PASSWORD, "$2a$", "$2b$"] {
            ensure!(!told.contains(secret), "{path} on {port}: {told}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn nothing_else_that_a_member_listens_to_tells_a_secret() -> Result<()> {
    let target = Target::start().await?;
    let (client, peer) = (target.server.client_port(), target.server.peer_port());
    for port in [client, peer] {
        for path in [
            "/",
            "/metrics",
            "/health",
            "/health?serializable=true",
            "/livez?verbose",
            "/readyz?verbose",
            "/version",
            "/status",
            "/status.json",
            "/members",
            "/debug/vars",
            "/debug/pprof/",
            "/debug/pprof/cmdline",
            "/debug/pprof/heap",
            "/debug/requests",
            "/debug/events",
            "/v2/keys",
            "/v3/kv/range",
            "/raft",
            "/raft/snapshot",
            "/leases",
            "/leases/internal",
            "/members/hashkv",
            "/downgrade/enabled",
            "/config/local/log",
        ] {
            tells_no_secret(port, path).await?;
        }
    }
    // Clients' services are not served to peers: there everybody would be a member.
    let channel = Channel::from_shared(target.server.peer_url())?
        .connect()
        .await?;
    for service in pool()?
        .services()
        .filter(|it| !it.full_name().starts_with("peerpb"))
    {
        for method in service.methods() {
            let path: &'static str = format!("/{}/{}", service.full_name(), method.name()).leak();
            let answer = call(&channel, path, pb::StatusRequest {}, Leader::Any).await;
            ensure!(answer != "OK", "{path} on the peer port");
        }
    }
    unharmed(&target).await?;
    target.server.stop().await
}

/// Where a token may stand, it is checked, and what stands beside it makes nobody somebody else.
#[tokio::test]
async fn no_header_makes_a_stranger_somebody() -> Result<()> {
    let target = Target::start().await?;
    let body = r#"{"key":"ei90aGUtc2VjcmV0LWtleQ=="}"#;
    let post = || Ask::post("/v3/kv/range", body);
    let port = target.server.client_port();
    for (who, token) in &target.strangers {
        for header in [
            "Authorization",
            "Grpc-Metadata-Token",
            "Grpc-Metadata-Authorization",
        ] {
            let told = ask(port, &post().with(header, token)).await?;
            ensure!(told.status >= 400, "{who} by {header}: {}", told.body);
            let bearer = format!("Bearer {token}");
            let told = ask(port, &post().with(header, &bearer)).await?;
            ensure!(told.status >= 400, "{who} by {header}: {}", told.body);
        }
    }
    for (name, value) in [
        ("Grpc-Metadata-Username", "root"),
        ("Grpc-Metadata-User", "root"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Remote-User", "root"),
        ("Cookie", "token=abcdefghijklmnop.3"),
        ("Grpc-Metadata-Grpcgateway-Authorization", "root"),
    ] {
        let told = ask(port, &post().with(name, value)).await?;
        ensure!(
            told.status >= 400 && !told.body.contains("kvs"),
            "{name}: {}",
            told.body
        );
    }
    target.server.stop().await
}

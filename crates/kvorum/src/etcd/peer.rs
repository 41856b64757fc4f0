//! The peer port: `/members` and `/version` over HTTP, as etcd has them
//! (`server/etcdserver/api/etcdhttp/peer.go`), and beside them the members' own protocol, which `raft`
//! answers.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use apply::{Cluster, Member, Versions};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde::Serialize;
use server::ShownVersions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use transport::{Greeted, Greeting, Listener, Stream};
use types::ClusterId;

use super::backups::{self, Backups};

/// The header that every answer carries.
pub(super) const CLUSTER_ID: &str = "x-etcd-cluster-id";
/// The header that tells a kvorum from an etcd.
pub(super) const KVORUM_VERSION: &str = "x-kvorum-version";
/// Whether there is a downgrade.
pub(super) const DOWNGRADE_ENABLED: &str = "/downgrade/enabled";
/// Connections served at a time; more are hung up on.
const CONNECTIONS_MAX: usize = 1024;
/// A connection has to have said what it speaks within this time; so long may the headers of an
/// HTTP/1 request take too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers on the peer port. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PeerService {
    cluster_id: ClusterId,
    cluster: Cluster,
    versions: Versions,
    node: raft::Node,
    raft: raft::PeerService,
    backups: Option<Backups>,
}

/// How long a peer's connection is silent before it is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a peer may send on one stream before it has to wait for us.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// What a peer may send on one connection before it has to wait for us.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A member as `/members` shows it.
#[derive(Serialize)]
struct MemberJson {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
}

impl From<Member> for MemberJson {
    fn from(member: Member) -> Self {
        let Member {
            id,
            name,
            peer_urls,
            client_urls,
            is_learner,
        } = member;
        Self {
            id: id.0,
            peer_urls,
            is_learner,
            name,
            client_urls,
        }
    }
}

/// Serves peers until `stopping`.
pub(super) async fn serve(
    mut listener: Listener,
    service: PeerService,
    stopping: CancellationToken,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    let outcome = loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) if connections.len() < CONNECTIONS_MAX => {
                let (service, stopping) = (service.clone(), stopping.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = service.serve_connection(stream) => {}
                        () = stopping.cancelled() => {}
                    }
                });
            }
            Ok(_one_too_many) => {}
            Err(error) => break Err(error),
        }
    };
    connections.close();
    connections.wait().await;
    outcome
}

impl PeerService {
    pub(super) fn new(
        cluster_id: ClusterId,
        views: &apply::Views,
        node: &raft::Node,
        backups: Option<Backups>,
    ) -> Self {
        Self {
            cluster_id,
            cluster: views.cluster.clone(),
            versions: views.versions.clone(),
            node: node.clone(),
            raft: node.peer_service(),
            backups,
        }
    }

    async fn serve_connection(self, stream: Stream) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let answer = service_fn(move |request: Request<Incoming>| {
            let service = self.clone();
            async move { service.call(request).await }
        });
        let (stream, greeting) = Greeted::new(stream);
        let connection = builder.serve_connection(TokioIo::new(stream), answer);
        if let Err(error) = unless_silent(connection, &greeting, HEADER_TIMEOUT).await {
            tracing::debug!(error, "peer connection ended");
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        if raft::PeerService::answers(path) {
            return self.raft.call(request).await;
        }
        if let Some(backups) = self.backups.as_ref().filter(|_| path == backups::PATH) {
            return Ok(backups.answer(request).await.map(Body::new));
        }
        let mut response = match (request.method(), path) {
            (&Method::GET, DOWNGRADE_ENABLED) => self.downgrade_enabled().await,
            (method, path) => self.answer(method, path),
        };
        self.name_cluster(&mut response);
        Ok(response.map(Body::new))
    }

    /// Whether the cluster is to go down to an older version, for a member that wants to join: by what
    /// the log says now.
    async fn downgrade_enabled(&self) -> Response<Full<Bytes>> {
        if let Err(error) = self.node.read_index().await {
            let failed = format!("failed linearized read: {error}\n");
            return plain(StatusCode::INTERNAL_SERVER_ERROR, failed);
        }
        let is_enabled = self.versions.get().downgrade.is_some();
        let mut response = plain(StatusCode::OK, is_enabled.to_string());
        let text = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, text);
        response
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/members" | "/version" | DOWNGRADE_ENABLED if *method != Method::GET => {
                let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
                refused
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("GET"));
                refused
            }
            "/members" => json(self.members()),
            "/version" => json(ShownVersions::new(self.versions.get()).to_string()),
            _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn name_cluster(&self, response: &mut Response<Full<Bytes>>) {
        let cluster_id = HeaderValue::from_str(&self.cluster_id.to_string())
            .expect("hexadecimal digits are a header value");
        response.headers_mut().insert(CLUSTER_ID, cluster_id);
        let version = HeaderValue::from_static(api::version::KVORUM_VERSION);
        response.headers_mut().insert(KVORUM_VERSION, version);
    }

    fn members(&self) -> String {
        let members: Vec<MemberJson> = self
            .cluster
            .members()
            .into_iter()
            .map(MemberJson::from)
            .collect();
        let members = serde_json::to_string(&members).expect("numbers and texts are JSON");
        members + "\n"
    }
}

/// Serves a connection to its end, or until it is clear that it says nothing.
async fn unless_silent<E: From<io::Error>>(
    connection: impl Future<Output = Result<(), E>>,
    greeting: &Greeting,
    limit: Duration,
) -> Result<(), E> {
    let mut connection = pin!(connection);
    match tokio::time::timeout(limit, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_elapsed) if greeting.is_complete() => connection.await,
        Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

pub(super) fn json(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use types::MemberId;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_ended() {
        let answer = service_fn(async |_request: Request<Incoming>| {
            Ok::<_, Infallible>(plain(StatusCode::OK, ""))
        });
        for said in ["", "PRI * HTTP"] {
            let (mut theirs, ours) = tokio::io::duplex(1024);
            theirs.write_all(said.as_bytes()).await.unwrap();
            let (ours, greeting) = Greeted::new(ours);
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(ours), answer);
            let limit = Duration::from_millis(10);
            let ended = unless_silent(connection, &greeting, limit).await;
            ended.unwrap_err();
        }
    }

    #[test]
    fn a_member_looks_like_etcds() {
        let member = Member {
            id: MemberId(10_276_657_743_932_975_437),
            name: "default".to_owned(),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            client_urls: vec!["http://localhost:2379".to_owned()],
            is_learner: false,
        };
        assert_eq!(
            serde_json::to_string(&MemberJson::from(member)).unwrap(),
            r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default","clientURLs":["http://localhost:2379"]}"#
        );
    }
}

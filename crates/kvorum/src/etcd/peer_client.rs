//! Asking peers who is there, before this member is one of them: `/members` and `/version` over HTTP
//! on their peer port (`server/etcdserver/cluster_util.go`).
//!
//! What this is not: Raft between members.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use transport::SharedDial;
use types::{ClusterId, MemberId, Url};

use super::peer::{CLUSTER_ID, DOWNGRADE_ENABLED, KVORUM_VERSION};

/// Bytes of the largest answer that is read; a list of members is far smaller.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks peers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PeerClient {
    dial: SharedDial,
}

/// The cluster as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteCluster {
    pub(super) id: ClusterId,
    /// By id.
    pub(super) members: Vec<RemoteMember>,
    /// Whether the member that answered is one of ours; `false`: it is a real etcd.
    pub(super) is_kvorum: bool,
}

/// A member as `/members` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct RemoteMember {
    pub(super) id: u64,
    #[serde(rename = "peerURLs", default)]
    pub(super) peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default)]
    pub(super) is_learner: bool,
    #[serde(default)]
    pub(super) name: String,
    #[serde(rename = "clientURLs", default)]
    pub(super) client_urls: Vec<String>,
}

/// What `/version` says of the cluster.
#[derive(Clone, Debug, Deserialize)]
struct RemoteVersion {
    #[serde(default)]
    etcdcluster: String,
}

/// A peer did not answer, or with nonsense.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("context deadline exceeded")]
    Timeout,
    #[error(transparent)]
    Dial(#[from] std::io::Error),
    #[error("no HTTP is spoken there")]
    Http(#[from] hyper::Error),
    #[error("cannot read the answer: {reason}")]
    Body { reason: String },
    #[error("the answer was {status}")]
    Status { status: StatusCode },
    #[error("cannot understand the answer")]
    Json(#[from] serde_json::Error),
    #[error("the answer does not name a cluster")]
    NoClusterId,
    #[error("failed to get raft cluster member(s) from the given URLs")]
    NoMembers,
}

impl RemoteMember {
    pub(super) const fn id(&self) -> MemberId {
        MemberId(self.id)
    }
}

/// As etcd prints a cluster in its errors.
impl fmt::Display for RemoteCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ClusterID:{} Members:[", self.id)?;
        for (place, member) in self.members.iter().enumerate() {
            let separator = if place == 0 { "" } else { " " };
            write!(
                f,
                "{separator}{{ID:{} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} \
                 Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                member.id(),
                member.peer_urls.join(" "),
                member.is_learner,
                member.name,
                member.client_urls.join(" "),
            )?;
        }
        f.write_str("] RemovedMemberIDs:[]}")
    }
}

impl PeerClient {
    pub(super) const fn new(dial: SharedDial) -> Self {
        Self { dial }
    }

    /// The cluster as the member behind `url` sees it.
    pub(super) async fn cluster(
        &self,
        url: &Url,
        timeout: Duration,
    ) -> Result<RemoteCluster, AskError> {
        let (headers, body) = self.get(url, "/members", timeout).await?;
        let mut members: Vec<RemoteMember> = serde_json::from_slice(&body)?;
        let id = headers.get(CLUSTER_ID).and_then(|id| id.to_str().ok());
        let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
        let id = ClusterId(id.ok_or(AskError::NoClusterId)?);
        if members.is_empty() {
            return Err(AskError::NoMembers);
        }
        members.sort_unstable_by_key(|member| member.id);
        Ok(RemoteCluster {
            id,
            members,
            is_kvorum: headers.contains_key(KVORUM_VERSION),
        })
    }

    /// The version of the cluster, as the member behind `url` sees it.
    pub(super) async fn cluster_version(
        &self,
        url: &Url,
        timeout: Duration,
    ) -> Result<String, AskError> {
        let (_headers, body) = self.get(url, "/version", timeout).await?;
        let version: RemoteVersion = serde_json::from_slice(&body)?;
        Ok(version.etcdcluster)
    }

    /// Whether the cluster is to go down to an older version.
    pub(super) async fn downgrade_enabled(
        &self,
        url: &Url,
        timeout: Duration,
    ) -> Result<bool, AskError> {
        let (_headers, body) = self.get(url, DOWNGRADE_ENABLED, timeout).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn get(
        &self,
        url: &Url,
        path: &str,
        timeout: Duration,
    ) -> Result<(HeaderMap, Bytes), AskError> {
        self.within(timeout, url, Request::get(path), Bytes::new())
            .await
    }

    /// What the member behind `url` has at a path.
    pub(super) async fn get_text(
        &self,
        url: &Url,
        path: &str,
        timeout: Duration,
    ) -> Result<Bytes, AskError> {
        let (_headers, body) = self.get(url, path, timeout).await?;
        Ok(body)
    }

    /// Sends something to the member behind `url`, which has to be of this cluster.
    pub(super) async fn post(
        &self,
        (url, path): (&Url, &str),
        cluster: ClusterId,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, AskError> {
        let request = Request::post(path).header(CLUSTER_ID, cluster.to_string());
        let (_headers, body) = self.within(timeout, url, request, body).await?;
        Ok(body)
    }

    async fn within(
        &self,
        timeout: Duration,
        url: &Url,
        request: Builder,
        body: Bytes,
    ) -> Result<(HeaderMap, Bytes), AskError> {
        match tokio::time::timeout(timeout, self.ask(url, request, body)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(AskError::Timeout),
        }
    }

    async fn ask(
        &self,
        url: &Url,
        request: Builder,
        body: Bytes,
    ) -> Result<(HeaderMap, Bytes), AskError> {
        let stream = self.dial.dial(url).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let host = if url.scheme().is_unix() {
            "localhost"
        } else {
            url.authority()
        };
        let request = request
            .header(HOST, host)
            .body(Full::new(body))
            .expect("a path and a host make a request");
        let answer = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| AskError::Body {
                reason: error.to_string(),
            })?;
            if head.status != StatusCode::OK {
                let status = head.status;
                return Err(AskError::Status { status });
            }
            Ok((head.headers, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The answer may still be on its way out of the connection's buffers.
            ended = connection => { ended?; answer.await }
        }
    }
}

//! What servers and operators ask a server, over HTTPS: k3s's supervisor.
//!
//! `/cacerts` and `/ping` are for everybody; the rest is for who has the token.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kvorum::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use transport::{
    ClientAuth, Endpoint, EndpointKind, Listener, TlsConfig, TlsParameters, TlsServer,
};
use types::{SystemClock, Url};

use crate::critical::CriticalValues;
use crate::datastore::{Members, Plan};
use crate::layout::read_if_there;
use crate::snapshots::Snapshots;
use crate::token::{SERVER_USER, is_same};
use crate::{bootstrap, nodes};

/// What a request may say.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests that are answered at a time; more wait.
const REQUESTS_MAX: usize = 64;

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) plan: Plan,
    pub(crate) client: Client,
    pub(crate) password: String,
    pub(crate) critical: CriticalValues,
    pub(crate) snapshots: Snapshots,
}

/// What is asked of the snapshots.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "operation")]
pub(crate) enum SnapshotRequest {
    Save { name: String },
    List,
    Delete { snapshots: Vec<String> },
    Prune { name: String, retention: usize },
}

/// What became of it: names.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SnapshotResult {
    #[serde(default)]
    pub(crate) created: Vec<String>,
    #[serde(default)]
    pub(crate) deleted: Vec<String>,
}

/// Binds the supervisor's port.
pub(crate) fn bind(plan: &Plan, address: std::net::SocketAddr) -> Result<Listener> {
    let tls = TlsConfig {
        kind: EndpointKind::Client,
        cert_file: plan.layout.tls_file("serving-kube-apiserver.crt"),
        key_file: plan.layout.tls_file("serving-kube-apiserver.key"),
        // Who joins has no certificate yet: the token says who they are.
        client_auth: ClientAuth::None,
        parameters: TlsParameters::default(),
    };
    let tls = TlsServer::load(&tls, Arc::new(SystemClock))?;
    let url = Url::parse(&format!("https://{address}"))?;
    let endpoints = Endpoint::from_urls(&[url]);
    let endpoint = endpoints.first().context("one url is one endpoint")?;
    Ok(Listener::bind(endpoint, EndpointKind::Client, Some(&tls))?)
}

/// Serves until this is dropped; then its connections are closed.
pub(crate) async fn serve(supervisor: Supervisor, mut listener: Listener) -> Result<()> {
    let supervisor = Arc::new(supervisor);
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, _peer) = listener.accept().await?;
        connections.spawn(converse(
            Arc::clone(&supervisor),
            Arc::clone(&places),
            stream,
        ));
    }
}

/// Answers the requests of one connection.
async fn converse(supervisor: Arc<Supervisor>, places: Arc<Semaphore>, stream: transport::Stream) {
    let service = service_fn(move |request| {
        let (supervisor, places) = (Arc::clone(&supervisor), Arc::clone(&places));
        answer(supervisor, places, request)
    });
    let server = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("a connection to the supervisor broke: {error}");
    }
}

async fn answer(
    supervisor: Arc<Supervisor>,
    places: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    // It is never closed.
    let _place = places.acquire().await;
    Ok(supervisor.answer(request).await)
}

type Answer = Response<Full<Bytes>>;

impl Supervisor {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let is_for_everybody = matches!(path.as_str(), "/cacerts" | "/ping");
        if !is_for_everybody && !self.has_token(&request) {
            return unauthorized();
        }
        let method = request.method().clone();
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX);
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let answered = match (&method, path.as_str()) {
            (&Method::GET, "/ping") => Ok(b"pong".to_vec()),
            (&Method::GET, "/cacerts") => self.authority(),
            (&Method::GET, "/v1-k3s/config") => to_json(&self.critical),
            (&Method::GET, "/v1-k3s/server-bootstrap") => bootstrap::collect(&self.plan.layout),
            (&Method::GET, "/db/info") => self.members().await,
            (&Method::POST, "/db/snapshot") => self.snapshot(&body).await,
            (&Method::GET, "/v1-k3s/nodes") => self.nodes().await,
            (&Method::DELETE, other) => match other.strip_prefix("/v1-k3s/nodes/") {
                Some(name) => self.delete_node(name).await,
                None => return text(StatusCode::NOT_FOUND, String::new()),
            },
            _ => return text(StatusCode::NOT_FOUND, String::new()),
        };
        match answered {
            Ok(body) => json(StatusCode::OK, body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
        }
    }

    fn has_token(&self, request: &Request<Incoming>) -> bool {
        let given = request.headers().get(AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        let given = given.and_then(|encoded| BASE64.decode(encoded).ok());
        let given = given.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = given.as_deref().and_then(|given| given.split_once(':'))
        else {
            return false;
        };
        user == SERVER_USER && is_same(&self.password, password)
    }

    fn authority(&self) -> Result<Vec<u8>> {
        let path = self.plan.layout.tls_file("server-ca.crt");
        let found = read_if_there(&path)?;
        found
            .map(String::into_bytes)
            .context("there is no authority")
    }

    async fn members(&self) -> Result<Vec<u8>> {
        to_json(&Members::from(self.client.members().await?))
    }

    async fn nodes(&self) -> Result<Vec<u8>> {
        to_json(&nodes::list(&self.client).await?)
    }

    async fn delete_node(&self, name: &str) -> Result<Vec<u8>> {
        nodes::delete(&self.client, name).await?;
        Ok(format!("node \"{name}\" deleted").into_bytes())
    }

    async fn snapshot(&self, body: &[u8]) -> Result<Vec<u8>> {
        let request = serde_json::from_slice(body).context("the request cannot be read")?;
        let mut result = SnapshotResult::default();
        match request {
            SnapshotRequest::List => return to_json(&self.snapshots.list()?),
            SnapshotRequest::Save { name } => {
                result
                    .created
                    .push(self.snapshots.save(&self.client, &name).await?);
            }
            SnapshotRequest::Delete { snapshots } => {
                result.deleted = self.snapshots.delete(&snapshots)?;
            }
            SnapshotRequest::Prune { name, retention } => {
                result.deleted = self.snapshots.prune(&name, retention)?;
            }
        }
        to_json(&result)
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut answer = json(status, body.into_bytes());
    let kind = http::HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn unauthorized() -> Answer {
    let words = "the token is not that of the cluster".to_owned();
    let mut answer = text(StatusCode::UNAUTHORIZED, words);
    let realm = http::HeaderValue::from_static("Basic realm=\"k3s\"");
    answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
    answer
}

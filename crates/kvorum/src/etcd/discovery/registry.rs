//! The etcd at which the members of a new cluster meet: connections to its endpoints, one after the
//! other, and who asks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::{
    AuthenticateRequest, PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
    WatchResponse, watch_request,
};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};
use transport::{Dial, Dialer, TlsCallerConfig, TlsClient, TlsParameters};
use types::{Clock, Url};

use crate::config::DiscoverySettings;
use crate::error::{DiscoveryError, chain};

/// What an etcd says to whoever wants a token while it has no users.
const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

/// A connection to one of the endpoints.
#[derive(Debug)]
pub(super) struct Registry {
    endpoints: Vec<Url>,
    /// Which of them is asked.
    at: usize,
    tls: Option<TlsClient>,
    user: Option<(String, String)>,
    dial_timeout: Duration,
    request_timeout: Duration,
    keepalive_time: Duration,
    keepalive_timeout: Duration,
    session: Option<Session>,
}

/// A connection, and the token for it.
#[derive(Clone, Debug)]
struct Session {
    channel: Channel,
    token: Option<AsciiMetadataValue>,
}

impl Session {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// Changes of the keys below a prefix. Ends with the connection.
pub(super) struct Changes {
    responses: Streaming<WatchResponse>,
}

impl Changes {
    /// The next ones; none when there will be no more.
    pub(super) async fn next(&mut self) -> Option<WatchResponse> {
        let response = self.responses.next().await?.ok()?;
        (!response.canceled).then_some(response)
    }
}

impl Registry {
    /// Connects, as its user if one is named.
    pub(super) async fn connect(
        settings: &DiscoverySettings,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, DiscoveryError> {
        let failed = |reason: String| DiscoveryError::Client { reason };
        let (settings_of_tls, clock) = (settings.clone(), Arc::clone(clock));
        let tls = tokio::task::spawn_blocking(move || tls(&settings_of_tls, clock))
            .await
            .map_err(|error| failed(error.to_string()))??;
        let url = |endpoint: &String| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            match endpoint.contains("://") {
                true => Url::parse(endpoint),
                false => Url::parse(&format!("{scheme}://{endpoint}")),
            }
        };
        let endpoints: Result<Vec<Url>, _> = settings.endpoints.iter().map(url).collect();
        let mut registry = Self {
            endpoints: endpoints.map_err(|error| failed(error.to_string()))?,
            at: 0,
            tls,
            user: user(settings),
            dial_timeout: settings.dial_timeout,
            request_timeout: settings.request_timeout,
            keepalive_time: settings.keepalive_time,
            keepalive_timeout: settings.keepalive_timeout,
            session: None,
        };
        // As in etcd, a wrong password is told at once, and an etcd that is not there yet is waited for.
        match registry.session().await {
            Err(status) if registry.user.is_some() && status.code() != Code::Unavailable => {
                Err(failed(status.message().to_owned()))
            }
            _ => Ok(registry),
        }
    }

    /// Goes on with the next endpoint.
    pub(super) fn turn(&mut self) {
        self.session = None;
        self.at = (self.at + 1) % self.endpoints.len();
    }

    /// A key, or all that begin with it.
    pub(super) async fn get(
        &mut self,
        key: &str,
        range_end: Vec<u8>,
    ) -> Result<RangeResponse, Status> {
        let session = self.session().await?;
        let request = session.request(RangeRequest {
            key: key.as_bytes().to_vec(),
            range_end,
            ..RangeRequest::default()
        });
        let mut client = KvClient::new(session.channel);
        let answer = self.in_time(client.range(request)).await?;
        Ok(answer.into_inner())
    }

    pub(super) async fn put(&mut self, key: &str, value: &str) -> Result<(), Status> {
        let session = self.session().await?;
        let request = session.request(PutRequest {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            ..PutRequest::default()
        });
        let mut client = KvClient::new(session.channel);
        self.in_time(client.put(request)).await.map(drop)
    }

    /// What happens to the keys that begin with `key` from a revision on.
    pub(super) async fn watch(
        &mut self,
        key: &str,
        range_end: Vec<u8>,
        revision: i64,
    ) -> Result<Changes, Status> {
        let session = self.session().await?;
        let create = WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(
                WatchCreateRequest {
                    key: key.as_bytes().to_vec(),
                    range_end,
                    start_revision: revision,
                    ..WatchCreateRequest::default()
                },
            )),
        };
        // The stream stays open for as long as its requests do.
        let requests = tokio_stream::once(create).chain(futures_util::stream::pending());
        let request = session.request(requests);
        let mut client = WatchClient::new(session.channel);
        let answer = self.in_time(client.watch(request)).await?;
        Ok(Changes {
            responses: answer.into_inner(),
        })
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        match timeout(self.request_timeout, answer).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Status::deadline_exceeded("context deadline exceeded")),
        }
    }

    async fn session(&mut self) -> Result<Session, Status> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let channel = self.channel();
        let token = match &self.user {
            None => None,
            Some((name, password)) => {
                let request = AuthenticateRequest {
                    name: name.clone(),
                    password: password.clone(),
                };
                let mut client = AuthClient::new(channel.clone());
                match self.in_time(client.authenticate(request)).await {
                    Ok(answer) => AsciiMetadataValue::try_from(answer.into_inner().token).ok(),
                    Err(status) if status.message() == AUTH_NOT_ENABLED => None,
                    Err(status) => return Err(status),
                }
            }
        };
        let session = Session { channel, token };
        self.session = Some(session.clone());
        Ok(session)
    }

    fn channel(&self) -> Channel {
        let url = self.endpoints[self.at].clone();
        let tls = self.tls.clone().filter(|_tls| url.scheme().is_tls());
        let dialer = Arc::new(Dialer::new(tls, None));
        let limit = self.dial_timeout;
        // What is dialled is the url; this is only what requests say they are for.
        let named = match url.scheme().is_unix() {
            true => "http://localhost".to_owned(),
            false => format!("http://{}", url.authority()),
        };
        let mut endpoint = Endpoint::from_shared(named).expect("a url's host and port make one");
        if !self.keepalive_time.is_zero() {
            endpoint = endpoint
                .http2_keep_alive_interval(self.keepalive_time)
                .keep_alive_timeout(self.keepalive_timeout);
        }
        let connect = tower::service_fn(move |_named: Uri| {
            let dialed = dialer.dial(&url);
            async move {
                let dialed = timeout(limit, dialed)
                    .await
                    .map_err(|_elapsed| std::io::Error::from(std::io::ErrorKind::TimedOut))?;
                dialed.map(TokioIo::new)
            }
        });
        endpoint.connect_with_connector_lazy(connect)
    }
}

/// `name:password` in one flag, or in two.
fn user(settings: &DiscoverySettings) -> Option<(String, String)> {
    let (name, password) = match settings.user.split_once(':') {
        Some((name, password)) if settings.password.is_empty() => (name, password),
        _ => (settings.user.as_str(), settings.password.as_str()),
    };
    let is_named = !name.is_empty() && !password.is_empty();
    is_named.then(|| (name.to_owned(), password.to_owned()))
}

/// The TLS identity, if any flag asks for TLS. Blocks on the disk.
fn tls(
    settings: &DiscoverySettings,
    clock: Arc<dyn Clock>,
) -> Result<Option<TlsClient>, DiscoveryError> {
    let (cert, key) = (&settings.cert_file, &settings.key_file);
    let given = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
    let is_secure = |endpoint: &String| {
        let url = Url::parse(endpoint);
        url.is_ok_and(|url| url.scheme().is_tls())
    };
    let files = [cert, key, &settings.cacert_file];
    let is_asked_for = files.into_iter().any(|file| !file.is_empty())
        || !settings.is_insecure_transport
        || settings.is_insecure_skip_tls_verify
        || settings.endpoints.iter().any(is_secure);
    if !is_asked_for {
        return Ok(None);
    }
    let pair = match (given(cert), given(key)) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => {
            let reason =
                format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
            return Err(DiscoveryError::Client { reason });
        }
    };
    let config = TlsCallerConfig {
        pair,
        trusted_ca_file: given(&settings.cacert_file),
        insecure_skip_verify: settings.is_insecure_skip_tls_verify,
        parameters: TlsParameters::default(),
        flags: ["--discovery-cert", "--discovery-key", "--discovery-cacert"],
    };
    let loaded = TlsClient::load_caller(&config, clock);
    loaded.map(Some).map_err(|error| {
        let reason = chain(&error);
        DiscoveryError::Client { reason }
    })
}

//! How a command reaches members: the flags and variables that `etcdctl` has for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::AuthenticateRequest;
use api::etcdserverpb::auth_client::AuthClient;
use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use transport::{AnonymousTls, Dial, Dialer, TlsClient, TlsClientConfig, TlsParameters};
use types::{SystemClock, Url};

use super::{Failure, command_line};

/// Where members are, and who asks.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// gRPC endpoints
    #[arg(
        long,
        value_name = "URL",
        env = "ETCDCTL_ENDPOINTS",
        hide_env_values = true,
        default_value = "127.0.0.1:2379"
    )]
    pub(super) endpoints: String,
    /// Verify certificates of TLS-enabled secure servers using this CA bundle
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCDCTL_CACERT",
        hide_env_values = true,
        value_parser = command_line::path
    )]
    pub(super) cacert: Option<PathBuf>,
    /// Identify secure client using this TLS certificate file
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCDCTL_CERT",
        hide_env_values = true,
        value_parser = command_line::path
    )]
    pub(super) cert: Option<PathBuf>,
    /// Identify secure client using this TLS key file
    #[arg(long, value_name = "FILE", env = "ETCDCTL_KEY", hide_env_values = true, value_parser = command_line::path)]
    pub(super) key: Option<PathBuf>,
    /// Skip server certificate verification (CAUTION: this option should be enabled only for testing purposes)
    #[arg(long, env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", hide_env_values = true)]
    pub(super) insecure_skip_tls_verify: bool,
    /// Disable transport security for client connections
    #[arg(
        long,
        env = "ETCDCTL_INSECURE_TRANSPORT",
        hide_env_values = true,
        default_value = "true"
    )]
    pub(super) insecure_transport: bool,
    /// username:password for authentication
    #[arg(
        long,
        value_name = "NAME[:PASSWORD]",
        env = "ETCDCTL_USER",
        hide_env_values = true
    )]
    pub(super) user: Option<String>,
    /// Password for authentication (if this option is used, --user option shouldn't include password)
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "ETCDCTL_PASSWORD",
        hide_env_values = true
    )]
    pub(super) password: Option<String>,
    /// Dial timeout for client connections
    #[arg(
        long,
        value_name = "TIME",
        env = "ETCDCTL_DIAL_TIMEOUT",
        hide_env_values = true,
        default_value = "2s",
        value_parser = command_line::duration
    )]
    pub(super) dial_timeout: Duration,
    /// Timeout of a command; a snapshot has none unless it is given
    #[arg(
        long,
        value_name = "TIME",
        env = "ETCDCTL_COMMAND_TIMEOUT",
        hide_env_values = true,
        value_parser = command_line::duration
    )]
    pub(super) command_timeout: Option<Duration>,
}

impl Connection {
    /// The members that are named.
    pub(super) fn endpoints(&self) -> Vec<&str> {
        self.endpoints.split(',').map(str::trim).collect()
    }

    /// What dials a member, and its url.
    pub(super) fn dialer(&self, endpoint: &str) -> Result<(Url, Arc<Dialer>), Failure> {
        let is_tls = endpoint.starts_with("https://") || endpoint.starts_with("unixs://");
        let tls = self.tls(is_tls)?;
        let url = match endpoint.contains("://") {
            true => endpoint.to_owned(),
            false if tls.is_some() => format!("https://{endpoint}"),
            false => format!("http://{endpoint}"),
        };
        let url = Url::parse(&url).map_err(|error| Failure::of(&error))?;
        Ok((url, Arc::new(Dialer::new(tls, None))))
    }

    /// A connection to one member, which is made when it is used first.
    pub(super) fn channel(&self, endpoint: &str) -> Result<Channel, Failure> {
        let (url, dialer) = self.dialer(endpoint)?;
        // The scheme is the dialer's business.
        let named = Endpoint::from_shared(format!("http://{}", url.authority()));
        let named = named.map_err(|error| Failure::of(&error))?;
        let named = named.connect_timeout(self.dial_timeout);
        let connect = tower::service_fn(move |_named: Uri| {
            let dialed = dialer.dial(&url);
            async move { dialed.await.map(TokioIo::new) }
        });
        Ok(named.connect_with_connector_lazy(connect))
    }

    /// Who we are, and whom we believe; `is_tls` says that it has to be TLS in any case.
    fn tls(&self, is_tls: bool) -> Result<Option<TlsClient>, Failure> {
        let clock = Arc::new(SystemClock);
        let parameters = TlsParameters::default();
        // A variable that is empty is none.
        let given = |path: &Option<PathBuf>| path.clone().filter(|it| !it.as_os_str().is_empty());
        let authorities = given(&self.cacert);
        let loaded = match (given(&self.cert), given(&self.key)) {
            (Some(cert), Some(key)) => {
                let config = TlsClientConfig {
                    cert_file: cert,
                    key_file: key,
                    trusted_ca_file: authorities,
                    insecure_skip_verify: self.insecure_skip_tls_verify,
                    parameters,
                };
                TlsClient::load(&config, clock)
            }
            (None, None) => {
                let is_wanted = is_tls || authorities.is_some() || !self.insecure_transport;
                if !is_wanted && !self.insecure_skip_tls_verify {
                    return Ok(None);
                }
                let config = AnonymousTls {
                    trusted_ca_file: authorities,
                    insecure_skip_verify: self.insecure_skip_tls_verify,
                    parameters,
                };
                TlsClient::anonymous(&config, clock)
            }
            (cert, key) => {
                let (key, cert) = (key.unwrap_or_default(), cert.unwrap_or_default());
                return Err(Failure::bad_arguments(format!(
                    "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                    key.display(),
                    cert.display(),
                )));
            }
        };
        loaded.map(Some).map_err(|error| Failure::of(&error))
    }

    /// A token for whoever is named.
    pub(super) async fn token(
        &self,
        channel: &Channel,
    ) -> Result<Option<AsciiMetadataValue>, Status> {
        let Some(user) = self.user.as_deref().filter(|user| !user.is_empty()) else {
            return Ok(None);
        };
        let (name, password) = match (user.split_once(':'), self.password.as_deref()) {
            (_, Some(password)) if !password.is_empty() => (user, password),
            (Some((name, password)), _) => (name, password),
            (None, _) => (user, ""),
        };
        let request = AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let answer = AuthClient::new(channel.clone())
            .authenticate(request)
            .await?;
        let token = AsciiMetadataValue::try_from(answer.into_inner().token);
        let token = token.map_err(|_no_text| Status::internal("the server's token is no text"))?;
        Ok(Some(token))
    }
}

//! A TLS client that can be wrong in every way: no certificate, the wrong one, old versions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use testkit::Client;
use testkit::certs::Identity;
use testkit::http::Answer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Endpoint, Uri};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ALPN_HTTP1: &[u8] = b"http/1.1";
const ALPN_HTTP2: &[u8] = b"h2";

/// How to call: whom to believe and what to show. Files are read at every call.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    ca: Option<PathBuf>,
    identity: Option<Identity>,
    versions: Vec<&'static SupportedProtocolVersion>,
    suite: Option<CipherSuite>,
}

impl Caller {
    /// Believes this authority.
    #[must_use]
    pub fn trusting(ca: &Path) -> Caller {
        Caller {
            ca: Some(ca.to_owned()),
            ..Caller::default()
        }
    }

    /// Believes everybody.
    #[must_use]
    pub fn credulous() -> Caller {
        Caller::default()
    }

    /// Shows a certificate.
    #[must_use]
    pub fn showing(mut self, identity: &Identity) -> Caller {
        self.identity = Some(identity.clone());
        self
    }

    /// Speaks this version only.
    #[must_use]
    pub fn speaking(mut self, version: &'static SupportedProtocolVersion) -> Caller {
        self.versions = vec![version];
        self
    }

    /// Offers this cipher suite only.
    #[must_use]
    pub fn offering(mut self, suite: CipherSuite) -> Caller {
        self.suite = Some(suite);
        self
    }

    /// What etcdctl is told to call the same way.
    #[must_use]
    pub fn etcdctl_flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        match &self.ca {
            Some(ca) => flags.push(format!("--cacert={}", ca.display())),
            None => flags.extend(
                ["--insecure-transport=false", "--insecure-skip-tls-verify"].map(str::to_owned),
            ),
        }
        if let Some(identity) = &self.identity {
            flags.push(format!("--cert={}", identity.cert.display()));
            flags.push(format!("--key={}", identity.key.display()));
        }
        flags
    }

    /// A connection whose handshake is done as far as the client can tell: in TLS 1.3 a refusal of
    /// its certificate comes later.
    ///
    /// # Errors
    /// When nobody listens, or the handshake fails.
    pub async fn connect(&self, port: u16, alpn: &[u8]) -> Result<TlsStream<TcpStream>> {
        let config = self.config(alpn)?;
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(connector.connect(name, tcp).await?)
    }

    /// The certificate that is shown on this port.
    ///
    /// # Errors
    /// When nobody listens, or the handshake fails.
    pub async fn certificate_of(&self, port: u16) -> Result<CertificateDer<'static>> {
        let stream = self.connect(port, ALPN_HTTP1).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let leaf = shown.and_then(|chain| chain.first()).context("none")?;
        Ok(leaf.clone().into_owned())
    }

    /// `GET https://127.0.0.1:port/path` over a connection of its own.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn get(&self, port: u16, path: &str) -> Result<Answer> {
        let mut stream = self.connect(port, ALPN_HTTP1).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer).await
            // Go closes some connections without saying so; what came counts.
            && (error.kind() != std::io::ErrorKind::UnexpectedEof || answer.is_empty())
        {
            return Err(error.into());
        }
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.with_context(|| format!("no status in {head:?}"))?,
            body: body.to_owned(),
        })
    }

    /// gRPC clients over one connection to `https://127.0.0.1:port`.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn client(&self, url: &str) -> Result<Client> {
        let this = self.clone();
        let connector = tower::service_fn(move |uri: Uri| {
            let this = this.clone();
            async move {
                let port = uri.port_u16().context("no port")?;
                let stream = this.connect(port, ALPN_HTTP2).await?;
                Ok::<_, anyhow::Error>(TokioIo::new(stream))
            }
        });
        // The connector does TLS itself.
        let endpoint = Endpoint::from_shared(url.replacen("https://", "http://", 1))?
            .connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.with_context(|| format!("connecting to {url}"))?;
        Ok(Client::over(&channel))
    }

    fn config(&self, alpn: &[u8]) -> Result<ClientConfig> {
        let mut provider = ring::default_provider();
        if let Some(suite) = self.suite {
            provider
                .cipher_suites
                .retain(|known| known.suite() == suite);
        }
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = if self.versions.is_empty() {
            builder.with_safe_default_protocol_versions()?
        } else {
            builder.with_protocol_versions(&self.versions)?
        };
        let builder = match &self.ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(ca)? {
                    roots.add(certificate?)?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let mut config = match &self.identity {
            Some(Identity { cert, key }) => {
                let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

/// Takes every server for the right one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

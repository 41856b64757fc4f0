//! The server's side of TLS: which identity is shown, and which clients are believed.
//!
//! TLS 1.2 and 1.3 with ring; HTTP/2 is preferred over HTTP/1.1. The leaf certificate and its key
//! follow their files (`tls::reload`), as etcd's do; the authorities are read once, as etcd's are.

mod reload;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use types::Clock;

use crate::TlsError;
use crate::tls::reload::Identity;

/// The flags of a client's TLS files, for error texts.
const CERT_FILE: &str = "--cert-file";
const KEY_FILE: &str = "--key-file";
const TRUSTED_CA_FILE: &str = "--trusted-ca-file";

/// Whether clients must show a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They must, and it is checked.
    Required(ClientVerification),
}

/// What a client's certificate has to be. Both lists are etcd's: a certificate must match one of
/// the names; an empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientVerification {
    /// It must come from one of these authorities (`--trusted-ca-file`): PEM certificates.
    pub trusted_ca_file: PathBuf,
    /// It must not be in this list (`--client-crl-file`): PEM or DER.
    pub crl_file: Option<PathBuf>,
    /// Its common name must be one of these (`--peer-cert-allowed-cn`).
    pub allowed_common_names: Vec<String>,
    /// It must be valid for one of these hosts (`--client-cert-allowed-hostname`).
    pub allowed_hostnames: Vec<String>,
    /// Its IP and DNS names, if it has any, must fit the address it comes from: etcd asks this of
    /// peers unless `--peer-skip-client-san-verification`.
    pub verify_san: bool,
}

/// A TLS version (`--tls-min-version`, `--tls-max-version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS1.2`
    Tls12,
    /// `TLS1.3`
    Tls13,
}

/// A cipher suite of TLS 1.2 that can be asked for (`--cipher-suites`), by Go's name. Those of TLS
/// 1.3 cannot be chosen, as in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSuite {
    name: &'static str,
}

impl CipherSuite {
    /// The suite of that name; `None` if Go has none, or if this build cannot speak it.
    #[must_use]
    pub fn named(_name: &str) -> Option<Self> {
        todo!()
    }

    /// Go's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// What both sides of a connection are spoken with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsParameters {
    /// At least this; 1.2 if not given.
    pub min_version: Option<TlsVersion>,
    /// At most this; 1.3 if not given.
    pub max_version: Option<TlsVersion>,
    /// Of TLS 1.2; empty: all that are good.
    pub cipher_suites: Vec<CipherSuite>,
}

/// A server's TLS identity (`--cert-file`, `--key-file`, `--client-cert-auth`, `--trusted-ca-file`,
/// and the same with `--peer-`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Whose listener it is for: which flags error texts name.
    pub kind: crate::EndpointKind,
    /// PEM: the certificate, then the authorities between it and its root.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
    /// Whether clients must show a certificate.
    pub client_auth: ClientAuth,
    /// Versions and cipher suites.
    pub parameters: TlsParameters,
}

/// How a member dials its peers over TLS: etcd takes `--peer-client-cert-file` and its key, or else
/// `--peer-cert-file`, and believes `--peer-trusted-ca-file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClientConfig {
    /// PEM: the certificate shown to servers that ask for one.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
    /// PEM: servers must come from one of these authorities.
    pub trusted_ca_file: Option<PathBuf>,
    /// Servers are not checked at all (`--peer-auto-tls`).
    pub insecure_skip_verify: bool,
    /// Versions and cipher suites.
    pub parameters: TlsParameters,
}

/// A certificate made by the member itself (`--auto-tls`, `--peer-auto-tls`), kept in
/// `<data-dir>/fixtures/client` or `/peer` as etcd does, and made anew when it has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoTls {
    /// PEM certificate.
    pub cert_file: PathBuf,
    /// PEM key.
    pub key_file: PathBuf,
}

impl AutoTls {
    /// Makes the pair in `directory` for these hosts, or keeps the one that is there while it is
    /// valid. `validity_years` is `--self-signed-cert-validity`.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn ensure(
        _directory: &std::path::Path,
        _hosts: &[String],
        _validity_years: u64,
        _clock: &dyn Clock,
    ) -> Result<Self, TlsError> {
        todo!()
    }
}

/// A certificate in use, for metrics and warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// The file it comes from.
    pub file: PathBuf,
    /// What it is used as: `cert`, `ca` or `crl`.
    pub usage: &'static str,
    /// When the first certificate of the file stops being valid.
    pub not_after: std::time::SystemTime,
}

/// A loaded identity to dial with; follows its files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Reads and checks the files.
    ///
    /// # Errors
    ///
    /// The flag and file that cannot be used.
    pub fn load(config: &TlsClientConfig, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        if let Some(file) = &config.trusted_ca_file {
            for certificate in read_certificates("--peer-trusted-ca-file", file)? {
                roots.add(certificate).map_err(|error| TlsError::Content {
                    flag: "--peer-trusted-ca-file",
                    path: file.clone(),
                    reason: format!("holds a certificate that is no authority: {error}"),
                })?;
            }
        }
        let chain = read_certificates("--peer-cert-file", &config.cert_file)?;
        let content = |reason| TlsError::Content {
            flag: "--peer-key-file",
            path: config.key_file.clone(),
            reason,
        };
        let key = PrivateKeyDer::from_pem_slice(&read("--peer-key-file", &config.key_file)?)
            .map_err(|error| content(format!("holds no private key: {error}")))?;
        let mut client = ClientConfig::builder_with_details(provider, Arc::new(WallTime(clock)))
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| content(error.to_string()))?;
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(client),
        })
    }

    /// The certificates in use now.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        Vec::new()
    }

    /// What the next handshake is made with.
    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// A loaded TLS identity; notices when its files change. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsServer {
    identity: Arc<Identity>,
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// Reads and checks the files. The clock says whether clients' certificates are valid.
    pub fn load(config: &TlsConfig, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let identity = Arc::new(Identity::load(config, Arc::clone(&provider))?);
        let verifier = client_verifier(&config.client_auth, &provider)?;
        let mut server = ServerConfig::builder_with_details(provider, Arc::new(WallTime(clock)))
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for TLS 1.2 and 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&identity) as _);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            identity,
            config: Arc::new(server),
        })
    }

    /// The certificates in use now.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        todo!()
    }

    /// What the next handshake is made with. Looks at the files, so it blocks on the disk.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.identity.refresh();
        Arc::clone(&self.config)
    }
}

/// kvorum's clock as rustls wants it.
struct WallTime(Arc<dyn Clock>);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = self.0.wall().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}

fn client_verifier(
    auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let ClientAuth::Required(ClientVerification {
        trusted_ca_file, ..
    }) = auth
    else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let content = |reason| TlsError::Content {
        flag: TRUSTED_CA_FILE,
        path: trusted_ca_file.clone(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(TRUSTED_CA_FILE, trusted_ca_file)? {
        roots.add(certificate).map_err(|error| {
            content(format!("holds a certificate that is no authority: {error}"))
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| content(format!("cannot be used to verify clients: {error}")))
}

/// The certificates of a PEM file; at least one.
fn read_certificates(
    flag: &'static str,
    path: &PathBuf,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(flag, path)?;
    let content = |reason| TlsError::Content {
        flag,
        path: path.clone(),
        reason,
    };
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(content("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn read(flag: &'static str, path: &PathBuf) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        flag,
        path: path.clone(),
        source,
    })
}

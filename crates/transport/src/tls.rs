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
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
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
    /// They must, and it must come from one of these authorities (`--trusted-ca-file`).
    Required {
        /// PEM certificates.
        trusted_ca_file: PathBuf,
    },
}

/// A server's TLS identity (`--cert-file`, `--key-file`, `--client-cert-auth`, `--trusted-ca-file`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM: the certificate, then the authorities between it and its root.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
    /// Whether clients must show a certificate.
    pub client_auth: ClientAuth,
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
    let ClientAuth::Required { trusted_ca_file } = auth else {
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

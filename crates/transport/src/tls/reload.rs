//! A server's certificate and key that follow their files.
//!
//! Whoever renews a certificate writes the files and tells nobody. etcd therefore reads both at
//! every handshake (`client/pkg/transport/listener.go`); this asks the system at every handshake
//! whether they are still the same files, which is cheaper, and reads them when they are not.
//!
//! Differs from etcd: while the two files do not fit together, because only one has been replaced
//! yet, the old pair is shown instead of failing the handshake.
//!
//! What this is not: the authorities clients are checked against do not follow their file.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::TlsError;
use crate::tls::{CERT_FILE, KEY_FILE, TlsConfig, read, read_certificates};

/// What tells one version of a file from the next: inode, length, and time of change.
type Stamp = (u64, u64, i64, i64);

/// The certificate and key in two files.
#[derive(Debug)]
pub(super) struct Identity {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    /// The files when they were last looked into, whether or not they could be used.
    seen: Mutex<Option<[Stamp; 2]>>,
}

impl Identity {
    pub(super) fn load(
        config: &TlsConfig,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        // Before reading: a change in between is then seen as one.
        let seen = stamps(config).ok();
        let current = read_pair(config, &provider)?;
        Ok(Self {
            config: config.clone(),
            provider,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(seen),
        })
    }

    /// Reads the files again if they are not the ones that were read last.
    pub(super) fn refresh(&self) {
        let now = stamps(&self.config).ok();
        let mut seen = self.seen.lock();
        if *seen == now {
            return;
        }
        *seen = now;
        match read_pair(&self.config, &self.provider) {
            Ok(pair) => {
                *self.current.write() = Arc::new(pair);
                tracing::info!(
                    "cert-file" = %self.config.cert_file.display(),
                    "reloaded the TLS certificate",
                );
            }
            Err(error) => tracing::warn!(
                %error,
                "cannot use the changed TLS certificate, keeping the one in use",
            ),
        }
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

fn stamps(config: &TlsConfig) -> io::Result<[Stamp; 2]> {
    Ok([stamp(&config.cert_file)?, stamp(&config.key_file)?])
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((
        metadata.ino(),
        metadata.len(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

fn read_pair(config: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(CERT_FILE, &config.cert_file)?;
    let content = |reason| TlsError::Content {
        flag: KEY_FILE,
        path: config.key_file.clone(),
        reason,
    };
    let pem = read(KEY_FILE, &config.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| content(format!("holds no private key: {error}")))?;
    let certificate = config.cert_file.display();
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        content(match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("is not the key of the certificate in {certificate}")
            }
            other => format!("cannot be used with the certificate in {certificate}: {other}"),
        })
    })
}

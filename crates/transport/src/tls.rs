//! The server's side of TLS.

use std::path::PathBuf;
use std::sync::Arc;

use types::Clock;

use crate::TlsError;

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
pub struct TlsServer {}

impl TlsServer {
    /// Reads and checks the files. The clock says whether clients' certificates are valid.
    pub fn load(_config: &TlsConfig, _clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        todo!()
    }
}

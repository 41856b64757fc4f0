//! TLS: which identity is shown, and who is believed.
//!
//! TLS 1.2 and 1.3 with ring; HTTP/2 is preferred over HTTP/1.1. All files are followed
//! (`tls::reload`).

mod auto;
mod client;
mod files;
mod parameters;
mod reload;
pub(crate) mod san;
mod server;
mod usage;
pub(crate) mod verify;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use types::Clock;

pub use auto::AutoTls;
pub use client::TlsClient;
pub use parameters::{CipherSuite, TlsParameters, TlsVersion};
pub use server::TlsServer;

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
    /// PEM: servers must come from one of these authorities; the system's if not given.
    pub trusted_ca_file: Option<PathBuf>,
    /// Servers are not checked at all (`--peer-auto-tls`).
    pub insecure_skip_verify: bool,
    /// Versions and cipher suites.
    pub parameters: TlsParameters,
}

/// How a program dials that shows no certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnonymousTls {
    /// PEM: servers must come from one of these authorities; the system's if not given.
    pub trusted_ca_file: Option<PathBuf>,
    /// Servers are not checked at all.
    pub insecure_skip_verify: bool,
    /// Versions and cipher suites.
    pub parameters: TlsParameters,
}

/// How somebody who is no peer dials over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCallerConfig {
    /// PEM: the certificate shown to servers that ask for one, and its private key.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// PEM: servers must come from one of these authorities; the system's if not given.
    pub trusted_ca_file: Option<PathBuf>,
    /// Servers are not checked at all.
    pub insecure_skip_verify: bool,
    /// Versions and cipher suites.
    pub parameters: TlsParameters,
    /// The flags of certificate, key and authorities, for error texts.
    pub flags: [&'static str; 3],
}

/// A certificate in use, for metrics and warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// The file it comes from.
    pub file: PathBuf,
    /// What it is used as: `cert`, `ca` or `crl`.
    pub usage: &'static str,
    /// When the first certificate of the file stops being valid; of a revocation list, when the
    /// next one was due.
    pub not_after: std::time::SystemTime,
}

/// What is spoken over TLS, the preferred first.
fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
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

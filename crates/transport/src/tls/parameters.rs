//! TLS versions and cipher suites, by Go's names, and what they mean to rustls.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite as Id, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::TlsError;

/// A TLS version (`--tls-min-version`, `--tls-max-version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS1.2`
    Tls12,
    /// `TLS1.3`
    Tls13,
}

/// A cipher suite that can be asked for (`--cipher-suites`), by Go's name. Those of TLS 1.3 cannot
/// be chosen, as in Go: naming one changes nothing.
///
/// Differs from etcd: the suites of Go that are no good any more (CBC, RC4, RSA key exchange) are
/// names that are understood, but they are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSuite {
    name: &'static str,
}

/// The suites of TLS 1.2 that are spoken, and their ids; two have a short name beside their own.
const SPOKEN: [(&str, Id); 8] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        Id::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Id::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        Id::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        Id::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Id::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Id::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        Id::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        Id::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// The suites of TLS 1.3, which are always spoken.
const TLS13: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// The other suites of Go.
const NOT_SPOKEN: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
];

impl CipherSuite {
    /// The suite of that name; `None` if Go has none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let spoken = SPOKEN.iter().map(|(name, _id)| *name);
        spoken
            .chain(TLS13)
            .chain(NOT_SPOKEN)
            .find(|known| *known == name)
            .map(|name| Self { name })
    }

    /// Go's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Whether it is really used when it is asked for.
    #[must_use]
    pub fn is_spoken(self) -> bool {
        !NOT_SPOKEN.contains(&self.name)
    }

    fn is(self, suite: &SupportedCipherSuite) -> bool {
        SPOKEN
            .iter()
            .any(|(name, id)| *name == self.name && *id == suite.suite())
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

/// The same as rustls wants it.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
}

impl TlsParameters {
    pub(super) fn spoken(&self) -> Result<Spoken, TlsError> {
        let min = self.min_version.unwrap_or(TlsVersion::Tls12);
        let max = self.max_version.unwrap_or(TlsVersion::Tls13);
        let asked_for = |suite: &SupportedCipherSuite| {
            self.cipher_suites.is_empty() || self.cipher_suites.iter().any(|one| one.is(suite))
        };
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => max >= TlsVersion::Tls13,
            SupportedCipherSuite::Tls12(_) => min <= TlsVersion::Tls12 && asked_for(suite),
        });
        let versions: Vec<_> = [&version::TLS13, &version::TLS12]
            .into_iter()
            .filter(|&version| {
                let mut suites = provider.cipher_suites.iter();
                suites.any(|suite| suite.version() == version)
            })
            .collect();
        if min > max || versions.is_empty() {
            return Err(TlsError::NothingInCommon);
        }
        self.warn_of_unspoken();
        Ok(Spoken {
            provider: Arc::new(provider),
            versions,
        })
    }

    fn warn_of_unspoken(&self) {
        for suite in self.cipher_suites.iter().filter(|suite| !suite.is_spoken()) {
            tracing::warn!(
                "cipher-suite" = suite.name(),
                "this cipher suite is not safe any more and left out",
            );
        }
    }
}

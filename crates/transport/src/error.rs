//! Why a listener or a TLS identity could not be had.

use std::fmt;
use std::io;
use std::path::PathBuf;

use types::{Url, UrlError};

use crate::{EndpointKind, words};

/// An address could not be bound. The texts are etcd's, and those of Go's `net.Listen`.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refused.
    #[error("listen {network} {address}: bind: {reason}")]
    Bind {
        /// `tcp` or `unix`.
        network: &'static str,
        /// What was to be bound.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// A TLS url without certificate and key.
    #[error("TLS key/cert ({flags}) must be provided for {whose} url {url} with HTTPS scheme")]
    NoTls {
        /// The flags that would give them.
        flags: &'static str,
        /// Whose url it is.
        whose: &'static str,
        /// The url.
        url: String,
    },
    /// The same for a metrics url, for which etcd has a sentence of its own.
    #[error(
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    )]
    NoMetricsTls,
    /// A host that is no address.
    #[error(transparent)]
    Url(#[from] UrlError),
}

impl ListenError {
    pub(crate) fn bind(
        network: &'static str,
        address: impl fmt::Display,
        error: &io::Error,
    ) -> Self {
        Self::Bind {
            network,
            address: address.to_string(),
            reason: words::system(error),
        }
    }

    pub(crate) fn no_tls(kind: EndpointKind, url: &Url) -> Self {
        let url = url.to_string();
        match kind {
            EndpointKind::Client => Self::NoTls {
                flags: "--cert-file, --key-file",
                whose: "client",
                url,
            },
            EndpointKind::Peer => Self::NoTls {
                flags: "--peer-cert-file, --peer-key-file",
                whose: "peer",
                url,
            },
            EndpointKind::Metrics => Self::NoMetricsTls,
        }
    }
}

/// A TLS identity could not be loaded. Names the flag and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file could not be read.
    #[error("{flag}: cannot read {}", path.display())]
    Read {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{flag}: {} {reason}", path.display())]
    Content {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Versions and cipher suites that leave nothing to speak.
    #[error("--tls-min-version, --tls-max-version and --cipher-suites leave nothing to speak")]
    NothingInCommon,
    /// The member was told to make a certificate that is never valid. etcd's words.
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    NoValidity,
    /// The member could not make its own certificate.
    #[error("cannot generate a certificate in {}", directory.display())]
    SelfSigned {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

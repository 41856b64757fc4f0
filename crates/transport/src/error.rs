//! Why a listener or a TLS identity could not be had.

use std::io;
use std::path::PathBuf;

/// An address could not be bound. The texts are those of Go's `net.Listen`, which etcd prints.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refused.
    #[error("listen {network} {address}: {operation}: {reason}")]
    Bind {
        /// `tcp` or `unix`.
        network: &'static str,
        /// What was to be bound.
        address: String,
        /// The call that failed.
        operation: &'static str,
        /// The system's words.
        reason: String,
    },
    /// A TLS url without `--cert-file` and `--key-file`.
    #[error("TLS key/cert must be provided for the url {url} with HTTPS scheme")]
    NoTls {
        /// The url.
        url: String,
    },
    /// A host that is no address.
    #[error(transparent)]
    Url(#[from] types::UrlError),
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
}

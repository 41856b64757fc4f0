//! Listeners and TLS: bytes from and to a client whose certificate has been checked, and the making of
//! certificates. The only crate that names rustls.
//!
//! What this is not: HTTP or gRPC. A [`Stream`] is handed to whoever speaks those.

mod authority;
mod dial;
mod error;
mod greeting;
mod handshake;
mod listener;
mod stream;
mod tls;
mod whole_file;
mod words;

pub use authority::{Authority, AuthorityError, PemPair, Subject};
pub use dial::{Dial, Dialed, Dialer, Io, SharedDial};
pub use error::{ListenError, TlsError};
pub use greeting::{Greeted, Greeting};
pub use listener::{Endpoint, EndpointKind, ListenOptions, Listener};
pub use stream::{ClientCertificate, PeerInfo, RemoteAddr, Stream};
pub use tls::{
    AnonymousTls, AutoTls, CertificateStatus, CipherSuite, ClientAuth, ClientVerification,
    TlsCallerConfig, TlsClient, TlsClientConfig, TlsConfig, TlsParameters, TlsServer, TlsVersion,
};
pub use whole_file::write_whole;

#[cfg(test)]
mod tests;

//! Listeners and TLS: bytes from and to a client whose certificate has been checked. The only crate
//! that names rustls.
//!
//! What this is not: HTTP or gRPC. A [`Stream`] is handed to whoever speaks those.

mod error;
mod handshake;
mod listener;
mod stream;
mod tls;

pub use error::{ListenError, TlsError};
pub use listener::{Endpoint, EndpointKind, Listener};
pub use stream::{ClientCertificate, PeerInfo, RemoteAddr, Stream};
pub use tls::{ClientAuth, TlsConfig, TlsServer};

#[cfg(test)]
mod tests;

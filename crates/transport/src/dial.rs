//! Connections to other members.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use types::Url;

use crate::tls::TlsClient;

/// What can be read from and written to.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Io for T {}

/// A connection that was made here; its TLS handshake is done.
pub type Dialed = Box<dyn Io>;

/// Makes connections: over the network, or over whatever a simulation puts in its place.
pub trait Dial: Send + Sync + fmt::Debug {
    /// Connects to the host of `url`, with TLS if its scheme says so. Gives up after the dialer's
    /// own timeout.
    ///
    /// # Errors
    ///
    /// The system's, or a failed handshake with Go's words for it.
    fn dial(&self, url: &Url) -> BoxFuture<'static, io::Result<Dialed>>;
}

/// Dials over the network. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    tls: Option<TlsClient>,
    /// The address to dial from (etcd's feature `SetMemberLocalAddr`).
    local: Option<IpAddr>,
}

impl Dialer {
    /// Dials `https` urls with this identity; without one they cannot be dialled.
    #[must_use]
    pub const fn new(tls: Option<TlsClient>, local: Option<IpAddr>) -> Self {
        Self { tls, local }
    }
}

impl Dial for Dialer {
    fn dial(&self, _url: &Url) -> BoxFuture<'static, io::Result<Dialed>> {
        todo!()
    }
}

/// A dialer behind a pointer, as everybody passes it.
pub type SharedDial = Arc<dyn Dial>;

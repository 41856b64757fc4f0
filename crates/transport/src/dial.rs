//! Connections to other members.
//!
//! What this is not: gRPC, retrying, or keeping connections; whoever dials does that.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls_pki_types::{DnsName, ServerName};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use types::Url;

use crate::stream::Socket;
use crate::tls::TlsClient;
use crate::words;

/// How long the name and the connection may take together. A machine that is off answers nothing:
/// whoever dials wants to try again soon after it is back.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the TLS handshake may take; Go's figure.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

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
    /// What certificates have to be for, whatever the url says.
    server_name: Option<String>,
    /// How long the other side may leave unconfirmed what was sent to it.
    write_timeout: Option<Duration>,
}

impl Dialer {
    /// Dials `https` urls with this identity; without one they cannot be dialled.
    #[must_use]
    pub const fn new(tls: Option<TlsClient>, local: Option<IpAddr>) -> Self {
        Self {
            tls,
            local,
            server_name: None,
            write_timeout: None,
        }
    }

    /// Gives a connection up when the other side has not confirmed for so long that it got what was sent.
    #[must_use]
    pub const fn with_write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = Some(timeout);
        self
    }

    /// Dials servers whose certificates are for `name`, whatever their urls say.
    #[must_use]
    pub fn with_server_name(mut self, name: Option<String>) -> Self {
        self.server_name = name;
        self
    }

    async fn connect(self, url: Url) -> io::Result<Dialed> {
        let socket = match url.socket_path() {
            Some(path) => connect_unix(&path).await?,
            None => self.connect_tcp(&url).await?,
        };
        if !url.scheme().is_tls() {
            return Ok(Box::new(socket));
        }
        let Some(tls) = self.tls.clone() else {
            let text = format!("no TLS identity to dial {url} with");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let name = server_name(self.server_name.as_deref().unwrap_or(url.host()))?;
        handshake(tls, name, socket).await
    }

    pub(crate) async fn connect_tcp(&self, url: &Url) -> io::Result<Socket> {
        let (host, authority) = (url.host(), url.authority());
        let port = url.port().map_err(io::Error::other)?;
        let attempts = async {
            let addresses = self.addresses(host, port).await?;
            self.first_to_answer(&addresses).await
        };
        let tcp = timeout(CONNECT_TIME_MAX, attempts)
            .await
            .unwrap_or_else(|_elapsed| {
                let text = format!("dial tcp {authority}: i/o timeout");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            })?;
        // Never wait for more to send: what is sent is whole messages.
        tcp.set_nodelay(true)?;
        if self.write_timeout.is_some() {
            SockRef::from(&tcp).set_tcp_user_timeout(self.write_timeout)?;
        }
        Ok(Socket::Tcp(tcp))
    }

    /// The addresses of a host, those of the family we dial from.
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let not_found = |why: &str| {
            let text = format!("dial tcp: lookup {host}: {why}");
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        let mut addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_a_name) => lookup_host((host, port))
                .await
                .map_err(|error| not_found(&words::system(&error)))?
                .collect(),
        };
        if let Some(local) = self.local {
            addresses.retain(|address| address.is_ipv4() == local.is_ipv4());
        }
        if addresses.is_empty() {
            return Err(not_found("no suitable address found"));
        }
        Ok(addresses)
    }

    /// Tries one address after the other, each for its share of the time.
    async fn first_to_answer(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let share = CONNECT_TIME_MAX / count.max(1);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            let attempt = timeout(share, self.connect_address(*address));
            let error = match attempt.await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => error,
                Err(_elapsed) => io::ErrorKind::TimedOut.into(),
            };
            let text = match error.kind() {
                io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
                _ => format!("connect: {}", words::system(&error)),
            };
            failure = io::Error::new(error.kind(), format!("dial tcp {address}: {text}"));
        }
        Err(failure)
    }

    async fn connect_address(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        if let Some(local) = self.local {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        socket.connect(address).await
    }
}

impl Dial for Dialer {
    fn dial(&self, url: &Url) -> BoxFuture<'static, io::Result<Dialed>> {
        self.clone().connect(url.clone()).boxed()
    }
}

async fn connect_unix(path: &str) -> io::Result<Socket> {
    let failed = |error: &io::Error, text: String| {
        io::Error::new(error.kind(), format!("dial unix {path}: {text}"))
    };
    match timeout(CONNECT_TIME_MAX, UnixStream::connect(path)).await {
        Ok(Ok(unix)) => Ok(Socket::Unix(unix)),
        Ok(Err(error)) => Err(failed(
            &error,
            format!("connect: {}", words::system(&error)),
        )),
        Err(_elapsed) => Err(failed(
            &io::ErrorKind::TimedOut.into(),
            "i/o timeout".to_owned(),
        )),
    }
}

async fn handshake(
    tls: TlsClient,
    name: ServerName<'static>,
    socket: Socket,
) -> io::Result<Dialed> {
    let config = spawn_blocking(move || tls.current())
        .await
        .map_err(io::Error::other)?;
    let shaking = TlsConnector::from(config).connect(name, socket);
    match timeout(HANDSHAKE_TIME_MAX, shaking).await {
        Ok(Ok(session)) => Ok(Box::new(session)),
        Ok(Err(error)) => Err(io::Error::new(error.kind(), words::handshake(&error))),
        Err(_elapsed) => {
            let text = "net/http: TLS handshake timeout";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

/// The name that the server's certificate has to be for.
fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    // A unix socket's url often has no host.
    let host = match host {
        "" => "localhost",
        host => host,
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(ip.into()));
    }
    DnsName::try_from(host.to_owned())
        .map(ServerName::DnsName)
        .map_err(|_no_name| {
            let text = format!("tls: {host:?} is no host that a certificate can be for");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
}

/// A dialer behind a pointer, as everybody passes it.
pub type SharedDial = Arc<dyn Dial>;

//! Accepting connections on a url.
//!
//! A plain connection is handed out at once. One that may be TLS gets a task that does its
//! handshake, so that a client that stalls in the middle holds up nobody else.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::task::JoinSet;
use types::Url;

use crate::handshake::{Handshake, Spoken};
use crate::stream::Socket;
use crate::{ListenError, PeerInfo, RemoteAddr, Stream, TlsServer};

/// Handshakes in progress on one listener. Further connections wait in the system's backlog.
const HANDSHAKES_MAX: usize = 8192;

/// Connections that the system keeps for us until we accept them; it lowers this to its own limit.
const BACKLOG: u32 = 4096;

/// How long to wait when the process may not open any more descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Whose connections these are; only for the words in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// Clients' (`--listen-client-urls`).
    Client,
    /// Peers' (`--listen-peer-urls`).
    Peer,
    /// Probes' and scrapers' (`--listen-metrics-urls`).
    Metrics,
}

/// One address to listen on, and what is spoken there: plain text, TLS, or both when an `http` and
/// an `https` url name the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    urls: Vec<Url>,
}

/// Options of the sockets that are listened on. Go's listeners have `SO_REUSEADDR` in any case, and so
/// have these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// Whether others may listen on the same port that ask for it too (`--socket-reuse-port`).
    pub reuse_port: bool,
}

/// A bound address. Connections come out of [`Listener::accept`] with their handshake done.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    urls: Vec<Url>,
    handshake: Option<Handshake>,
    /// Dropping the listener drops these, and with them their connections.
    handshakes: JoinSet<Option<(Stream, PeerInfo)>>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket; removed when the listener goes.
#[derive(Debug)]
struct SocketFile(String);

impl Endpoint {
    /// The endpoints that these urls make: one for each address.
    #[must_use]
    pub fn from_urls(urls: &[Url]) -> Vec<Self> {
        let mut endpoints: Vec<Self> = Vec::new();
        for url in urls {
            let same_address = |endpoint: &&mut Self| {
                let first = &endpoint.urls[0];
                !url.scheme().is_unix() && first.authority() == url.authority()
            };
            match endpoints.iter_mut().find(same_address) {
                Some(endpoint) if !endpoint.urls.contains(url) => endpoint.urls.push(url.clone()),
                Some(_already_there) => {}
                None => endpoints.push(Self {
                    urls: vec![url.clone()],
                }),
            }
        }
        endpoints
    }

    /// Its urls: one, or the two that share its address.
    #[must_use]
    pub fn urls(&self) -> &[Url] {
        &self.urls
    }

    fn handshake(
        &self,
        kind: EndpointKind,
        tls: Option<&TlsServer>,
    ) -> Result<Option<Handshake>, ListenError> {
        let Some(secure) = self.urls.iter().find(|url| url.scheme().is_tls()) else {
            return Ok(None);
        };
        let Some(tls) = tls else {
            return Err(ListenError::no_tls(kind, secure));
        };
        let both = self.urls.iter().any(|url| !url.scheme().is_tls());
        let spoken = if both {
            Spoken::TlsOrPlain
        } else {
            Spoken::Tls
        };
        Ok(Some(Handshake {
            tls: tls.clone(),
            spoken,
            kind,
        }))
    }
}

impl Listener {
    /// Binds the endpoint. `tls` is needed when one of its urls is `https` or `unixs`. Must be
    /// called inside a tokio runtime.
    pub fn bind(
        endpoint: &Endpoint,
        kind: EndpointKind,
        tls: Option<&TlsServer>,
    ) -> Result<Self, ListenError> {
        Self::bind_with(endpoint, kind, tls, ListenOptions::default())
    }

    /// As [`Listener::bind`], with options for its socket; unix sockets have none.
    pub fn bind_with(
        endpoint: &Endpoint,
        kind: EndpointKind,
        tls: Option<&TlsServer>,
        options: ListenOptions,
    ) -> Result<Self, ListenError> {
        let handshake = endpoint.handshake(kind, tls)?;
        let first = &endpoint.urls[0];
        let socket = match first.bind_address()? {
            Some((ip, port)) => Bound::Tcp(bind_tcp(ip, port, options)?),
            None => bind_unix(first.socket_path().unwrap_or_default())?,
        };
        let urls = match &socket {
            Bound::Tcp(tcp) => with_real_port(&endpoint.urls, tcp),
            Bound::Unix(..) => endpoint.urls.clone(),
        };
        Ok(Self {
            socket,
            urls,
            handshake,
            handshakes: JoinSet::new(),
        })
    }

    /// The urls it was bound for, with the real port where port 0 was asked for.
    #[must_use]
    pub fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// The address it is bound to; `None` for a unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(tcp) => tcp.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// The next connection. Cancel safe. An error means that the listener is of no use any more:
    /// passing trouble (no descriptors left) is waited out, failed handshakes are logged.
    pub async fn accept(&mut self) -> io::Result<(Stream, PeerInfo)> {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    // A handshake that panicked has lost its own connection only.
                    if let Ok(Some(connection)) = done {
                        return Ok(connection);
                    }
                }
                accepted = self.socket.accept(), if self.handshakes.len() < HANDSHAKES_MAX => {
                    match accepted {
                        Ok((socket, remote)) => {
                            if let Some(connection) = self.admit(socket, remote) {
                                return Ok(connection);
                            }
                        }
                        Err(error) => pause_or_give_up(error).await?,
                    }
                }
            }
        }
    }

    /// A plain connection, or `None` when a handshake has been started.
    fn admit(&mut self, socket: Socket, remote: RemoteAddr) -> Option<(Stream, PeerInfo)> {
        match &self.handshake {
            None => {
                let peer = PeerInfo {
                    remote,
                    tls: false,
                    certificate: None,
                };
                Some((Stream::plain(socket), peer))
            }
            Some(handshake) => {
                self.handshakes.spawn(handshake.clone().run(socket, remote));
                None
            }
        }
    }
}

impl Bound {
    async fn accept(&self) -> io::Result<(Socket, RemoteAddr)> {
        match self {
            Self::Tcp(tcp) => {
                let (stream, remote) = tcp.accept().await?;
                // One small request and one small answer at a time: never wait for more to send.
                // A failure means that the client has gone already, which its first read tells.
                stream.set_nodelay(true).ok();
                // A socket of both families shows IPv4 addresses as IPv6 ones; Go does not.
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                Ok((Socket::Tcp(stream), RemoteAddr::Tcp(remote)))
            }
            Self::Unix(unix, _file) => {
                let (stream, _unnamed) = unix.accept().await?;
                Ok((Socket::Unix(stream), RemoteAddr::Unix))
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed already; the next start removes what is left.
        std::fs::remove_file(&self.0).ok();
    }
}

/// Waits when accepting will work again; returns the error when it will not.
async fn pause_or_give_up(error: io::Error) -> io::Result<()> {
    /// The connection was gone before we took it, or a signal came.
    const PASSING: [io::ErrorKind; 3] = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ];
    /// ENOMEM, ENFILE, EMFILE, ENOBUFS.
    const EXHAUSTED: [i32; 4] = [12, 23, 24, 105];
    if PASSING.contains(&error.kind()) {
        return Ok(());
    }
    if error
        .raw_os_error()
        .is_some_and(|code| EXHAUSTED.contains(&code))
    {
        tracing::warn!(%error, "cannot accept a connection now, trying again");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
        return Ok(());
    }
    Err(error)
}

fn with_real_port(urls: &[Url], tcp: &TcpListener) -> Vec<Url> {
    let port = tcp.local_addr().map_or(0, |addr| addr.port());
    let fill_in = |url: &Url| match url.port() {
        Ok(0) => url.with_port(port),
        _ => url.clone(),
    };
    urls.iter().map(fill_in).collect()
}

fn bind_tcp(ip: IpAddr, port: u16, options: ListenOptions) -> Result<TcpListener, ListenError> {
    let address = SocketAddr::new(ip, port);
    if ip.is_unspecified() {
        // As Go does: "every address" is those of both families, where the system has both.
        let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        match listen_tcp(any, options) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {}
            result => return result.map_err(|error| ListenError::bind("tcp", any, &error)),
        }
    }
    listen_tcp(address, options).map_err(|error| ListenError::bind("tcp", address, &error))
}

fn listen_tcp(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    if options.reuse_port {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: String) -> Result<Bound, ListenError> {
    // A socket that a killed process left behind is in the way; a file that is no socket stays.
    // What cannot be removed is told by bind.
    let is_socket = std::fs::symlink_metadata(&path)
        .is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()));
    if is_socket {
        std::fs::remove_file(&path).ok();
    }
    let unix =
        UnixListener::bind(&path).map_err(|error| ListenError::bind("unix", &path, &error))?;
    Ok(Bound::Unix(unix, SocketFile(path)))
}

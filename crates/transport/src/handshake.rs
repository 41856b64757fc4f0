//! What happens between a connection and its first request: finding out whether it is TLS, and the
//! handshake if it is.
//!
//! What this is not: anything that may be spoken after it.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::stream::Socket;
use crate::tls::san;
use crate::tls::verify::common_name;
use crate::{ClientCertificate, EndpointKind, PeerInfo, RemoteAddr, Stream, TlsServer, words};

/// How long a client may take for its handshake; etcd's figure.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a client that has been told off may take to hang up.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// How HTTP/1 requests begin; the same list as Go's.
const HTTP_REQUESTS: [&[u8; 5]; 5] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];

/// What Go's HTTP server says to a plain request on a TLS port.
const HTTP_TO_HTTPS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// What may be spoken on an endpoint that has an `https` url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Tls,
    TlsOrPlain,
}

/// How to do a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    pub(crate) tls: TlsServer,
    pub(crate) spoken: Spoken,
    pub(crate) kind: EndpointKind,
}

/// A handshake that came to nothing.
struct Failed {
    /// The server name that the client gave, if it came so far.
    server_name: String,
    reason: String,
    /// The reason is one of the system's, which Go prints with the addresses.
    is_systems: bool,
    /// The connection, if its client is still to hear of it.
    socket: Option<Socket>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        let is_systems = error.raw_os_error().is_some();
        let read = if is_systems { "read: " } else { "" };
        Self {
            server_name: String::new(),
            reason: format!("{read}{}", words::handshake(&error)),
            is_systems: is_systems || error.kind() == io::ErrorKind::TimedOut,
            socket: None,
        }
    }
}

impl Handshake {
    /// The connection when it is ready for requests; `None` when it was rejected, and that has
    /// been logged.
    pub(crate) async fn run(
        self,
        socket: Socket,
        remote: RemoteAddr,
    ) -> Option<(Stream, PeerInfo)> {
        let local = socket.local_addr();
        let outcome = tokio::time::timeout(HANDSHAKE_TIME_MAX, self.shake(socket, remote))
            .await
            .unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        let mut failed = match outcome {
            Ok(connection) => return Some(connection),
            Err(failed) => failed,
        };
        if let (true, Some(local)) = (failed.is_systems, local) {
            failed.reason = format!("read tcp {local}->{remote}: {}", failed.reason);
        }
        let endpoint = match self.kind {
            EndpointKind::Peer => "peer",
            EndpointKind::Client | EndpointKind::Metrics => "client",
        };
        tracing::warn!(
            "remote-addr" = %remote,
            "server-name" = failed.server_name,
            error = failed.reason,
            "rejected connection on {endpoint} endpoint",
        );
        if let Some(socket) = failed.socket {
            hang_up(socket).await;
        }
        None
    }

    async fn shake(
        &self,
        socket: Socket,
        remote: RemoteAddr,
    ) -> Result<(Stream, PeerInfo), Failed> {
        if !begins_with_tls(&socket).await? {
            if self.spoken == Spoken::TlsOrPlain {
                let peer = PeerInfo {
                    remote,
                    tls: false,
                    certificate: None,
                };
                return Ok((Stream::plain(socket), peer));
            }
            let socket = tell_off(socket).await;
            return Err(Failed {
                server_name: String::new(),
                reason: "tls: first record does not look like a TLS handshake".to_owned(),
                is_systems: false,
                socket,
            });
        }
        let session = self.shake_tls(socket, remote).await?;
        let peer = PeerInfo {
            remote,
            tls: true,
            certificate: leaf(&session).map(|leaf| ClientCertificate {
                common_name: common_name(leaf),
            }),
        };
        Ok((Stream::tls(session), peer))
    }

    async fn shake_tls(
        &self,
        socket: Socket,
        remote: RemoteAddr,
    ) -> Result<TlsStream<Socket>, Failed> {
        let tls = self.tls.clone();
        let with = spawn_blocking(move || tls.current())
            .await
            .map_err(io::Error::other)?;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let name = hello.client_hello().server_name().map(str::to_owned);
        let server_name = name.unwrap_or_default();
        let offered = words::Offered::by(&hello.client_hello());
        let session = match hello.into_stream(with.config).into_fallible().await {
            Ok(session) => session,
            Err((error, socket)) => {
                let details = offered.details(&error);
                let mut failed = Failed::from(error);
                failed.reason += &details;
                failed.server_name = server_name;
                failed.socket = Some(socket);
                if let Some(reason) = with.refusal.words() {
                    failed.reason = reason;
                }
                return Err(failed);
            }
        };
        // Nobody's address can be checked on a unix socket.
        if let (true, RemoteAddr::Tcp(remote), Some(leaf)) =
            (with.verify_san, remote, leaf(&session))
            && let Err(reason) = san::check(leaf, remote.ip().to_canonical()).await
        {
            return Err(Failed {
                server_name,
                reason,
                is_systems: false,
                socket: None,
            });
        }
        Ok(session)
    }
}

/// Waits for the first byte. Nothing is taken from the connection.
async fn begins_with_tls(socket: &Socket) -> io::Result<bool> {
    match socket {
        Socket::Tcp(tcp) => {
            let mut first = [0];
            match tcp.peek(&mut first).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(first[0] == TLS_HANDSHAKE),
            }
        }
        // A unix socket cannot be peeked at, and has one url only, so it is TLS.
        Socket::Unix(_) => Ok(true),
    }
}

/// Answers a plain HTTP request; `None` for anything else.
async fn tell_off(mut socket: Socket) -> Option<Socket> {
    let mut start = [0; 5];
    socket.read_exact(&mut start).await.ok()?;
    if !HTTP_REQUESTS.contains(&&start) {
        return None;
    }
    socket.write_all(HTTP_TO_HTTPS).await.ok()?;
    Some(socket)
}

/// Lets the other side hear what was said last. Nobody minds when it does not wait for that.
/// Closing with something of it unread would reset the connection and lose our words.
async fn hang_up(mut socket: Socket) {
    let linger = async {
        socket.shutdown().await?;
        let mut rest = [0; 1024];
        while socket.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::time::timeout(LINGER_TIME_MAX, linger).await.ok();
}

fn leaf(session: &TlsStream<Socket>) -> Option<&CertificateDer<'static>> {
    session.get_ref().1.peer_certificates()?.first()
}

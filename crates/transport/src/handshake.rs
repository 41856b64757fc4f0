//! What happens between a connection and its first request: finding out whether it is TLS, and the
//! handshake if it is.
//!
//! What this is not: anything that may be spoken after it.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::stream::Socket;
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

/// A handshake that came to nothing, with the server name the client gave, if it came so far.
struct Failed {
    server_name: String,
    error: io::Error,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self {
            server_name: String::new(),
            error,
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
        let outcome = tokio::time::timeout(HANDSHAKE_TIME_MAX, self.shake(socket, remote))
            .await
            .unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        match outcome {
            Ok(connection) => Some(connection),
            Err(failed) => {
                let endpoint = match self.kind {
                    EndpointKind::Peer => "peer",
                    EndpointKind::Client | EndpointKind::Metrics => "client",
                };
                tracing::warn!(
                    "remote-addr" = %remote,
                    "server-name" = failed.server_name,
                    error = words::handshake(&failed.error),
                    "rejected connection on {endpoint} endpoint",
                );
                None
            }
        }
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
            tell_off(socket).await;
            let text = "tls: first record does not look like a TLS handshake";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
        }
        let tls = self.tls.clone();
        let config = spawn_blocking(move || tls.current())
            .await
            .map_err(io::Error::other)?;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let server_name = hello
            .client_hello()
            .server_name()
            .unwrap_or_default()
            .to_owned();
        let session = hello
            .into_stream(config)
            .await
            .map_err(|error| Failed { server_name, error })?;
        let peer = PeerInfo {
            remote,
            tls: true,
            certificate: client_certificate(&session),
        };
        Ok((Stream::tls(session), peer))
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

/// Answers a plain HTTP request; hangs up on anything else.
async fn tell_off(mut socket: Socket) {
    let mut start = [0; 5];
    if socket.read_exact(&mut start).await.is_err() || !HTTP_REQUESTS.contains(&&start) {
        return;
    }
    // Nobody minds when the client does not wait for the answer. Closing with its request unread
    // would reset the connection and lose the answer, hence the reading.
    let answer = async {
        socket.write_all(HTTP_TO_HTTPS).await?;
        socket.shutdown().await?;
        let mut rest = [0; 1024];
        while socket.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::time::timeout(LINGER_TIME_MAX, answer).await.ok();
}

fn client_certificate(session: &TlsStream<Socket>) -> Option<ClientCertificate> {
    let leaf = session.get_ref().1.peer_certificates()?.first()?;
    let common_name = X509Certificate::from_der(leaf)
        .ok()
        .and_then(|(_rest, certificate)| {
            let subject = certificate.subject();
            let name = subject.iter_common_name().next()?;
            name.as_str().ok().map(str::to_owned)
        });
    Some(ClientCertificate { common_name })
}

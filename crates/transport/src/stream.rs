//! An accepted connection, and who is at its other end.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// An accepted connection, plain or TLS; the TLS handshake is done.
#[derive(Debug)]
pub struct Stream(Transport);

#[derive(Debug)]
enum Transport {
    Plain(Socket),
    // A TLS session is a thousand bytes larger than a socket.
    Tls(Box<TlsStream<Socket>>),
}

/// A connection as the system gives it.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its address.
    pub remote: RemoteAddr,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Its certificate, if it was asked for one: then it was verified.
    pub certificate: Option<ClientCertificate>,
}

/// The address at the other end. Displays as Go shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAddr {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket.
    Unix,
}

/// A verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of its subject: a user's name, when authentication is on.
    pub common_name: Option<String>,
}

impl Stream {
    pub(crate) const fn plain(socket: Socket) -> Self {
        Self(Transport::Plain(socket))
    }

    pub(crate) fn tls(session: TlsStream<Socket>) -> Self {
        Self(Transport::Tls(Box::new(session)))
    }
}

impl Socket {
    /// Our own address, if it is one of the network.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix => f.write_str("@"),
        }
    }
}

/// Hands a poll through to whichever kind of connection this is.
macro_rules! through {
    ($value:expr, $one:path | $other:path, $poll:ident($($argument:expr),*)) => {
        match $value {
            $one(inner) => Pin::new(inner).$poll($($argument),*),
            $other(inner) => Pin::new(inner).$poll($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        through!(
            &mut self.get_mut().0,
            Transport::Plain | Transport::Tls,
            poll_read(cx, buf)
        )
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        through!(
            &mut self.get_mut().0,
            Transport::Plain | Transport::Tls,
            poll_write(cx, buf)
        )
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        through!(
            &mut self.get_mut().0,
            Transport::Plain | Transport::Tls,
            poll_write_vectored(cx, bufs)
        )
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Transport::Plain(socket) => socket.is_write_vectored(),
            Transport::Tls(session) => session.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        through!(
            &mut self.get_mut().0,
            Transport::Plain | Transport::Tls,
            poll_flush(cx)
        )
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        through!(
            &mut self.get_mut().0,
            Transport::Plain | Transport::Tls,
            poll_shutdown(cx)
        )
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        through!(self.get_mut(), Self::Tcp | Self::Unix, poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        through!(self.get_mut(), Self::Tcp | Self::Unix, poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        through!(
            self.get_mut(),
            Self::Tcp | Self::Unix,
            poll_write_vectored(cx, bufs)
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        through!(self.get_mut(), Self::Tcp | Self::Unix, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        through!(self.get_mut(), Self::Tcp | Self::Unix, poll_shutdown(cx))
    }
}

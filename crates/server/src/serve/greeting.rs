//! What a new connection speaks: HTTP/2 begins with a preface of its own, and all else is HTTP/1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// How a connection has begun.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) spoken: Spoken,
    /// What was read and belongs to what comes after it: of HTTP/2 without its preface.
    pub(super) rest: BytesMut,
}

/// Reads until it is clear what a connection speaks; `None` if it ends before.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Greeting>> {
    let mut rest = BytesMut::new();
    loop {
        if stream.read_buf(&mut rest).await? == 0 {
            return Ok(None);
        }
        let compared = rest.len().min(http2::PREFACE.len());
        let spoken = if rest[..compared] != http2::PREFACE[..compared] {
            Spoken::Http1
        } else if compared == http2::PREFACE.len() {
            rest.advance(compared);
            Spoken::Http2
        } else {
            continue;
        };
        return Ok(Some(Greeting { spoken, rest }));
    }
}

/// A stream of which something was read that its reader has to read again.
pub(super) struct Rewound<S> {
    rest: BytesMut,
    stream: S,
}

impl<S> Rewound<S> {
    pub(super) fn new(rest: BytesMut, stream: S) -> Self {
        Self { rest, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let part = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(part));
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What is made of bytes that come one by one.
    async fn greeting(bytes: &[u8]) -> Option<(Spoken, Vec<u8>)> {
        let (mut client, mut server) = tokio::io::duplex(1);
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move { client.write_all(&bytes).await });
        let greeting = read(&mut server).await.expect("read")?;
        let mut rewound = Rewound::new(greeting.rest, server);
        let mut rest = Vec::new();
        rewound.read_to_end(&mut rest).await.expect("read");
        sending.await.expect("no panic").expect("sent");
        Some((greeting.spoken, rest))
    }

    #[tokio::test]
    async fn http_2_has_a_preface_and_nothing_else_loses_a_byte() {
        let http2 = [http2::PREFACE, b"frames"].concat();
        assert_eq!(
            greeting(&http2).await,
            Some((Spoken::Http2, b"frames".to_vec()))
        );
        for http1 in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PRI * HTTP/2.1\r\n\r\n",
            b"P ",
        ] {
            assert_eq!(greeting(http1).await, Some((Spoken::Http1, http1.to_vec())));
        }
        assert_eq!(greeting(b"PRI * HTTP/2.0").await, None);
    }
}

//! Whether a connection has begun to speak: hyper, where it serves HTTP of either version, waits for that and
//! has no timer for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of HTTP/2's preface: after so many it is clear what a connection speaks.
const GREETING_BYTES: usize = 24;

/// A stream that counts what has been read from it.
#[derive(Debug)]
pub struct Greeted<S> {
    stream: S,
    heard: Arc<AtomicUsize>,
}

/// How much of its greeting a connection has sent.
#[derive(Debug)]
pub struct Greeting {
    heard: Arc<AtomicUsize>,
}

impl<S> Greeted<S> {
    /// The stream, and what tells whether it has begun to speak.
    #[must_use]
    pub fn new(stream: S) -> (Self, Greeting) {
        let heard = Arc::new(AtomicUsize::new(0));
        let greeting = Greeting {
            heard: Arc::clone(&heard),
        };
        (Self { stream, heard }, greeting)
    }
}

impl Greeting {
    /// Whether enough has been read to know what the connection speaks.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.heard.load(Ordering::Relaxed) >= GREETING_BYTES
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.heard.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
}

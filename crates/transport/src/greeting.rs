//! Whether a connection has begun to speak: who serves HTTP of either version waits for that, and
//! has no timer for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes of HTTP/2's preface: after so many it is clear what a connection speaks.
const GREETING_BYTES: usize = 24;

/// A stream that counts what has been read from it.
#[derive(Debug)]
pub struct Greeted<S> {
    stream: S,
    heard: Arc<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    bytes: AtomicUsize,
    complete: Notify,
}

/// How much of its greeting a connection has sent.
#[derive(Debug)]
pub struct Greeting {
    heard: Arc<Heard>,
}

impl<S> Greeted<S> {
    /// The stream, and what tells whether it has begun to speak.
    #[must_use]
    pub fn new(stream: S) -> (Self, Greeting) {
        let heard = Arc::new(Heard::default());
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
        self.heard.bytes.load(Ordering::Relaxed) >= GREETING_BYTES
    }

    /// Waits until then.
    pub async fn completed(&self) {
        loop {
            // Before the look, so that what comes between the two is not missed.
            let complete = self.heard.complete.notified();
            tokio::pin!(complete);
            complete.as_mut().enable();
            if self.is_complete() {
                return;
            }
            complete.await;
        }
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
        let before = self.heard.bytes.fetch_add(read, Ordering::Relaxed);
        if before < GREETING_BYTES && before + read >= GREETING_BYTES {
            self.heard.complete.notify_waiters();
        }
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

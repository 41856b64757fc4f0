//! The end of a connection, so that nothing that was sent to its client is lost.
//!
//! A socket that is closed while bytes of the client lie unread in it is reset, and a reset makes the
//! client's system throw away answers that it had received but not yet handed over. So the sending half is
//! shut first, and what the client still says (an acknowledged ping, a window update, a request that came
//! too late and that GOAWAY has told it to send elsewhere) is read and dropped until the client closes too.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client gets to close its half.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// What is dropped of a client that goes on talking; then it is reset after all.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// What is dropped at a time.
const CHUNK_BYTES: usize = 1024;

/// A connection that is read to its end after it has been shut down.
pub(super) struct Lingering<S> {
    stream: S,
    end: Option<End>,
}

/// The sending half is shut.
struct End {
    until: Pin<Box<Sleep>>,
    dropped: usize,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, end: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
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
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let end = this.end.get_or_insert_with(|| End {
            until: Box::pin(tokio::time::sleep(LINGER_TIMEOUT)),
            dropped: 0,
        });
        let mut chunk = [0; CHUNK_BYTES];
        while end.dropped < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    end.dropped += buf.filled().len()
                }
                // Its end. An error says as much.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return end.until.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.expect("connected"), server.expect("accepted").0)
    }

    #[tokio::test]
    async fn what_was_answered_arrives_though_the_client_went_on_talking() {
        let (mut client, server) = pair().await;
        client
            .write_all(b"a request nobody reads")
            .await
            .expect("sent");
        let mut server = Lingering::new(server);
        server.write_all(b"the answer").await.expect("sent");
        let ended = tokio::spawn(async move { server.shutdown().await });
        let mut half = [0; 3];
        client.read_exact(&mut half).await.expect("read");
        client.write_all(b"and more").await.expect("sent");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("no reset");
        assert_eq!(rest, b" answer");
        drop(client);
        ended.await.expect("no panic").expect("shut down");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_close_is_not_waited_for_any_longer() {
        let (_client, server) = tokio::io::duplex(64);
        let before = tokio::time::Instant::now();
        Lingering::new(server).shutdown().await.expect("shut down");
        assert_eq!(before.elapsed().as_secs(), LINGER_TIMEOUT.as_secs());
    }

    /// Time stands still while there is something to do: it is not the timer that ends this.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_talks_without_end_is_cut_off() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let before = tokio::time::Instant::now();
        let talking =
            tokio::spawn(async move { while client.write_all(&[0; 4096]).await.is_ok() {} });
        Lingering::new(server).shutdown().await.expect("shut down");
        assert_eq!(before.elapsed(), Duration::ZERO);
        talking.await.expect("it heard of the end");
    }
}

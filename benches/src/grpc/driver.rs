//! Between a connection's socket and what it knows: one task.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::wire::Wire;

/// Read at once.
const READ_BYTES: usize = 64 << 10;

struct Driver<S> {
    socket: S,
    wire: Arc<Mutex<Wire>>,
    read: BytesMut,
    writing: BytesMut,
    /// Whether what was written is out of the socket's own buffers.
    flushed: bool,
    /// Something is to be written, and the clients have had a turn to add to it.
    gathered: bool,
}

/// Reads and writes until the connection is over.
pub(super) async fn drive<S>(socket: S, wire: Arc<Mutex<Wire>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut driver = Driver {
        socket,
        wire,
        read: BytesMut::new(),
        writing: BytesMut::new(),
        flushed: true,
        gathered: false,
    };
    let ended = poll_fn(|cx| driver.poll(cx)).await;
    let why = match ended {
        Ok(()) => "the server closed the connection".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    driver.wire.lock().end(&why);
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        if let Poll::Ready(ended) = self.poll_read(cx) {
            return Poll::Ready(ended);
        }
        loop {
            ready!(self.poll_write(cx))?;
            if !self.gathered {
                if self.wire.lock().has_out(cx) {
                    // Behind everybody who is about to ask for something.
                    self.gathered = true;
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            self.gathered = false;
            match self.wire.lock().take_out() {
                None => return Poll::Ready(Ok(())),
                Some(out) => {
                    self.writing = out;
                    self.flushed = false;
                }
            }
        }
    }

    /// Ready only when nothing more will come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        loop {
            self.read.reserve(READ_BYTES);
            let socket = Pin::new(&mut self.socket);
            if ready!(poll_read_buf(socket, cx, &mut self.read))? == 0 {
                return Poll::Ready(Ok(()));
            }
            self.wire.lock().receive(&mut self.read)?;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Pin::new(&mut self.socket);
        while !self.writing.is_empty() {
            let written = ready!(socket.as_mut().poll_write(cx, &self.writing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.writing.advance(written);
        }
        if !self.flushed {
            ready!(socket.poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

//! A gRPC client that does as little as it can: pre-encoded requests over an HTTP/2 of its own, and answers looked at
//! only as far as a load needs them. On a machine that it shares with the server, what it takes is what the server
//! lacks.
//!
//! Like grpc-go, a connection waits for a turn of its clients before it writes, so that what they ask for at the same
//! time goes out together.

mod driver;
mod frames;
mod heads;
#[cfg(test)]
mod tests;
mod wire;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::grpc::wire::{Keep, Wire};

/// Bytes before each message: whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;

/// One HTTP/2 connection; clones share it. It closes when the last of them and of its calls is gone.
#[derive(Clone)]
pub(crate) struct Connection {
    open: Arc<Open>,
}

struct Open {
    wire: Arc<Mutex<Wire>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.wire.lock().end("nobody uses the connection any more");
    }
}

/// A call: its stream is reset if it is left before its end.
struct Call {
    connection: Connection,
    stream: u32,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connection.open.wire.lock().leave(self.stream);
    }
}

/// A message with gRPC's prefix, ready to be sent any number of times.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut framed = BytesMut::with_capacity(len + PREFIX_BYTES);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(len).expect("requests of a benchmark are small"));
    message
        .encode(&mut framed)
        .expect("the buffer was made large enough");
    framed.freeze()
}

impl Connection {
    /// Over a stream to `host:port`.
    pub(crate) fn over<S>(stream: S, authority: &str) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire = Arc::new(Mutex::new(Wire::new(authority)));
        tokio::spawn(driver::drive(stream, wire.clone()));
        Self {
            open: Arc::new(Open { wire }),
        }
    }

    /// One call with one answer; returns how many bytes the answer had.
    pub(crate) async fn unary(&self, path: &'static str, framed: Bytes) -> anyhow::Result<usize> {
        Ok(self.ask(path, &framed, Keep::Nothing).await?.1)
    }

    /// One call with one answer, decoded.
    pub(crate) async fn call<R: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
    ) -> anyhow::Result<R> {
        let (answer, _) = self.ask(path, &frame(request), Keep::All).await?;
        let message = answer
            .get(PREFIX_BYTES..)
            .context("an answer without a message")?;
        Ok(R::decode(message)?)
    }

    /// What was kept of an answer, and how many bytes it had.
    async fn ask(
        &self,
        path: &'static str,
        framed: &Bytes,
        keep: Keep,
    ) -> anyhow::Result<(BytesMut, usize)> {
        let call = self.begin(path, framed, true, keep)?;
        let answered = poll_fn(|cx| {
            let mut wire = self.open.wire.lock();
            wire.poll_answer(call.stream, cx)
        });
        answered.await.with_context(|| format!("{path} failed"))
    }

    fn begin(
        &self,
        path: &'static str,
        framed: &Bytes,
        last: bool,
        keep: Keep,
    ) -> anyhow::Result<Call> {
        let stream = self.open.wire.lock().begin(path, framed, last, keep)?;
        Ok(Call {
            stream,
            connection: self.clone(),
        })
    }

    /// A call with many requests and many answers, with the first request; waits for the answers to begin.
    pub(crate) async fn streaming(
        &self,
        path: &'static str,
        first: &impl Message,
    ) -> anyhow::Result<Streaming> {
        let call = self.begin(path, &frame(first), false, Keep::Messages)?;
        let begun = poll_fn(|cx| self.open.wire.lock().poll_begun(call.stream, cx));
        begun.await.with_context(|| format!("{path} failed"))?;
        Ok(Streaming { call })
    }
}

/// A call with many requests and many answers.
pub(crate) struct Streaming {
    call: Call,
}

impl Streaming {
    /// Sends one more request.
    pub(crate) fn send(&mut self, message: &impl Message) {
        let mut wire = self.call.connection.open.wire.lock();
        wire.send(self.call.stream, &frame(message), false);
    }

    /// The next answer, or `None` at the end of the stream.
    pub(crate) async fn next<R: Message + Default>(&mut self) -> anyhow::Result<Option<R>> {
        let call = &self.call;
        let framed = poll_fn(|cx| -> Poll<anyhow::Result<Option<BytesMut>>> {
            let mut wire = call.connection.open.wire.lock();
            wire.poll_message(call.stream, cx)
        });
        Ok(match framed.await? {
            Some(framed) => Some(R::decode(&framed[PREFIX_BYTES..])?),
            None => None,
        })
    }
}

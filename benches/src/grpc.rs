//! A gRPC client that does as little as it can: pre-encoded requests over HTTP/2, and answers looked
//! at only as far as a load needs them.

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    authority: String,
}

/// The two halves of a streaming call.
pub(crate) struct Streaming {
    send: SendStream<Bytes>,
    recv: RecvStream,
    buffered: BytesMut,
}

/// A message with gRPC's five-byte prefix, ready to be sent any number of times.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut framed = BytesMut::with_capacity(len + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(len).expect("requests of a benchmark are small"));
    message
        .encode(&mut framed)
        .expect("the buffer was made large enough");
    framed.freeze()
}

impl Connection {
    /// Over a stream to `host:port`.
    pub(crate) async fn over<S>(stream: S, authority: &str) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, driver) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            .handshake(stream)
            .await?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                // The server was stopped at the end of a run: whoever still waits gets the error.
                let _closed = error;
            }
        });
        Ok(Self {
            send,
            authority: authority.to_owned(),
        })
    }

    async fn start(
        &self,
        path: &'static str,
    ) -> anyhow::Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
        let request = Request::builder()
            .method("POST")
            .uri(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut send = self.send.clone().ready().await?;
        Ok(send.send_request(request, false)?)
    }

    /// One call with one answer; returns how many bytes the answer had.
    pub(crate) async fn unary(&self, path: &'static str, framed: Bytes) -> anyhow::Result<usize> {
        Ok(self.collect(path, framed, Keep::Nothing).await?.1)
    }

    /// One call with one answer, decoded.
    pub(crate) async fn call<R: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
    ) -> anyhow::Result<R> {
        let (answer, _) = self.collect(path, frame(request), Keep::All).await?;
        let message = answer.get(5..).context("an answer without a message")?;
        Ok(R::decode(message)?)
    }

    async fn collect(
        &self,
        path: &'static str,
        framed: Bytes,
        keep: Keep,
    ) -> anyhow::Result<(BytesMut, usize)> {
        let (response, mut send) = self.start(path).await?;
        send.send_data(framed, true)?;
        let response = response.await?;
        let (head, mut body) = response.into_parts();
        let mut kept = BytesMut::new();
        let mut received = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            received += chunk.len();
            body.flow_control().release_capacity(chunk.len())?;
            if keep == Keep::All {
                kept.extend_from_slice(&chunk);
            }
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        let status = trailers
            .get("grpc-status")
            .or_else(|| head.headers.get("grpc-status"));
        if status.is_none_or(|status| status != "0") {
            let text = trailers
                .get("grpc-message")
                .or_else(|| head.headers.get("grpc-message"));
            bail!("{path} failed: status {status:?}, message {text:?}");
        }
        Ok((kept, received))
    }

    /// A call with many requests and many answers.
    pub(crate) async fn streaming(&self, path: &'static str) -> anyhow::Result<Pending> {
        let (response, send) = self.start(path).await?;
        Ok(Pending { response, send })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    All,
}

/// A streaming call whose answers have not begun; the server may wait for a first request.
pub(crate) struct Pending {
    response: h2::client::ResponseFuture,
    send: SendStream<Bytes>,
}

impl Pending {
    /// Sends the first request and waits for the answers to begin.
    pub(crate) async fn begin(mut self, first: &impl Message) -> anyhow::Result<Streaming> {
        self.send.send_data(frame(first), false)?;
        let recv = self.response.await?.into_body();
        Ok(Streaming {
            send: self.send,
            recv,
            buffered: BytesMut::new(),
        })
    }
}

impl Streaming {
    /// Sends one more request.
    pub(crate) fn send(&mut self, message: &impl Message) -> anyhow::Result<()> {
        Ok(self.send.send_data(frame(message), false)?)
    }

    /// The next answer, or `None` at the end of the stream.
    pub(crate) async fn next<R: Message + Default>(&mut self) -> anyhow::Result<Option<R>> {
        loop {
            if let Some(len) = self.buffered_message_len()
                && self.buffered.len() >= 5 + len
            {
                let framed = self.buffered.split_to(5 + len);
                return Ok(Some(R::decode(&framed[5..])?));
            }
            match self.recv.data().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    self.recv.flow_control().release_capacity(chunk.len())?;
                    self.buffered.extend_from_slice(&chunk);
                }
                None => return Ok(None),
            }
        }
    }

    fn buffered_message_len(&self) -> Option<usize> {
        let prefix: [u8; 4] = self.buffered.get(1..5)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(prefix)).ok()
    }
}

//! A gRPC call inside the process: messages framed as on the wire, and what comes back.
//!
//! What this is not: a connection. Nothing is encoded as HTTP/2; the services get the request as a value
//! and give their response as one.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::framing::{PREFIX_BYTES, put_prefix};

/// A message as it goes into a call's body.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    // A message that is longer has been refused long before.
    put_prefix(
        u32::try_from(message.len()).unwrap_or(u32::MAX),
        &mut framed,
    );
    framed.put_slice(message);
    framed.freeze()
}

/// The messages that come back, and then the outcome, if it is an error.
pub(super) struct Replies {
    body: Body,
    received: BytesMut,
    /// The outcome, once it is known.
    outcome: Option<Result<(), Status>>,
    deadline: Option<Instant>,
    /// Says why no more requests are taken.
    refused: Option<oneshot::Receiver<Status>>,
    ended: bool,
}

impl Replies {
    /// What comes back in this response.
    pub(super) fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            body,
            received: BytesMut::new(),
            // A call that fails at once says so in its headers.
            outcome: Status::from_header_map(&parts.headers).map(of_status),
            deadline: None,
            refused: None,
            ended: false,
        }
    }

    /// The same, but no longer than until then.
    pub(super) fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same, but ended when this says so.
    pub(super) fn unless(mut self, refused: oneshot::Receiver<Status>) -> Self {
        self.refused = Some(refused);
        self
    }

    /// The next message; an error is the last there is.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        if self.ended {
            return None;
        }
        let reply = tokio::select! {
            biased;
            status = refusal(&mut self.refused) => Some(Err(status)),
            () = reached(self.deadline) => Some(Err(deadline_exceeded())),
            reply = next_message(&mut self.body, &mut self.received, &mut self.outcome) => reply,
        };
        if let Some(Ok(_)) = reply {
            return reply;
        }
        self.ended = true;
        // Why requests ended tells more than that the call ended after it.
        match self.refused.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(status)) => Some(Err(status)),
            Some(Err(_)) | None => reply,
        }
    }

    /// The one message of a call that has one.
    pub(super) async fn only(mut self) -> Result<Bytes, Status> {
        let reply = self.next().await;
        let reply = reply.unwrap_or_else(|| Err(Status::internal("empty response")))?;
        // The outcome is behind it.
        match self.next().await {
            Some(Err(status)) => Err(status),
            Some(Ok(_)) | None => Ok(reply),
        }
    }
}

pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Waits for a refusal; for ever when there can be none any more.
async fn refusal(refused: &mut Option<oneshot::Receiver<Status>>) -> Status {
    if let Some(receiver) = refused {
        match receiver.await {
            Ok(status) => {
                *refused = None;
                return status;
            }
            Err(_requests_ended_well) => *refused = None,
        }
    }
    std::future::pending().await
}

/// The next message. Cancel safe: what was received stays in the buffers.
async fn next_message(
    body: &mut Body,
    received: &mut BytesMut,
    outcome: &mut Option<Result<(), Status>>,
) -> Option<Result<Bytes, Status>> {
    loop {
        if let Some(message) = take_message(received) {
            return Some(Ok(message));
        }
        if let Some(outcome) = outcome {
            return outcome.clone().err().map(Err);
        }
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => received.extend_from_slice(&data),
                Err(frame) => *outcome = frame.trailers_ref().map(of_trailers),
            },
            Some(Err(status)) => *outcome = Some(Err(status)),
            None => *outcome = Some(Ok(())),
        }
    }
}

fn of_trailers(trailers: &HeaderMap) -> Result<(), Status> {
    Status::from_header_map(trailers).map_or(Ok(()), of_status)
}

fn of_status(status: Status) -> Result<(), Status> {
    match status.code() {
        tonic::Code::Ok => Ok(()),
        _ => Err(status),
    }
}

fn take_message(received: &mut BytesMut) -> Option<Bytes> {
    let (prefix, rest) = received.split_first_chunk::<PREFIX_BYTES>()?;
    let [_not_compressed, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if rest.len() < length {
        return None;
    }
    received.advance(PREFIX_BYTES);
    Some(received.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_when_they_are_complete() {
        let mut received = BytesMut::new();
        let wire = [frame(b"ab"), frame(b""), frame(b"c")].concat();
        let mut messages = Vec::new();
        for byte in wire {
            received.put_u8(byte);
            messages.extend(take_message(&mut received));
        }
        assert_eq!(messages, ["ab", "", "c"]);
        assert!(received.is_empty());
    }
}

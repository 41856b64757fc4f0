//! A request's body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::stream::{Next, Stream};

/// The body of a request, as it comes. Who does not read it holds its client up, by HTTP/2's flow control.
#[derive(Debug)]
pub struct RequestBody {
    stream: Arc<Stream>,
}

/// The client, or the connection, has ended the request before its body was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream has ended before the request's body was complete")]
pub struct Incomplete;

impl RequestBody {
    pub(crate) fn new(stream: Arc<Stream>) -> Self {
        Self { stream }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        Poll::Ready(match ready!(self.stream.poll_received(cx)) {
            Next::Data(data) => Some(Ok(Frame::data(data))),
            Next::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            Next::End => None,
            Next::Ended => Some(Err(Incomplete)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_read()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.stream.abandon();
    }
}

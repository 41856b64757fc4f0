//! What is watched while a call's bytes pass: the size of its messages, its outcome, and whether its
//! stream has to end.
//!
//! What this is not: a codec. Messages pass as they are.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use api::rpctypes::ErrorCode;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::codegen::StdError;
use tonic::{Code, Status};

use crate::SlowRequests;
use crate::call::Call;
use crate::framing::{self, PREFIX_BYTES};
use crate::metrics::CallMetrics;

/// Finds the messages in a gRPC body.
#[derive(Default)]
struct MessageScanner {
    prefix: [u8; PREFIX_BYTES],
    prefix_filled: usize,
    /// Bytes of the current message that are still to come.
    message_left: usize,
}

impl MessageScanner {
    /// Calls `on_message` with the length of each message that begins in `data`.
    fn scan(&mut self, mut data: &[u8], mut on_message: impl FnMut(usize)) {
        while !data.is_empty() {
            let (scanned, _is_end) = self.scan_message(data, &mut on_message);
            data = &data[scanned..];
        }
    }

    /// Goes on in `data` to the end of a message, if it is there. Says where that is, or how much data there was,
    /// and whether it is there.
    fn scan_message(&mut self, data: &[u8], mut on_message: impl FnMut(usize)) -> (usize, bool) {
        let mut scanned = 0;
        if self.message_left == 0 {
            scanned = (PREFIX_BYTES - self.prefix_filled).min(data.len());
            let filled = self.prefix_filled + scanned;
            self.prefix[self.prefix_filled..filled].copy_from_slice(&data[..scanned]);
            self.prefix_filled = filled % PREFIX_BYTES;
            if filled < PREFIX_BYTES {
                return (scanned, false);
            }
            let [_, length @ ..] = self.prefix;
            self.message_left = u32::from_be_bytes(length) as usize;
            on_message(self.message_left);
        }
        let of_message = self.message_left.min(data.len() - scanned);
        self.message_left -= of_message;
        (scanned + of_message, self.message_left == 0)
    }
}

/// A request's body: counts, and refuses a message that is too large in grpc-go's words.
pub(crate) struct RequestBody<B> {
    inner: B,
    scanner: MessageScanner,
    message_bytes_max: usize,
    metrics: CallMetrics,
    /// There is one message, of a unary call.
    is_unary: bool,
    /// What has come of a unary call's message, until it is whole: for what only says that it is large the codec
    /// would take memory at once.
    part: BytesMut,
    /// What is handed on next.
    ready: Option<Bytes>,
    /// The message of a unary call has come, or all that will. What comes after it is nobody's.
    is_whole: bool,
    /// Why it has not, if who asked for it was not told.
    failed: Option<StdError>,
}

impl<B> RequestBody<B> {
    pub(crate) fn new(
        inner: B,
        message_bytes_max: usize,
        metrics: CallMetrics,
        is_unary: bool,
    ) -> Self {
        Self {
            inner,
            is_unary,
            scanner: MessageScanner::default(),
            message_bytes_max,
            metrics,
            part: BytesMut::new(),
            ready: None,
            is_whole: false,
            failed: None,
        }
    }

    /// Looks at what has come. Of a unary call it keeps what belongs to the message, and says whether that is whole.
    fn receive(&mut self, mut data: Bytes) -> Result<bool, Status> {
        let (max, metrics) = (self.message_bytes_max, &self.metrics);
        let mut oversize = None;
        let on_message = |length| {
            metrics.received_message();
            if length > max {
                oversize = Some(length);
            }
        };
        metrics.received_bytes(data.len());
        let mut is_whole = false;
        if self.is_unary {
            let scanned;
            (scanned, is_whole) = self.scanner.scan_message(&data, on_message);
            data.truncate(scanned);
        } else {
            self.scanner.scan(&data, on_message);
        }
        if let Some(length) = oversize {
            return Err(too_large(length, max));
        }
        if !self.is_unary || is_whole && self.part.is_empty() {
            self.ready = Some(data);
        } else {
            self.part.extend_from_slice(&data);
        }
        Ok(is_whole)
    }
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    /// The message of a unary call with its flag and length, when it has come. What came instead of one is there for
    /// who reads the body.
    pub(crate) async fn message(&mut self) -> Option<Bytes> {
        debug_assert!(self.is_unary);
        match poll_fn(|cx| self.poll_ready(cx)).await {
            Ok(()) => self.take(),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    /// Leaves it to who reads the body.
    pub(crate) fn put_back(&mut self, message: Bytes) {
        self.ready = Some(message);
    }

    /// Waits for what is to be handed on next: of a unary call its message.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while !self.is_whole && (self.is_unary || self.ready.is_none()) {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.is_whole = self.receive(data)?,
                    // They are nothing to a gRPC server.
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => self.is_whole = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self) -> Option<Bytes> {
        let part = (!self.part.is_empty()).then(|| self.part.split().freeze());
        self.ready.take().or(part)
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = self.get_mut();
        let ready = ready!(this.poll_ready(cx));
        let next = ready.map(|()| this.take()).transpose();
        Poll::Ready(next.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let is_over = self.is_whole || self.inner.is_end_stream();
        is_over && self.ready.is_none() && self.part.is_empty() && self.failed.is_none()
    }
}

fn too_large(length: usize, max: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({length} vs. {max})"
    ))
}

/// Says when, and with which error, a stream has to end.
pub(crate) type StreamEnd = Pin<Box<dyn Future<Output = ErrorCode> + Send>>;

/// A response's body: counts, notes the outcome, and ends the stream when it has to.
pub(crate) struct ResponseBody {
    inner: tonic::body::Body,
    scanner: MessageScanner,
    metrics: CallMetrics,
    /// `None` once it has fired, and for calls that end by themselves.
    end: Option<StreamEnd>,
    ended: bool,
    /// What is told about the call when the response is complete.
    told: Option<ToldCall>,
}

/// Counts a response that is one message.
pub(crate) fn observe_message(message: &Bytes, metrics: &CallMetrics, told: Option<ToldCall>) {
    metrics.sent_messages(1);
    metrics.sent_bytes(message.len());
    metrics.finished(Code::Ok);
    if let Some(mut told) = told {
        told.sent_bytes = message.len();
    }
}

/// A call about which something is told, and the size of its response.
pub(crate) struct ToldCall {
    call: Arc<Call>,
    limits: SlowRequests,
    sent_bytes: usize,
}

impl ToldCall {
    pub(crate) const fn new(call: Arc<Call>, limits: SlowRequests) -> Self {
        Self {
            call,
            limits,
            sent_bytes: 0,
        }
    }
}

impl Drop for ToldCall {
    fn drop(&mut self) {
        let size = self.sent_bytes.saturating_sub(PREFIX_BYTES);
        self.call.tell(size, &self.limits);
    }
}

impl ResponseBody {
    pub(crate) fn new(
        inner: tonic::body::Body,
        metrics: CallMetrics,
        end: Option<StreamEnd>,
        told: Option<ToldCall>,
    ) -> Self {
        Self {
            inner,
            scanner: MessageScanner::default(),
            metrics,
            end,
            ended: false,
            told,
        }
    }

    fn observe(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let metrics = &self.metrics;
            metrics.sent_bytes(data.len());
            if let Some(told) = &mut self.told {
                told.sent_bytes += data.len();
            }
            let mut messages = 0;
            self.scanner.scan(data, |_| messages += 1);
            metrics.sent_messages(messages);
        } else if let Some(code) = frame.trailers_ref().and_then(status_code) {
            self.metrics.finished(code);
            self.told = None;
        }
    }

    /// The last frame of a stream that has to end.
    fn end_with(&mut self, error: ErrorCode) -> Frame<Bytes> {
        self.end = None;
        self.ended = true;
        self.metrics.finished(error.wire_code());
        Frame::trailers(framing::trailers(&error.into()))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.observe(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => Poll::Ready(other),
            Poll::Pending => match this.end.as_mut().map(|end| end.as_mut().poll(cx)) {
                Some(Poll::Ready(error)) => Poll::Ready(Some(Ok(this.end_with(error)))),
                Some(Poll::Pending) | None => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The outcome that headers or trailers tell.
pub(crate) fn status_code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(Status::GRPC_STATUS)
        .map(|code| Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(chunks: &[&[u8]]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut scanner = MessageScanner::default();
        for chunk in chunks {
            scanner.scan(chunk, |length| found.push(length));
        }
        found
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let wire = b"\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\x01c";
        assert_eq!(lengths(&[wire]), [2, 0, 1]);
        for cut in 0..wire.len() {
            assert_eq!(
                lengths(&[&wire[..cut], &wire[cut..]]),
                [2, 0, 1],
                "cut at {cut}"
            );
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(lengths(&bytes), [2, 0, 1]);
    }
}

//! The answer to one request, from its beginning to the last byte of its body.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;

use crate::frame::Reason;
use crate::reply::Reply;
use crate::stream::{Outgoing, Stream};

/// Ends when everything of the answer is queued, or its stream has ended.
pub(crate) struct Answer<F, B> {
    stream: Arc<Stream>,
    /// The client wants no body (HEAD).
    is_head_only: bool,
    step: Step<F, B>,
}

enum Step<F, B> {
    Asked(F),
    Body(B),
}

impl<F, B> Answer<F, B> {
    pub(crate) fn new(stream: Arc<Stream>, asked: F, is_head_only: bool) -> Self {
        Self {
            stream,
            is_head_only,
            step: Step::Asked(asked),
        }
    }
}

impl<F, B, R, E> Future for Answer<F, B>
where
    F: Future<Output = Result<R, E>> + Unpin,
    R: Into<Reply<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            if !ready!(this.stream.poll_room(cx)) {
                return Poll::Ready(());
            }
            // A panic has been told of by the hook for that; other streams have nothing to do with it.
            let step = catch_unwind(AssertUnwindSafe(|| this.poll_step(cx)));
            let is_over = match step {
                Ok(step) => ready!(step),
                Err(_panic) => this.end(Outgoing::Reset(Reason::InternalError)),
            };
            if is_over {
                return Poll::Ready(());
            }
        }
    }
}

/// Each says whether that was all.
impl<F, B, R, E> Answer<F, B>
where
    F: Future<Output = Result<R, E>> + Unpin,
    R: Into<Reply<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let broken = Outgoing::Reset(Reason::InternalError);
        Poll::Ready(match &mut self.step {
            Step::Asked(asked) => match ready!(Pin::new(asked).poll(cx)) {
                Ok(reply) => self.begin(reply.into()),
                Err(_not_answered) => self.end(broken),
            },
            Step::Body(body) => match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let is_last = body.is_end_stream();
                    self.go_on(frame, is_last)
                }
                Some(Err(_broken)) => self.end(broken),
                None => self.end(Outgoing::Data(Bytes::new(), true)),
            },
        })
    }

    fn begin(&mut self, reply: Reply<B>) -> bool {
        let (parts, body) = match reply {
            Reply::Response(response) => response.into_parts(),
            Reply::Message(_) if self.is_head_only => {
                return self.end(Outgoing::Head(StatusCode::OK, Box::default(), true));
            }
            Reply::Message(message) => return self.end(Outgoing::Message(message)),
        };
        let is_last = self.is_head_only || body.is_end_stream();
        let headers = Box::new(parts.headers);
        self.stream
            .send(Outgoing::Head(parts.status, headers, is_last));
        self.step = Step::Body(body);
        is_last
    }

    fn go_on(&self, frame: http_body::Frame<Bytes>, is_last: bool) -> bool {
        match frame.into_data() {
            Ok(data) => {
                self.stream.send(Outgoing::Data(data, is_last));
                is_last
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.end(Outgoing::Trailers(Box::new(trailers))),
                // No other kinds are known.
                Err(_unknown) => false,
            },
        }
    }

    fn end(&self, last: Outgoing) -> bool {
        self.stream.send(last);
        true
    }
}

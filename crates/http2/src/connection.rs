//! The task of one connection: it reads, has requests answered, and writes.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Method, Request};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use crate::Options;
use crate::answer::Answer;
use crate::body::RequestBody;
use crate::keepalive::{Due, KeepAlive};
use crate::reply::Reply;
use crate::wire::Wire;

/// What is read at a time.
const READ_BYTES: usize = 16 * 1024;
/// How often more is read before what has come is answered.
const READS_MAX: usize = 4;
/// How often it reads, answers and writes before others have their turn.
const ROUNDS_MAX: usize = 16;
/// How long a client gets to take our last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client does not keep to HTTP/2, or to what is asked of it.
    #[error("{0}")]
    Client(&'static str),
    /// The client did not say that it is there.
    #[error("keepalive ping was not acknowledged within its timeout")]
    Silent,
}

/// How a connection ends, once its client has taken our last words.
struct End {
    outcome: Result<(), Error>,
    deadline: Pin<Box<Sleep>>,
}

/// What there was to say.
struct Said {
    /// There may be more.
    has_more: bool,
    /// The system has taken all of it.
    is_written: bool,
}

/// What there was to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// All that has come; the task is woken when there is more.
    All,
    /// There may be more.
    Some,
    /// The client has closed the connection.
    End,
}

/// A connection; as a future it ends with it. Requests are answered in it: it is one task, and so is the work of
/// answering, unless who answers makes a task of that.
pub struct Connection<S, A, F, B> {
    socket: S,
    answer: A,
    answers: FuturesUnordered<Answer<F, B>>,
    /// Calls the connection's task for them.
    caller: Waker,
    wire: Wire,
    read: BytesMut,
    keepalive: KeepAlive,
    /// The client has taken something since it was asked whether it is there.
    has_taken: bool,
    end: Option<End>,
}

impl<S, A, F, B, R, E> Connection<S, A, F, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<RequestBody>) -> F,
    F: Future<Output = Result<R, E>> + Unpin,
    R: Into<Reply<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    /// Serves a connection whose client has said HTTP/2's preface, and after it what was `read`. Each request is
    /// given to `answer`, which returns its future in a box: it is moved. An error of it ends the request's stream.
    pub fn new(socket: S, read: BytesMut, options: &Options, answer: A) -> Self {
        let wire = Wire::new(options);
        Self {
            socket,
            answer,
            answers: FuturesUnordered::new(),
            caller: Waker::from(Arc::clone(&wire.shared)),
            wire,
            read,
            keepalive: KeepAlive::new(options.keepalive_interval, options.keepalive_timeout),
            has_taken: false,
            end: None,
        }
    }

    /// Tells the client to ask elsewhere from now on. What it has asked is answered, and then the connection ends.
    pub fn graceful_shutdown(&mut self) {
        if self.end.is_none() {
            self.wire.leave();
        }
    }

    /// Works until there is nothing to do, or the connection has to end.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.wire.shared.awake();
        for _ in 0..ROUNDS_MAX {
            let heard = self.read(cx)?;
            self.keep_alive(cx)?;
            // The runtime's budget is for reading. Of what was read all is answered, and written: with each answer's
            // share in it the budget would be gone before anything is.
            let say = poll_fn(|cx| Poll::Ready(self.say(cx)));
            let said = ready!(pin!(unconstrained(say)).poll(cx))?;
            if heard == Heard::End || self.wire.has_left() && said.is_written {
                return Poll::Ready(Ok(()));
            }
            let waits_to_read = heard == Heard::All || !self.wire.may_receive();
            let waits_to_write = !said.is_written || !said.has_more;
            if waits_to_read && waits_to_write && self.wire.shared.rest(cx.waker()) {
                return Poll::Pending;
            }
        }
        // A client that takes everything at once is not the only one.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Goes on with the answers that can, and writes what they say.
    fn say(&mut self, cx: &mut Context<'_>) -> Result<Said, Error> {
        self.poll_answers();
        let has_more = self.wire.send();
        let before = self.wire.outbox.len();
        let written = self.wire.outbox.poll_write(&mut self.socket, cx)?;
        self.has_taken |= self.wire.outbox.len() < before;
        Ok(Said {
            has_more,
            is_written: written.is_ready(),
        })
    }

    /// Goes on with the answers that can. `FuturesUnordered` calls its task when it has polled all of them once; through
    /// the runtime that would be another turn of the task, and another thread awake to look for more like it.
    fn poll_answers(&mut self) {
        let mut cx = Context::from_waker(&self.caller);
        // What has called until now is polled now; what calls from the second time on, in the next round.
        self.wire.shared.take_call();
        while let Poll::Ready(Some(())) = self.answers.poll_next_unpin(&mut cx) {}
        if self.wire.shared.take_call() {
            while let Poll::Ready(Some(())) = self.answers.poll_next_unpin(&mut cx) {}
        }
    }

    fn keep_alive(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.keepalive.poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Due::Ping) => {
                self.has_taken = false;
                self.wire.ping();
                Ok(())
            }
            // What it says is not read while it takes what is said to it so slowly. But it does take it.
            Poll::Ready(Due::GiveUp) if self.has_taken && !self.wire.may_receive() => {
                self.keepalive.heard();
                self.keep_alive(cx)
            }
            Poll::Ready(Due::GiveUp) => Err(Error::Silent),
        }
    }

    /// Reads what has come, and begins to answer it.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<Heard, Error> {
        self.receive()?;
        for _ in 0..READS_MAX {
            if !self.wire.may_receive() {
                break;
            }
            self.read.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.read)? {
                Poll::Ready(0) => return Ok(Heard::End),
                Poll::Ready(_) => {}
                Poll::Pending => {
                    if self.read.is_empty() {
                        // Nothing is held while there is nothing to read.
                        self.read = BytesMut::new();
                    }
                    return Ok(Heard::All);
                }
            }
            self.keepalive.heard();
            self.receive()?;
        }
        Ok(Heard::Some)
    }

    fn receive(&mut self) -> Result<(), Error> {
        let taken = self.wire.receive(&self.read);
        match taken {
            Ok(taken) => self.read.advance(taken),
            Err(violation) => {
                self.wire.condemn(violation);
                return Err(Error::Client(violation.words));
            }
        }
        for asked in self.wire.asked.drain(..) {
            let is_head_only = asked.request.method() == Method::HEAD;
            let body = RequestBody::new(asked.stream.clone());
            let future = (self.answer)(asked.request.map(|()| body));
            self.answers
                .push(Answer::new(asked.stream, future, is_head_only));
        }
        Ok(())
    }
}

impl<S, A, F, B, R, E> Future for Connection<S, A, F, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<RequestBody>) -> F + Unpin,
    F: Future<Output = Result<R, E>> + Unpin,
    R: Into<Reply<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.end.is_none() {
            let outcome = ready!(this.poll_work(cx));
            // Nobody is answered any more.
            this.answers.clear();
            this.wire.end();
            this.end = Some(End {
                outcome,
                deadline: Box::pin(tokio::time::sleep(LAST_WORDS)),
            });
        }
        let is_late = this
            .end
            .as_mut()
            .is_none_or(|end| end.deadline.as_mut().poll(cx).is_ready());
        if !is_late && ready!(this.wire.outbox.poll_write(&mut this.socket, cx)).is_ok() {
            // An error here is as good as an end.
            drop(ready!(Pin::new(&mut this.socket).poll_shutdown(cx)));
        }
        Poll::Ready(this.end.take().map_or(Ok(()), |end| end.outcome))
    }
}

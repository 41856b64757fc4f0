//! What a connection knows: its streams, what they have been answered, and what goes out next. No input or output.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

use anyhow::{anyhow, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};

use super::PREFIX_BYTES;
use super::frames::{
    self, ACK, DATA, END_HEADERS, END_STREAM, FRAME_BYTES_MAX, GOAWAY, HEAD_BYTES, HEADERS, Head,
    PADDED, PING, PREFACE, RST_STREAM, SETTING_ENABLE_PUSH, SETTING_HEADER_TABLE_SIZE,
    SETTING_INITIAL_WINDOW_SIZE, SETTING_MAX_FRAME_SIZE, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY,
    number, put_cancel, put_settings, put_window_update, settings,
};
use super::heads::{Answers, Requests, Said};

/// What a server may send before it is told to go on: of one stream, and of all of them.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// What it may send in one frame.
const RECEIVED_FRAME_BYTES_MAX: u32 = 1 << 20;
/// Windows as long as nobody has said anything of them.
const DEFAULT_WINDOW: u32 = 65_535;
/// Fields of requests are never taken out of the server's table, which is as large as this if it says nothing.
const HEADER_TABLE_BYTES: u32 = 4_096;

/// What is kept of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// How many bytes it had.
    Nothing,
    All,
    /// All, until it is taken: the server has to wait for a client that does not look at it.
    Messages,
}

/// Everything of a connection but its socket.
pub(super) struct Wire {
    out: BytesMut,
    /// What the windows do not allow yet.
    waiting: VecDeque<(u32, Bytes, bool)>,
    requests: Requests,
    answers: Answers,
    streams: HashMap<u32, Stream>,
    next_stream: u32,
    /// What may be sent: of all streams, and of a new one.
    window: i64,
    stream_window: i64,
    /// What has come since the server was told to go on.
    received: u32,
    /// Who writes what is in `out`, and whether it has to be told.
    driver: Waker,
    driver_sleeps: bool,
    /// Why there is nothing more.
    ended: Option<String>,
}

struct Stream {
    keep: Keep,
    /// What may be sent.
    window: i64,
    /// What was taken since the server was told to go on, and what its client has not looked at.
    received: u32,
    untaken: usize,
    kept: BytesMut,
    bytes: usize,
    begun: bool,
    ended: Option<Said>,
    client: Option<Waker>,
}

impl Stream {
    fn wake(&mut self) {
        if let Some(client) = self.client.take() {
            client.wake();
        }
    }

    /// How it has ended. If it has not, who asks is woken when something comes.
    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<anyhow::Result<()>> {
        match &self.ended {
            None => {
                self.client = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Said::Well) => Poll::Ready(Ok(())),
            Some(Said::Failed(why)) => Poll::Ready(Err(anyhow!("{why}"))),
            Some(Said::Begun) => Poll::Ready(Err(anyhow!("no status"))),
        }
    }

    fn end(&mut self, said: Said) {
        self.ended.get_or_insert(said);
        self.wake();
    }
}

impl Wire {
    pub(super) fn new(authority: &str) -> Self {
        let mut out = BytesMut::from(PREFACE);
        let settings = [
            (SETTING_ENABLE_PUSH, 0),
            (SETTING_INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (SETTING_MAX_FRAME_SIZE, RECEIVED_FRAME_BYTES_MAX),
        ];
        put_settings(&settings, &mut out);
        put_window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW, &mut out);
        Self {
            out,
            waiting: VecDeque::new(),
            requests: Requests::to(authority),
            answers: Answers::new(),
            streams: HashMap::new(),
            next_stream: 1,
            window: DEFAULT_WINDOW.into(),
            stream_window: DEFAULT_WINDOW.into(),
            received: 0,
            driver: Waker::noop().clone(),
            driver_sleeps: false,
            ended: None,
        }
    }

    /// Opens a stream with its first message, or its only one.
    pub(super) fn begin(
        &mut self,
        path: &'static str,
        framed: &Bytes,
        last: bool,
        keep: Keep,
    ) -> anyhow::Result<u32> {
        if let Some(why) = &self.ended {
            bail!("the connection has ended: {why}");
        }
        let id = self.next_stream;
        self.next_stream += 2;
        let out = &mut self.out;
        self.requests.write(path, |block| {
            frames::put(HEADERS, END_HEADERS, id, block, out)
        })?;
        let stream = Stream {
            keep,
            window: self.stream_window,
            received: 0,
            untaken: 0,
            kept: BytesMut::new(),
            bytes: 0,
            begun: false,
            ended: None,
            client: None,
        };
        self.streams.insert(id, stream);
        self.send(id, framed, last);
        Ok(id)
    }

    /// Sends a framed message, at once or as soon as the server allows it.
    pub(super) fn send(&mut self, id: u32, framed: &Bytes, last: bool) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let fits = framed.len() <= allowed(self.window, stream);
        if fits && self.waiting.is_empty() {
            put_data(id, framed, last, &mut self.out);
            count(framed, &mut self.window, stream);
        } else {
            self.waiting.push_back((id, framed.clone(), last));
            self.send_waiting();
        }
        self.wake_driver();
    }

    fn send_waiting(&mut self) {
        while let Some((id, framed, last)) = self.waiting.front_mut() {
            let Some(stream) = self.streams.get_mut(id) else {
                self.waiting.pop_front();
                continue;
            };
            let part = framed.split_to(framed.len().min(allowed(self.window, stream)));
            if part.is_empty() {
                return;
            }
            count(&part, &mut self.window, stream);
            let whole = framed.is_empty();
            put_data(*id, &part, *last && whole, &mut self.out);
            if whole {
                self.waiting.pop_front();
            }
        }
    }

    /// The whole answer, when it is there: what was kept of it, and its length.
    pub(super) fn poll_answer(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<anyhow::Result<(BytesMut, usize)>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(anyhow!("the call is over")));
        };
        let ended = stream.poll_end(cx);
        ended.map_ok(|()| (std::mem::take(&mut stream.kept), stream.bytes))
    }

    /// Whether the answer has begun.
    pub(super) fn poll_begun(&mut self, id: u32, cx: &Context<'_>) -> Poll<anyhow::Result<()>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(anyhow!("the call is over")));
        };
        match &stream.ended {
            None if stream.begun => Poll::Ready(Ok(())),
            _ => stream.poll_end(cx),
        }
    }

    /// The next message with its prefix; `None` at the end.
    pub(super) fn poll_message(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<anyhow::Result<Option<BytesMut>>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Ok(None));
        };
        let untaken = std::mem::take(&mut stream.untaken);
        if untaken > 0 {
            self.taken(id, untaken);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Ok(None));
        };
        if let Some(length) = message_bytes(&stream.kept)
            && stream.kept.len() >= length
        {
            return Poll::Ready(Ok(Some(stream.kept.split_to(length))));
        }
        stream.poll_end(cx).map_ok(|()| None)
    }

    /// Forgets a stream, and tells the server if it is not over.
    pub(super) fn leave(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id)
            && stream.ended.is_none()
        {
            put_cancel(id, &mut self.out);
            self.wake_driver();
        }
    }

    /// Nothing will come or go any more.
    pub(super) fn end(&mut self, why: &str) {
        self.ended.get_or_insert_with(|| why.to_owned());
        for stream in self.streams.values_mut() {
            stream.end(Said::Failed(why.to_owned()));
        }
        self.wake_driver();
    }

    fn wake_driver(&mut self) {
        if std::mem::take(&mut self.driver_sleeps) {
            self.driver.wake_by_ref();
        }
    }

    /// Whether there is something to do for who writes. It is woken when there is if there is not.
    pub(super) fn has_out(&mut self, cx: &Context<'_>) -> bool {
        if !self.out.is_empty() || self.ended.is_some() {
            return true;
        }
        if !self.driver.will_wake(cx.waker()) {
            self.driver = cx.waker().clone();
        }
        self.driver_sleeps = true;
        false
    }

    /// What is to be written; `None` when the connection is over.
    pub(super) fn take_out(&mut self) -> Option<BytesMut> {
        self.ended.is_none().then(|| self.out.split())
    }

    /// Takes every whole frame out of `read`.
    pub(super) fn receive(&mut self, read: &mut BytesMut) -> anyhow::Result<()> {
        while let Some((head, length)) = Head::parse(read) {
            ensure!(
                length <= RECEIVED_FRAME_BYTES_MAX as usize,
                "a frame of {length} bytes"
            );
            let Some(payload) = read.get(HEAD_BYTES..HEAD_BYTES + length) else {
                // The buffer has to hold it whole.
                read.reserve(HEAD_BYTES + length - read.len());
                break;
            };
            match head.kind {
                DATA => self.data(head, payload)?,
                _ => self.other(head, payload)?,
            }
            read.advance(HEAD_BYTES + length);
        }
        Ok(())
    }

    fn data(&mut self, head: Head, payload: &[u8]) -> anyhow::Result<()> {
        ensure!(!head.has(PADDED), "a padded frame");
        let keep = match self.streams.get_mut(&head.stream) {
            Some(stream) => {
                stream.bytes += payload.len();
                if stream.keep != Keep::Nothing {
                    stream.kept.extend_from_slice(payload);
                }
                if stream.keep == Keep::Messages {
                    stream.untaken += payload.len();
                    stream.wake();
                }
                stream.keep
            }
            // It was left.
            None => Keep::Nothing,
        };
        if keep != Keep::Messages {
            self.taken(head.stream, payload.len());
        }
        if head.has(END_STREAM) {
            self.said(head.stream, Said::Failed("no trailers".to_owned()), true);
        }
        Ok(())
    }

    /// Half of a window that has come and was taken is given back.
    fn taken(&mut self, id: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.received += bytes;
        if self.received >= CONNECTION_WINDOW / 2 {
            put_window_update(0, std::mem::take(&mut self.received), &mut self.out);
            self.wake_driver();
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.received += bytes;
        if stream.received >= STREAM_WINDOW / 2 && stream.ended.is_none() {
            put_window_update(id, std::mem::take(&mut stream.received), &mut self.out);
            self.wake_driver();
        }
    }

    fn said(&mut self, id: u32, said: Said, last: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.begun = true;
            match last {
                true => stream.end(said),
                false if stream.keep == Keep::Messages => stream.wake(),
                false => {}
            }
        }
    }

    fn other(&mut self, head: Head, payload: &[u8]) -> anyhow::Result<()> {
        match head.kind {
            HEADERS => {
                ensure!(
                    head.has(END_HEADERS) && !head.has(PADDED) && !head.has(WITH_PRIORITY),
                    "the head of an answer in a form that is not known here"
                );
                let said = self.answers.read(payload)?;
                self.said(head.stream, said, head.has(END_STREAM));
            }
            RST_STREAM => {
                let said = Said::Failed(format!("the stream was reset: {}", number(payload)?));
                self.said(head.stream, said, true);
            }
            SETTINGS if !head.has(ACK) => self.settings(payload)?,
            PING if !head.has(ACK) => frames::put(PING, ACK, 0, payload, &mut self.out),
            GOAWAY => bail!(
                "the server says goodbye: {}",
                String::from_utf8_lossy(&payload[8.min(payload.len())..])
            ),
            WINDOW_UPDATE => {
                let more = i64::from(number(payload)?);
                match self.streams.get_mut(&head.stream) {
                    Some(stream) => stream.window += more,
                    None if head.stream == 0 => self.window += more,
                    None => {}
                }
                self.send_waiting();
            }
            // Answers to ours.
            SETTINGS | PING => {}
            kind => bail!("a frame of kind {kind}"),
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        for (name, value) in settings(payload) {
            match name {
                SETTING_INITIAL_WINDOW_SIZE => {
                    let more = i64::from(value) - self.stream_window;
                    self.stream_window += more;
                    for stream in self.streams.values_mut() {
                        stream.window += more;
                    }
                }
                SETTING_HEADER_TABLE_SIZE => ensure!(
                    value >= HEADER_TABLE_BYTES,
                    "a server that lets its table of fields be no larger than {value} bytes"
                ),
                _ => {}
            }
        }
        frames::put(SETTINGS, ACK, 0, &[], &mut self.out);
        self.send_waiting();
        Ok(())
    }
}

/// What one frame may carry now.
fn allowed(window: i64, stream: &Stream) -> usize {
    let allowed = usize::try_from(window.min(stream.window)).unwrap_or(0);
    allowed.min(FRAME_BYTES_MAX)
}

/// Takes what is sent off what may be sent.
fn count(sent: &[u8], window: &mut i64, stream: &mut Stream) {
    let bytes = i64::try_from(sent.len()).unwrap_or(i64::MAX);
    *window -= bytes;
    stream.window -= bytes;
}

fn put_data(id: u32, part: &[u8], last: bool, out: &mut BytesMut) {
    let flags = if last { END_STREAM } else { 0 };
    frames::put(DATA, flags, id, part, out);
}

/// The length of the first message with its prefix, as soon as that is there.
fn message_bytes(kept: &[u8]) -> Option<usize> {
    let [_, l0, l1, l2, l3] = *kept.first_chunk::<PREFIX_BYTES>()?;
    Some(PREFIX_BYTES + u32::from_be_bytes([l0, l1, l2, l3]) as usize)
}

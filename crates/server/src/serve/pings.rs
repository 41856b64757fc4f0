//! A client that pings too often is told so and disconnected, by grpc-go's rules
//! (`--grpc-keepalive-min-time`).
//!
//! The HTTP/2 library answers pings by itself and tells nobody. So the frames of a connection are looked at
//! while they pass: their nine bytes of header, nothing else. Without open streams, pings must be two hours
//! apart; with some, the minimum time. Whatever is sent to the client forgives it everything. After the
//! third strike comes a GOAWAY, between two frames of ours, and the end.
//!
//! What this is not: a check of HTTP/2. Nonsense is the library's affair, and HTTP/1 passes untouched.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use types::Clock;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// Pings that come too early before the connection ends.
const STRIKES_MAX: u32 = 2;
/// How far pings must be apart when no stream is open.
const IDLE_MIN_TIME: Duration = Duration::from_secs(2 * 60 * 60);
/// GOAWAY of the whole connection: ENHANCE_YOUR_CALM, "too_many_pings".
const GO_AWAY: &[u8] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const FLAG_ACK: u8 = 1;
const FLAG_END_STREAM: u8 = 1;

/// A connection whose pings are counted.
pub(super) struct PingGuard<S> {
    stream: S,
    incoming: Incoming,
    outgoing: FrameScanner,
    enforcer: Enforcer,
    /// How much of the GOAWAY is sent, once it has to be.
    going_away: usize,
}

/// What the client says.
enum Incoming {
    /// So many bytes of the preface were right.
    Preface(usize),
    Frames(FrameScanner),
    /// It speaks HTTP/1.
    NotHttp2,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHead {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds frames in what passes, however it is cut.
#[derive(Default)]
struct FrameScanner {
    head: [u8; FRAME_HEADER_BYTES],
    head_filled: usize,
    /// Bytes of the current frame that are still to come.
    payload_left: usize,
}

/// grpc-go's rules.
struct Enforcer {
    min_time: Duration,
    clock: Arc<dyn Clock>,
    open: HashSet<u32>,
    newest_stream: u32,
    last_ping: Option<Instant>,
    strikes: u32,
    /// Something was sent to the client since its last ping.
    forgiven: bool,
}

impl FrameScanner {
    fn scan(&mut self, mut data: &[u8], mut on_frame: impl FnMut(FrameHead)) {
        while !data.is_empty() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(data.len());
                self.payload_left -= skipped;
                data = &data[skipped..];
                continue;
            }
            let wanted = (FRAME_HEADER_BYTES - self.head_filled).min(data.len());
            let filled = self.head_filled + wanted;
            self.head[self.head_filled..filled].copy_from_slice(&data[..wanted]);
            self.head_filled = filled % FRAME_HEADER_BYTES;
            data = &data[wanted..];
            if filled == FRAME_HEADER_BYTES {
                let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
                self.payload_left = u32::from_be_bytes([0, l0, l1, l2]) as usize;
                let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
                on_frame(FrameHead {
                    kind,
                    flags,
                    stream,
                });
            }
        }
    }

    /// Bytes until a frame is complete; 0 between two.
    fn left_in_frame(&self) -> usize {
        match self.head_filled {
            0 => self.payload_left,
            // How long the frame is, its header will tell.
            filled => FRAME_HEADER_BYTES - filled,
        }
    }
}

impl Enforcer {
    fn received(&mut self, frame: FrameHead) {
        match frame.kind {
            HEADERS if frame.stream > self.newest_stream => {
                self.newest_stream = frame.stream;
                self.open.insert(frame.stream);
            }
            RST_STREAM => {
                self.open.remove(&frame.stream);
            }
            PING if frame.flags & FLAG_ACK == 0 => self.pinged(),
            _ => {}
        }
    }

    fn sent(&mut self, frame: FrameHead) {
        match frame.kind {
            DATA | HEADERS => {
                self.forgiven = true;
                if frame.flags & FLAG_END_STREAM != 0 {
                    self.open.remove(&frame.stream);
                }
            }
            RST_STREAM => {
                self.open.remove(&frame.stream);
            }
            _ => {}
        }
    }

    fn pinged(&mut self) {
        let now = self.clock.now();
        let before = self.last_ping.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return;
        }
        let min_time = if self.open.is_empty() {
            IDLE_MIN_TIME
        } else {
            self.min_time
        };
        if before.is_some_and(|before| now.saturating_duration_since(before) < min_time) {
            self.strikes += 1;
        }
    }

    fn is_enough(&self) -> bool {
        self.strikes > STRIKES_MAX
    }
}

impl<S> PingGuard<S> {
    /// Guards a connection whose client may ping every `min_time` while it has streams open.
    pub(super) fn new(stream: S, min_time: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            stream,
            incoming: Incoming::Preface(0),
            outgoing: FrameScanner::default(),
            enforcer: Enforcer {
                min_time,
                clock,
                open: HashSet::new(),
                newest_stream: 0,
                last_ping: None,
                strikes: 0,
                forgiven: false,
            },
            going_away: 0,
        }
    }

    fn heard(&mut self, mut data: &[u8]) {
        if let Incoming::Preface(matched) = self.incoming {
            let expected = &PREFACE[matched..];
            let compared = expected.len().min(data.len());
            if expected[..compared] != data[..compared] {
                self.incoming = Incoming::NotHttp2;
            } else if compared == expected.len() {
                self.incoming = Incoming::Frames(FrameScanner::default());
            } else {
                self.incoming = Incoming::Preface(matched + compared);
            }
            data = &data[compared..];
        }
        if let Incoming::Frames(scanner) = &mut self.incoming {
            let enforcer = &mut self.enforcer;
            scanner.scan(data, |frame| enforcer.received(frame));
        }
    }

    fn said(&mut self, data: &[u8]) {
        if let Incoming::Frames(_) = self.incoming {
            let enforcer = &mut self.enforcer;
            self.outgoing.scan(data, |frame| enforcer.sent(frame));
        }
    }
}

impl<S: AsyncWrite + Unpin> PingGuard<S> {
    /// Between two frames, tells the client that it goes too far, and ends the connection.
    fn poll_go_away(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while let Some(rest) = GO_AWAY
            .get(self.going_away..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(written) if written > 0 => self.going_away += written,
                Ok(_nothing) => break,
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Ready(io::Error::other("got too many pings from the client"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PingGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.heard(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PingGuard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.enforcer.is_enough() {
            // Every ping is answered, so that this is called soon after the last straw.
            match self.outgoing.left_in_frame() {
                0 => return self.poll_go_away(cx).map(Err),
                left => buf = &buf[..left.min(buf.len())],
            }
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.said(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.enforcer.is_enough() {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            self.said(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use types::SystemClock;

    use super::*;

    const PING_FRAME: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";
    const PONG_FRAME: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0pingping";
    const HEADERS_OF_1: &[u8] = b"\0\0\x01\x01\x04\0\0\0\x01h";
    const DATA_OF_1: &[u8] = b"\0\0\x01\0\0\0\0\0\x01d";
    const LAST_DATA_OF_1: &[u8] = b"\0\0\x01\0\x01\0\0\0\x01d";

    struct Session {
        client: DuplexStream,
        server: PingGuard<DuplexStream>,
    }

    impl Session {
        async fn new(min_time: Duration) -> Self {
            let (client, server) = duplex(4096);
            let server = PingGuard::new(server, min_time, Arc::new(SystemClock));
            let mut session = Self { client, server };
            session.hear(PREFACE).await;
            session
        }

        /// The server reads what the client writes, in two pieces.
        async fn hear(&mut self, bytes: &[u8]) {
            for piece in [&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]] {
                self.client.write_all(piece).await.expect("written");
                let mut read = vec![0; piece.len()];
                self.server.read_exact(&mut read).await.expect("read");
                assert_eq!(read, piece);
            }
        }

        async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.server.write_all(bytes).await?;
            let mut read = vec![0; bytes.len()];
            self.client.read_exact(&mut read).await?;
            assert_eq!(read, bytes);
            Ok(())
        }

        /// How many pings are answered before the client is told to go.
        async fn pings_answered(&mut self) -> usize {
            for answered in 0..10 {
                self.hear(PING_FRAME).await;
                if self.say(PONG_FRAME).await.is_err() {
                    let mut goodbye = vec![0; GO_AWAY.len()];
                    self.client.read_exact(&mut goodbye).await.expect("read");
                    assert_eq!(goodbye, GO_AWAY);
                    return answered;
                }
            }
            10
        }
    }

    #[tokio::test]
    async fn pings_without_a_stream_end_the_connection() {
        let mut session = Session::new(Duration::ZERO).await;
        assert_eq!(session.pings_answered().await, 3);
    }

    #[tokio::test]
    async fn pings_on_a_stream_may_be_as_frequent_as_is_configured() {
        let mut session = Session::new(Duration::ZERO).await;
        session.hear(HEADERS_OF_1).await;
        assert_eq!(session.pings_answered().await, 10);
        let mut session = Session::new(Duration::from_secs(5)).await;
        session.hear(HEADERS_OF_1).await;
        assert_eq!(session.pings_answered().await, 3);
    }

    #[tokio::test]
    async fn what_is_sent_forgives_pings() {
        let mut session = Session::new(Duration::from_secs(5)).await;
        session.hear(HEADERS_OF_1).await;
        for _ in 0..10 {
            session.hear(PING_FRAME).await;
            session.say(PONG_FRAME).await.expect("sent");
            session.say(DATA_OF_1).await.expect("sent");
        }
        session.say(LAST_DATA_OF_1).await.expect("sent");
        // The first is forgiven for the data; the connection is idle now.
        assert_eq!(session.pings_answered().await, 3);
    }

    #[tokio::test]
    async fn the_last_word_comes_between_frames() {
        let mut session = Session::new(Duration::from_secs(5)).await;
        session.hear(HEADERS_OF_1).await;
        let (begin, rest) = DATA_OF_1.split_at(4);
        session.say(begin).await.expect("sent");
        for _ in 0..5 {
            session.hear(PING_FRAME).await;
        }
        session.say(rest).await.expect("sent");
        assert!(session.say(PONG_FRAME).await.is_err());
    }

    #[tokio::test]
    async fn http_1_passes_as_it_is() {
        let (mut client, server) = duplex(4096);
        let mut server = PingGuard::new(server, Duration::ZERO, Arc::new(SystemClock));
        let request = b"PRINT / HTTP/1.1\r\n\r\n\0\0\x08\x06\0\0\0\0\0";
        client.write_all(request).await.expect("written");
        let mut read = vec![0; request.len()];
        server.read_exact(&mut read).await.expect("read");
        assert_eq!(read, request);
        server.write_all(b"ok").await.expect("written");
    }

    #[test]
    fn the_goodbye_is_a_frame() {
        let mut frames = Vec::new();
        let mut scanner = FrameScanner::default();
        scanner.scan(GO_AWAY, |frame| frames.push(frame));
        let go_away = FrameHead {
            kind: 7,
            flags: 0,
            stream: 0,
        };
        assert_eq!((frames, scanner.left_in_frame()), (vec![go_away], 0));
    }
}

//! A guard against requests that become dearer on their way through a connection (`testkit::instructions`): from the
//! client's bytes to ours, with a service that answers at once. The client is a few lines and counted with it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use kvorum_http2::{Connection, Options, RequestBody};
use testkit::instructions::{self, Limit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use types::SystemClock;

const LIMITS: [Limit; 2] = [(UNARY, 1_600, 74_000), (EVENT, 1_000, 46_500)];

/// A request as a Go client makes it when it has made some, and its answer; 16 at once.
const UNARY: &str = "unary";
/// A message of a stream that lasts.
const EVENT: &str = "event";

const AT_ONCE: usize = 16;
const MESSAGE: &[u8] = &[7; 64];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const HEAD_BYTES: usize = 9;

/// POST http://host:2379/a.path with what grpc-go says besides, for the table; then the same by its numbers.
const FIRST: &[u8] =
    b"\x83\x86\x44\x14/etcdserverpb.KV/Put\x41\x09host:2379\x5f\x10application/grpc\
    \x7a\x0egrpc-go/1.70.0\x40\x02te\x08trailers";
const AGAIN: &[u8] = b"\x83\x86\xc2\xc1\xc0\xbf\xbe";

type Frames = futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>;
type Answered = Result<Response<StreamBody<Frames>>, Infallible>;

struct Client {
    socket: DuplexStream,
    next_stream: u32,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = u32::try_from(payload.len())?.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    Ok(frame)
}

impl Client {
    fn request(&mut self, fields: &[u8]) -> Result<Vec<u8>> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut request = frame(HEADERS, END_HEADERS, stream, fields)?;
        request.extend(frame(DATA, END_STREAM, stream, MESSAGE)?);
        Ok(request)
    }

    /// Reads until so many frames of a kind and with a flag have come.
    async fn read(&mut self, kind: u8, flag: u8, count: usize) -> Result<()> {
        let (mut read, mut seen) = (BytesMut::new(), 0);
        while seen < count {
            ensure!(self.socket.read_buf(&mut read).await? > 0, "it has ended");
            while let Some(&[_, l1, l2, it, flags, ..]) = read.first_chunk::<HEAD_BYTES>() {
                let length = HEAD_BYTES + usize::from(u16::from_be_bytes([l1, l2]));
                if read.len() < length {
                    break;
                }
                seen += usize::from(it == kind && flags & flag == flag);
                drop(read.split_to(length));
            }
        }
        Ok(())
    }
}

/// A message and trailers; or, if there are events, one message for each.
fn answer(
    request: Request<RequestBody>,
    events: &EventsOnce,
) -> impl Future<Output = Answered> + use<> {
    let events = events.lock().take();
    async move {
        let mut body = request.into_body();
        while let Some(Ok(_data)) =
            std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {}
        let message = || Ok(Frame::data(Bytes::from_static(MESSAGE)));
        let frames: Frames = match events {
            Some(mut events) => Box::pin(futures_util::stream::poll_fn(move |cx| {
                let event = events.poll_recv(cx);
                event.map(|event| event.map(|()| message()))
            })),
            None => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Box::pin(futures_util::stream::iter([
                    message(),
                    Ok(Frame::trailers(trailers)),
                ]))
            }
        };
        let mut response = Response::new(StreamBody::new(frames));
        let grpc = HeaderValue::from_static("application/grpc");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, grpc);
        Ok(response)
    }
}

type EventsOnce = Arc<parking_lot::Mutex<Option<mpsc::Receiver<()>>>>;

/// Not a test: what the program does that is counted.
#[tokio::test]
#[ignore = "run by the other one, under valgrind"]
async fn work() -> Result<()> {
    let (name, times) = instructions::asked()?;
    let (socket, server) = tokio::io::duplex(64 * 1024);
    let mut client = Client {
        socket,
        next_stream: 1,
    };
    let options = Options {
        max_concurrent_streams: u32::MAX,
        keepalive_interval: Duration::from_secs(3600),
        keepalive_timeout: Duration::from_secs(20),
        ping_min_time: Duration::ZERO,
        clock: Arc::new(SystemClock),
    };
    let (event, events) = mpsc::channel(1);
    let events: EventsOnce = Arc::new(parking_lot::Mutex::new((name == EVENT).then_some(events)));
    let answer = move |request| Box::pin(answer(request, &events));
    let serving = tokio::spawn(Connection::new(server, BytesMut::new(), &options, answer));
    let mut begin = frame(SETTINGS, 0, 0, b"")?;
    begin.extend(client.request(FIRST)?);
    // No window is ever shut.
    begin.extend(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])?);
    begin.extend(frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0, 0, 0])?);
    client.socket.write_all(&begin).await?;
    match &*name {
        UNARY => {
            client.read(HEADERS, END_STREAM, 1).await?;
            for _ in 0..times / AT_ONCE {
                let mut requests = Vec::new();
                for _ in 0..AT_ONCE {
                    requests.extend(client.request(AGAIN)?);
                }
                client.socket.write_all(&requests).await?;
                client.read(HEADERS, END_STREAM, AT_ONCE).await?;
            }
        }
        EVENT => {
            for _ in 0..times {
                event.send(()).await.context("nobody takes events")?;
                client.read(DATA, 0, 1).await?;
            }
        }
        other => bail!("no requests are called {other}"),
    }
    serving.abort();
    Ok(())
}

#[test]
fn no_request_takes_more_instructions_than_it_did() -> Result<()> {
    instructions::check(&LIMITS)
}

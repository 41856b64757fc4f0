//! Connections as a client sees them that keeps to the rules: h2's.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::options;
use crate::{Connection, Error, Options, PREFACE, Reply, RequestBody};
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

type Answered = Result<Reply<UnsyncBoxBody<Bytes, Infallible>>, Infallible>;

const LARGE_BYTES: usize = 10 * 1024 * 1024;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What the tests' service is asked for, by path, and what became of it.
#[derive(Default)]
struct Service {
    /// Requests of `/never` that were given up.
    given_up: AtomicUsize,
    gave_up: Notify,
    /// Bytes of `/endless` that were taken.
    endless: AtomicUsize,
    may_answer: Notify,
}

struct GivenUp(Arc<Service>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Ordering::SeqCst);
        self.0.gave_up.notify_one();
    }
}

async fn answer(service: Arc<Service>, request: Request<RequestBody>) -> Answered {
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        "/echo" => request
            .into_body()
            .map_err(|_| unreachable!())
            .boxed_unsync(),
        "/headers" => {
            let mut response = Response::new(Full::from("body").boxed_unsync());
            *response.headers_mut() = request.headers().clone();
            response.headers_mut().insert(
                "authority",
                HeaderValue::from_str(request.uri().host().unwrap()).unwrap(),
            );
            return Ok(response.into());
        }
        "/message" => return Ok(Reply::Message(Bytes::from_static(b"message"))),
        "/large_message" => return Ok(Reply::Message(vec![7; LARGE_BYTES].into())),
        "/large" => Full::from(vec![7; LARGE_BYTES]).boxed_unsync(),
        "/empty" => Empty::new().boxed_unsync(),
        "/trailers" => {
            let trailers = request
                .into_body()
                .collect()
                .await
                .unwrap()
                .trailers()
                .cloned();
            let frames = [
                Frame::data(Bytes::from_static(b"data")),
                Frame::trailers(trailers.unwrap()),
            ];
            StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed_unsync()
        }
        "/endless" => {
            let frames = std::iter::repeat_with(move || {
                service.endless.fetch_add(1024, Ordering::SeqCst);
                Ok(Frame::data(Bytes::from_static(&[1; 1024])))
            });
            StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
        }
        "/panic" => panic!("this is meant to happen"),
        "/later" => {
            service.may_answer.notified().await;
            Full::from("late").boxed_unsync()
        }
        _ => {
            let _given_up = GivenUp(service);
            std::future::pending().await
        }
    };
    Ok(Response::new(body).into())
}

struct Session {
    client: SendRequest<Bytes>,
    service: Arc<Service>,
    server: JoinHandle<Result<(), Error>>,
    leave: Arc<Notify>,
}

async fn session(options: Options) -> Session {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let (service, leave) = (Arc::new(Service::default()), Arc::new(Notify::new()));
    let asked = Arc::clone(&service);
    let told = Arc::clone(&leave);
    let server = tokio::spawn(async move {
        let mut preface = [0; PREFACE.len()];
        server.read_exact(&mut preface).await.unwrap();
        let answer = move |request| Box::pin(answer(Arc::clone(&asked), request));
        let mut connection = Connection::new(server, BytesMut::new(), &options, answer);
        tokio::select! {
            ended = &mut connection => return ended,
            () = told.notified() => connection.graceful_shutdown(),
        }
        connection.await
    });
    // One stream that is not read does not shut the connection for the others.
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(4 * 64 * 1024);
    let (client, connection) = builder.handshake(client).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    Session {
        client,
        service,
        server,
        leave,
    }
}

impl Session {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        is_last: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://host{path}"));
        let mut client = self.client.clone().ready().await.unwrap();
        client
            .send_request(request.body(()).unwrap(), is_last)
            .unwrap()
    }

    async fn get(&self, path: &str) -> Response<RecvStream> {
        let (response, _) = self.ask(Method::GET, path, true).await;
        response.await.unwrap()
    }
}

/// Reads a body as fast as it comes.
async fn read(response: Response<RecvStream>) -> (Vec<u8>, Option<HeaderMap>) {
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        read.extend_from_slice(&data);
    }
    (read, body.trailers().await.unwrap())
}

/// Sends a body as fast as its reader lets it.
async fn write(stream: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let part = data.split_to(room.unwrap().unwrap().min(data.len()));
        stream.send_data(part, false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
}

#[tokio::test]
async fn headers_and_bodies_arrive() {
    let session = session(options()).await;
    for _ in 0..3 {
        let response = session.get("/headers").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["authority"], "host");
        assert_eq!(read(response).await.0, b"body");
    }
    let response = session.get("/empty").await;
    assert!(response.body().is_end_stream());
    let (response, _) = session.ask(Method::HEAD, "/headers", true).await;
    assert!(response.await.unwrap().body().is_end_stream());
}

#[tokio::test]
async fn large_bodies_go_both_ways_within_the_windows() {
    let session = session(options()).await;
    assert_eq!(read(session.get("/large").await).await.0.len(), LARGE_BYTES);
    let (response, mut stream) = session.ask(Method::POST, "/echo", false).await;
    let data: Bytes = (0..LARGE_BYTES)
        .map(|at| (at / 7).to_le_bytes()[0])
        .collect();
    let sent = data.clone();
    let writing = tokio::spawn(async move { write(&mut stream, sent).await });
    let (echo, _) = read(response.await.unwrap()).await;
    writing.await.unwrap();
    assert!(echo == data);
}

/// However much of it the windows let through at a time.
#[tokio::test]
async fn a_message_is_all_of_an_answer() {
    let session = session(options()).await;
    for _ in 0..2 {
        for (path, length) in [("/message", 7), ("/large_message", LARGE_BYTES)] {
            let response = session.get(path).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
            assert_eq!(response.headers().len(), 1);
            let (message, trailers) = read(response).await;
            assert_eq!(message.len(), length);
            let ok = [(GRPC_STATUS, HeaderValue::from_static("0"))];
            assert_eq!(trailers, Some(HeaderMap::from_iter(ok)));
        }
    }
    let (response, _) = session.ask(Method::HEAD, "/message", true).await;
    assert!(response.await.unwrap().body().is_end_stream());
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let session = session(options()).await;
    let (response, mut stream) = session.ask(Method::POST, "/trailers", false).await;
    stream
        .send_data(Bytes::from_static(b"ignored"), false)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("name", HeaderValue::from_static("value"));
    stream.send_trailers(trailers.clone()).unwrap();
    let (data, back) = read(response.await.unwrap()).await;
    assert_eq!((&data[..], back), (&b"data"[..], Some(trailers)));
}

#[tokio::test]
async fn many_streams_are_answered_at_once() {
    let session = session(options()).await;
    let mut waiting = Vec::new();
    for at in 0..300_usize {
        let (response, mut stream) = session.ask(Method::POST, "/echo", false).await;
        waiting.push(tokio::spawn(async move {
            let data = Bytes::from(vec![at.to_le_bytes()[0]; at * 100 + 1]);
            let sent = data.clone();
            let writing = tokio::spawn(async move { write(&mut stream, sent).await });
            let (echo, _) = read(response.await.unwrap()).await;
            writing.await.unwrap();
            assert!(echo == data, "{at}");
        }));
    }
    for stream in waiting {
        stream.await.unwrap();
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_is_answered_no_longer() {
    let session = session(options()).await;
    let (response, mut stream) = session.ask(Method::POST, "/never", false).await;
    read(session.get("/headers").await).await;
    stream.send_reset(h2::Reason::CANCEL);
    session.service.gave_up.notified().await;
    drop(response);
    // So are those of a connection that ends.
    let (response, _) = session.ask(Method::GET, "/never", true).await;
    read(session.get("/headers").await).await;
    let (client, service) = (session.client, session.service);
    drop((response, client));
    session.server.abort();
    service.gave_up.notified().await;
    assert_eq!(service.given_up.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_read_waits() {
    let session = session(options()).await;
    let endless = session.get("/endless").await;
    // Others do not wait for it.
    for _ in 0..20 {
        assert_eq!(read(session.get("/headers").await).await.0, b"body");
    }
    let taken = session.service.endless.load(Ordering::SeqCst);
    assert!(taken < 1024 * 1024, "{taken} bytes were made of it");
    // It goes on when it is read.
    let mut body = endless.into_body();
    let mut read = 0;
    while read < 2 * taken {
        let data = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        read += data.len();
    }
}

#[tokio::test]
async fn a_body_that_is_not_read_holds_its_client_up() {
    let session = session(options()).await;
    let (_response, mut stream) = session.ask(Method::POST, "/later", false).await;
    let mut sent = 0;
    loop {
        stream.reserve_capacity(64 * 1024);
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let Ok(room) = tokio::time::timeout(Duration::from_millis(300), room).await else {
            break;
        };
        let room = room.unwrap().unwrap();
        stream.send_data(vec![0; room].into(), false).unwrap();
        sent += room;
    }
    // What is thrown away with the request's end does not shut the connection.
    assert!(sent <= 1024 * 1024, "{sent}");
}

#[tokio::test]
async fn a_panic_is_about_one_stream() {
    let session = session(options()).await;
    let (never, _) = session.ask(Method::GET, "/never", true).await;
    let (panics, _) = session.ask(Method::GET, "/panic", true).await;
    let error = panics.await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(read(session.get("/headers").await).await.0, b"body");
    drop(never);
}

#[tokio::test]
async fn an_answer_need_not_wait_for_its_request() {
    let session = session(options()).await;
    let (response, mut stream) = session.ask(Method::POST, "/empty", false).await;
    assert!(response.await.unwrap().body().is_end_stream());
    let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    assert_eq!(reason.unwrap(), h2::Reason::NO_ERROR);
}

#[tokio::test]
async fn a_connection_that_leaves_answers_what_was_asked() {
    let session = session(options()).await;
    let (late, _) = session.ask(Method::GET, "/later", true).await;
    read(session.get("/headers").await).await;
    session.leave.notify_one();
    // It is told; and then nothing new is taken.
    let mut client = session.client.clone();
    let refused = loop {
        let request = Request::get("http://host/headers").body(()).unwrap();
        match client.ready().await {
            Ok(ready) => client = ready,
            Err(error) => break error,
        }
        match client.send_request(request, true) {
            Ok((response, _)) => drop(response.await),
            Err(error) => break error,
        }
    };
    assert!(refused.is_go_away(), "{refused}");
    session.service.may_answer.notify_one();
    assert_eq!(read(late.await.unwrap()).await.0, b"late");
    session.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn more_streams_than_are_allowed_are_refused() {
    let session = session(Options {
        max_concurrent_streams: 3,
        ..options()
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(session.ask(Method::GET, "/never", true).await);
    }
    // h2 keeps to the limit by itself, and goes on when there is room.
    let fourth = session.client.clone().ready();
    let mut fourth = Box::pin(fourth);
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut fourth).await;
    let (response, _) = match waits {
        Ok(ready) => ready
            .unwrap()
            .send_request(Request::get("http://host/headers").body(()).unwrap(), true)
            .unwrap(),
        Err(_) => {
            open.pop();
            fourth
                .await
                .unwrap()
                .send_request(Request::get("http://host/headers").body(()).unwrap(), true)
                .unwrap()
        }
    };
    open.pop();
    assert_eq!(read(response.await.unwrap()).await.0, b"body");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_given_up() {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let options = Options {
        keepalive_interval: Duration::from_secs(10),
        ..options()
    };
    let service = Arc::new(Service::default());
    let answer = move |request| Box::pin(answer(Arc::clone(&service), request));
    let begin = tokio::time::Instant::now();
    let ended = Connection::new(server, BytesMut::new(), &options, answer).await;
    assert!(matches!(ended, Err(Error::Silent)), "{ended:?}");
    assert_eq!(begin.elapsed().as_secs(), 30);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert!(
        heard
            .windows(9)
            .any(|head| head == b"\0\0\x08\x06\0\0\0\0\0")
    );
}

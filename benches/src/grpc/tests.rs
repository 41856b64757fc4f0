//! The client against a server that is not ours: h2's.

use std::time::Duration;

use api::etcdserverpb::PutRequest;
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};

use super::{Connection, frame};

/// More than a connection's windows let through at once.
const LARGE_BYTES: usize = 40 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of a server that answers by path.
fn connected() -> Connection {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let mut server = h2::server::handshake(theirs).await.unwrap();
        while let Some(Ok((request, answer))) = server.accept().await {
            tokio::spawn(serve(request, answer));
        }
    });
    Connection::over(ours, "member:2379")
}

async fn serve(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    assert_eq!(
        (head.method.as_str(), head.uri.authority().unwrap().as_str()),
        ("POST", "member:2379")
    );
    assert_eq!(
        (&head.headers["content-type"], &head.headers["te"]),
        (
            &"application/grpc".parse().unwrap(),
            &"trailers".parse().unwrap()
        )
    );
    let begun = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut out = answer.send_response(begun, false).unwrap();
    match head.uri.path() {
        "/never" => return std::future::pending().await,
        "/fails" => return end(out, "5", "no such thing"),
        "/large" => {
            let message = PutRequest {
                value: vec![7; LARGE_BYTES],
                ..PutRequest::default()
            };
            give(&mut out, frame(&message)).await;
        }
        _ => {
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                give(&mut out, data).await;
            }
        }
    }
    end(out, "0", "");
}

async fn give(out: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let allowed = std::future::poll_fn(|cx| out.poll_capacity(cx))
            .await
            .unwrap()
            .unwrap();
        out.send_data(data.split_to(allowed.min(data.len())), false)
            .unwrap();
    }
}

fn end(mut out: SendStream<Bytes>, status: &'static str, message: &'static str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    out.send_trailers(trailers).unwrap();
}

fn put(bytes: usize) -> PutRequest {
    PutRequest {
        key: b"key".to_vec(),
        value: vec![1; bytes],
        ..PutRequest::default()
    }
}

#[tokio::test]
async fn calls_are_told_apart_and_answered() {
    let connection = connected();
    for path in [
        "/a", "/b", "/a", "/c", "/fails", "/b", "/a", "/c", "/fails", "/a",
    ] {
        let request = put(path.len());
        match connection.call::<PutRequest>(path, &request).await {
            Ok(answer) => assert_eq!((answer, path == "/fails"), (request, false)),
            Err(error) => {
                let text = format!("{error:#}");
                assert_eq!(text, "/fails failed: status 5, message \"no such thing\"");
            }
        }
    }
}

#[tokio::test]
async fn what_is_larger_than_the_windows_comes_and_goes() {
    let connection = connected();
    let request = put(1 << 20);
    let (echoed, large) = tokio::join!(
        connection.call::<PutRequest>("/echo", &request),
        connection.unary("/large", frame(&put(0))),
    );
    assert_eq!(echoed.unwrap(), request);
    assert!(large.unwrap() > LARGE_BYTES);
    let again: PutRequest = connection.call("/large", &put(0)).await.unwrap();
    assert_eq!(again.value.len(), LARGE_BYTES);
}

#[tokio::test]
async fn many_calls_at_once_share_a_connection() {
    let connection = connected();
    let calls = (0..500).map(|n| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let request = put(n * 10);
            let answer: PutRequest = connection.call("/echo", &request).await.unwrap();
            assert_eq!(answer, request);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_is_answered_message_by_message() {
    let connection = connected();
    let mut stream = connection.streaming("/echo", &put(0)).await.unwrap();
    for bytes in [0, 10, 30_000, 6 << 20, 1] {
        if bytes > 0 {
            stream.send(&put(bytes));
        }
        assert_eq!(stream.next::<PutRequest>().await.unwrap(), Some(put(bytes)));
    }
}

#[tokio::test]
async fn a_server_that_goes_away_fails_who_waits_and_who_comes_later() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let connection = Connection::over(ours, "member:2379");
    let waiting = connection.unary("/never", frame(&put(1)));
    let gone = async { drop(theirs) };
    let (waited, ()) = tokio::join!(waiting, gone);
    let text = format!("{:#}", waited.unwrap_err());
    assert!(
        text.contains("the server closed the connection") || text.contains("broken pipe"),
        "{text}"
    );
    let later = connection.unary("/never", frame(&put(1))).await;
    assert!(format!("{:#}", later.unwrap_err()).contains("the connection has ended"));
}

#[tokio::test]
async fn a_call_that_is_left_is_reset_and_a_connection_that_is_left_closes() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut server = tokio::spawn(async move { h2::server::handshake(theirs).await.unwrap() });
    let connection = Connection::over(ours, "member:2379");
    let (ask, send) = tokio::sync::oneshot::channel::<()>();
    let leaving = tokio::spawn({
        let connection = connection.clone();
        async move {
            tokio::select! {
                answered = connection.unary("/never", frame(&put(1))) => panic!("{answered:?}"),
                left = send => left.unwrap(),
            }
        }
    });
    let server = (&mut server).await.unwrap();
    let mut server = server;
    let (request, _answer) = server.accept().await.unwrap().unwrap();
    ask.send(()).unwrap();
    leaving.await.unwrap();
    let mut body = request.into_body();
    let ended = tokio::spawn(async move { while server.accept().await.is_some() {} });
    let mut seen = BytesMut::new();
    let reset = loop {
        match tokio::time::timeout(PATIENCE, body.data()).await.unwrap() {
            Some(Ok(data)) => seen.extend_from_slice(&data),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(reset.is_none_or(|error| error.is_reset()) && !seen.is_empty());
    drop(connection);
    tokio::time::timeout(PATIENCE, ended)
        .await
        .unwrap()
        .unwrap();
}

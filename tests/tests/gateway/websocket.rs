//! Streams over websockets, with a real websocket client.

use anyhow::{Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use kvorum_tests::raw_http::{Ask, ask};
use testkit::patience::patience;
use testkit::{Server, Spec};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::{shown_body, start};

/// A websocket to the server.
async fn socket(server: &Server, path: &str) -> Result<WebSocketStream<TcpStream>> {
    let port = server.client_port();
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request()?;
    let protocol = HeaderValue::from_static("Bearer, token.1");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    let protocol = response.headers().get("Sec-WebSocket-Protocol");
    ensure!(protocol.is_some_and(|it| it == "Bearer"), "{response:?}");
    Ok(socket)
}

/// The next message, shown; how it ended, if there is none.
async fn received(socket: &mut WebSocketStream<TcpStream>) -> Result<String> {
    Ok(match timeout(patience(), socket.next()).await? {
        Some(Ok(Message::Text(text))) => shown_body(&text),
        Some(Ok(Message::Close(_)) | Err(SocketError::Protocol(_) | SocketError::Io(_))) | None => {
            "closed".to_owned()
        }
        other => format!("{other:?}"),
    })
}

/// A conversation, as it goes.
async fn watch_over_a_websocket(server: &Server) -> Result<Vec<String>> {
    let mut heard = Vec::new();
    let mut watch = socket(server, "/v3/watch").await?;
    for request in [
        r#"{"create_request":{"key":"d3M=","watch_id":"1"}}"#,
        r#"{"create_request":{"key":"d3M=","watch_id":"1"}}"#,
    ] {
        watch.send(Message::text(request)).await?;
        heard.push(received(&mut watch).await?);
    }
    for value in ["MQ==", "Mg=="] {
        let put = format!(r#"{{"key":"d3M=","value":"{value}"}}"#);
        ask(server.client_port(), &Ask::post("/v3/kv/put", put)).await?;
        heard.push(received(&mut watch).await?);
    }
    let cancel = r#"{"cancel_request":{"watch_id":1}}"#;
    watch.send(Message::binary(cancel)).await?;
    heard.push(received(&mut watch).await?);
    watch
        .send(Message::text(r#"{"progress_request":{}}"#))
        .await?;
    watch.close(None).await?;
    let mut keepalive = socket(server, "/v3/lease/keepalive?method=GET").await?;
    for _ in 0..3 {
        keepalive.send(Message::text(r#"{"ID":"5"}"#)).await?;
        heard.push(received(&mut keepalive).await?);
    }
    drop(keepalive);
    let mut nothing = socket(server, "/v3/nothing").await?;
    heard.push(received(&mut nothing).await?);
    heard.push(received(&mut nothing).await?);
    Ok(heard)
}

#[tokio::test]
async fn a_websocket_carries_streams_both_ways() -> Result<()> {
    let [kvorum, etcd] = start(&[]).await?;
    let (ours, theirs) = tokio::try_join!(
        watch_over_a_websocket(&kvorum),
        watch_over_a_websocket(&etcd)
    )?;
    assert_eq!(ours, theirs);
    kvorum.stop().await?;
    etcd.stop().await
}

#[tokio::test]
async fn a_websocket_ends_with_the_member_and_never_holds_it_up() -> Result<()> {
    let mut kvorum = Spec::kvorum().start().await?;
    let mut watch = socket(&kvorum, "/v3/watch").await?;
    let create = r#"{"create_request":{"key":"d3M="}}"#;
    watch.send(Message::text(create)).await?;
    ensure!(
        received(&mut watch).await?.contains("created"),
        "no watcher"
    );
    kvorum.terminate().await?;
    let mut last = received(&mut watch).await?;
    while last != "closed" {
        last = received(&mut watch).await?;
    }
    kvorum.stop().await
}

//! Clients that do not behave: raw connections that send what no client should.

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The start of every HTTP/2 connection, and an empty SETTINGS frame.
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Connections made at once: the listener's queue is not endless.
const CONNECTS_AT_ONCE: usize = 128;

/// Connects and writes the bytes. The connection is returned open.
///
/// # Errors
/// When nobody listens.
pub async fn send(port: u16, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // A server may close the connection before it has everything: its right.
    stream.write_all(bytes).await.ok();
    Ok(stream)
}

/// Sends the bytes, says that no more will come, and reads until the server closes.
///
/// # Errors
/// When the server keeps the connection open.
pub async fn send_and_hang_up(port: u16, bytes: &[u8]) -> Result<()> {
    let mut stream = send(port, bytes).await?;
    stream.shutdown().await.ok();
    let mut answer = Vec::new();
    let patience = testkit::patience::patience();
    let read = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    // An answer, a close or a reset are all fine; silence for ever is not.
    read.with_context(|| format!("the connection stays open after {} bytes", bytes.len()))?
        .ok();
    Ok(())
}

/// Opens many connections that send `bytes` and nothing more.
///
/// # Errors
/// When one cannot be opened.
pub async fn idle(port: u16, connections: usize, bytes: &'static [u8]) -> Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(connections);
    let mut connecting = JoinSet::new();
    for _ in 0..connections {
        if connecting.len() >= CONNECTS_AT_ONCE {
            open.push(
                connecting
                    .join_next()
                    .await
                    .context("a connection under way")???,
            );
        }
        connecting.spawn(send(port, bytes));
    }
    while let Some(stream) = connecting.join_next().await {
        open.push(stream??);
    }
    ensure!(
        open.len() == connections,
        "{} of {connections} connections",
        open.len()
    );
    Ok(open)
}

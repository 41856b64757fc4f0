//! The page with made-up figures: what a member shows of a day that a test has no time for.

use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The page, and what it reads.
pub(crate) struct MadeUp {
    pub(crate) page: String,
    pub(crate) status: String,
}

impl MadeUp {
    /// Serves it until the test ends, and says where.
    pub(crate) async fn serve(self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let this = Arc::new(self);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let this = Arc::clone(&this);
                // A browser also opens connections that it does not use; what it misses, the test tells.
                tokio::spawn(async move { this.answer(connection).await });
            }
        });
        Ok(url)
    }

    async fn answer(&self, connection: TcpStream) -> Result<()> {
        let mut connection = BufReader::new(connection);
        let mut asked = String::new();
        connection.read_line(&mut asked).await?;
        let mut header = String::new();
        while connection.read_line(&mut header).await? > 2 {
            header.clear();
        }
        let (kind, body) = match asked.contains(".json") {
            true => ("application/json", &self.status),
            false => ("text/html; charset=utf-8", &self.page),
        };
        let head = [
            "HTTP/1.1 200 OK",
            &format!("content-type: {kind}"),
            &format!("content-length: {}", body.len()),
            "connection: close",
            "\r\n",
        ];
        connection.write_all(head.join("\r\n").as_bytes()).await?;
        connection.write_all(body.as_bytes()).await?;
        Ok(connection.shutdown().await?)
    }
}

//! What a new connection speaks: HTTP/2 begins with a preface of its own, and all else is HTTP/1.

use std::io::{self, Cursor};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// How a connection has begun.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) spoken: Spoken,
    /// What was read and belongs to what comes after it: of HTTP/2 without its preface.
    pub(super) rest: BytesMut,
}

/// Reads until it is clear what a connection speaks; `None` if it ends before.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Greeting>> {
    let mut rest = BytesMut::new();
    loop {
        if stream.read_buf(&mut rest).await? == 0 {
            return Ok(None);
        }
        let compared = rest.len().min(http2::PREFACE.len());
        let spoken = if rest[..compared] != http2::PREFACE[..compared] {
            Spoken::Http1
        } else if compared == http2::PREFACE.len() {
            rest.advance(compared);
            Spoken::Http2
        } else {
            continue;
        };
        return Ok(Some(Greeting { spoken, rest }));
    }
}

/// A stream of which something was read that its reader has to read again.
pub(super) fn rewound<S>(rest: BytesMut, stream: S) -> impl AsyncRead + AsyncWrite + Unpin + Send
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    let reader = AsyncReadExt::chain(Cursor::new(rest), reader);
    tokio::io::join(reader, writer)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What is made of bytes that come one by one.
    async fn greeting(bytes: &[u8]) -> Option<(Spoken, Vec<u8>)> {
        let (mut client, mut server) = tokio::io::duplex(1);
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move { client.write_all(&bytes).await });
        let greeting = read(&mut server).await.expect("read")?;
        let mut rewound = rewound(greeting.rest, server);
        let mut rest = Vec::new();
        rewound.read_to_end(&mut rest).await.expect("read");
        sending.await.expect("no panic").expect("sent");
        Some((greeting.spoken, rest))
    }

    #[tokio::test]
    async fn http_2_has_a_preface_and_nothing_else_loses_a_byte() {
        let http2 = [http2::PREFACE, b"frames"].concat();
        assert_eq!(
            greeting(&http2).await,
            Some((Spoken::Http2, b"frames".to_vec()))
        );
        for http1 in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PRI * HTTP/2.1\r\n\r\n",
            b"P ",
        ] {
            assert_eq!(greeting(http1).await, Some((Spoken::Http1, http1.to_vec())));
        }
        assert_eq!(greeting(b"PRI * HTTP/2.0").await, None);
    }
}

//! What is to be written to the socket: small things together, large ones as they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// What is smaller is copied to its neighbours.
const COPIED_BYTES_MAX: usize = 4 * 1024;
/// What small things take at first.
const TAIL_BYTES: usize = 1024;
/// Pieces that go to the system in one call.
const PIECES_MAX: usize = 64;

/// Bytes in the order in which they leave.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// After the pieces.
    tail: BytesMut,
    piece_bytes: usize,
    /// What was copied since everything was written last.
    small_bytes: usize,
}

impl Outbox {
    /// Where small things are written.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            // Growing from nothing would copy it several times.
            self.tail.reserve(TAIL_BYTES);
        }
        &mut self.tail
    }

    pub(crate) fn put(&mut self, data: Bytes) {
        if data.len() <= COPIED_BYTES_MAX {
            return self.tail().extend_from_slice(&data);
        }
        self.small_bytes += self.tail.len();
        self.seal();
        self.piece_bytes += data.len();
        self.pieces.push_back(data);
    }

    pub(crate) fn len(&self) -> usize {
        self.piece_bytes + self.tail.len()
    }

    /// The part of it that is not large pieces; at most, after some of it was written.
    pub(crate) fn small_len(&self) -> usize {
        self.small_bytes + self.tail.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.piece_bytes += self.tail.len();
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// Writes everything; what is left when the socket takes no more is still there.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.pieces.is_empty() {
                ready!(Pin::new(&mut *socket).poll_write(cx, &self.tail))?
            } else {
                ready!(self.poll_write_pieces(socket, cx))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        self.small_bytes = 0;
        // Nothing is held while there is nothing to say.
        self.tail = BytesMut::new();
        Pin::new(socket).poll_flush(cx)
    }

    fn poll_write_pieces<S: AsyncWrite + Unpin>(
        &self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        let all = pieces.chain([&self.tail[..]]);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        Pin::new(socket).poll_write_vectored(cx, &slices[..count])
    }

    fn written(&mut self, mut bytes: usize) {
        while let Some(first) = self.pieces.front_mut() {
            let part = bytes.min(first.len());
            first.advance(part);
            self.piece_bytes -= part;
            bytes -= part;
            if !first.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(bytes);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn small_and_large_leave_in_their_order() {
        let (mut client, mut server) = tokio::io::duplex(1000);
        let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
        for length in [1, 5000, 10, 20, 70_000, 4096, 4097, 3] {
            let byte = expected.len().to_le_bytes()[0];
            let data = vec![byte; length];
            outbox.tail().extend_from_slice(b"head");
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&data);
            outbox.put(data.into());
        }
        assert_eq!(outbox.len(), expected.len());
        let written = tokio::spawn(async move {
            std::future::poll_fn(|cx| outbox.poll_write(&mut server, cx))
                .await
                .unwrap();
            assert!(outbox.is_empty());
        });
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        written.await.unwrap();
        assert!(read == expected);
    }
}

//! `Maintenance.Snapshot`: the whole state as a file of etcd's, while everything goes on
//! (`server/etcdserver/api/v3rpc/maintenance.go`).
//!
//! The state of one entry is held still, measured, and written by a thread, piece by piece into a short
//! queue that the response's stream takes from: a client that is slow keeps the thread waiting and nothing
//! else, and the file is never in memory as a whole. Held still means that compactions wait with what they
//! remove from the disk; a client that takes nothing for long is therefore given up.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::SnapshotResponse;
use api::rpctypes::ErrorCode;
use etcdfile::{ExportError, Image, Sha256Sink};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::Status;

use crate::EtcdServer;

/// Bytes in one message, as in etcd.
const BLOB_BYTES: usize = 32 << 10;

/// Messages that wait for the client. When there are so many, nothing more is read.
const BLOBS_QUEUED_MAX: usize = 16;

/// A client that takes nothing for so long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// A piece of the response.
type Piece = Result<SnapshotResponse, Status>;

impl EtcdServer {
    /// The state of now, as the messages of the response.
    pub(super) async fn snapshot(&self) -> Result<impl Stream<Item = Piece> + use<>, Status> {
        let pinned = self.node().pin().await.map_err(|error| {
            tracing::error!(%error, "the state cannot be held for a snapshot");
            Status::from(ErrorCode::Stopped)
        })?;
        // There is a state as soon as there is a leader, and nobody is served before.
        let pinned = pinned.ok_or_else(|| Status::from(ErrorCode::Stopped))?;
        let (queue, pieces) = mpsc::channel(BLOBS_QUEUED_MAX);
        let clock = Arc::clone(&self.config().clock);
        let metrics = self.metrics().clone();
        let runtime = tokio::runtime::Handle::current();
        // It ends by itself when the client or the member goes: nobody takes from the queue then.
        tokio::task::spawn_blocking(move || {
            let started = clock.now();
            match send(&pinned, &queue, runtime) {
                Ok((bytes, version)) => {
                    let took = clock.now().saturating_duration_since(started);
                    metrics.upkeep().snapshot_sent(took);
                    tracing::info!(
                        "total-bytes" = bytes,
                        took_ms = took.as_millis(),
                        "storage-version" = version,
                        "successfully sent database snapshot to client"
                    );
                }
                Err(error) => give_up(&error, &queue),
            }
        });
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((piece, pieces))
        });
        Ok(pieces.fuse())
    }
}

/// Sends it, and says how many bytes it had, and of which version it is.
fn send(
    pinned: &apply::Pinned,
    queue: &mpsc::Sender<Piece>,
    runtime: tokio::runtime::Handle,
) -> Result<(u64, String), ExportError> {
    let image = Image::measure(pinned.clone())?;
    let (bytes, version) = (image.bytes(), image.storage_version());
    tracing::info!(
        "total-bytes" = bytes,
        revision = image.revision(),
        "storage-version" = version,
        "sending database snapshot to client"
    );
    let mut out = Sha256Sink::new(Blobs {
        queue,
        runtime,
        version: version.clone(),
        left: bytes,
        blob: Vec::with_capacity(BLOB_BYTES),
    });
    image.write(&mut out)?;
    let (mut blobs, digest) = out.finish();
    debug_assert!(blobs.blob.is_empty(), "a database ends with its last blob");
    blobs.blob = digest.to_vec();
    blobs.send().map_err(boltfile_error)?;
    Ok((bytes, version))
}

fn boltfile_error(error: io::Error) -> ExportError {
    ExportError::Write(error.into())
}

fn give_up(error: &ExportError, queue: &mpsc::Sender<Piece>) {
    if queue.is_closed() {
        tracing::info!("a client has left before it had the whole database snapshot");
        return;
    }
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, cause, "failed to send database snapshot to client");
    let status = Status::unknown(format!("cannot make a snapshot: {error}"));
    // Without room the client has not read for long, and sees the stream end early.
    if queue.try_send(Err(status)).is_err() {}
}

/// Cuts what is written into messages.
struct Blobs<'q> {
    queue: &'q mpsc::Sender<Piece>,
    runtime: tokio::runtime::Handle,
    version: String,
    /// Bytes of the database that are still to come.
    left: u64,
    blob: Vec<u8>,
}

impl Blobs<'_> {
    fn send(&mut self) -> io::Result<()> {
        let blob = std::mem::replace(&mut self.blob, Vec::with_capacity(BLOB_BYTES));
        self.left = self.left.saturating_sub(blob.len() as u64);
        let piece = SnapshotResponse {
            // etcd's has none.
            header: None,
            remaining_bytes: self.left,
            blob,
            version: self.version.clone(),
        };
        let sending = tokio::time::timeout(STALL_TIMEOUT, self.queue.send(Ok(piece)));
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Blobs<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOB_BYTES - self.blob.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.blob.extend_from_slice(taken);
        let is_last = self.blob.len() as u64 == self.left;
        if self.blob.len() == BLOB_BYTES || is_last {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

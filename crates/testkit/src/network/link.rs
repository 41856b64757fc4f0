//! One proxied connection: two directions, each obeying the link it belongs to.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Fault;

/// Bytes read at once, and so the grain of delays and of the throttle.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks that are under way in one direction. When it is full, the sender's own buffers fill.
const CHUNKS_UNDER_WAY_MAX: usize = 256;

/// Carries bytes between the two ends until one of them closes, or a fault ends the connection.
pub(super) async fn carry(
    mut dialer: TcpStream,
    mut target: TcpStream,
    there: watch::Receiver<Fault>,
    back: watch::Receiver<Fault>,
) -> io::Result<()> {
    dialer.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let ended = {
        let (dialer_read, dialer_write) = dialer.split();
        let (target_read, target_write) = target.split();
        tokio::try_join!(
            direction(dialer_read, target_write, there),
            direction(target_read, dialer_write, back),
        )
    };
    if ended.is_err() {
        dialer.set_zero_linger()?;
        target.set_zero_linger()?;
    }
    ended.map(|_| ())
}

async fn direction(
    read: ReadHalf<'_>,
    write: WriteHalf<'_>,
    fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    if *fault.borrow() == Fault::Reset {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let (sender, queue) = mpsc::channel(CHUNKS_UNDER_WAY_MAX);
    let reading = take_in(read, sender);
    let mut out = Out {
        write,
        fault,
        swallowed: false,
    };
    tokio::try_join!(reading, out.deliver(queue)).map(|_| ())
}

/// A piece of the stream, and when it was read.
type Chunk = (Instant, Vec<u8>);

async fn take_in(mut read: ReadHalf<'_>, sender: mpsc::Sender<Chunk>) -> io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        if read.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        if sender.send((Instant::now(), bytes)).await.is_err() {
            return Ok(());
        }
    }
}

struct Out<'a> {
    write: WriteHalf<'a>,
    fault: watch::Receiver<Fault>,
    /// Bytes are missing: the connection cannot go on once bytes pass again.
    swallowed: bool,
}

impl Out<'_> {
    async fn deliver(&mut self, mut queue: mpsc::Receiver<Chunk>) -> io::Result<()> {
        loop {
            tokio::select! {
                biased;
                changed = self.fault.changed() => {
                    changed.map_err(io::Error::other)?;
                    self.obey()?;
                }
                chunk = queue.recv() => match chunk {
                    Some((read_at, bytes)) => self.chunk(read_at, &bytes).await?,
                    None => break,
                },
            }
        }
        if self.swallowed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.write.shutdown().await
    }

    /// The fault is another one now: may this connection go on?
    fn obey(&mut self) -> io::Result<Fault> {
        let fault = *self.fault.borrow_and_update();
        if fault == Fault::Reset || self.swallowed && fault != Fault::Drop {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(fault)
    }

    /// Delivers one chunk, sooner or later or not at all.
    async fn chunk(&mut self, read_at: Instant, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.obey()? {
                Fault::Drop => {
                    self.swallowed = true;
                    return Ok(());
                }
                Fault::Hold => self.until_changed().await?,
                Fault::Delay(delay) if Instant::now() < read_at + delay => {
                    self.until_changed_or(read_at + delay).await?;
                }
                Fault::Throttle(rate) => {
                    let seconds = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
                        / f64::from(rate.max(1));
                    let due = Instant::now() + Duration::from_secs_f64(seconds);
                    if !self.until_changed_or(due).await? {
                        bytes = self.write(bytes).await?;
                    }
                }
                Fault::None | Fault::Delay(_) => bytes = self.write(bytes).await?,
                Fault::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
        Ok(())
    }

    async fn until_changed(&mut self) -> io::Result<()> {
        self.fault.changed().await.map_err(io::Error::other)
    }

    /// Whether the fault changed before that moment.
    async fn until_changed_or(&mut self, due: Instant) -> io::Result<bool> {
        match tokio::time::timeout_at(due, self.fault.changed()).await {
            Ok(changed) => changed.map(|()| true).map_err(io::Error::other),
            Err(_) => Ok(false),
        }
    }

    /// Writes what the receiver takes, unless the fault changes first; returns the rest.
    async fn write<'b>(&mut self, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        tokio::select! {
            biased;
            changed = self.fault.changed() => {
                // The caller looks what to do now.
                changed.map_err(io::Error::other)?;
                Ok(bytes)
            }
            written = self.write.write(bytes) => Ok(&bytes[written?..]),
        }
    }
}

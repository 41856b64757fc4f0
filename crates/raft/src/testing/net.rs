//! A network in memory: members reach each other through pipes that can be cut, slowed and broken.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::{Dial, Dialed, SharedDial};
use types::Url;

use crate::PeerService;

/// Bytes in a pipe.
const PIPE_BYTES: usize = 64 * 1024;

/// Pieces of a connection's bytes on a slow link.
const CHUNKS_ON_THE_WAY_MAX: usize = 1024;

/// What becomes of bytes on their way from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// They arrive.
    Open,
    /// They arrive when the link is open again; nobody is told.
    Cut,
    /// They arrive after this.
    Slow(Duration),
}

/// Members by number; a member's url is `http://member-<number>:2380`.
#[derive(Default)]
pub(crate) struct Net {
    services: Mutex<BTreeMap<usize, PeerService>>,
    links: Mutex<BTreeMap<(usize, usize), watch::Sender<Link>>>,
    connections: Mutex<Vec<(usize, usize, CancellationToken)>>,
    /// How often each member was unplugged: what is left of it from before reaches nobody.
    unplugged: Mutex<BTreeMap<usize, u64>>,
}

pub(crate) fn url(member: usize) -> String {
    format!("http://member-{member}:2380")
}

impl Net {
    /// How member `from` reaches the others.
    pub(crate) fn dialer(self: &Arc<Self>, from: usize) -> SharedDial {
        Arc::new(NetDial {
            net: Arc::clone(self),
            from,
            life: self.life(from),
        })
    }

    pub(crate) fn serve(&self, member: usize, service: PeerService) {
        self.services.lock().insert(member, service);
    }

    /// Breaks every connection from and to a member; nobody can connect to it any more.
    pub(crate) fn unplug(&self, member: usize) {
        *self.unplugged.lock().entry(member).or_default() += 1;
        self.services.lock().remove(&member);
        self.break_connections(|from, to| from == member || to == member);
    }

    /// Nobody can connect to a member any more, which goes on: its own connections to others stay.
    pub(crate) fn refuse(&self, member: usize) {
        self.services.lock().remove(&member);
        self.break_connections(|_from, to| to == member);
    }

    /// Breaks connections: both sides are told.
    pub(crate) fn break_connections(&self, which: impl Fn(usize, usize) -> bool) {
        self.connections.lock().retain(|(from, to, broken)| {
            let hit = which(*from, *to);
            if hit {
                broken.cancel();
            }
            !hit && !broken.is_cancelled()
        });
    }

    pub(crate) fn set(&self, from: usize, to: usize, link: Link) {
        self.link(from, to).send_replace(link);
    }

    /// Sets all links from and to a member.
    pub(crate) fn set_all(&self, member: usize, members: usize, link: Link) {
        for other in (0..members).filter(|other| *other != member) {
            self.set(member, other, link);
            self.set(other, member, link);
        }
    }

    fn life(&self, member: usize) -> u64 {
        self.unplugged.lock().get(&member).copied().unwrap_or(0)
    }

    fn link(&self, from: usize, to: usize) -> watch::Sender<Link> {
        let mut links = self.links.lock();
        let link = links
            .entry((from, to))
            .or_insert_with(|| watch::Sender::new(Link::Open));
        link.clone()
    }

    async fn connect(self: Arc<Self>, from: usize, life: u64, to: usize) -> io::Result<Dialed> {
        let (there, back) = (self.link(from, to), self.link(to, from));
        wait_open(&there).await;
        wait_open(&back).await;
        if self.life(from) != life {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        let service = self.services.lock().get(&to).cloned();
        let service = service.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, near_end) = tokio::io::duplex(PIPE_BYTES);
        let (far_end, far) = tokio::io::duplex(PIPE_BYTES);
        let broken = CancellationToken::new();
        self.connections.lock().push((from, to, broken.clone()));
        tokio::spawn(async move {
            let (near_read, near_write) = tokio::io::split(near_end);
            let (far_read, far_write) = tokio::io::split(far_end);
            tokio::select! {
                biased;
                () = broken.cancelled() => {}
                () = pump(near_read, far_write, &there) => {}
                () = pump(far_read, near_write, &back) => {}
            }
            broken.cancel();
        });
        tokio::spawn(serve(far, service));
        Ok(Box::new(near))
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

async fn wait_open(link: &watch::Sender<Link>) {
    let mut link = link.subscribe();
    let open = link.wait_for(|link| *link != Link::Cut).await;
    drop(open);
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    link: &watch::Sender<Link>,
) {
    let (sender, mut on_the_way) = tokio::sync::mpsc::channel(CHUNKS_ON_THE_WAY_MAX);
    let read = async move {
        let mut buffer = vec![0; PIPE_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let sent = (Instant::now(), buffer[..read].to_vec());
            if sender.send(sent).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((sent, bytes)) = on_the_way.recv().await {
            let state = *link.borrow();
            if let Link::Slow(by) = state {
                tokio::time::sleep_until(sent + by).await;
            }
            wait_open(link).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

async fn serve(connection: tokio::io::DuplexStream, service: PeerService) {
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let service = service.clone();
        async move { service.call(request).await }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(connection), answer)
        .await;
    // A broken connection is what some tests want.
    drop(served);
}

#[derive(Debug)]
struct NetDial {
    net: Arc<Net>,
    from: usize,
    life: u64,
}

impl Dial for NetDial {
    fn dial(&self, url: &Url) -> BoxFuture<'static, io::Result<Dialed>> {
        let to = url.host().strip_prefix("member-").unwrap().parse().unwrap();
        Box::pin(Arc::clone(&self.net).connect(self.from, self.life, to))
    }
}

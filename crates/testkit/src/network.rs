//! The links between the members of a cluster, as TCP proxies in the test's process that can be
//! told to fail: each direction of each pair of members by itself.
//!
//! What this is not: a simulation. Bytes go through real sockets, and time is real time.
//!
//! Every member advertises the address of its proxy. Who dials is found out in `/proc` (whose
//! process holds the other end of the connection), so any program can be put behind this, and
//! traffic from one member to another obeys one setting, whoever of the two opened the connection.

mod dialer;
mod link;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to the bytes that go from one member to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// They are swallowed: as a firewall that drops packets. A connection that lost bytes is
    /// reset when the fault ends.
    Drop,
    /// They wait until the fault ends, and then all arrive: as packets that are sent again.
    Hold,
    /// Connections are reset, and new ones as well.
    Reset,
    /// They arrive so much later.
    Delay(Duration),
    /// So many bytes in a second.
    Throttle(u32),
}

/// Where a connection comes from: nobody is a process that is no member, a client say.
type Dialer = Option<usize>;

/// The links; clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By sender and receiver; missing means [`Fault::None`], and nobody is there yet.
    links: Mutex<BTreeMap<(Dialer, Dialer), watch::Sender<Fault>>>,
    processes: Mutex<BTreeMap<usize, u32>>,
    /// Listeners and connections; all end with the last handle.
    tasks: Mutex<JoinSet<()>>,
}

impl Network {
    /// Makes a proxy in front of a member that listens on a port, and returns the proxy's port.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn join(&self, member: usize, target: u16) -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        // A weak handle: the task must not keep itself alive.
        let network = Arc::downgrade(&self.shared);
        self.shared.tasks.lock().spawn(async move {
            loop {
                let accepted = listener.accept().await;
                let Some(shared) = network.upgrade() else {
                    return;
                };
                match accepted {
                    Ok((stream, from)) => Network { shared }.serve(stream, from, member, target),
                    // Out of descriptors for the moment: the dialer tries again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(port)
    }

    /// Says which process is a member now.
    pub fn set_process(&self, member: usize, pid: u32) {
        self.shared.processes.lock().insert(member, pid);
    }

    /// Sets what happens to bytes from one member to another; the other way stays as it is.
    pub fn set(&self, from: usize, to: usize, fault: Fault) {
        self.link(Some(from), Some(to)).send_replace(fault);
    }

    /// Sets both directions between two members.
    pub fn set_both(&self, one: usize, other: usize, fault: Fault) {
        self.set(one, other, fault);
        self.set(other, one, fault);
    }

    /// Sets both directions of all links between two groups of members.
    pub fn between(&self, some: &[usize], others: &[usize], fault: Fault) {
        for &one in some {
            for &other in others.iter().filter(|&&other| other != one) {
                self.set_both(one, other, fault);
            }
        }
    }

    /// Ends all faults.
    pub fn heal(&self) {
        for link in self.shared.links.lock().values() {
            link.send_replace(Fault::None);
        }
    }

    fn link(&self, from: Dialer, to: Dialer) -> watch::Sender<Fault> {
        let mut links = self.shared.links.lock();
        let link = links.entry((from, to));
        link.or_insert_with(|| watch::Sender::new(Fault::None))
            .clone()
    }

    fn serve(&self, accepted: TcpStream, from: SocketAddr, member: usize, target: u16) {
        let network = self.clone();
        let serving = async move {
            // Nobody else looks at how a proxied connection ended: its two ends saw it.
            let _ended: io::Result<()> = network.connect(accepted, from, member, target).await;
        };
        let mut tasks = self.shared.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(serving);
    }

    async fn connect(
        self,
        accepted: TcpStream,
        from: SocketAddr,
        member: usize,
        target: u16,
    ) -> io::Result<()> {
        let processes = self.shared.processes.lock().clone();
        let dialer = dialer::find(from, accepted.local_addr()?, &processes).await;
        let there = self.link(dialer, Some(member)).subscribe();
        let back = self.link(Some(member), dialer).subscribe();
        // The connection outlives no network: its task is in there.
        drop(self);
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await;
        match connected {
            Ok(connected) => link::carry(accepted, connected, there, back).await,
            Err(error) => {
                accepted.set_zero_linger()?;
                Err(error)
            }
        }
    }
}

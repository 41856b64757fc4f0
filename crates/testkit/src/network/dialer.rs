//! Finds out which process opened a connection to us.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;

/// The member whose process holds the other end of a connection. `None` when it is nobody's, or
/// has gone already.
pub(super) async fn find(
    dialer: SocketAddr,
    us: SocketAddr,
    processes: &BTreeMap<usize, u32>,
) -> Option<usize> {
    let processes = processes.clone();
    // Reads many small files of the kernel: not on a thread that carries bytes.
    let search = tokio::task::spawn_blocking(move || {
        let socket = inode(dialer, us)?;
        let name = format!("socket:[{socket}]");
        processes
            .into_iter()
            .find(|&(_, pid)| holds(pid, name.as_bytes()))
            .map(|(member, _)| member)
    });
    search.await.ok().flatten()
}

/// The socket's number in the kernel's table of connections.
fn inode(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (as_listed(local)?, as_listed(remote)?);
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let matches = fields.next()? == local && fields.next()? == remote;
        matches.then(|| fields.nth(6))??.parse().ok()
    })
}

/// An address as `/proc/net/tcp` has it: the bytes of the IP in the machine's order.
fn as_listed(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

fn holds(pid: u32, name: &[u8]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str().as_bytes() == name)
    })
}

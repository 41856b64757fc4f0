//! A port that stays a test's own, also while nobody listens on it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::net::TcpSocket;

/// A TCP port of 127.0.0.1, of the kernel's choice.
///
/// As long as this lives, the kernel gives the port to nobody who asks for any, neither to listen nor
/// for an outgoing connection, and who connects to it is refused; a server that is told to listen on
/// it can, as often as it is started: it sets `SO_REUSEADDR`, as etcd and kvorum do, and this socket
/// has it too and never listens.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: TcpSocket,
}

impl Port {
    /// Reserves a port.
    ///
    /// # Errors
    /// When none is free.
    pub fn reserve() -> Result<Port> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Port {
            number: socket.local_addr()?.port(),
            _reservation: socket,
        })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The ports of one member.
#[derive(Debug)]
pub(crate) struct MemberPorts {
    pub(crate) client: Port,
    pub(crate) peer: Port,
    pub(crate) metrics: Port,
}

impl MemberPorts {
    pub(crate) fn reserve() -> Result<MemberPorts> {
        Ok(MemberPorts {
            client: Port::reserve()?,
            peer: Port::reserve()?,
            metrics: Port::reserve()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// std's listeners set `SO_REUSEADDR` too.
    fn listen(port: u16) -> std::io::Result<TcpListener> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn a_server_listens_on_a_reserved_port_again_and_again() {
        let port = Port::reserve().unwrap();
        for _ in 0..3 {
            assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_err());
            let _listener = listen(port.number()).unwrap();
            let _open = TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).unwrap();
            assert!(listen(port.number()).is_err(), "two listen on one port");
        }
    }

    #[test]
    fn a_reserved_port_is_not_given_to_others() {
        let port = Port::reserve().unwrap();
        let other = TcpSocket::new_v4().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        assert!(other.bind(address).is_err());
        drop(port);
        other.bind(address).unwrap();
    }
}

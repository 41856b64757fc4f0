//! systemd's journal (`--log-outputs systemd/journal`), by its own protocol: one datagram for each
//! line.
//!
//! What this is not: a queue. Where there is no journal, or it does not take a line, that goes to
//! standard error, as with etcd.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal of this machine.
pub(super) struct Journal {
    socket: Option<UnixDatagram>,
}

impl Journal {
    pub(super) fn connect() -> Self {
        Self::connect_to(Path::new(SOCKET))
    }

    fn connect_to(path: &Path) -> Self {
        let connect = || -> io::Result<UnixDatagram> {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            Ok(socket)
        };
        Self {
            socket: connect().ok(),
        }
    }
}

impl Write for Journal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let mut datagram = format!(
            "PRIORITY={}\nSYSLOG_IDENTIFIER=etcd\nMESSAGE=",
            priority(text)
        )
        .into_bytes();
        datagram.extend_from_slice(text);
        datagram.push(b'\n');
        let sent = self.socket.as_ref().map(|socket| socket.send(&datagram));
        match sent {
            Some(Ok(_)) => Ok(line.len()),
            None | Some(Err(_)) => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// syslog's number for the level that the line names.
fn priority(line: &[u8]) -> u8 {
    let head = String::from_utf8_lossy(&line[..line.len().min(64)]);
    let names = |level: &str| {
        head.contains(&format!("\"level\":\"{level}\"")) || head.contains(&format!("\t{level}\t"))
    };
    match () {
        () if names("error") => 3,
        () if names("warn") => 4,
        () if names("debug") => 7,
        () => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_datagram_with_its_priority() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let line = b"{\"level\":\"warn\",\"msg\":\"hello\"}\n";
        Journal::connect_to(&path).write_all(line).unwrap();
        let mut datagram = [0; 256];
        let len = journal.recv(&mut datagram).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&datagram[..len]),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=etcd\nMESSAGE={\"level\":\"warn\",\"msg\":\"hello\"}\n"
        );
    }

    #[test]
    fn without_a_journal_lines_go_to_standard_error() {
        let mut journal = Journal::connect_to(Path::new("/nowhere"));
        assert!(journal.socket.is_none());
        journal.write_all(b"a line of a test\n").unwrap();
    }
}

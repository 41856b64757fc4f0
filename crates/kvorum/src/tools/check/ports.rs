//! Whether a member could listen where it is told to.

use std::io;
use std::net::{SocketAddr, TcpListener};

use types::Url;

use super::Running;
use super::report::Report;
use crate::Config;

/// Listens on every address, all at once so that two flags with the same one are seen, and lets them go.
pub(super) fn check(config: &Config, running: Running, report: &mut Report) {
    let mut held = Vec::new();
    for (flag, urls) in [
        ("--listen-peer-urls", &config.listen_peer_urls),
        ("--listen-client-urls", &config.listen_client_urls),
        ("--listen-client-http-urls", &config.listen_client_http_urls),
        ("--listen-metrics-urls", &config.listen_metrics_urls),
    ] {
        for address in addresses(urls) {
            match TcpListener::bind(address) {
                Ok(listener) => {
                    held.push(listener);
                    report.ok("ports", format!("{address} is free ({flag})"));
                }
                Err(error) => failed(flag, address, running, &error, report),
            }
        }
    }
}

fn failed(
    flag: &str,
    address: SocketAddr,
    running: Running,
    error: &io::Error,
    report: &mut Report,
) {
    match error.kind() {
        io::ErrorKind::AddrInUse if running == Running::Yes => {
            report.ok(
                "ports",
                format!("{address} is in use, and a member runs here ({flag})"),
            );
        }
        io::ErrorKind::AddrInUse => report.error("ports", format!("{address} is in use ({flag})")),
        io::ErrorKind::AddrNotAvailable => {
            report.error(
                "ports",
                format!("{address} is no address of this machine ({flag})"),
            );
        }
        _ => report.error(
            "ports",
            format!("cannot listen on {address} ({flag}): {error}"),
        ),
    }
}

/// The addresses of urls that are no sockets of files; each once.
fn addresses(urls: &[Url]) -> Vec<SocketAddr> {
    let bind = |url: &Url| url.bind_address().ok().flatten().map(SocketAddr::from);
    let mut addresses: Vec<SocketAddr> = urls.iter().filter_map(bind).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_what_is_elsewhere_is_told_apart() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap();
        let config = |flags: &[String]| {
            let mut report = Report::default();
            let config = super::super::configuration::read(flags, &mut report);
            config.unwrap_or_else(|| panic!("{}", report.text()))
        };
        let config = config(&[
            "--name=m1".to_owned(),
            format!("--listen-client-urls=http://{taken},http://192.0.2.1:1"),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        ]);
        let said = |running| {
            let mut report = Report::default();
            check(&config, running, &mut report);
            report.text()
        };
        let text = said(Running::No);
        assert!(
            text.contains(&format!(
                "error    ports: {taken} is in use (--listen-client-urls)"
            )),
            "{text}"
        );
        assert!(
            text.contains("192.0.2.1:1 is no address of this machine"),
            "{text}"
        );
        assert!(
            text.contains("127.0.0.1:0 is free (--listen-peer-urls)"),
            "{text}"
        );
        assert!(said(Running::Yes).contains("and a member runs here"));
        drop(held);
    }
}

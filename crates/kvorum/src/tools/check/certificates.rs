//! Certificates, keys and their dates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use transport::{CertificateStatus, TlsClient, TlsConfig, TlsError, TlsServer};
use types::{Clock, Url};

use super::report::{Level, Report};
use crate::Config;
use crate::config::{ClientTls, PeerTls};
use crate::error::chain;

const CHECK: &str = "certificates";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Time enough to make new ones.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn check(config: &Config, clock: &Arc<dyn Clock>, report: &mut Report) {
    let now = clock.wall();
    let server = |tls: &TlsConfig| {
        let loaded = TlsServer::load(tls, Arc::clone(clock));
        loaded.map(|loaded| loaded.certificates())
    };
    match &config.client_tls {
        None => plain("clients", &config.listen_client_urls, report),
        Some(ClientTls::Auto(_)) => made("clients", report),
        Some(ClientTls::Files(tls)) => dates(server(tls), now, report),
    }
    match &config.peer_tls {
        None => plain("peers", &config.listen_peer_urls, report),
        Some(PeerTls::Auto(_)) => made("peers", report),
        Some(PeerTls::Files(files)) => {
            dates(server(&files.server), now, report);
            let client = TlsClient::load(&files.client, Arc::clone(clock));
            dates(client.map(|client| client.certificates()), now, report);
        }
    }
}

fn made(whom: &str, report: &mut Report) {
    report.ok(
        CHECK,
        format!("the member makes its certificate for {whom} itself"),
    );
}

fn plain(whom: &str, urls: &[Url], report: &mut Report) {
    let is_outside = |url: &&Url| {
        let address = url.bind_address().ok().flatten();
        address.is_some_and(|(ip, _)| !ip.is_loopback())
    };
    match urls.iter().find(is_outside) {
        Some(url) => report.warning(
            CHECK,
            format!("no TLS for {whom} on {url}: whoever reaches it can read and write everything"),
        ),
        None => report.ok(
            CHECK,
            format!("no TLS for {whom}, who are all on this machine"),
        ),
    }
}

fn dates(loaded: Result<Vec<CertificateStatus>, TlsError>, now: SystemTime, report: &mut Report) {
    match loaded {
        Ok(certificates) => {
            for it in certificates {
                let what = format!("{} ({})", it.file.display(), it.usage);
                report.add(CHECK, expiry(&what, it.not_after, now));
            }
        }
        Err(error) => report.error(CHECK, chain(&error)),
    }
}

/// What is to be said about something that is valid until then.
pub(super) fn expiry(what: &str, not_after: SystemTime, now: SystemTime) -> (Level, String) {
    let until = httpdate::fmt_http_date(not_after);
    match not_after.duration_since(now) {
        Err(_passed) => (Level::Error, format!("{what} was valid until {until}")),
        Ok(left) if left < SOON => {
            let days = left.as_secs() / DAY.as_secs();
            (
                Level::Warning,
                format!("{what} is valid until {until}, {days} more days"),
            )
        }
        Ok(_) => (Level::Ok, format!("{what} is valid until {until}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_warned_about() {
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let level = |end: SystemTime| expiry("x", end, now).0;
        assert_eq!(level(now - DAY), Level::Error);
        assert_eq!(level(now + DAY * 29), Level::Warning);
        assert_eq!(level(now + DAY * 31), Level::Ok);
        let text = expiry("x", now + DAY * 2, now).1;
        assert!(text.ends_with("GMT, 2 more days"), "{text}");
    }
}

//! Whether a peer's certificate fits the address that it comes from.
//!
//! The rules are those of `checkCertSAN` in etcd's `client/pkg/transport/listener_tls.go`: a
//! certificate without IP and DNS names passes; else the address must be one of its IPs, or belong
//! to one of its DNS names, by reverse lookup (also for `*.` names) or by forward lookup.
//!
//! Differs from etcd: the reverse lookup is the system's and gives one name, where Go takes all.
//!
//! What this is not: whether the certificate is believed (`tls::verify`).

use std::io;
use std::net::IpAddr;

use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::words::{self, Names};

/// Why the certificate does not fit the address, if so.
pub(crate) async fn check(certificate: &CertificateDer<'_>, remote: IpAddr) -> Result<(), String> {
    let (ips, names) = subject_alternative_names(certificate);
    if ips.contains(&remote) || (ips.is_empty() && names.dns.is_empty()) {
        return Ok(());
    }
    if names.dns.is_empty() {
        return Err(words::wrong_name(
            &ServerName::IpAddress(remote.into()),
            &names,
        ));
    }
    let failure = match belongs_to(remote, &names.dns).await {
        Ok(true) => return Ok(()),
        Ok(false) => String::new(),
        Err(failure) => format!(" ({failure})"),
    };
    let dns: Vec<String> = names.dns.iter().map(|name| format!("{name:?}")).collect();
    let dns = dns.join(" ");
    Err(format!(
        "tls: \"{remote}\" does not match any of DNSNames [{dns}]{failure}"
    ))
}

fn subject_alternative_names(certificate: &CertificateDer<'_>) -> (Vec<IpAddr>, Names) {
    let (mut ips, mut names) = (Vec::new(), Names::default());
    let Ok((_rest, certificate)) = X509Certificate::from_der(certificate) else {
        return (ips, names);
    };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return (ips, names);
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                if let Ok(ip) = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)) {
                    ips.push(ip.to_canonical());
                }
            }
            _ => {}
        }
    }
    names.ips = ips.iter().map(ToString::to_string).collect();
    (ips, names)
}

/// Whether the address belongs to one of the names; the last lookup that failed, if not.
async fn belongs_to(remote: IpAddr, dns: &[String]) -> Result<bool, String> {
    let mut failure = None;
    match reverse_lookup(remote).await {
        Ok(name) if matches_any(&name, dns) => return Ok(true),
        Ok(_another) => {}
        Err(error) => failure = Some(format!("lookup {remote}: {}", words::system(&error))),
    }
    for name in dns.iter().filter(|name| !name.starts_with("*.")) {
        match lookup_host((name.as_str(), 0)).await {
            Ok(mut addresses) => {
                if addresses.any(|address| address.ip().to_canonical() == remote) {
                    return Ok(true);
                }
            }
            Err(error) => failure = Some(format!("lookup {name}: {}", words::system(&error))),
        }
    }
    failure.map_or(Ok(false), Err)
}

async fn reverse_lookup(remote: IpAddr) -> io::Result<String> {
    let found = spawn_blocking(move || dns_lookup::lookup_addr(&remote)).await;
    Ok(found.map_err(io::Error::other)??)
}

/// Whether what a reverse lookup gave is one of the names.
fn matches_any(found: &str, dns: &[String]) -> bool {
    let found = found.strip_suffix('.').unwrap_or(found);
    dns.iter().any(|name| match name.strip_prefix('*') {
        Some(end) if end.starts_with('.') => found.ends_with(end),
        _ => found == name,
    })
}

#[cfg(test)]
mod tests {
    use super::matches_any;

    #[test]
    fn a_wildcard_is_the_end_of_a_name() {
        let dns = ["*.cluster.test".to_owned(), "one.test".to_owned()];
        for (found, fits) in [
            ("a.cluster.test.", true),
            ("a.b.cluster.test", true),
            ("cluster.test", false),
            ("one.test", true),
            ("two.one.test", false),
        ] {
            assert_eq!(matches_any(found, &dns), fits, "{found}");
        }
    }
}

//! Authorities and certificates, in k3s's files.
//!
//! The authorities are made once, by the first server, and shared (`bootstrap`); one that is put there
//! before is used. Certificates are each server's own, and made anew at every start and every day:
//! the member and the supervisor follow their files, so there is none whose end must be watched.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use transport::{Authority, PemPair, Subject, write_whole};
use types::{Clock, SystemClock};

use crate::access::believing;
use crate::layout::{Layout, private_dir, read_if_there, write_private};
use crate::log::rfc3339;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// k3s's.
const CA_VALIDITY: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// k3s's.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How often certificates are made anew.
pub(crate) const RENEWAL_INTERVAL: Duration = DAY;

/// Authorities: the files' names, and what they are called themselves.
const AUTHORITIES: [(&str, &str); 5] = [
    ("server-ca", "k3s-server-ca"),
    ("client-ca", "k3s-client-ca"),
    ("request-header-ca", "k3s-request-header-ca"),
    ("etcd/server-ca", "etcd-server-ca"),
    ("etcd/peer-ca", "etcd-peer-ca"),
];
/// Signs the tokens of service accounts.
pub(crate) const SERVICE_KEY: &str = "service.key";

/// A certificate that each server has.
struct Leaf {
    file: &'static str,
    authority: &'static str,
    common_name: &'static str,
    organization: Option<&'static str>,
    is_for_servers: bool,
}

const LEAVES: [Leaf; 5] = [
    Leaf {
        file: "serving-kube-apiserver",
        authority: "server-ca",
        common_name: "kube-apiserver",
        organization: None,
        is_for_servers: true,
    },
    Leaf {
        file: "client-admin",
        authority: "client-ca",
        common_name: "system:admin",
        organization: Some("system:masters"),
        is_for_servers: false,
    },
    Leaf {
        file: "etcd/server-client",
        authority: "etcd/server-ca",
        common_name: "etcd-server",
        organization: None,
        is_for_servers: true,
    },
    Leaf {
        file: "etcd/peer-server-client",
        authority: "etcd/peer-ca",
        common_name: "etcd-peer",
        organization: None,
        is_for_servers: true,
    },
    Leaf {
        file: "etcd/client",
        authority: "etcd/server-ca",
        common_name: "etcd-client",
        organization: None,
        is_for_servers: false,
    },
];

/// Makes the authorities that are not there.
pub(crate) fn ensure_authorities(layout: &Layout) -> Result<()> {
    for (file, name) in AUTHORITIES {
        let (cert, key) = (read(layout, file, "crt")?, read(layout, file, "key")?);
        if cert.is_some() != key.is_some() {
            let path = layout.tls_file(file);
            bail!(
                "of {}.crt and {}.key only one is there",
                path.display(),
                path.display()
            );
        }
        if cert.is_none() {
            let now = SystemClock.wall();
            let (_authority, pair) = Authority::create(&stamped(name), now, CA_VALIDITY)?;
            write_pair(layout, file, &pair)?;
        }
    }
    let service_key = layout.tls_file(SERVICE_KEY);
    if !service_key.exists() {
        // Any key does; the certificate that comes with it is not needed.
        let now = SystemClock.wall();
        let (_authority, pair) = Authority::create("k3s-service", now, CA_VALIDITY)?;
        write_private(&service_key, &pair.key)?;
    }
    Ok(())
}

/// k3s's names of authorities say when they were made.
fn stamped(name: &str) -> String {
    let now = SystemClock.wall().duration_since(std::time::UNIX_EPOCH);
    format!("{name}@{}", now.unwrap_or_default().as_secs())
}

/// Refuses authorities that have ended: nobody would believe this server.
pub(crate) fn check_authorities(layout: &Layout) -> Result<()> {
    for (file, _name) in AUTHORITIES {
        check_authority(&layout.tls_file(&format!("{file}.crt")))?;
    }
    Ok(())
}

/// Refuses an authority that has ended.
pub(crate) fn check_authority(path: &Path) -> Result<()> {
    let loaded = believing(path)?;
    let now = SystemClock.wall();
    for certificate in loaded.certificates() {
        if certificate.not_after < now {
            let (path, end) = (path.display(), rfc3339(certificate.not_after));
            bail!("certificate authority {path} has expired on {end}");
        }
    }
    Ok(())
}

/// Makes all certificates of this server anew.
pub(crate) fn issue(layout: &Layout, hosts: &[String]) -> Result<()> {
    for leaf in &LEAVES {
        let (cert, key) = (
            read(layout, leaf.authority, "crt")?,
            read(layout, leaf.authority, "key")?,
        );
        let (Some(cert), Some(key)) = (cert, key) else {
            bail!(
                "the authority {} is not there",
                layout.tls_file(leaf.authority).display()
            );
        };
        let authority = Authority::open(&PemPair { cert, key })?;
        let subject = Subject {
            common_name: leaf.common_name,
            organization: leaf.organization,
            hosts: if leaf.is_for_servers { hosts } else { &[] },
        };
        let pair = authority.issue(&subject, SystemClock.wall(), VALIDITY)?;
        write_pair(layout, leaf.file, &pair)?;
    }
    Ok(())
}

fn read(layout: &Layout, name: &str, extension: &str) -> Result<Option<String>> {
    read_if_there(&layout.tls_file(&format!("{name}.{extension}")))
}

fn write_pair(layout: &Layout, name: &str, pair: &PemPair) -> Result<()> {
    let (cert, key) = (
        layout.tls_file(&format!("{name}.crt")),
        layout.tls_file(&format!("{name}.key")),
    );
    write_private(&key, &pair.key)?;
    if let Some(dir) = cert.parent() {
        private_dir(dir)?;
    }
    write_whole(&cert, &pair.cert, 0o644)
        .with_context(|| format!("cannot write {}", cert.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_stay_and_certificates_are_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let read = |name: &str| std::fs::read_to_string(layout.tls_file(name)).unwrap();
        ensure_authorities(&layout).unwrap();
        issue(&layout, &["localhost".to_owned()]).unwrap();
        let (ca, leaf) = (read("etcd/peer-ca.crt"), read("etcd/client.crt"));
        ensure_authorities(&layout).unwrap();
        issue(&layout, &["localhost".to_owned()]).unwrap();
        check_authorities(&layout).unwrap();
        assert_eq!(ca, read("etcd/peer-ca.crt"));
        assert_ne!(leaf, read("etcd/client.crt"));
        std::fs::remove_file(layout.tls_file("etcd/peer-ca.key")).unwrap();
        assert!(ensure_authorities(&layout).is_err(), "half an authority");
    }

    #[test]
    fn an_authority_that_has_ended_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let begin = SystemClock.wall() - 2 * DAY;
        let (_authority, pair) = Authority::create("old", begin, DAY).unwrap();
        std::fs::write(&path, pair.cert).unwrap();
        let refusal = check_authority(&path).unwrap_err().to_string();
        assert!(refusal.contains("has expired on"), "{refusal}");
    }
}

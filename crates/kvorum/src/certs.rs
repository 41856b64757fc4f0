//! `kvorum certs`: the authority and all certificates of a cluster in one command.
//!
//! What it does not do: put them on the machines, or renew them by itself. Members read them again when
//! their files change, so a renewal is the same command and a copy.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use thiserror::Error;
use transport::{Authority, AuthorityError, PemPair, Subject, write_whole};
use types::Clock;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of the organization that kubeadm gives the API server's certificate for etcd.
const APISERVER_ORGANIZATION: &str = "kubeadm:cluster-admins";

/// Makes a certificate authority and the certificates of a cluster's members and clients.
///
/// For each member NAME the directory OUT/NAME gets ca.crt, server.crt, server.key, peer.crt and peer.key;
/// beside those lie ca.crt, ca.key, client.crt, client.key, apiserver-etcd-client.crt and
/// apiserver-etcd-client.key. An authority that is there already goes on signing; every other file is made anew.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "kvorum certs", disable_help_subcommand = true)]
pub struct CertsCommand {
    /// Where the files go; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "pki")]
    pub out: PathBuf,
    /// How many days the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// How many days a new authority is valid
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub ca_days: u32,
    /// The common name of the client's certificate
    #[arg(long, value_name = "NAME", default_value = "root")]
    pub client: String,
    /// Each member's name and its hosts, as in etcd-1=10.0.0.11,etcd-1.example.com; localhost is added
    #[arg(required = true, value_name = "NAME=HOST[,HOST]", value_parser = member)]
    pub members: Vec<MemberHosts>,
}

/// A member and what it is reached by.
///
/// ```
/// use clap::Parser;
/// use kvorum::certs::CertsCommand;
///
/// let command = CertsCommand::try_parse_from(["kvorum certs", "etcd-1=10.0.0.11"])?;
/// assert_eq!(command.members[0].name, "etcd-1");
/// assert!(command.members[0].hosts.contains(&"10.0.0.11".to_owned()));
/// # Ok::<(), clap::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberHosts {
    /// Its name; its files' directory.
    pub name: String,
    /// Names and addresses.
    pub hosts: Vec<String>,
}

/// Why there are no certificates.
///
/// ```
/// use clap::Parser;
/// use kvorum::SystemClock;
/// use kvorum::certs::{CertsCommand, CertsError};
///
/// let command = CertsCommand::try_parse_from(["kvorum certs", "m1=10.0.0.1", "m1=10.0.0.2"])?;
/// let refused = command.run(&SystemClock).expect_err("they would share a directory");
/// assert!(matches!(&refused, CertsError::Twice(name) if name == "m1"));
/// assert_eq!(refused.to_string(), "member m1 is there twice");
/// # Ok::<(), clap::Error>(())
/// ```
#[derive(Debug, Error)]
pub enum CertsError {
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Only one half of the authority is there; overwriting it would lock all members out.
    #[error("there is {} but no {}: put it there, or take both away", present.display(), missing.display())]
    HalfAnAuthority {
        /// What is there.
        present: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// Two members would write to the same directory.
    #[error("member {0} is there twice")]
    Twice(String),
    /// A certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl CertsCommand {
    /// Does it, and says what it wrote, a line a file.
    ///
    /// # Errors
    ///
    /// [`CertsError`]. Certificates that were there before are whole: each file is replaced in one step.
    ///
    /// ```
    /// use clap::Parser;
    /// use kvorum::SystemClock;
    /// use kvorum::certs::CertsCommand;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let out = dir.path().join("pki");
    ///
    /// let command = CertsCommand::try_parse_from(["kvorum certs", "m1=10.0.0.1"])?;
    /// let written = CertsCommand { out: out.clone(), days: 30, ..command }.run(&SystemClock)?;
    /// assert!(written.contains(&out.join("m1").join("server.crt")));
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(&self, clock: &dyn Clock) -> Result<Vec<PathBuf>, CertsError> {
        for (at, member) in self.members.iter().enumerate() {
            if self.members[..at]
                .iter()
                .any(|other| other.name == member.name)
            {
                return Err(CertsError::Twice(member.name.clone()));
            }
        }
        let mut written = Vec::new();
        let (authority, ca_cert) = self.authority(clock, &mut written)?;
        let validity = DAY * self.days;
        let issue = |subject: &Subject<'_>| authority.issue(subject, clock.wall(), validity);
        for member in &self.members {
            let dir = self.out.join(&member.name);
            write(&dir.join("ca.crt"), &ca_cert, 0o644, &mut written)?;
            for file in ["server", "peer"] {
                let pair = issue(&Subject {
                    common_name: &member.name,
                    organization: None,
                    hosts: &member.hosts,
                })?;
                write_pair(&dir, file, &pair, &mut written)?;
            }
        }
        let clients = [
            ("client", self.client.as_str(), None),
            (
                "apiserver-etcd-client",
                "kube-apiserver-etcd-client",
                Some(APISERVER_ORGANIZATION),
            ),
        ];
        for (file, common_name, organization) in clients {
            let pair = issue(&Subject {
                common_name,
                organization,
                hosts: &[],
            })?;
            write_pair(&self.out, file, &pair, &mut written)?;
        }
        Ok(written)
    }

    fn authority(
        &self,
        clock: &dyn Clock,
        written: &mut Vec<PathBuf>,
    ) -> Result<(Authority, String), CertsError> {
        let (cert, key) = (self.out.join("ca.crt"), self.out.join("ca.key"));
        match (read(&cert)?, read(&key)?) {
            (Some(cert), Some(key)) => {
                let pair = PemPair { cert, key };
                Ok((Authority::open(&pair)?, pair.cert))
            }
            (None, None) => {
                let validity = DAY * self.ca_days;
                let (authority, pair) = Authority::create("etcd-ca", clock.wall(), validity)?;
                write_pair(&self.out, "ca", &pair, written)?;
                Ok((authority, pair.cert))
            }
            (Some(_), None) => Err(CertsError::HalfAnAuthority {
                present: cert,
                missing: key,
            }),
            (None, Some(_)) => Err(CertsError::HalfAnAuthority {
                present: key,
                missing: cert,
            }),
        }
    }
}

fn member(text: &str) -> Result<MemberHosts, String> {
    let (name, hosts) = text
        .split_once('=')
        .ok_or("give a name and its hosts, as in etcd-1=10.0.0.11")?;
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err("the name is also that of a directory".to_owned());
    }
    let mut all = vec![
        name.to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    for host in hosts.split(',') {
        let is_name = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte));
        if host.is_empty() || (host.parse::<IpAddr>().is_err() && !is_name) {
            return Err(format!("\"{host}\" is neither a name nor an address"));
        }
        if !all.iter().any(|known| known == host) {
            all.push(host.to_owned());
        }
    }
    Ok(MemberHosts {
        name: name.to_owned(),
        hosts: all,
    })
}

fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertsError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write_pair(
    dir: &Path,
    name: &str,
    pair: &PemPair,
    written: &mut Vec<PathBuf>,
) -> Result<(), CertsError> {
    write(&dir.join(format!("{name}.key")), &pair.key, 0o600, written)?;
    write(&dir.join(format!("{name}.crt")), &pair.cert, 0o644, written)
}

fn write(
    path: &Path,
    contents: &str,
    mode: u32,
    written: &mut Vec<PathBuf>,
) -> Result<(), CertsError> {
    let failed = |source| CertsError::File {
        path: path.to_owned(),
        source,
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    write_whole(path, contents, mode).map_err(failed)?;
    written.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests;

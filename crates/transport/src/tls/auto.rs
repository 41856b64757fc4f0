//! Certificates that a member makes for itself (`--auto-tls`, `--peer-auto-tls`), as etcd's
//! `SelfCert` in `client/pkg/transport/listener.go` does.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use types::Clock;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::files::system_time;
use crate::{TlsError, words, write_whole};

/// etcd's year.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A certificate made by the member itself (`--auto-tls`, `--peer-auto-tls`), kept in
/// `<data-dir>/fixtures/client` or `/peer` as etcd does.
///
/// Differs from etcd: made anew when it has expired, where etcd goes on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoTls {
    /// PEM certificate.
    pub cert_file: PathBuf,
    /// PEM key.
    pub key_file: PathBuf,
}

impl AutoTls {
    /// Makes the pair in `directory` for these hosts, or keeps the one that is there while it is
    /// valid. A host is a name or an address, with or without a port. `validity_years` is
    /// `--self-signed-cert-validity`.
    ///
    /// # Errors
    ///
    /// When the files cannot be written, or would not be valid for any time.
    pub fn ensure(
        directory: &Path,
        hosts: &[String],
        validity_years: u64,
        clock: &dyn Clock,
    ) -> Result<Self, TlsError> {
        let files = Self {
            cert_file: directory.join("cert.pem"),
            key_file: directory.join("key.pem"),
        };
        if validity_years == 0 {
            return Err(TlsError::NoValidity);
        }
        if files.can_be_kept(clock.wall()) {
            return Ok(files);
        }
        let failed = |source| TlsError::SelfSigned {
            directory: directory.to_owned(),
            source,
        };
        let (cert, key) = self_signed(hosts, clock.wall(), validity_years)
            .map_err(|error| failed(io::Error::other(error)))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        // The certificate last: both files are there only when both are whole.
        write_whole(&files.key_file, &key, 0o600).map_err(failed)?;
        write_whole(&files.cert_file, &cert, 0o644).map_err(failed)?;
        tracing::info!(path = %files.cert_file.display(), "created cert file");
        tracing::info!(path = %files.key_file.display(), "created key file");
        Ok(files)
    }

    fn can_be_kept(&self, now: SystemTime) -> bool {
        let (Ok(cert), true) = (fs::read(&self.cert_file), self.key_file.exists()) else {
            return false;
        };
        // What cannot be read is not ours to throw away: loading it will tell.
        let end = CertificateDer::from_pem_slice(&cert).ok().and_then(|der| {
            let (_rest, certificate) = X509Certificate::from_der(&der).ok()?;
            Some(system_time(certificate.validity().not_after))
        });
        end.is_none_or(|end| now < end)
    }
}

fn self_signed(
    hosts: &[String],
    now: SystemTime,
    years: u64,
) -> Result<(String, String), rcgen::Error> {
    let validity = YEAR.saturating_mul(u32::try_from(years).unwrap_or(u32::MAX));
    // The format's last year is 9999.
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let end = now.checked_add(validity).map_or(last, |end| end.min(last));
    let since_epoch = end.duration_since(UNIX_EPOCH).unwrap_or_default();
    tracing::warn!(
        "certificate-validity-bound-not-after" =
            words::rfc3339(UnixTime::since_unix_epoch(since_epoch)),
        "automatically generate certificates",
    );
    let names: Vec<String> = hosts.iter().map(|host| without_port(host)).collect();
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "kvorum");
    params.not_before = now.into();
    params.not_after = end.into();
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn without_port(host: &str) -> String {
    if host.parse::<IpAddr>().is_ok() {
        return host.to_owned();
    }
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().to_string();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    name.trim_matches(['[', ']']).to_owned()
}

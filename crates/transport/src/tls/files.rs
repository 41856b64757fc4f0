//! What TLS files mean: a certificate and its key, authorities, revocation lists.
//!
//! What this is not: following them (`tls::reload`), or checking anybody with them (`tls::verify`).

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};
use x509_parser::time::ASN1Time;

use crate::TlsError;
use crate::tls::reload::{NamedFile, Source, Usage};
use crate::tls::usage::AnyUse;

/// A certificate file and a key file.
#[derive(Debug)]
pub(super) struct PairFiles {
    pub(super) cert: NamedFile,
    pub(super) key: NamedFile,
    pub(super) provider: Arc<CryptoProvider>,
}

/// A certificate that can be shown.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    ends: SystemTime,
}

impl Source for PairFiles {
    type Value = Pair;

    fn files(&self) -> Vec<&NamedFile> {
        vec![&self.cert, &self.key]
    }

    fn parse(&self, contents: &[Vec<u8>]) -> Result<Pair, TlsError> {
        let [cert, key] = contents else {
            unreachable!("as many contents as files");
        };
        let chain = certificates(&self.cert, cert)?;
        let ends = first_end(&self.cert, &chain)?;
        if chain.first().is_some_and(is_version_1) {
            let reason = "holds a certificate of version 1, and only version 3 is spoken";
            return Err(self.cert.bad(reason));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| self.key.bad(format!("holds no private key: {error}")))?;
        let certificate = self.cert.path.display();
        let key = CertifiedKey::from_der(chain, key, &self.provider).map_err(|error| {
            self.key.bad(match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("is not the key of the certificate in {certificate}")
                }
                other => format!("cannot be used with the certificate in {certificate}: {other}"),
            })
        })?;
        Ok(Pair {
            key: Arc::new(key),
            ends,
        })
    }

    fn ends(&self, pair: &Pair) -> Option<SystemTime> {
        Some(pair.ends)
    }

    fn usage(&self) -> Usage {
        Usage::Cert
    }
}

/// A file of authorities.
#[derive(Debug)]
pub(super) struct AuthorityFile {
    pub(super) file: NamedFile,
    pub(super) provider: Arc<CryptoProvider>,
}

/// Who is believed.
pub(super) struct Authorities {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) servers: Arc<dyn ServerCertVerifier>,
    pub(super) any_use: AnyUse,
    certificates: Vec<CertificateDer<'static>>,
    ends: SystemTime,
}

impl Authorities {
    /// Whether this very certificate is one of them.
    pub(super) fn contain(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.contains(certificate)
    }

    /// What Go says beside "unknown authority" when one of them has the name of the certificate's
    /// issuer, and so another key: the usual case when an authority has been made anew.
    pub(super) fn suspect(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        let (_rest, certificate) = X509Certificate::from_der(certificate).ok()?;
        let name = self.certificates.iter().find_map(|authority| {
            let (_rest, authority) = X509Certificate::from_der(authority).ok()?;
            let is_it = authority.subject() == certificate.issuer();
            is_it.then(|| name_of(&authority))
        })?;
        let algorithm = match certificate
            .signature_algorithm
            .algorithm
            .to_id_string()
            .as_str()
        {
            id if id.starts_with("1.2.840.113549.1.1.") => "crypto/rsa: verification error",
            "1.3.101.112" => "x509: Ed25519 verification failure",
            _ => "x509: ECDSA verification failure",
        };
        Some(format!(
            " (possibly because of {algorithm:?} while trying to verify candidate authority \
             certificate {name:?})"
        ))
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").finish_non_exhaustive()
    }
}

impl Source for AuthorityFile {
    type Value = Authorities;

    fn files(&self) -> Vec<&NamedFile> {
        vec![&self.file]
    }

    fn parse(&self, contents: &[Vec<u8>]) -> Result<Authorities, TlsError> {
        let certificates = certificates(&self.file, contents.concat().as_slice())?;
        let ends = first_end(&self.file, &certificates)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| {
                let reason = format!("holds a certificate that is no authority: {error}");
                self.file.bad(reason)
            })?;
        }
        let roots = Arc::new(roots);
        let unusable = |error| {
            self.file
                .bad(format!("cannot be used to verify with: {error}"))
        };
        let provider = || Arc::clone(&self.provider);
        Ok(Authorities {
            clients: WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
                .build()
                .map_err(unusable)?,
            servers: WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
                .build()
                .map_err(unusable)?,
            any_use: AnyUse {
                roots,
                algorithms: self.provider.signature_verification_algorithms,
            },
            certificates,
            ends,
        })
    }

    fn ends(&self, authorities: &Authorities) -> Option<SystemTime> {
        Some(authorities.ends)
    }

    fn usage(&self) -> Usage {
        Usage::Ca
    }
}

/// A file of revocation lists: PEM, one or more, or DER. etcd 3.6 understands DER only, 3.5 both.
///
/// As in etcd, a list counts for the certificates of every authority, and neither its signature
/// nor its age is asked for: whoever may write the file may also write the authorities.
#[derive(Debug)]
pub(super) struct RevocationFile {
    pub(super) file: NamedFile,
}

/// Certificates that are not believed any more.
#[derive(Debug)]
pub(super) struct Revoked {
    serials: HashSet<Vec<u8>>,
    ends: Option<SystemTime>,
}

impl Revoked {
    /// The serial number of the certificate, if it is one of them.
    pub(super) fn serial_of(&self, certificate: &CertificateDer<'_>) -> Option<&[u8]> {
        let (_rest, certificate) = X509Certificate::from_der(certificate).ok()?;
        let serial = without_zeros(certificate.raw_serial());
        self.serials.get(serial).map(Vec::as_slice)
    }
}

impl Source for RevocationFile {
    type Value = Revoked;

    fn files(&self) -> Vec<&NamedFile> {
        vec![&self.file]
    }

    fn parse(&self, contents: &[Vec<u8>]) -> Result<Revoked, TlsError> {
        let contents = contents.concat();
        let is_pem = contents.windows(10).any(|window| window == b"-----BEGIN");
        let lists = if is_pem {
            CertificateRevocationListDer::pem_slice_iter(&contents)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| self.file.bad(format!("is not PEM: {error}")))?
        } else {
            vec![CertificateRevocationListDer::from(contents)]
        };
        if lists.is_empty() {
            return Err(self.file.bad("holds no certificate revocation list"));
        }
        let mut revoked = Revoked {
            serials: HashSet::new(),
            ends: None,
        };
        for list in &lists {
            let (rest, list) = CertificateRevocationList::from_der(list).map_err(|error| {
                let reason = format!("is no certificate revocation list: {error}");
                self.file.bad(reason)
            })?;
            if !rest.is_empty() {
                return Err(self
                    .file
                    .bad("holds more than a certificate revocation list"));
            }
            let serials = list.iter_revoked_certificates();
            revoked
                .serials
                .extend(serials.map(|entry| without_zeros(entry.raw_serial()).to_vec()));
            let end = list.next_update().map(system_time);
            revoked.ends = revoked.ends.into_iter().chain(end).min();
        }
        Ok(revoked)
    }

    fn ends(&self, revoked: &Revoked) -> Option<SystemTime> {
        revoked.ends
    }

    fn usage(&self) -> Usage {
        Usage::Crl
    }
}

/// Differs from etcd: Go takes certificates of version 1, webpki does not read them.
pub(super) fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_rest, certificate)| certificate.version() == X509Version::V1)
}

/// As Go calls a certificate: its common name, else its organization, else its number.
fn name_of(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject();
    let name = subject.iter_common_name().last();
    name.or_else(|| subject.iter_organization().next())
        .and_then(|name| name.as_str().ok())
        .map_or_else(
            || format!("serial:{}", certificate.tbs_certificate.serial),
            str::to_owned,
        )
}

/// A serial number is a number: 00 in front of it changes nothing.
fn without_zeros(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// The certificates of a PEM file; at least one.
fn certificates(file: &NamedFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file.bad(format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(file.bad("holds no certificate"));
    }
    Ok(certificates)
}

/// When the first of the certificates stops being valid.
fn first_end(
    file: &NamedFile,
    certificates: &[CertificateDer<'_>],
) -> Result<SystemTime, TlsError> {
    let ends = certificates.iter().map(|certificate| {
        X509Certificate::from_der(certificate)
            .map(|(_rest, certificate)| system_time(certificate.validity().not_after))
            .map_err(|error| file.bad(format!("holds what is no certificate: {error}")))
    });
    let ends = ends.collect::<Result<Vec<_>, _>>()?;
    Ok(ends.into_iter().min().unwrap_or(UNIX_EPOCH))
}

pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

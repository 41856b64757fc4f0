//! Whether the other side's certificate is believed: its chain, then etcd's own rules.
//!
//! The chain is checked as Go does it, with Go's words for what is wrong. What etcd asks of a
//! client beyond that is in `client/pkg/transport/listener.go` (names) and `listener_tls.go`
//! (revocation). A client is refused within its handshake, so that it gets an alert; etcd finds a
//! revoked certificate only afterwards and just hangs up.
//!
//! What this is not: whether a peer's certificate fits its address, which takes lookups (`tls::san`).

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{ExtendedKeyUsage, FromDer, X509Certificate};

use crate::tls::ClientVerification;
use crate::tls::files::{Authorities, Revoked, is_version_1, system_time};
use crate::tls::usage::ShownBy;
use crate::words;

/// What is said about a certificate of version 1.
const VERSION_1: &str = "x509: certificate of version 1: only version 3 is accepted, which is what \
                         signing with any extension makes";

/// Why a client was refused, in words that a TLS error has no room for.
#[derive(Debug, Default)]
pub(crate) struct Refusal(Mutex<Option<String>>);

impl Refusal {
    /// The words, if there is more to say than the TLS error does.
    pub(crate) fn words(&self) -> Option<String> {
        self.0.lock().take()
    }
}

/// The names that a client's certificate may have.
#[derive(Debug)]
pub(super) struct AllowedNames {
    common_names: Vec<String>,
    hostnames: Vec<String>,
}

impl AllowedNames {
    pub(super) fn new(verification: &ClientVerification) -> Self {
        Self {
            common_names: verification.allowed_common_names.clone(),
            hostnames: verification.allowed_hostnames.clone(),
        }
    }

    fn allow(&self, certificate: &CertificateDer<'_>) -> bool {
        let named = || {
            let name = common_name(certificate).unwrap_or_default();
            self.common_names.contains(&name)
        };
        let valid_for = |host: &String| is_valid_for(certificate, host);
        (self.common_names.is_empty() || named())
            && (self.hostnames.is_empty() || self.hostnames.iter().any(valid_for))
    }
}

/// The common name of a certificate's subject; the last one if it has several, as in Go.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_rest, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().last()?;
    name.as_str().ok().map(str::to_owned)
}

/// By its alternative names, as in Go.
fn is_valid_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let Ok(name) = ServerName::try_from(inside.unwrap_or(host)) else {
        return false;
    };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

/// Checks the client of one connection.
#[derive(Debug)]
pub(super) struct ClientChecker {
    pub(super) authorities: Arc<Authorities>,
    pub(super) revoked: Option<Arc<Revoked>>,
    pub(super) allowed: Arc<AllowedNames>,
    pub(super) refusal: Arc<Refusal>,
}

impl ClientChecker {
    /// Notes why. The error decides which alert the client gets.
    fn refuse(&self, words: String, error: CertificateError) -> Error {
        *self.refusal.0.lock() = Some(words);
        error.into()
    }
}

impl ClientCertVerifier for ClientChecker {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = if self.authorities.contain(end_entity) {
            is_good_itself(end_entity, now, |usage| usage.client_auth)
        } else {
            let verifier = &self.authorities.clients;
            let verified = verifier.verify_client_cert(end_entity, intermediates, now);
            let verified = verified.map(drop).or_else(|refusal| {
                let any_use = &self.authorities.any_use;
                any_use.reconsider(refusal, ShownBy::Client, end_entity, intermediates, now)
            });
            verified.map_err(|error| as_go_sees_it(error, end_entity))
        };
        chain.map_err(|error| match error {
            Error::InvalidCertificate(reason) => {
                let mut words = words::unverified(&words::certificate(&reason));
                match reason {
                    CertificateError::UnknownIssuer => {
                        words += &self.authorities.suspect(end_entity).unwrap_or_default();
                    }
                    CertificateError::Other(_) if is_version_1(end_entity) => {
                        words = words::unverified(VERSION_1);
                    }
                    _ => {}
                }
                self.refuse(words, with_gos_alert(reason))
            }
            other => other,
        })?;
        if !self.allowed.allow(end_entity) {
            let words = "client certificate authentication failed".to_owned();
            return Err(self.refuse(words, CertificateError::NotValidForName));
        }
        let shown = std::iter::once(end_entity).chain(intermediates);
        if let Some(revoked) = &self.revoked
            && let Some(serial) = shown.filter_map(|shown| revoked.serial_of(shown)).next()
        {
            let serial: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
            let words = format!("transport: certificate serial {serial} revoked");
            return Err(self.refuse(words, CertificateError::Revoked));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .clients
            .verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .clients
            .verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.clients.supported_verify_schemes()
    }
}

/// Checks the servers that are dialled.
#[derive(Debug)]
pub(super) struct ServerChecker {
    pub(super) believed: Believed,
    pub(super) provider: Arc<CryptoProvider>,
}

/// Which servers are believed.
#[derive(Clone, Debug)]
pub(super) enum Believed {
    /// Those of these authorities.
    Of(Arc<Authorities>),
    /// Those of the system's authorities; `None` when it has none.
    System(Option<Arc<dyn ServerCertVerifier>>),
    /// All.
    Everybody,
}

impl ServerChecker {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let verifier = match &self.believed {
            Believed::Everybody => return Ok(()),
            Believed::Of(authorities) if authorities.contain(end_entity) => {
                is_good_itself(end_entity, now, |usage| usage.server_auth)?;
                return verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
            }
            Believed::Of(authorities) => &authorities.servers,
            Believed::System(Some(verifier)) => verifier,
            Believed::System(None) => return Err(CertificateError::UnknownIssuer.into()),
        };
        verifier
            .verify_server_cert(end_entity, intermediates, server_name, &[], now)
            .map(drop)
            .or_else(|refusal| {
                // Which authorities the system has is not known here.
                let Believed::Of(authorities) = &self.believed else {
                    return Err(refusal);
                };
                let any_use = &authorities.any_use;
                any_use.reconsider(refusal, ShownBy::Server, end_entity, intermediates, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
            })
            .map_err(|error| as_go_sees_it(error, end_entity))
    }
}

impl ServerCertVerifier for ServerChecker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A certificate that is believed because it is itself among the authorities. Go asks nothing of
/// its issuer then, nor whether it is an authority's: `openssl req -x509` makes such, and webpki
/// would refuse them.
fn is_good_itself(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
    may: impl Fn(&ExtendedKeyUsage<'_>) -> bool,
) -> Result<(), Error> {
    let bad = |_error| Error::from(CertificateError::BadEncoding);
    let (_rest, certificate) = X509Certificate::from_der(certificate)
        .map_err(|_not_one| Error::from(CertificateError::BadEncoding))?;
    let unix = |time| {
        let since_epoch = system_time(time).duration_since(std::time::UNIX_EPOCH);
        UnixTime::since_unix_epoch(since_epoch.unwrap_or_default())
    };
    let validity = certificate.validity();
    let (not_before, not_after) = (unix(validity.not_before), unix(validity.not_after));
    if now < not_before {
        let time = now;
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if now > not_after {
        let time = now;
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    match certificate.extended_key_usage().map_err(bad)? {
        Some(usage) if !usage.value.any && !may(usage.value) => {
            Err(CertificateError::InvalidPurpose.into())
        }
        _ => Ok(()),
    }
}

/// To Go, and to whoever reads the log, both of these are just signed by no authority of ours: what
/// an authority of the right name and another key has signed, and what signed itself.
fn as_go_sees_it(error: Error, end_entity: &CertificateDer<'_>) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            CertificateError::UnknownIssuer.into()
        }
        Error::InvalidCertificate(CertificateError::Other(_)) if signed_itself(end_entity) => {
            CertificateError::UnknownIssuer.into()
        }
        other => other,
    }
}

fn signed_itself(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_rest, certificate)| certificate.subject() == certificate.issuer())
}

/// The error whose alert is the one that Go sends.
fn with_gos_alert(reason: CertificateError) -> CertificateError {
    match reason {
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            CertificateError::BadEncoding
        }
        other => other,
    }
}

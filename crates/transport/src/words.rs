//! What went wrong on a connection, in the words of Go's `net`, `crypto/tls` and `crypto/x509`
//! where they have any: operators search for those.

use std::fmt::Write as _;
use std::io;

use rustls::server::ClientHello;
use rustls::{
    AlertDescription as Alert, CertificateError, Error, InvalidMessage, PeerIncompatible,
};
use rustls_pki_types::{ServerName, UnixTime};
use x509_parser::time::ASN1Time;

/// The system's words for an error, in lower case and without its number, as Go prints them.
pub(crate) fn system(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let text = text
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(text);
    let text = match text {
        "Name or service not known" | "No address associated with hostname" => "no such host",
        "Temporary failure in name resolution" => "server misbehaving",
        other => other,
    };
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

/// What a client said that it can speak.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    pub(crate) suites: Vec<u16>,
    pub(crate) protocols: Vec<String>,
}

impl Offered {
    pub(crate) fn by(hello: &ClientHello<'_>) -> Self {
        let protocols = hello.alpn().into_iter().flatten();
        Self {
            suites: hello
                .cipher_suites()
                .iter()
                .map(|suite| u16::from(*suite))
                .collect(),
            protocols: protocols
                .map(|protocol| String::from_utf8_lossy(protocol).into_owned())
                .collect(),
        }
    }

    /// What Go adds to the error.
    pub(crate) fn details(&self, error: &io::Error) -> String {
        let suites = || {
            let suites = self.suites.iter().map(|suite| format!("{suite:x}"));
            suites.collect::<Vec<_>>().join(" ")
        };
        let protocols = || {
            let protocols = self.protocols.iter().map(|name| format!("{name:?}"));
            protocols.collect::<Vec<_>>().join(" ")
        };
        match inner(error) {
            Some(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)) => {
                format!("; client offered: [{}]", suites())
            }
            Some(Error::NoApplicationProtocol) => format!(" ([{}])", protocols()),
            _ => String::new(),
        }
    }
}

fn inner(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Why a handshake failed.
pub(crate) fn handshake(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => return "EOF".to_owned(),
        io::ErrorKind::TimedOut => return "i/o timeout".to_owned(),
        _ => {}
    }
    if error.raw_os_error().is_some() {
        return system(error);
    }
    inner(error).map_or_else(|| error.to_string(), tls)
}

fn tls(error: &Error) -> String {
    let text = match error {
        Error::NoCertificatesPresented => "client didn't provide a certificate",
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "first record does not look like a TLS handshake"
        }
        Error::AlertReceived(received) => {
            return format!("remote error: tls: {}", alert(*received));
        }
        Error::InvalidCertificate(reason) => return unverified(&certificate(reason)),
        Error::PeerIncompatible(reason) => return incompatible(reason),
        Error::NoApplicationProtocol => "client requested unsupported application protocols",
        other => return format!("tls: {other}"),
    };
    format!("tls: {text}")
}

/// A certificate that was not believed, and why, in the words of `x509`.
pub(crate) fn unverified(why: &str) -> String {
    format!("tls: failed to verify certificate: {why}")
}

fn incompatible(reason: &PeerIncompatible) -> String {
    match reason {
        PeerIncompatible::NoCipherSuitesInCommon => {
            "tls: no cipher suite supported by both client and server".to_owned()
        }
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            "tls: client offered only unsupported versions".to_owned()
        }
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "tls: server selected unsupported protocol version".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon => {
            "tls: peer doesn't support any of the certificate's signature algorithms".to_owned()
        }
        other => format!("tls: {other:?}"),
    }
}

/// What is wrong with a certificate.
pub(crate) fn certificate(reason: &CertificateError) -> String {
    let text = match reason {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "{OUT_OF_TIME}: current time {} is after {}",
            rfc3339(*time),
            rfc3339(*not_after)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "{OUT_OF_TIME}: current time {} is before {}",
            rfc3339(*time),
            rfc3339(*not_before)
        ),
        CertificateError::Expired | CertificateError::NotValidYet => OUT_OF_TIME.to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => return wrong_name(expected, &presented_names(presented)),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "cannot verify signature: algorithm unimplemented".to_owned()
        }
        CertificateError::Other(other) => other.to_string(),
        other => other.to_string(),
    };
    format!("x509: {text}")
}

const OUT_OF_TIME: &str = "certificate has expired or is not yet valid";

/// The names of a certificate.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) dns: Vec<String>,
    pub(crate) ips: Vec<String>,
}

/// A certificate that is for other names than the one it should be for.
pub(crate) fn wrong_name(expected: &ServerName<'_>, names: &Names) -> String {
    let expected_text = expected.to_str();
    let presented = if matches!(expected, ServerName::IpAddress(_)) {
        if names.ips.is_empty() {
            return format!(
                "x509: cannot validate certificate for {expected_text} \
                 because it doesn't contain any IP SANs"
            );
        }
        &names.ips
    } else {
        &names.dns
    };
    if presented.is_empty() {
        return format!(
            "x509: certificate is not valid for any names, but wanted to match {expected_text}"
        );
    }
    let presented = presented.join(", ");
    format!("x509: certificate is valid for {presented}, not {expected_text}")
}

/// Names as webpki lists them: `DnsName("a")`, `IpAddress(10.0.0.1)`.
fn presented_names(listed: &[String]) -> Names {
    let mut names = Names::default();
    for name in listed {
        let inside = |start, end| Some(name.strip_prefix(start)?.strip_suffix(end)?.to_owned());
        if let Some(dns) = inside("DnsName(\"", "\")") {
            names.dns.push(dns);
        } else if let Some(ip) = inside("IpAddress(", ")") {
            names.ips.push(ip);
        }
    }
    names
}

pub(crate) fn rfc3339(time: UnixTime) -> String {
    let written = i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
        .map(|time| {
            let time = time.to_datetime();
            let mut text = String::new();
            write!(
                text,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                time.year(),
                u8::from(time.month()),
                time.day(),
                time.hour(),
                time.minute(),
                time.second()
            )
            .expect("writing to a string cannot fail");
            text
        });
    written.unwrap_or_else(|| time.as_secs().to_string())
}

fn alert(alert: Alert) -> String {
    match alert {
        Alert::CloseNotify => "close notify",
        Alert::UnexpectedMessage => "unexpected message",
        Alert::BadRecordMac => "bad record MAC",
        Alert::DecryptionFailed => "decryption failed",
        Alert::RecordOverflow => "record overflow",
        Alert::DecompressionFailure => "decompression failure",
        Alert::HandshakeFailure => "handshake failure",
        Alert::BadCertificate => "bad certificate",
        Alert::UnsupportedCertificate => "unsupported certificate",
        Alert::CertificateRevoked => "revoked certificate",
        Alert::CertificateExpired => "expired certificate",
        Alert::CertificateUnknown => "unknown certificate",
        Alert::IllegalParameter => "illegal parameter",
        Alert::UnknownCA => "unknown certificate authority",
        Alert::AccessDenied => "access denied",
        Alert::DecodeError => "error decoding message",
        Alert::DecryptError => "error decrypting message",
        Alert::ExportRestriction => "export restriction",
        Alert::ProtocolVersion => "protocol version not supported",
        Alert::InsufficientSecurity => "insufficient security level",
        Alert::InternalError => "internal error",
        Alert::InappropriateFallback => "inappropriate fallback",
        Alert::UserCanceled => "user canceled",
        Alert::NoRenegotiation => "no renegotiation",
        Alert::MissingExtension => "missing extension",
        Alert::UnsupportedExtension => "unsupported extension",
        Alert::CertificateUnobtainable => "certificate unobtainable",
        Alert::UnrecognisedName => "unrecognized name",
        Alert::BadCertificateStatusResponse => "bad certificate status response",
        Alert::BadCertificateHashValue => "bad certificate hash value",
        Alert::UnknownPSKIdentity => "unknown PSK identity",
        Alert::CertificateRequired => "certificate required",
        Alert::NoApplicationProtocol => "no application protocol",
        Alert::EncryptedClientHelloRequired => "encrypted client hello required",
        other => return format!("alert({})", u8::from(other)),
    }
    .to_owned()
}

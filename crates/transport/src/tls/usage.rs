//! What a certificate may be used for, as Go sees it: "any use" stands for every use.
//!
//! rustls's verifiers know only the use that they ask for. A chain that they refuse for that reason is
//! looked at again here.
//!
//! What this is not: a check of names.

use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage};

/// 2.5.29.37.0
const ANY: KeyPurposeId<'static> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0x00]);
/// 1.3.6.1.5.5.7.3.1
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// 1.3.6.1.5.5.7.3.2
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Who shows a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) enum ShownBy {
    Client,
    Server,
}

/// Takes this use, any use, and a certificate that says nothing of its use.
struct OrAny(&'static [u8]);

impl ExtendedKeyUsageValidator for OrAny {
    fn validate(&self, mut purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let wanted = KeyPurposeId::new(self.0);
        let mut says_nothing = true;
        for purpose in purposes.by_ref() {
            says_nothing = false;
            let purpose = purpose?;
            if purpose == wanted || purpose == ANY {
                return Ok(());
            }
        }
        if says_nothing {
            return Ok(());
        }
        // Nothing is left of the list, so this is the error.
        KeyUsage::required(self.0).validate(purposes)
    }
}

/// Verifies chains in which a certificate may be for any use.
#[derive(Clone, Debug)]
pub(super) struct AnyUse {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl AnyUse {
    /// Looks again at a chain that was refused. Any reason but its use stays.
    pub(super) fn reconsider(
        &self,
        refusal: Error,
        shown_by: ShownBy,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let is_about_use = matches!(
            refusal,
            Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
            )
        );
        let (true, Ok(end_entity)) = (is_about_use, EndEntityCert::try_from(end_entity)) else {
            return Err(refusal);
        };
        let wanted = match shown_by {
            ShownBy::Client => CLIENT_AUTH,
            ShownBy::Server => SERVER_AUTH,
        };
        let verified = end_entity.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            OrAny(wanted),
            None,
            None,
        );
        verified.map(drop).map_err(|error| match error {
            webpki::Error::RequiredEkuNotFoundContext(_) => refusal,
            other => in_rustls_words(other).into(),
        })
    }
}

/// Those that a chain can come to when its leaf was read and is in time.
fn in_rustls_words(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

//! A certificate authority for one cluster: makes its own certificate and signs those of members
//! and clients (`kvorum certs`). Not a service: nothing here is used while a member runs.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;

/// Clocks of machines differ: certificates are good from a little earlier on.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(5 * 60);

/// Who signs.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemPair {
    /// The certificate.
    pub cert: String,
    /// Its key, PKCS#8.
    pub key: String,
}

/// What a certificate of a member or a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// CN; with authentication on, a client's certificate is the user of this name.
    pub common_name: &'a str,
    /// O, if any.
    pub organization: Option<&'a str>,
    /// Names and addresses of the host. Empty: for a client only.
    pub hosts: &'a [String],
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The authority's files do not hold what they should.
    #[error("the authority's certificate and key cannot be used")]
    Unusable(#[source] rcgen::Error),
    /// A host is neither a name nor an address, or no key could be made.
    #[error("the certificate of {common_name} cannot be made")]
    Issue {
        /// Whose.
        common_name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

impl Authority {
    /// A new one, which is valid from `now` on.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Issue`] when no key could be made.
    pub fn create(
        common_name: &str,
        now: SystemTime,
        validity: Duration,
    ) -> Result<(Self, PemPair), AuthorityError> {
        let issue = |source| AuthorityError::Issue {
            common_name: common_name.to_owned(),
            source,
        };
        let mut params = named(common_name, None, now, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.self_signed(&key).map_err(issue)?;
        let pair = PemPair {
            cert: certificate.pem(),
            key: key.serialize_pem(),
        };
        let issuer = Issuer::new(params, key);
        Ok((Self { issuer }, pair))
    }

    /// One that was made before, also by another tool.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Unusable`] when it is not PEM, or the key is of a kind that is not known.
    pub fn open(pair: &PemPair) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(&pair.key).map_err(AuthorityError::Unusable)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.cert, key).map_err(AuthorityError::Unusable)?;
        Ok(Self { issuer })
    }

    /// Signs a certificate with a new key. One with hosts is good for servers and clients: a member is
    /// a client of the others.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Issue`].
    pub fn issue(
        &self,
        subject: &Subject<'_>,
        now: SystemTime,
        validity: Duration,
    ) -> Result<PemPair, AuthorityError> {
        let issue = |source| AuthorityError::Issue {
            common_name: subject.common_name.to_owned(),
            source,
        };
        let mut params = named(subject.common_name, subject.organization, now, validity);
        params.subject_alt_names = CertificateParams::new(subject.hosts)
            .map_err(issue)?
            .subject_alt_names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.hosts.is_empty() {
            params
                .extended_key_usages
                .insert(0, ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue)?;
        Ok(PemPair {
            cert: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn named(
    common_name: &str,
    organization: Option<&str>,
    now: SystemTime,
    validity: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = (now - CLOCKS_DIFFER_BY).into();
    params.not_after = (now + validity).into();
    params
}

//! Certificates as an operator issues them: authorities that sign more than once, leaves with every
//! fault, revocation lists.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use testkit::certs::Identity;

/// Who signs; keeps its key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    serials: AtomicU64,
}

/// What a certificate says. The default is a good one for both sides on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Its common name.
    pub common_name: String,
    /// Its organization, if any.
    pub organization: Option<String>,
    /// The hosts it is for.
    pub sans: Vec<String>,
    /// What it may be used for.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// The years from whose start to whose start it is valid.
    pub years: (i32, i32),
}

/// A certificate, its key, and its number at its authority.
#[derive(Debug, Clone)]
pub struct Pair {
    /// PEM.
    pub cert: String,
    /// PEM.
    pub key: String,
    /// What a revocation list calls it.
    pub serial: u64,
}

impl Default for Leaf {
    fn default() -> Leaf {
        Leaf {
            common_name: "member".to_owned(),
            organization: None,
            sans: ["localhost", "127.0.0.1"].map(str::to_owned).to_vec(),
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            years: (2020, 2120),
        }
    }
}

impl Leaf {
    /// A good one with this common name.
    #[must_use]
    pub fn named(common_name: &str) -> Leaf {
        Leaf {
            common_name: common_name.to_owned(),
            ..Leaf::default()
        }
    }

    /// For clients only: no hosts, no use as a server.
    #[must_use]
    pub fn client(common_name: &str) -> Leaf {
        Leaf {
            sans: Vec::new(),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            ..Leaf::named(common_name)
        }
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(common_name: &str) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority {
            issuer: Issuer::new(params, key),
            pem,
            serials: AtomicU64::new(1),
        })
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate.
    ///
    /// # Errors
    /// When what it should say cannot be said.
    pub fn issue(&self, leaf: &Leaf) -> Result<Pair> {
        let mut params = CertificateParams::new(leaf.sans.clone())?;
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(leaf.years.0, 1, 1);
        params.not_after = date_time_ymd(leaf.years.1, 1, 1);
        params.extended_key_usages.clone_from(&leaf.usages);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, leaf.common_name.as_str());
        if let Some(organization) = &leaf.organization {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        let key = KeyPair::generate()?;
        Ok(Pair {
            cert: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
            serial,
        })
    }

    /// The revocation list that names these; `number` rises from list to list.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn crl(&self, number: u64, revoked: &[u64]) -> Result<String> {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

impl Pair {
    /// Writes `<name>.crt` and `<name>.key`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<Identity> {
        let identity = Identity {
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        replace(&identity.cert, &self.cert)?;
        replace(&identity.key, &self.key)?;
        Ok(identity)
    }
}

/// Puts a file in the place of another as certificate managers do: nobody ever sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let mut beside = PathBuf::from(path).into_os_string();
    beside.push(".new");
    std::fs::write(&beside, text).with_context(|| path.display().to_string())?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())
}

//! Certificates from code: authorities that sign more than once, leaves with every fault,
//! revocation lists, and the layouts that tests start members with.
//!
//! Files are put in the place of old ones as certificate managers do it, so that nobody ever sees
//! half of one ([`replace`]).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList,
    CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

pub use rcgen::ExtendedKeyUsagePurpose as Usage;

/// PEM files of one small public key infrastructure.
#[derive(Debug, Clone)]
pub struct Certs {
    /// The CA certificate.
    pub ca: PathBuf,
    /// The server's certificate, for `localhost` and 127.0.0.1.
    pub server: Identity,
    /// A client's certificate, common name as asked.
    pub client: Identity,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate's PEM file.
    pub cert: PathBuf,
    /// The key's PEM file.
    pub key: PathBuf,
}

/// Makes a CA and certificates signed by it, as PEM files in `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn generate(dir: &Path, client_common_name: &str) -> Result<Certs> {
    let authority = Authority::new("kvorum test CA")?;
    // To a Kubernetes API server, a member of this group is an administrator.
    let leaf = |name| Leaf {
        organization: Some("system:masters".to_owned()),
        ..Leaf::named(name)
    };
    Ok(Certs {
        ca: authority.write(dir, "ca")?.cert,
        server: authority.issue(&leaf("kvorum"))?.write(dir, "server")?,
        client: authority
            .issue(&leaf(client_common_name))?
            .write(dir, "client")?,
    })
}

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
    /// The hosts it is for: names and addresses.
    pub sans: Vec<String>,
    /// What it may be used for; empty: everything, as it does not say.
    pub usages: Vec<Usage>,
    /// It is valid from then on.
    pub not_before: SystemTime,
    /// It is valid until then.
    pub not_after: SystemTime,
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

/// The first of January of a year from 1970 on, until 2200.
#[must_use]
pub fn year(year: u32) -> SystemTime {
    const DAY: u64 = 24 * 60 * 60;
    let year = u64::from(year);
    let leap_days = year.saturating_sub(1969) / 4 - u64::from(year > 2100);
    UNIX_EPOCH + Duration::from_secs((year.saturating_sub(1970) * 365 + leap_days) * DAY)
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
            not_before: year(2020),
            not_after: year(2120),
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

    /// The same, for these hosts.
    #[must_use]
    pub fn sans(mut self, sans: &[&str]) -> Leaf {
        self.sans = sans.iter().map(|&san| san.to_owned()).collect();
        self
    }

    /// The same, for these uses only.
    #[must_use]
    pub fn usages(mut self, usages: &[Usage]) -> Leaf {
        self.usages = usages.to_vec();
        self
    }

    /// The same, no longer valid.
    #[must_use]
    pub fn expired(mut self) -> Leaf {
        self.not_after = year(2021);
        self
    }

    /// The same, not valid yet.
    #[must_use]
    pub fn not_yet_valid(mut self) -> Leaf {
        self.not_before = year(2119);
        self
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::new(self.sans.clone())?;
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
        params.extended_key_usages.clone_from(&self.usages);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, self.common_name.as_str());
        if let Some(organization) = &self.organization {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        Ok(params)
    }

    /// A certificate that is its own authority, as `openssl req -x509` makes it.
    ///
    /// # Errors
    /// When what it should say cannot be said.
    pub fn self_signed(&self) -> Result<Pair> {
        let mut params = self.params()?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = Vec::new();
        params.serial_number = Some(SerialNumber::from(1));
        let key = KeyPair::generate()?;
        Ok(Pair {
            cert: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
            serial: 1,
        })
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(common_name: &str) -> Result<Authority> {
        let leaf = Leaf::named(common_name).sans(&[]).usages(&[]);
        let mut params = leaf.params()?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
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
        let mut params = leaf.params()?;
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Pair {
            cert: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
            serial,
        })
    }

    /// The revocation list that names these, in PEM; `number` rises from list to list.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn crl(&self, number: u64, revoked: &[u64]) -> Result<String> {
        Ok(self.revocation_list(number, revoked)?.pem()?)
    }

    /// The same in DER.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn crl_der(&self, number: u64, revoked: &[u64]) -> Result<Vec<u8>> {
        Ok(self.revocation_list(number, revoked)?.der().to_vec())
    }

    fn revocation_list(&self, number: u64, revoked: &[u64]) -> Result<CertificateRevocationList> {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: year(2021).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: year(2021).into(),
            next_update: year(2120).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?)
    }

    /// Writes `<name>.crt` and `<name>.key`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<Identity> {
        write(dir, name, &self.pem, &self.issuer.key().serialize_pem())
    }
}

impl Pair {
    /// Writes `<name>.crt` and `<name>.key`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<Identity> {
        write(dir, name, &self.cert, &self.key)
    }
}

fn write(dir: &Path, name: &str, cert: &str, key: &str) -> Result<Identity> {
    let identity = Identity {
        cert: dir.join(format!("{name}.crt")),
        key: dir.join(format!("{name}.key")),
    };
    replace(&identity.key, key)?;
    replace(&identity.cert, cert)?;
    Ok(identity)
}

/// Puts a file in the place of another as certificate managers do: nobody ever sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    let mut beside = PathBuf::from(path).into_os_string();
    beside.push(".new");
    std::fs::write(&beside, contents).with_context(|| path.display().to_string())?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())
}

/// A control plane's certificates for etcd, where kubeadm puts them.
#[derive(Debug, Clone)]
pub struct Kubeadm {
    /// `<pki>/etcd/ca`
    pub ca: Identity,
    /// `<pki>/etcd/server`
    pub server: Identity,
    /// `<pki>/etcd/peer`
    pub peer: Identity,
    /// `<pki>/etcd/healthcheck-client`
    pub healthcheck_client: Identity,
    /// `<pki>/apiserver-etcd-client`
    pub apiserver_etcd_client: Identity,
}

impl Kubeadm {
    /// Makes what kubeadm makes for a control plane of that name and address. The nodes of a
    /// cluster share the authority, which kubeadm calls `etcd-ca`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn generate(
        authority: &Authority,
        pki: &Path,
        node: &str,
        address: IpAddr,
    ) -> Result<Kubeadm> {
        let etcd = pki.join("etcd");
        std::fs::create_dir_all(&etcd)?;
        let address = address.to_string();
        let sans = [node, "localhost", &address, "127.0.0.1", "::1"];
        let member = Leaf::named(node).sans(&sans);
        let client = |name| authority.issue(&Leaf::client(name));
        Ok(Kubeadm {
            ca: authority.write(&etcd, "ca")?,
            server: authority.issue(&member)?.write(&etcd, "server")?,
            peer: authority.issue(&member)?.write(&etcd, "peer")?,
            healthcheck_client: client("kube-etcd-healthcheck-client")?
                .write(&etcd, "healthcheck-client")?,
            apiserver_etcd_client: client("kube-apiserver-etcd-client")?
                .write(pki, "apiserver-etcd-client")?,
        })
    }
}

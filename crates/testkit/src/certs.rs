//! Certificates from code: a CA, a server certificate for 127.0.0.1, a client certificate.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

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
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "kvorum test CA");
    let key = KeyPair::generate()?;
    let ca = dir.join("ca.crt");
    std::fs::write(&ca, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let server = identity(dir, "server", "kvorum", &issuer)?;
    let client = identity(dir, "client", client_common_name, &issuer)?;
    Ok(Certs { ca, server, client })
}

fn identity(
    dir: &Path,
    file: &str,
    common_name: &str,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<Identity> {
    let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // To a Kubernetes API server, a member of this group is an administrator.
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let paths = Identity {
        cert: dir.join(format!("{file}.crt")),
        key: dir.join(format!("{file}.key")),
    };
    std::fs::write(&paths.cert, params.signed_by(&key, issuer)?.pem())?;
    std::fs::write(&paths.key, key.serialize_pem())?;
    Ok(paths)
}

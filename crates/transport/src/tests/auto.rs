//! Certificates that a member makes for itself.

use std::os::unix::fs::PermissionsExt;

use testkit::certs::year;
use types::Clock;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

use crate::AutoTls;

struct At(std::time::SystemTime);

impl Clock for At {
    fn now(&self) -> std::time::Instant {
        SystemClock.now()
    }

    fn wall(&self) -> std::time::SystemTime {
        self.0
    }
}

fn hosts() -> Vec<String> {
    [
        "10.0.0.1:2380",
        "[::1]:2380",
        "member.test:2380",
        "127.0.0.1",
        ":2380",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn it_is_made_kept_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("fixtures").join("peer");
    let ensure = |at| AutoTls::ensure(&dir, &hosts(), 2, &At(at)).unwrap();
    let made = ensure(year(2026));
    assert_eq!(made.cert_file, dir.join("cert.pem"));
    assert_eq!(made.key_file, dir.join("key.pem"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&made.key_file)), (0o700, 0o600));
    let cert = fs::read(&made.cert_file).unwrap();
    let der = CertificateDer::from_pem_slice(&cert).unwrap();
    let (_rest, x509) = X509Certificate::from_der(&der).unwrap();
    let sans = x509.subject_alternative_name().unwrap().unwrap();
    let names: Vec<String> = sans
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().any(|name| name.contains("member.test")));
    // Two of etcd's years.
    let validity = x509.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(seconds, 2 * 365 * 24 * 60 * 60);
    ensure(year(2027));
    assert_eq!(fs::read(&made.cert_file).unwrap(), cert);
    ensure(year(2029));
    assert_ne!(fs::read(&made.cert_file).unwrap(), cert);
}

#[test]
fn it_must_be_valid_for_some_time() {
    let dir = tempfile::tempdir().unwrap();
    let ensured = AutoTls::ensure(dir.path(), &hosts(), 0, &SystemClock);
    assert_eq!(
        ensured.unwrap_err().to_string(),
        "selfSignedCertValidity is invalid,it should be greater than 0"
    );
    // However long it is asked for.
    AutoTls::ensure(dir.path(), &hosts(), u64::MAX, &SystemClock).unwrap();
    let no_directory = dir.path().join("cert.pem");
    AutoTls::ensure(&no_directory, &hosts(), 1, &SystemClock).unwrap_err();
}

#[tokio::test]
async fn members_with_such_certificates_reach_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = ["127.0.0.1:0".to_owned()];
    let made = AutoTls::ensure(dir.path(), &hosts, 1, &SystemClock).unwrap();
    let config = TlsConfig {
        kind: EndpointKind::Peer,
        cert_file: made.cert_file.clone(),
        key_file: made.key_file.clone(),
        client_auth: ClientAuth::None,
        parameters: TlsParameters::default(),
    };
    let server = TlsServer::load(&config, Arc::new(SystemClock)).unwrap();
    let server = echo(listen_for(
        EndpointKind::Peer,
        "https://127.0.0.1:0",
        Some(&server),
    ));
    let config = |insecure_skip_verify| TlsClientConfig {
        cert_file: made.cert_file.clone(),
        key_file: made.key_file.clone(),
        trusted_ca_file: Some(made.cert_file.clone()),
        insecure_skip_verify,
        parameters: TlsParameters::default(),
    };
    let url = Url::parse(&format!("https://127.0.0.1:{}", server.port)).unwrap();
    for insecure_skip_verify in [true, false] {
        let client = TlsClient::load(&config(insecure_skip_verify), Arc::new(SystemClock));
        let dialer = Dialer::new(Some(client.unwrap()), None);
        assert!(echoes(dialer.dial(&url).await.unwrap()).await);
    }
}

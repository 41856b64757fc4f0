use std::os::unix::fs::PermissionsExt as _;

use types::SystemClock;

use super::*;

fn command(out: &Path, arguments: &[&str]) -> Result<CertsCommand, clap::Error> {
    let out = out.to_string_lossy();
    let line = ["kvorum certs", "--out", out.as_ref()];
    CertsCommand::try_parse_from(line.iter().chain(arguments))
}

#[test]
fn an_authority_that_is_there_goes_on_and_the_rest_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("pki");
    let first = command(&out, &["etcd-1=10.0.0.11,etcd-1.example.com"]).unwrap();
    let written = first.run(&SystemClock).unwrap();
    assert_eq!(written.len(), 2 + 5 + 4);
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let (ca, server) = (read("ca.crt"), read("etcd-1/server.crt"));
    let second = command(&out, &["etcd-1=10.0.0.11", "etcd-2=10.0.0.12"]).unwrap();
    assert_eq!(second.run(&SystemClock).unwrap().len(), 5 + 5 + 4);
    assert_eq!(read("ca.crt"), ca);
    assert_eq!(read("etcd-2/ca.crt"), ca);
    assert_ne!(read("etcd-1/server.crt"), server);
    for path in written {
        let secret = path.extension().is_some_and(|extension| extension == "key");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if secret { 0o600 } else { 0o644 }, "{path:?}");
    }
}

#[test]
fn half_an_authority_is_not_completed() {
    let dir = tempfile::tempdir().unwrap();
    let certs = command(dir.path(), &["etcd-1=10.0.0.11"]).unwrap();
    certs.run(&SystemClock).unwrap();
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = certs.run(&SystemClock).unwrap_err().to_string();
    assert!(error.contains("ca.crt but no"), "{error}");
    fs::write(dir.path().join("ca.key"), "not a key").unwrap();
    let error = certs.run(&SystemClock).unwrap_err().to_string();
    assert!(error.contains("cannot be used"), "{error}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in [
        "etcd-1",
        "=10.0.0.11",
        "../x=10.0.0.11",
        "etcd-1=",
        "etcd-1=a b",
    ] {
        assert!(command(dir.path(), &[wrong]).is_err(), "{wrong}");
    }
    assert!(command(dir.path(), &[]).is_err());
    assert!(command(dir.path(), &["--days", "0", "etcd-1=10.0.0.11"]).is_err());
    let twice = command(dir.path(), &["a=10.0.0.11", "a=10.0.0.12"]).unwrap();
    let error = twice.run(&SystemClock).unwrap_err().to_string();
    assert_eq!(error, "member a is there twice");
    assert!(!dir.path().join("ca.crt").exists());
}

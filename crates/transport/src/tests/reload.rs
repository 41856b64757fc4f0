//! Files that change while connections live.

use std::time::SystemTime;

use parking_lot::Mutex;
use testkit::certs::year;
use types::Clock;

use super::*;

/// The certificate that the server shows.
async fn shown(port: u16, client: &TlsConnector) -> Vec<u8> {
    let session = dial_tls(port, client).await.unwrap();
    session.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn reloads(file: &Path) -> Vec<String> {
    let about = log::about(file);
    let reloaded = |line: &String| line.contains("reloaded a TLS file that changed");
    about.into_iter().filter(reloaded).collect()
}

fn warnings(file: &Path) -> Vec<String> {
    let about = log::about(file);
    about
        .into_iter()
        .filter(|line| line.contains("WARN"))
        .collect()
}

#[tokio::test]
async fn the_certificate_follows_its_files() {
    log::keep();
    let pki = Pki::new();
    pki.sign("server", "first");
    let server = echo_tls(&pki.server(ClientAuth::None));
    let client = pki.client(None);
    let mut living = dial_tls(server.port, &client).await.unwrap();
    let first = shown(server.port, &client).await;
    // Only one of the two files has been replaced: they do not fit, the old pair stays.
    let old_key = fs::read(pki.path("server.key")).unwrap();
    pki.sign("server", "second");
    let new_key = fs::read(pki.path("server.key")).unwrap();
    fs::write(pki.path("server.key"), old_key).unwrap();
    assert_eq!(shown(server.port, &client).await, first);
    assert_eq!(shown(server.port, &client).await, first);
    fs::write(pki.path("server.key"), new_key).unwrap();
    let second = shown(server.port, &client).await;
    assert_ne!(second, first);
    fs::remove_file(pki.path("server.crt")).unwrap();
    assert_eq!(shown(server.port, &client).await, second);
    exchange(&mut living).await.unwrap();
    let (cert, key) = (pki.path("server.crt"), pki.path("server.key"));
    let reloaded = [reloads(&cert), reloads(&key)];
    assert_eq!(reloaded.each_ref().map(Vec::len), [1, 1]);
    assert!(reloaded[0][0].contains("INFO") && reloaded[0][0].contains("flag=\"--cert-file\""));
    // One for the pair that did not fit, one for the file that is gone.
    assert_eq!(warnings(&cert).len(), 2, "{:?}", warnings(&cert));
    assert!(warnings(&key)[0].contains("is not the key of the certificate in"));
}

#[tokio::test]
async fn authorities_follow_their_file_and_connections_live_on() {
    log::keep();
    let pki = Pki::new();
    let next = Authority::new("next CA").unwrap();
    pki.sign("server", "server");
    pki.sign("old", "old");
    pki.put("new", &next.issue(&Leaf::client("new")).unwrap());
    let server = echo_tls(&pki.server(pki.required()));
    let [old, new] = ["old", "new"].map(|name| connector(&pki.tls_client(name)));
    let mut living = dial_tls(server.port, &old).await.unwrap();
    exchange(&mut living).await.unwrap();
    let served = async |client| attempt(dial(server.port).await, client).await.is_ok();
    assert!(served(&old).await && !served(&new).await);
    // First both are believed, then the new one only.
    let ca = pki.path("ca.crt");
    replace(&ca, format!("{}{}", pki.authority.pem(), next.pem())).unwrap();
    assert!(served(&old).await && served(&new).await);
    replace(&ca, next.pem()).unwrap();
    assert!(!served(&old).await && served(&new).await);
    exchange(&mut living).await.unwrap();
    let reloaded = reloads(&ca);
    assert_eq!(reloaded.len(), 2, "{reloaded:?}");
    assert!(reloaded[0].contains("flag=\"--trusted-ca-file\""));
}

#[tokio::test]
async fn revocation_lists_follow_their_file_and_connections_live_on() {
    log::keep();
    let pki = Pki::new();
    pki.sign("server", "server");
    let serial = pki.sign("alice", "alice");
    let crl = pki.path("revoked.crl");
    replace(&crl, pki.authority.crl(1, &[]).unwrap()).unwrap();
    let verification = ClientVerification {
        crl_file: Some(crl.clone()),
        ..pki.verification()
    };
    let config = TlsConfig {
        kind: EndpointKind::Peer,
        ..pki.config(ClientAuth::Required(verification))
    };
    let server = echo_tls(&TlsServer::load(&config, Arc::new(SystemClock)).unwrap());
    let alice = connector(&pki.tls_client("alice"));
    let mut living = dial_tls(server.port, &alice).await.unwrap();
    let served = async || attempt(dial(server.port).await, &alice).await.is_ok();
    assert!(served().await);
    replace(&crl, pki.authority.crl_der(2, &[serial]).unwrap()).unwrap();
    assert!(!served().await);
    exchange(&mut living).await.unwrap();
    assert!(reloads(&crl)[0].contains("flag=\"--peer-crl-file\""));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing() {
    log::keep();
    let pki = Pki::new();
    pki.sign("server", "server");
    let serial = pki.sign("alice", "alice");
    pki.sign("bob", "bob");
    let crl = pki.path("revoked.crl");
    let list = pki.authority.crl(1, &[serial]).unwrap();
    replace(&crl, &list).unwrap();
    let verification = ClientVerification {
        crl_file: Some(crl.clone()),
        ..pki.verification()
    };
    let server = echo_tls(&pki.server(ClientAuth::Required(verification)));
    let [alice, bob] = ["alice", "bob"].map(|name| connector(&pki.tls_client(name)));
    let served = async |client| attempt(dial(server.port).await, client).await.is_ok();
    let ca = pki.path("ca.crt");
    let authorities = fs::read_to_string(&ca).unwrap();
    let key = pki.path("server.key");
    let pem_key = fs::read_to_string(&key).unwrap();
    for (file, whole) in [(&ca, &authorities), (&crl, &list), (&key, &pem_key)] {
        let half = &whole[..whole.len() / 2];
        for (n, bad) in [half, "", "nonsense"].into_iter().enumerate() {
            // In place, as a careless writer does it.
            fs::write(file, bad).unwrap();
            for _ in 0..2 {
                assert!(!served(&alice).await && served(&bob).await, "{bad}");
            }
            assert_eq!(warnings(file).len(), n + 1, "{:?}", warnings(file));
        }
        fs::write(file, whole).unwrap();
        assert!(served(&bob).await);
        assert_eq!(reloads(file), Vec::<String>::new());
    }
    assert!(warnings(&ca)[1].contains("holds no certificate"));
}

#[tokio::test]
async fn a_file_that_is_written_twice_in_an_instant_is_read_twice() {
    let pki = Pki::new();
    pki.sign("server", "server");
    pki.sign("alice", "alice");
    let server = echo_tls(&pki.server(pki.required()));
    let alice = connector(&pki.tls_client("alice"));
    let ca = pki.path("ca.crt");
    let ours = fs::read_to_string(&ca).unwrap();
    // The same length, the same inode, and within one tick of the file system's clock.
    let theirs = loop {
        let theirs = Authority::new("next CA").unwrap().pem().to_owned();
        if theirs.len() == ours.len() {
            break theirs;
        }
    };
    for _ in 0..20 {
        for (text, believed) in [(&theirs, false), (&ours, true)] {
            fs::write(&ca, text).unwrap();
            let served = attempt(dial(server.port).await, &alice).await;
            assert_eq!(served.is_ok(), believed);
        }
    }
}

#[tokio::test]
async fn a_dialer_follows_its_files() {
    log::keep();
    let pki = Pki::new();
    let next = Authority::new("next CA").unwrap();
    pki.sign("server", "server");
    pki.sign("member", "member");
    let server = echo_tls(&pki.server(ClientAuth::None));
    let url = Url::parse(&format!("https://127.0.0.1:{}", server.port)).unwrap();
    // Another file than the server's, to change one side only.
    replace(&pki.path("peers.crt"), pki.authority.pem()).unwrap();
    let config = TlsClientConfig {
        trusted_ca_file: Some(pki.path("peers.crt")),
        ..pki.client_config("member")
    };
    let client = TlsClient::load(&config, Arc::new(SystemClock)).unwrap();
    let dialer = Dialer::new(Some(client.clone()), None);
    let mut living = dialer.dial(&url).await.unwrap();
    replace(&pki.path("peers.crt"), next.pem()).unwrap();
    dialer.dial(&url).await.unwrap_err();
    exchange(&mut living).await.unwrap();
    pki.put("server", &next.issue(&Leaf::named("server")).unwrap());
    assert!(echoes(dialer.dial(&url).await.unwrap()).await);
    let reloaded = reloads(&pki.path("peers.crt"));
    assert!(reloaded[0].contains("flag=\"--peer-trusted-ca-file\""));
    // Its own certificate: whom the server sees.
    let mut listener = listen("https://127.0.0.1:0", Some(&pki.server(pki.required())));
    replace(&pki.path("ca.crt"), next.pem()).unwrap();
    pki.put("member", &next.issue(&Leaf::client("renewed")).unwrap());
    let url = Url::parse(&format!("https://127.0.0.1:{}", port(&listener))).unwrap();
    let dialling = tokio::spawn(async move { dialer.dial(&url).await });
    let (_stream, peer) = accept(&mut listener).await;
    dialling.await.unwrap().unwrap();
    let name = peer.certificate.and_then(|shown| shown.common_name);
    assert_eq!(name.as_deref(), Some("renewed"));
}

/// A clock that is set by hand.
struct Hands(Mutex<SystemTime>);

impl Clock for Hands {
    fn now(&self) -> std::time::Instant {
        SystemClock.now()
    }

    fn wall(&self) -> SystemTime {
        *self.0.lock()
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn the_end_of_a_certificate_is_told_once_per_version_of_its_file() {
    log::keep();
    let pki = Pki::new();
    let lasting = |until| Leaf {
        not_after: until,
        ..Leaf::named("server")
    };
    pki.sign_leaf("server", &lasting(year(2030)));
    replace(&pki.path("crl"), pki.authority.crl(1, &[]).unwrap()).unwrap();
    let verification = ClientVerification {
        crl_file: Some(pki.path("crl")),
        ..pki.verification()
    };
    let config = pki.config(ClientAuth::Required(verification));
    let clock = Arc::new(Hands(Mutex::new(year(2029))));
    let server = TlsServer::load(&config, Arc::clone(&clock) as _).unwrap();
    let told = || warnings(&pki.path("server.crt"));
    let status = |server: &TlsServer| -> Vec<_> {
        let status = server.certificates().into_iter();
        status.map(|one| (one.usage, one.not_after)).collect()
    };
    let others = [("ca", year(2120)), ("crl", year(2120))];
    assert_eq!(status(&server)[0], ("cert", year(2030)));
    assert_eq!(status(&server)[1..], others);
    assert_eq!(told(), Vec::<String>::new());
    for (now, lines) in [
        (year(2030) - 31 * DAY, 0),
        (year(2030) - 29 * DAY, 1),
        (year(2030) - DAY, 1),
        (year(2030) + DAY, 2),
        (year(2031), 2),
    ] {
        *clock.0.lock() = now;
        for _ in 0..2 {
            assert_eq!(status(&server).len(), 3);
            assert_eq!(told().len(), lines, "{now:?}: {:?}", told());
        }
    }
    assert!(told()[0].contains("expires soon") && told()[0].contains("2030-01-01T00:00:00Z"));
    assert!(told()[1].contains("a TLS file in use has expired"));
    // Seen without any handshake.
    pki.sign_leaf("server", &lasting(year(2031) + DAY));
    assert_eq!(status(&server)[0], ("cert", year(2031) + DAY));
    assert_eq!(told().len(), 3);
    // The one that dials tells its own.
    let client = pki.client_config("server");
    let client = TlsClient::load(&client, Arc::clone(&clock) as _).unwrap();
    let status: Vec<_> = client.certificates().iter().map(|one| one.usage).collect();
    assert_eq!(status, ["cert", "ca"]);
}

//! Every wrong certificate is refused, with the reason in one line of the log; every right one is
//! accepted. On clients' and on peers' ports.

use super::*;

use crate::TlsVersion;

/// What a server says about a client.
struct Case {
    what: &'static str,
    /// What the client shows.
    shown: Option<Pair>,
    /// What the server asks beyond its authority.
    asked: ClientVerification,
    /// What the server logs about it; accepted if nothing.
    refused: Option<&'static str>,
}

impl Case {
    fn accepted(what: &'static str, shown: &Pair) -> Self {
        Self {
            what,
            shown: Some(shown.clone()),
            asked: ClientVerification::default(),
            refused: None,
        }
    }

    fn refused(what: &'static str, shown: &Pair, why: &'static str) -> Self {
        Self {
            refused: Some(why),
            ..Self::accepted(what, shown)
        }
    }

    fn asking(mut self, asked: ClientVerification) -> Self {
        self.asked = asked;
        self
    }
}

fn common_names(names: &[&str]) -> ClientVerification {
    ClientVerification {
        allowed_common_names: names.iter().map(|&name| name.to_owned()).collect(),
        ..ClientVerification::default()
    }
}

fn hostnames(names: &[&str]) -> ClientVerification {
    ClientVerification {
        allowed_hostnames: names.iter().map(|&name| name.to_owned()).collect(),
        ..ClientVerification::default()
    }
}

fn fitting_address() -> ClientVerification {
    ClientVerification {
        verify_san: true,
        ..ClientVerification::default()
    }
}

/// Both kinds of ports, both versions of TLS.
async fn check(pki: &Pki, cases: &[Case]) {
    log::keep();
    pki.sign("server", "server");
    for case in cases {
        for kind in [EndpointKind::Client, EndpointKind::Peer] {
            for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
                check_one(pki, case, kind, version).await;
            }
        }
    }
}

async fn check_one(pki: &Pki, case: &Case, kind: EndpointKind, version: TlsVersion) {
    let verification = ClientVerification {
        trusted_ca_file: pki.path("ca.crt"),
        ..case.asked.clone()
    };
    let config = TlsConfig {
        kind,
        parameters: TlsParameters {
            max_version: Some(version),
            ..TlsParameters::default()
        },
        ..pki.config(ClientAuth::Required(verification))
    };
    let server = TlsServer::load(&config, Arc::new(SystemClock)).unwrap();
    let server = echo(listen_for(kind, "https://127.0.0.1:0", Some(&server)));
    let client = match &case.shown {
        None => pki.client(None),
        Some(pair) => {
            pki.put("shown", pair);
            connector(&pki.tls_client("shown"))
        }
    };
    let mark = log::mark();
    let tcp = if case.asked.verify_san {
        dial(server.port).await
    } else {
        dial_from_own_address(server.port).await
    };
    let from = tcp.local_addr().unwrap();
    let served = attempt(tcp, &client).await;
    let what = format!("{}, {kind:?}, {version:?}: {served:?}", case.what);
    let Some(why) = case.refused else {
        assert!(served.is_ok(), "{what}");
        assert!(
            log::lines_since(mark, &from.to_string()).is_empty(),
            "{what}"
        );
        return;
    };
    assert!(served.is_err(), "{what}");
    let line = log::the_line(mark, &format!("remote-addr={from} ")).await;
    let endpoint = match kind {
        EndpointKind::Peer => "rejected connection on peer endpoint",
        _ => "rejected connection on client endpoint",
    };
    assert!(line.contains("WARN") && line.contains(endpoint), "{line}");
    let unescaped = line.replace('\\', "");
    assert!(unescaped.contains(why), "{what}\n{line}\n{why}");
}

#[tokio::test]
async fn a_chain_is_checked_as_go_does() {
    let pki = Pki::new();
    let stranger = Authority::new("another CA").unwrap();
    let namesake = Authority::new("test CA").unwrap();
    let by = |authority: &Authority, leaf: Leaf| authority.issue(&leaf).unwrap();
    let member = || Leaf::named("member");
    let any_use = || member().usages(&[testkit::certs::Usage::Any]);
    let mut cases = vec![
        Case::accepted("both usages", &by(&pki.authority, member())),
        Case::accepted("client only", &by(&pki.authority, Leaf::client("client"))),
        Case::accepted("no usages", &by(&pki.authority, member().usages(&[]))),
        Case::accepted("any usage", &by(&pki.authority, any_use())),
        Case::refused(
            "any usage, foreign authority",
            &by(&stranger, any_use()),
            "x509: certificate signed by unknown authority",
        ),
        Case::refused(
            "any usage, expired",
            &by(&pki.authority, any_use().expired()),
            "is after 2021-01-01T00:00:00Z",
        ),
        Case::refused(
            "foreign authority",
            &by(&stranger, member()),
            "error=\"tls: failed to verify certificate: x509: certificate signed by unknown \
             authority\"",
        ),
        Case::refused(
            "foreign authority of the same name",
            &by(&namesake, member()),
            "x509: certificate signed by unknown authority (possibly because of \"x509: ECDSA \
             verification failure\" while trying to verify candidate authority certificate \
             \"test CA\")",
        ),
        Case::refused(
            "signed by itself",
            &member().self_signed().unwrap(),
            "x509: certificate signed by unknown authority",
        ),
        Case::refused(
            "expired",
            &by(&pki.authority, member().expired()),
            "is after 2021-01-01T00:00:00Z",
        ),
        Case::refused(
            "not valid yet",
            &by(&pki.authority, member().not_yet_valid()),
            "x509: certificate has expired or is not yet valid: current time 20",
        ),
        Case::refused(
            "for servers only",
            &by(
                &pki.authority,
                member().usages(&[testkit::certs::Usage::ServerAuth]),
            ),
            "x509: certificate specifies an incompatible key usage",
        ),
    ];
    cases.push(Case {
        what: "no certificate",
        shown: None,
        asked: ClientVerification::default(),
        refused: Some("error=\"tls: client didn't provide a certificate\""),
    });
    check(&pki, &cases).await;
}

#[tokio::test]
async fn a_certificate_among_the_authorities_is_believed_itself() {
    let pki = Pki::new();
    let usable = Leaf::named("all in one").self_signed().unwrap();
    let expired = Leaf::named("old").expired().self_signed().unwrap();
    let server_only = Leaf::named("server").usages(&[testkit::certs::Usage::ServerAuth]);
    let server_only = server_only.self_signed().unwrap();
    let bundle = [&usable, &expired, &server_only].map(|pair| pair.cert.clone());
    let bundle = format!("{}{}", pki.authority.pem(), bundle.concat());
    replace(&pki.path("ca.crt"), bundle).unwrap();
    let cases = [
        Case::accepted("good", &usable),
        Case::refused("expired", &expired, "is after 2021-01-01T00:00:00Z"),
        Case::refused("for servers", &server_only, "incompatible key usage"),
    ];
    check(&pki, &cases).await;
}

#[tokio::test]
async fn names_can_be_asked_for() {
    const NOT_ALLOWED: &str = "error=\"client certificate authentication failed\"";
    let pki = Pki::new();
    let alice = Leaf::named("alice").sans(&["a.test", "*.wild.test", "10.0.0.1"]);
    let alice = pki.authority.issue(&alice).unwrap();
    let nameless = Leaf::client("").sans(&[]);
    let nameless = pki.authority.issue(&nameless).unwrap();
    let accepted = |what, asked| Case::accepted(what, &alice).asking(asked);
    let refused = |what, asked| Case::refused(what, &alice, NOT_ALLOWED).asking(asked);
    let cases = [
        accepted("one name", common_names(&["alice"])),
        accepted("one of two names", common_names(&["bob", "alice"])),
        refused("another name", common_names(&["bob"])),
        refused("a name that begins so", common_names(&["alice2", "alic"])),
        refused("a host is no common name", common_names(&["a.test"])),
        accepted("host", hostnames(&["a.test"])),
        accepted("one of two hosts", hostnames(&["b.test", "A.TEST"])),
        accepted("wildcard", hostnames(&["x.wild.test"])),
        accepted("address", hostnames(&["10.0.0.1"])),
        accepted("address in brackets", hostnames(&["[10.0.0.1]"])),
        refused("wildcard of one label", hostnames(&["x.y.wild.test"])),
        refused("another host", hostnames(&["b.test"])),
        refused("another address", hostnames(&["10.0.0.2"])),
        refused("a common name is no host", hostnames(&["alice"])),
        refused("no host at all", hostnames(&["a b"])),
        Case::refused("no names", &nameless, NOT_ALLOWED).asking(hostnames(&["a.test"])),
    ];
    check(&pki, &cases).await;
}

#[tokio::test]
async fn a_peers_names_must_fit_its_address() {
    let pki = Pki::new();
    let sans = |sans: &[&str]| {
        let leaf = Leaf::named("peer").sans(sans);
        pki.authority.issue(&leaf).unwrap()
    };
    let accepted = |what, names| Case::accepted(what, &sans(names)).asking(fitting_address());
    let refused =
        |what, names, why| Case::refused(what, &sans(names), why).asking(fitting_address());
    let cases = [
        accepted("no names", &[]),
        accepted("its address", &["127.0.0.1"]),
        accepted("one of its addresses", &["10.0.0.1", "127.0.0.1"]),
        accepted("a name of it", &["localhost"]),
        accepted(
            "its address and a strange name",
            &["127.0.0.1", "nowhere.invalid"],
        ),
        accepted("a strange address and its name", &["10.0.0.1", "localhost"]),
        refused(
            "a strange address",
            &["10.0.0.1"],
            "error=\"x509: certificate is valid for 10.0.0.1, not 127.0.0.1\"",
        ),
        refused(
            "strange addresses",
            &["10.0.0.1", "fe80::1"],
            "x509: certificate is valid for 10.0.0.1, fe80::1, not 127.0.0.1",
        ),
        refused(
            "a strange name",
            &["nowhere.invalid"],
            "tls: \"127.0.0.1\" does not match any of DNSNames [\"nowhere.invalid\"] (lookup \
             nowhere.invalid: ",
        ),
        refused(
            "a strange address and strange names",
            &["10.0.0.1", "*.invalid", "nowhere.invalid"],
            "does not match any of DNSNames [\"*.invalid\" \"nowhere.invalid\"]",
        ),
        Case::accepted("not asked", &sans(&["10.0.0.1"])),
    ];
    check(&pki, &cases).await;
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let pki = Pki::new();
    let issue = |name| pki.authority.issue(&Leaf::client(name)).unwrap();
    let (good, lost, stolen) = (issue("good"), issue("lost"), issue("stolen"));
    let revoked = [lost.serial, stolen.serial];
    let pem = pki.authority.crl(1, &revoked).unwrap();
    let der = pki.authority.crl_der(2, &revoked).unwrap();
    let two = [&[lost.serial][..], &[stolen.serial]].map(|one| pki.authority.crl(3, one).unwrap());
    let mut cases = Vec::new();
    for (name, list) in [
        ("pem.crl", pem.as_bytes()),
        ("der.crl", &der),
        ("two.crl", two.concat().as_bytes()),
    ] {
        replace(&pki.path(name), list).unwrap();
        let asked = || ClientVerification {
            crl_file: Some(pki.path(name)),
            ..ClientVerification::default()
        };
        let refused = |pair, why| Case::refused(name, pair, why).asking(asked());
        cases.push(Case::accepted(name, &good).asking(asked()));
        cases.push(refused(
            &lost,
            "\"transport: certificate serial 02 revoked\"",
        ));
        cases.push(refused(
            &stolen,
            "\"transport: certificate serial 03 revoked\"",
        ));
    }
    check(&pki, &cases).await;
}

#[tokio::test]
async fn a_refused_client_gets_gos_alert() {
    log::keep();
    let pki = Pki::new();
    pki.sign("server", "server");
    let server_only = Leaf::named("x").usages(&[testkit::certs::Usage::ServerAuth]);
    let stranger = Authority::new("another CA").unwrap();
    let revoked = pki.authority.issue(&Leaf::client("revoked")).unwrap();
    replace(
        &pki.path("crl"),
        pki.authority.crl(1, &[revoked.serial]).unwrap(),
    )
    .unwrap();
    let verification = ClientVerification {
        crl_file: Some(pki.path("crl")),
        allowed_common_names: vec!["x".to_owned(), "revoked".to_owned()],
        ..pki.verification()
    };
    let server = echo_tls(&pki.server(ClientAuth::Required(verification)));
    let alert = async |pair: Pair| {
        pki.put("shown", &pair);
        let client = connector(&pki.tls_client("shown"));
        let served = attempt(dial_from_own_address(server.port).await, &client).await;
        crate::words::handshake(&served.unwrap_err())
    };
    let issue = |leaf: Leaf| pki.authority.issue(&leaf).unwrap();
    for (shown, words) in [
        (issue(server_only), "bad certificate"),
        (issue(Leaf::client("y")), "bad certificate"),
        (issue(Leaf::client("x").expired()), "expired certificate"),
        (
            stranger.issue(&Leaf::client("x")).unwrap(),
            "unknown certificate authority",
        ),
        (revoked, "revoked certificate"),
    ] {
        assert_eq!(alert(shown).await, format!("remote error: tls: {words}"));
    }
    let tcp = dial_from_own_address(server.port).await;
    let served = attempt(tcp, &pki.client(None)).await;
    assert_eq!(
        crate::words::handshake(&served.unwrap_err()),
        "remote error: tls: certificate required"
    );
}

/// A session that was resumed would not be checked again.
#[tokio::test]
async fn no_session_is_resumed() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let serial = pki.sign("alice", "alice");
    replace(&pki.path("crl"), pki.authority.crl(1, &[]).unwrap()).unwrap();
    let verification = ClientVerification {
        crl_file: Some(pki.path("crl")),
        ..pki.verification()
    };
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let config = TlsConfig {
            parameters: TlsParameters {
                max_version: Some(version),
                ..TlsParameters::default()
            },
            ..pki.config(ClientAuth::Required(verification.clone()))
        };
        replace(&pki.path("crl"), pki.authority.crl(1, &[]).unwrap()).unwrap();
        let server = echo_tls(&TlsServer::load(&config, Arc::new(SystemClock)).unwrap());
        // One client, which remembers sessions.
        let client = pki.client(Some("alice"));
        for _ in 0..3 {
            let mut session = dial_tls(server.port, &client).await.unwrap();
            exchange(&mut session).await.unwrap();
            let kind = session.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(rustls::HandshakeKind::Full), "{version:?}");
        }
        replace(&pki.path("crl"), pki.authority.crl(2, &[serial]).unwrap()).unwrap();
        let served = attempt(dial_from_own_address(server.port).await, &client).await;
        assert!(served.is_err(), "{version:?}");
    }
}

//! Dialling: urls, names, and servers that are not believed.

use testkit::certs::Usage;

use super::*;

async fn dialled(dialer: &Dialer, url: &str) -> io::Result<crate::Dialed> {
    let dialling = dialer.dial(&Url::parse(url).unwrap());
    timeout(PATIENCE, dialling).await.expect("no hang")
}

async fn failure(dialer: &Dialer, url: &str) -> String {
    dialled(dialer, url).await.unwrap_err().to_string()
}

#[tokio::test]
async fn plain_and_unix_urls_are_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", dir.path().join("kvorum.sock").display());
    for url in ["http://127.0.0.1:0", &socket] {
        let listener = listen(url, None);
        let url = listener.urls()[0].to_string();
        let _server = echo(listener);
        let dialer = Dialer::new(None, None);
        assert!(echoes(dialled(&dialer, &url).await.unwrap()).await);
    }
}

#[tokio::test]
async fn a_name_is_dialled_at_whichever_address_answers() {
    let server = echo(listen("http://127.0.0.1:0", None));
    for local in [None, Some([127, 0, 0, 1].into())] {
        let url = format!("http://localhost:{}", server.port);
        let dialed = dialled(&Dialer::new(None, local), &url).await.unwrap();
        assert!(echoes(dialed).await);
    }
}

#[tokio::test]
async fn the_address_to_dial_from_can_be_chosen() {
    let mut listener = listen("http://127.0.0.1:0", None);
    let url = format!("http://127.0.0.1:{}", port(&listener));
    let dialer = Dialer::new(None, Some([127, 0, 0, 2].into()));
    let _dialed = dialled(&dialer, &url).await.unwrap();
    let (_stream, peer) = accept(&mut listener).await;
    assert!(peer.remote.to_string().starts_with("127.0.0.2:"));
}

#[tokio::test]
async fn tls_is_dialled_with_the_host_as_the_servers_name() {
    let pki = Pki::new();
    let leaf = Leaf::named("server").sans(&["127.0.0.1", "member.test"]);
    pki.sign_leaf("server", &leaf);
    let server = echo_tls(&pki.server(pki.required()));
    let dialer = Dialer::new(Some(pki.tls_client("server")), None);
    let url = |host| format!("https://{host}:{}", server.port);
    let dialed = dialled(&dialer, &url("127.0.0.1")).await.unwrap();
    assert!(echoes(dialed).await);
    assert_eq!(
        failure(&dialer, &url("localhost")).await,
        "tls: failed to verify certificate: x509: certificate is valid for member.test, \
         not localhost"
    );
    pki.sign_leaf("server", &Leaf::named("server").sans(&["localhost"]));
    assert_eq!(
        failure(&dialer, &url("127.0.0.1")).await,
        "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 \
         because it doesn't contain any IP SANs"
    );
    assert!(echoes(dialled(&dialer, &url("localhost")).await.unwrap()).await);
}

#[tokio::test]
async fn a_server_whose_certificate_is_for_any_use_is_believed_by_its_name() {
    let pki = Pki::new();
    let any_use = |host| Leaf::named("server").usages(&[Usage::Any]).sans(&[host]);
    pki.sign_leaf("server", &any_use("127.0.0.1"));
    pki.sign("client", "client");
    let server = echo_tls(&pki.server(pki.required()));
    let dialer = Dialer::new(Some(pki.tls_client("client")), None);
    let url = format!("https://127.0.0.1:{}", server.port);
    assert!(echoes(dialled(&dialer, &url).await.unwrap()).await);
    pki.sign_leaf("server", &any_use("10.0.0.1"));
    assert_eq!(
        failure(&dialer, &url).await,
        "tls: failed to verify certificate: x509: certificate is valid for 10.0.0.1, not 127.0.0.1"
    );
}

#[tokio::test]
async fn tls_is_dialled_over_a_unix_socket() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let url = format!("unixs://{}", pki.path("kvorum.sock").display());
    let _server = echo(listen(&url, Some(&pki.server(pki.required()))));
    let dialer = Dialer::new(Some(pki.tls_client("server")), None);
    assert!(echoes(dialled(&dialer, &url).await.unwrap()).await);
}

#[tokio::test]
async fn a_server_that_is_not_believed_is_not_spoken_to() {
    log::keep();
    let pki = Pki::new();
    let stranger = Authority::new("another CA").unwrap();
    let namesake = Authority::new("test CA").unwrap();
    pki.sign("client", "client");
    let dialer = Dialer::new(Some(pki.tls_client("client")), None);
    let good = || Leaf::named("server");
    let by = |authority: &Authority, leaf| authority.issue(&leaf).unwrap();
    for (shown, why) in [
        (
            by(&stranger, good()),
            "certificate signed by unknown authority",
        ),
        (
            by(&namesake, good()),
            "certificate signed by unknown authority",
        ),
        (
            good().self_signed().unwrap(),
            "certificate signed by unknown authority",
        ),
        (
            by(&pki.authority, Leaf::client("x").sans(&["127.0.0.1"])),
            "certificate specifies an incompatible key usage",
        ),
        (
            by(&pki.authority, good().expired()),
            "certificate has expired or is not yet valid: current time ",
        ),
        (
            by(&pki.authority, good().not_yet_valid()),
            "certificate has expired or is not yet valid: current time ",
        ),
        (
            by(&pki.authority, good().sans(&["10.0.0.1"])),
            "certificate is valid for 10.0.0.1, not 127.0.0.1",
        ),
    ] {
        pki.put("server", &shown);
        let server = echo_tls(&pki.server(pki.required()));
        let error = failure(&dialer, &format!("https://127.0.0.1:{}", server.port)).await;
        let expected = format!("tls: failed to verify certificate: x509: {why}");
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
}

#[tokio::test]
async fn servers_need_not_be_checked_or_can_be_the_systems() {
    let pki = Pki::new();
    pki.put("server", &Leaf::named("server").self_signed().unwrap());
    let server = echo_tls(&pki.server(ClientAuth::None));
    let url = format!("https://127.0.0.1:{}", server.port);
    let config = |insecure_skip_verify| TlsClientConfig {
        trusted_ca_file: None,
        insecure_skip_verify,
        ..pki.client_config("server")
    };
    let dialer = |config| {
        let client = TlsClient::load(&config, Arc::new(SystemClock)).unwrap();
        Dialer::new(Some(client), None)
    };
    let dialed = dialled(&dialer(config(true)), &url).await.unwrap();
    assert!(echoes(dialed).await);
    assert_eq!(
        failure(&dialer(config(false)), &url).await,
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    // A server that is itself among the authorities.
    let config = TlsClientConfig {
        trusted_ca_file: Some(pki.path("server.crt")),
        ..config(false)
    };
    let dialed = dialled(&dialer(config), &url).await.unwrap();
    assert!(echoes(dialed).await);
}

#[tokio::test]
async fn whoever_has_no_certificate_shows_none() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let anonymous = AnonymousTls {
        trusted_ca_file: Some(pki.path("ca.crt")),
        ..AnonymousTls::default()
    };
    let client = TlsClient::anonymous(&anonymous, Arc::new(SystemClock)).unwrap();
    let dialer = Dialer::new(Some(client), None);
    for (auth, is_welcome) in [(ClientAuth::None, true), (pki.required(), false)] {
        let server = echo_tls(&pki.server(auth));
        let url = format!("https://127.0.0.1:{}", server.port);
        let echoes = match dialled(&dialer, &url).await {
            Ok(dialed) => echoes(dialed).await,
            Err(_refused) => false,
        };
        assert_eq!(echoes, is_welcome);
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_in_gos_words() {
    let closed = port(&listen("http://127.0.0.1:0", None));
    let dialer = Dialer::new(None, None);
    assert_eq!(
        failure(&dialer, &format!("http://127.0.0.1:{closed}")).await,
        format!("dial tcp 127.0.0.1:{closed}: connect: connection refused")
    );
    assert_eq!(
        failure(&dialer, "unix:///nowhere/kvorum.sock").await,
        "dial unix /nowhere/kvorum.sock: connect: no such file or directory"
    );
    let text = failure(&dialer, "http://nowhere.invalid:1").await;
    assert!(
        text.starts_with("dial tcp: lookup nowhere.invalid: "),
        "{text}"
    );
    let text = failure(&dialer, &format!("https://127.0.0.1:{closed}")).await;
    assert!(text.contains("connection refused"), "{text}");
}

#[tokio::test]
async fn tls_to_a_plain_server_is_told_so() {
    let pki = Pki::new();
    pki.sign("client", "client");
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let answering = async {
        let (mut stream, _from) = plain.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    };
    let dialer = Dialer::new(Some(pki.tls_client("client")), None);
    let url = format!("https://127.0.0.1:{port}");
    let (text, ()) = tokio::join!(failure(&dialer, &url), answering);
    assert_eq!(text, "tls: first record does not look like a TLS handshake");
    // And without an identity there is nothing to dial with.
    let text = failure(&Dialer::new(None, None), "https://127.0.0.1:1").await;
    assert!(!text.is_empty());
}

#[tokio::test]
async fn how_long_a_peer_may_leave_data_unconfirmed_is_set() {
    let mut listener = listen("http://127.0.0.1:0", None);
    let url = Url::parse(&format!("http://127.0.0.1:{}", port(&listener))).unwrap();
    for limit in [None, Some(Duration::from_secs(7))] {
        let dialer = match limit {
            None => Dialer::new(None, None),
            Some(limit) => Dialer::new(None, None).with_write_timeout(limit),
        };
        let crate::stream::Socket::Tcp(tcp) = dialer.connect_tcp(&url).await.unwrap() else {
            panic!("it is TCP");
        };
        let set = socket2::SockRef::from(&tcp).tcp_user_timeout().unwrap();
        assert_eq!(set.filter(|set| !set.is_zero()), limit);
        accept(&mut listener).await;
    }
}

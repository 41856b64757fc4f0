//! Listening: addresses, plain text beside TLS, clients that stall.

use super::*;

#[tokio::test]
async fn a_plain_connection_comes_out_with_its_address() {
    let mut listener = listen("http://127.0.0.1:0", None);
    let port = port(&listener);
    assert_eq!(
        listener.urls()[0].to_string(),
        format!("http://127.0.0.1:{port}")
    );
    let client = dial(port).await;
    let (_stream, peer) = accept(&mut listener).await;
    assert_eq!(
        peer.remote.to_string(),
        client.local_addr().unwrap().to_string()
    );
    assert!(!peer.tls && peer.certificate.is_none());
}

#[tokio::test]
async fn a_verified_client_is_known_by_its_common_name() {
    let pki = Pki::new();
    pki.sign("server", "server");
    pki.sign("alice", "alice");
    let mut listener = listen("https://127.0.0.1:0", Some(&pki.server(pki.required())));
    let port = port(&listener);
    let client = pki.client(Some("alice"));
    let dialling = tokio::spawn(async move { dial_tls(port, &client).await });
    let (_stream, peer) = accept(&mut listener).await;
    let name = peer
        .certificate
        .and_then(|certificate| certificate.common_name);
    assert_eq!((peer.tls, name.as_deref()), (true, Some("alice")));
    let session = dialling.await.unwrap().unwrap();
    assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn stalled_and_broken_handshakes_hold_up_nobody() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let listener = listen("https://127.0.0.1:0", Some(&pki.server(ClientAuth::None)));
    let port = port(&listener);
    let _serving = echo(listener);
    let mut stalled = Vec::new();
    for sent in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01",
        b"\xff\xff\xff\xff\xff\xff",
    ] {
        for _ in 0..20 {
            let mut stream = dial(port).await;
            stream.write_all(sent).await.unwrap();
            stalled.push(stream);
        }
    }
    assert!(echoes(dial_tls(port, &pki.client(None)).await.unwrap()).await);
}

#[tokio::test]
async fn a_plain_request_on_a_tls_port_is_told_so() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let listener = listen("https://127.0.0.1:0", Some(&pki.server(ClientAuth::None)));
    let port = port(&listener);
    let _serving = echo(listener);
    let mut client = dial(port).await;
    client
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        answer,
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    );
}

#[tokio::test]
async fn plain_text_and_tls_share_a_port_when_both_are_asked_for() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let tls = pki.server(ClientAuth::None);
    let listener = listen("http://127.0.0.1:0,https://127.0.0.1:0", Some(&tls));
    assert_eq!(listener.urls().len(), 2);
    let port = port(&listener);
    let _serving = echo(listener);
    assert!(echoes(dial(port).await).await);
    assert!(echoes(dial_tls(port, &pki.client(None)).await.unwrap()).await);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_flag() {
    let pki = Pki::new();
    pki.sign("server", "server");
    pki.sign("other", "other");
    let error = |config: &TlsConfig| {
        TlsServer::load(config, Arc::new(SystemClock))
            .unwrap_err()
            .to_string()
    };
    let good = pki.config(ClientAuth::None);
    let missing = TlsConfig {
        cert_file: pki.path("nope"),
        ..good.clone()
    };
    assert_eq!(
        error(&missing),
        format!("--cert-file: cannot read {}", pki.path("nope").display())
    );
    let no_key = TlsConfig {
        key_file: pki.path("server.crt"),
        ..good.clone()
    };
    assert!(
        error(&no_key).starts_with("--key-file: "),
        "{}",
        error(&no_key)
    );
    let wrong_key = TlsConfig {
        key_file: pki.path("other.key"),
        ..good.clone()
    };
    assert!(error(&wrong_key).contains("is not the key of the certificate"));
    let no_ca = ClientAuth::Required(ClientVerification {
        trusted_ca_file: pki.path("server.key"),
        ..ClientVerification::default()
    });
    let text = error(&TlsConfig {
        client_auth: no_ca,
        ..good
    });
    assert!(text.starts_with("--trusted-ca-file: ") && text.ends_with("holds no certificate"));
}

#[tokio::test]
async fn an_address_in_use_is_told_in_gos_words() {
    let taken = listen("http://127.0.0.1:0", None);
    let port = port(&taken);
    let urls = [Url::parse(&format!("http://127.0.0.1:{port}")).unwrap()];
    let endpoint = &Endpoint::from_urls(&urls)[0];
    let error = Listener::bind(endpoint, EndpointKind::Client, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("listen tcp 127.0.0.1:{port}: bind: address already in use")
    );
}

#[tokio::test]
async fn a_tls_url_without_a_certificate_is_refused_in_etcds_words() {
    let urls = [Url::parse("https://127.0.0.1:0").unwrap()];
    let endpoint = &Endpoint::from_urls(&urls)[0];
    let refusal = |kind| {
        Listener::bind(endpoint, kind, None)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refusal(EndpointKind::Client),
        "TLS key/cert (--cert-file, --key-file) must be provided for client url \
         https://127.0.0.1:0 with HTTPS scheme"
    );
    assert_eq!(
        refusal(EndpointKind::Metrics),
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    );
}

#[tokio::test]
async fn a_unix_socket_is_served_and_replaced_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kvorum.sock");
    let url = format!("unix://{}", path.display());
    // What a killed process leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut listener = listen(&url, None);
    let _client = UnixStream::connect(&path).await.unwrap();
    let (_stream, peer) = accept(&mut listener).await;
    assert_eq!(peer.remote.to_string(), "@");
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_unspecified_address_is_both_families() {
    let mut listener = listen("http://0.0.0.0:0", None);
    let _client = dial(port(&listener)).await;
    accept(&mut listener).await;
}

#[tokio::test]
async fn what_ends_a_handshake_is_told_in_gos_words() {
    log::keep();
    let pki = Pki::new();
    pki.sign("server", "server");
    let server = echo_tls(&pki.server(ClientAuth::None));
    let logged = async |tcp: &TcpStream, from| {
        let (to, from): (_, std::net::SocketAddr) = (tcp.peer_addr().unwrap(), from);
        let line = log::the_line(0, &format!("remote-addr={from} ")).await;
        let line = line.split("error=\"").nth(1).unwrap().trim_end().to_owned();
        line.replace(&format!("{to}->{from}"), "to->from")
    };
    let closed = dial_from_own_address(server.port).await;
    let from = closed.local_addr().unwrap();
    let again = dial_from_own_address(server.port).await;
    drop(closed);
    assert_eq!(logged(&again, from).await, "EOF\"");
    let mut reset = again;
    let from = reset.local_addr().unwrap();
    reset.write_all(b"\x16\x03\x01").await.unwrap();
    reset.set_zero_linger().unwrap();
    let again = dial_from_own_address(server.port).await;
    drop(reset);
    assert_eq!(
        logged(&again, from).await,
        "read tcp to->from: read: connection reset by peer\""
    );
    let from = again.local_addr().unwrap();
    let mut config = ClientConfig::clone(&pki.tls_client("server").current());
    config.alpn_protocols = vec![b"foo".to_vec()];
    let client = TlsConnector::from(Arc::new(config));
    let again_too = dial_from_own_address(server.port).await;
    attempt(again, &client).await.unwrap_err();
    assert_eq!(
        logged(&again_too, from).await.replace('\\', ""),
        "tls: client requested unsupported application protocols ([\"foo\"])\""
    );
}

/// On a clock that jumps when nothing else happens.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_given_up() {
    log::keep();
    let pki = Pki::new();
    pki.sign("server", "server");
    let server = echo_tls(&pki.server(ClientAuth::None));
    for sent in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = dial_from_own_address(server.port).await;
        let from = stream.local_addr().unwrap();
        stream.write_all(sent).await.unwrap();
        let line = log::the_line(0, &format!("remote-addr={from} ")).await;
        assert!(line.contains(&format!("->{from}: i/o timeout")), "{line}");
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
}

//! TLS versions and cipher suites.

use super::*;

use crate::{CipherSuite, TlsVersion};

fn suites(names: &[&str]) -> Vec<CipherSuite> {
    names
        .iter()
        .map(|name| CipherSuite::named(name).unwrap())
        .collect()
}

fn versions(min: Option<TlsVersion>, max: Option<TlsVersion>) -> TlsParameters {
    TlsParameters {
        min_version: min,
        max_version: max,
        cipher_suites: Vec::new(),
    }
}

/// What becomes of a client and a server with these parameters: the suite, or what the client
/// hears and what the server logs.
async fn between(client: TlsParameters, server: TlsParameters) -> Result<String, (String, String)> {
    log::keep();
    let pki = Pki::new();
    pki.sign("server", "server");
    pki.sign("client", "client");
    let config = TlsConfig {
        parameters: server,
        ..pki.config(pki.required())
    };
    let server = echo_tls(&TlsServer::load(&config, Arc::new(SystemClock)).unwrap());
    let config = TlsClientConfig {
        parameters: client,
        ..pki.client_config("client")
    };
    let client = connector(&TlsClient::load(&config, Arc::new(SystemClock)).unwrap());
    let mark = log::mark();
    let tcp = dial_from_own_address(server.port).await;
    let from = tcp.local_addr().unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    match timeout(PATIENCE, client.connect(name, tcp)).await.unwrap() {
        Ok(mut session) => {
            exchange(&mut session).await.unwrap();
            let suite = session.get_ref().1.negotiated_cipher_suite().unwrap();
            Ok(format!("{:?}", suite.suite()))
        }
        Err(error) => {
            let line = log::the_line(mark, &format!("remote-addr={from} ")).await;
            let logged = line.split("error=\"").nth(1).unwrap();
            let logged = logged.split('"').next().unwrap();
            Err((crate::words::handshake(&error), logged.to_owned()))
        }
    }
}

#[tokio::test]
async fn versions_that_do_not_meet_are_refused() {
    use TlsVersion::{Tls12, Tls13};
    let too_low = between(versions(None, Some(Tls12)), versions(Some(Tls13), None)).await;
    let too_high = between(versions(Some(Tls13), None), versions(None, Some(Tls12))).await;
    for refused in [too_low, too_high] {
        let (heard, logged) = refused.unwrap_err();
        assert_eq!(heard, "remote error: tls: protocol version not supported");
        assert_eq!(logged, "tls: client offered only unsupported versions");
    }
    for (client, server, tls13) in [
        (versions(None, None), versions(None, None), true),
        (versions(None, None), versions(Some(Tls13), None), true),
        (versions(None, None), versions(None, Some(Tls12)), false),
        (versions(None, Some(Tls12)), versions(None, None), false),
    ] {
        let suite = between(client, server).await.unwrap();
        assert_eq!(suite.starts_with("TLS13_"), tls13, "{suite}");
    }
}

#[tokio::test]
async fn cipher_suites_of_tls_12_can_be_chosen() {
    let chosen = |names: &[&str], max| TlsParameters {
        cipher_suites: suites(names),
        ..versions(None, max)
    };
    let aes_256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let chacha = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305";
    let tls12 = Some(TlsVersion::Tls12);
    for (name, spoken) in [(aes_256, aes_256), (chacha, &format!("{chacha}_SHA256"))] {
        let suite = between(versions(None, tls12), chosen(&[name], None)).await;
        assert_eq!(suite.unwrap(), *spoken);
    }
    // They do not touch TLS 1.3.
    let suite = between(versions(None, None), chosen(&[chacha], None)).await;
    assert!(suite.unwrap().starts_with("TLS13_"));
    let (heard, logged) = between(chosen(&[chacha], tls12), chosen(&[aes_256], None))
        .await
        .unwrap_err();
    assert_eq!(heard, "remote error: tls: handshake failure");
    assert_eq!(
        logged,
        "tls: no cipher suite supported by both client and server; client offered: [cca9 ff]"
    );
}

#[test]
fn all_of_gos_names_are_known() {
    let spoken = [
        "TLS_AES_128_GCM_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ];
    for name in spoken {
        let suite = CipherSuite::named(name).unwrap();
        assert!(suite.is_spoken() && suite.name() == name);
    }
    for name in [
        "TLS_RSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    ] {
        assert!(!CipherSuite::named(name).unwrap().is_spoken());
    }
    for name in ["", "ECDHE-RSA-AES128-GCM-SHA256", "tls_aes_128_gcm_sha256"] {
        assert_eq!(CipherSuite::named(name), None);
    }
}

#[test]
fn parameters_that_leave_nothing_are_refused() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let unspoken = TlsParameters {
        cipher_suites: suites(&["TLS_RSA_WITH_AES_128_CBC_SHA"]),
        ..versions(None, Some(TlsVersion::Tls12))
    };
    let crossed = versions(Some(TlsVersion::Tls13), Some(TlsVersion::Tls12));
    for parameters in [unspoken, crossed] {
        let config = TlsConfig {
            parameters,
            ..pki.config(ClientAuth::None)
        };
        assert_eq!(
            TlsServer::load(&config, Arc::new(SystemClock))
                .unwrap_err()
                .to_string(),
            "--tls-min-version, --tls-max-version and --cipher-suites leave nothing to speak"
        );
    }
}

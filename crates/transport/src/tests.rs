//! Listeners with real sockets and real handshakes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use types::{SystemClock, Url};

use crate::{
    ClientAuth, ClientVerification, Dial, Dialer, Endpoint, EndpointKind, Listener, PeerInfo,
    Stream, TlsClient, TlsClientConfig, TlsConfig, TlsParameters, TlsServer,
};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// An authority, and a directory with what it has signed.
struct Pki {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `<name>.pem` and `<name>.key`, valid for the loopback address.
    fn sign(&self, name: &str, common_name: &str) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn config(&self, client_auth: ClientAuth) -> TlsConfig {
        TlsConfig {
            kind: EndpointKind::Client,
            cert_file: self.path("server.pem"),
            key_file: self.path("server.key"),
            client_auth,
            parameters: TlsParameters::default(),
        }
    }

    fn server(&self, client_auth: ClientAuth) -> TlsServer {
        TlsServer::load(&self.config(client_auth), Arc::new(SystemClock)).unwrap()
    }

    fn required(&self) -> ClientAuth {
        ClientAuth::Required(ClientVerification {
            trusted_ca_file: self.path("ca.pem"),
            ..ClientVerification::default()
        })
    }

    /// A client that believes this authority and shows the certificate of that name, if any.
    fn client(&self, name: Option<&str>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.pem")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(vec![chain.unwrap()], key.unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

fn listen(urls: &str, tls: Option<&TlsServer>) -> Listener {
    let urls = Url::parse_list(urls).unwrap();
    let endpoints = Endpoint::from_urls(&urls);
    assert_eq!(endpoints.len(), 1);
    Listener::bind(&endpoints[0], EndpointKind::Client, tls).unwrap()
}

fn port(listener: &Listener) -> u16 {
    listener.local_addr().unwrap().port()
}

async fn dial(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

async fn dial_tls(port: u16, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    client
        .connect(ServerName::try_from("127.0.0.1").unwrap(), dial(port).await)
        .await
}

async fn accept(listener: &mut Listener) -> (Stream, PeerInfo) {
    timeout(PATIENCE, listener.accept())
        .await
        .expect("a connection in time")
        .unwrap()
}

/// Accepts and echoes for ever, so that handshakes go on while a test looks at its client.
fn echo(mut listener: Listener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    })
}

async fn echoes(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> bool {
    let mut answer = [0; 5];
    let exchange = async {
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        stream.read_exact(&mut answer).await
    };
    timeout(PATIENCE, exchange)
        .await
        .expect("an answer in time")
        .is_ok()
        && &answer == b"hello"
}

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
async fn clients_without_a_good_certificate_are_rejected_and_others_served() {
    let (pki, strangers) = (Pki::new(), Pki::new());
    pki.sign("server", "server");
    pki.sign("alice", "alice");
    strangers.sign("mallory", "mallory");
    fs::copy(strangers.path("mallory.pem"), pki.path("mallory.pem")).unwrap();
    fs::copy(strangers.path("mallory.key"), pki.path("mallory.key")).unwrap();
    let listener = listen("https://127.0.0.1:0", Some(&pki.server(pki.required())));
    let port = port(&listener);
    let serving = echo(listener);
    for rejected in [None, Some("mallory")] {
        // In TLS 1.3 the client learns of it with its first read.
        let served = match dial_tls(port, &pki.client(rejected)).await {
            Ok(session) => echoes(session).await,
            Err(_alert) => false,
        };
        assert!(!served, "{rejected:?}");
    }
    assert!(echoes(dial_tls(port, &pki.client(Some("alice"))).await.unwrap()).await);
    serving.abort();
}

#[tokio::test]
async fn stalled_and_broken_handshakes_hold_up_nobody() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let listener = listen("https://127.0.0.1:0", Some(&pki.server(ClientAuth::None)));
    let port = port(&listener);
    let serving = echo(listener);
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
    serving.abort();
}

#[tokio::test]
async fn a_plain_request_on_a_tls_port_is_told_so() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let listener = listen("https://127.0.0.1:0", Some(&pki.server(ClientAuth::None)));
    let port = port(&listener);
    let serving = echo(listener);
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
    serving.abort();
}

#[tokio::test]
async fn plain_text_and_tls_share_a_port_when_both_are_asked_for() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let tls = pki.server(ClientAuth::None);
    let listener = listen("http://127.0.0.1:0,https://127.0.0.1:0", Some(&tls));
    assert_eq!(listener.urls().len(), 2);
    let port = port(&listener);
    let serving = echo(listener);
    assert!(echoes(dial(port).await).await);
    assert!(echoes(dial_tls(port, &pki.client(None)).await.unwrap()).await);
    serving.abort();
}

/// The serial number of the certificate that the server shows.
async fn shown_serial(port: u16, client: &TlsConnector) -> Vec<u8> {
    let session = dial_tls(port, client).await.unwrap();
    session.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn the_certificate_follows_its_files() {
    let pki = Pki::new();
    pki.sign("server", "first");
    let listener = listen("https://127.0.0.1:0", Some(&pki.server(ClientAuth::None)));
    let port = port(&listener);
    let serving = echo(listener);
    let client = pki.client(None);
    let first = shown_serial(port, &client).await;
    // Only one of the two files has been replaced: they do not fit, the old pair stays.
    let old_key = fs::read(pki.path("server.key")).unwrap();
    pki.sign("server", "second");
    let new_key = fs::read(pki.path("server.key")).unwrap();
    fs::write(pki.path("server.key"), old_key).unwrap();
    assert_eq!(shown_serial(port, &client).await, first);
    fs::write(pki.path("server.key"), new_key).unwrap();
    let second = shown_serial(port, &client).await;
    assert_ne!(second, first);
    fs::remove_file(pki.path("server.pem")).unwrap();
    assert_eq!(shown_serial(port, &client).await, second);
    serving.abort();
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
        key_file: pki.path("server.pem"),
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
async fn plain_and_unix_urls_are_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", dir.path().join("kvorum.sock").display());
    for url in ["http://127.0.0.1:0", &socket] {
        let listener = listen(url, None);
        let url = listener.urls()[0].clone();
        let serving = echo(listener);
        assert!(echoes(Dialer::new(None, None).dial(&url).await.unwrap()).await);
        serving.abort();
    }
}

#[tokio::test]
async fn tls_is_dialled_with_the_host_as_the_servers_name() {
    let pki = Pki::new();
    pki.sign("server", "server");
    let listener = listen("https://127.0.0.1:0", Some(&pki.server(pki.required())));
    let port = port(&listener);
    let serving = echo(listener);
    let config = TlsClientConfig {
        cert_file: pki.path("server.pem"),
        key_file: pki.path("server.key"),
        trusted_ca_file: Some(pki.path("ca.pem")),
        insecure_skip_verify: false,
        parameters: TlsParameters::default(),
    };
    let client = TlsClient::load(&config, Arc::new(SystemClock)).unwrap();
    let dialer = Dialer::new(Some(client), Some([127, 0, 0, 1].into()));
    let url = |host| Url::parse(&format!("https://{host}:{port}")).unwrap();
    assert!(echoes(dialer.dial(&url("127.0.0.1")).await.unwrap()).await);
    let error = dialer.dial(&url("localhost")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "tls: failed to verify certificate: x509: certificate is not valid for any names, \
         but wanted to match localhost"
    );
    serving.abort();
}

#[tokio::test]
async fn a_refused_connection_is_told_in_gos_words() {
    let port = port(&listen("http://127.0.0.1:0", None));
    let url = Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let error = Dialer::new(None, None).dial(&url).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("dial tcp 127.0.0.1:{port}: connect: connection refused")
    );
}

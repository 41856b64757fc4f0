//! Listeners and dialers with real sockets, real files and real handshakes.

mod auto;
mod dial;
mod listener;
mod log;
mod matrix;
mod parameters;
mod reload;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use testkit::certs::{Authority, Leaf, Pair, replace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use types::{SystemClock, Url};

use crate::{
    AnonymousTls, ClientAuth, ClientVerification, Dial, Dialer, Endpoint, EndpointKind, Listener,
    PeerInfo, Stream, TlsClient, TlsClientConfig, TlsConfig, TlsParameters, TlsServer,
};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// An authority, and a directory with what it has signed.
struct Pki {
    dir: TempDir,
    authority: Authority,
}

impl Pki {
    /// With the authority's certificate in `ca.crt`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("test CA").unwrap();
        replace(&dir.path().join("ca.crt"), authority.pem()).unwrap();
        Self { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `<name>.crt` and `<name>.key`.
    fn put(&self, name: &str, pair: &Pair) {
        pair.write(self.dir.path(), name).unwrap();
    }

    /// The same for one that this authority signs; its serial number.
    fn sign_leaf(&self, name: &str, leaf: &Leaf) -> u64 {
        let pair = self.authority.issue(leaf).unwrap();
        self.put(name, &pair);
        pair.serial
    }

    /// A good one for both sides, on this machine.
    fn sign(&self, name: &str, common_name: &str) -> u64 {
        self.sign_leaf(name, &Leaf::named(common_name))
    }

    fn config(&self, client_auth: ClientAuth) -> TlsConfig {
        TlsConfig {
            kind: EndpointKind::Client,
            cert_file: self.path("server.crt"),
            key_file: self.path("server.key"),
            client_auth,
            parameters: TlsParameters::default(),
        }
    }

    fn server(&self, client_auth: ClientAuth) -> TlsServer {
        TlsServer::load(&self.config(client_auth), Arc::new(SystemClock)).unwrap()
    }

    fn verification(&self) -> ClientVerification {
        ClientVerification {
            trusted_ca_file: self.path("ca.crt"),
            ..ClientVerification::default()
        }
    }

    fn required(&self) -> ClientAuth {
        ClientAuth::Required(self.verification())
    }

    /// A client of another make, that believes this authority and shows the certificate of that
    /// name, if any.
    fn client(&self, name: Option<&str>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.crt")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(vec![chain.unwrap()], key.unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    fn client_config(&self, name: &str) -> TlsClientConfig {
        TlsClientConfig {
            cert_file: self.path(&format!("{name}.crt")),
            key_file: self.path(&format!("{name}.key")),
            trusted_ca_file: Some(self.path("ca.crt")),
            insecure_skip_verify: false,
            parameters: TlsParameters::default(),
        }
    }

    /// A member's own way of dialling, with the certificate of that name.
    fn tls_client(&self, name: &str) -> TlsClient {
        TlsClient::load(&self.client_config(name), Arc::new(SystemClock)).unwrap()
    }
}

fn connector(client: &TlsClient) -> TlsConnector {
    TlsConnector::from(client.current())
}

fn listen(urls: &str, tls: Option<&TlsServer>) -> Listener {
    listen_for(EndpointKind::Client, urls, tls)
}

fn listen_for(kind: EndpointKind, urls: &str, tls: Option<&TlsServer>) -> Listener {
    let urls = Url::parse_list(urls).unwrap();
    let endpoints = Endpoint::from_urls(&urls);
    assert_eq!(endpoints.len(), 1);
    Listener::bind(&endpoints[0], kind, tls).unwrap()
}

fn port(listener: &Listener) -> u16 {
    listener.local_addr().unwrap().port()
}

async fn dial(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

async fn dial_tls(port: u16, client: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let handshake = client.connect(name, dial(port).await);
    timeout(PATIENCE, handshake).await.expect("no hang")
}

async fn accept(listener: &mut Listener) -> (Stream, PeerInfo) {
    timeout(PATIENCE, listener.accept())
        .await
        .expect("a connection in time")
        .unwrap()
}

/// A listener whose connections are echoed, so that handshakes go on while a test looks at its
/// client. Ends when dropped.
struct Echo {
    port: u16,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn echo(mut listener: Listener) -> Echo {
    let port = listener.local_addr().map_or(0, |addr| addr.port());
    let serving = tokio::spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    Echo { port, serving }
}

/// An echo over TLS on a port of its own.
fn echo_tls(tls: &TlsServer) -> Echo {
    echo(listen("https://127.0.0.1:0", Some(tls)))
}

/// Whether the other end answers; if not, what the system or TLS says.
async fn exchange(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> io::Result<()> {
    let mut answer = [0; 5];
    let exchange = async {
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        stream.read_exact(&mut answer).await
    };
    timeout(PATIENCE, exchange).await.expect("no hang")?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

async fn echoes(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> bool {
    exchange(&mut stream).await.is_ok()
}

/// A connection from an address that no other test uses, so that its line in the log is found.
async fn dial_from_own_address(port: u16) -> TcpStream {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    dial_from([127, 1, high, low], port).await
}

async fn dial_from(address: [u8; 4], port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
}

/// A client's try to be served.
async fn attempt(tcp: TcpStream, client: &TlsConnector) -> io::Result<()> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let served = async {
        // In TLS 1.3 the client learns of a refusal with its first read.
        let mut session = client.connect(name, tcp).await?;
        exchange(&mut session).await
    };
    timeout(PATIENCE, served).await.expect("no hang")
}

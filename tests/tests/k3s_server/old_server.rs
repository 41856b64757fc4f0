//! A server whose authority has expired: it answers `/cacerts`, and nothing else.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testkit::certs::Pair;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Serves until it is dropped.
pub(crate) struct OldServer {
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl OldServer {
    /// Shows its authority's certificate as its own.
    pub(crate) async fn start(authority: &Pair) -> Result<OldServer> {
        let chain = vec![CertificateDer::from_pem_slice(authority.cert.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(authority.key.as_bytes())?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr().context("no port")?.port();
        let answer = Bytes::from(authority.cert.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _from)) = listener.accept().await {
                // Its client says what became of it.
                serve(&acceptor, stream, &answer).await.ok();
            }
        });
        Ok(OldServer {
            port,
            _tasks: tasks,
        })
    }
}

/// Answers everything with the same.
async fn serve(acceptor: &TlsAcceptor, stream: TcpStream, answer: &Bytes) -> Result<()> {
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(|_request| {
        let answer = hyper::Response::new(Full::new(answer.clone()));
        async { Ok::<_, Infallible>(answer) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let served = server.serve_connection(TokioIo::new(stream), service).await;
    served.map_err(anyhow::Error::from_boxed)
}

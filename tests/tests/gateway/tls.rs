//! HTTP/1.1, HTTP/2 and gRPC on one port, with TLS and without.

use std::sync::Arc;

use anyhow::Result;
use kvorum_tests::raw_http::{Ask, Told, ask_on};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testkit::certs::Certs;
use testkit::patience::patience;
use testkit::{Program, Server, Spec};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Request;

use super::shown;

/// A client that shows its certificate, over HTTP/1.1 or HTTP/2.
async fn tls(server: &Server, certs: &Certs, alpn: &str) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certs.ca)?)?;
    let certificate = CertificateDer::from_pem_file(&certs.client.cert)?;
    let key = PrivateKeyDer::from_pem_file(&certs.client.key)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", server.client_port())).await?;
    let name = ServerName::try_from("127.0.0.1")?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

/// One request over HTTP/2; what comes back, as [`shown`] shows it.
async fn over_http2<S>(stream: S, method: &str, path: &str, body: &'static str) -> Result<String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("https://127.0.0.1{path}"));
    let (response, mut sender) = client.send_request(request.body(())?, false)?;
    sender.send_data(body.into(), true)?;
    let (parts, mut stream) = timeout(patience(), response).await??.into_parts();
    let mut body = Vec::new();
    while let Some(data) = timeout(patience(), stream.data()).await? {
        body.extend_from_slice(&data?);
    }
    connection.abort();
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &parts.headers {
        headers.push((name.to_string(), value.to_str()?.to_owned()));
    }
    let grpc = ["grpc-status", "grpc-message"].map(|name| parts.headers.get(name).cloned());
    let told = Told {
        status: parts.status.as_u16(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    // tonic escapes more than it has to; who reads it sees the same.
    let grpc = format!("{grpc:?}")
        .replace("%20", " ")
        .replace("%22", "\\\"");
    Ok(format!("{} {grpc}", shown(&told)))
}

#[tokio::test]
async fn http_and_grpc_share_a_port_with_tls_and_without() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = testkit::certs::generate(dir.path(), "somebody")?;
    let mut answers = [Vec::new(), Vec::new()];
    let put = r#"{"key":"YQ==","value":"Yg=="}"#;
    for (program, answers) in [Program::Kvorum, Program::Etcd]
        .into_iter()
        .zip(&mut answers)
    {
        let plain = Spec::of(program).start().await?;
        for (method, path) in [
            ("GET", "/health"),
            ("POST", "/v3/kv/put"),
            ("GET", "/nothing"),
        ] {
            let stream = TcpStream::connect(("127.0.0.1", plain.client_port())).await?;
            answers.push(over_http2(stream, method, path, put).await?);
        }
        plain.stop().await?;
        let secure = Spec::of(program).mutual_tls(certs.clone()).start().await?;
        for (method, path) in [
            ("GET", "/health"),
            ("POST", "/v3/kv/put"),
            ("GET", "/nothing"),
            ("GET", "/v3"),
            ("OPTIONS", "/v3/kv/put"),
        ] {
            let h2 = tls(&secure, &certs, "h2").await?;
            answers.push(over_http2(h2, method, path, put).await?);
            let http1 = tls(&secure, &certs, "http/1.1").await?;
            let request = Ask {
                method,
                ..Ask::post(path, put)
            };
            // Any host is welcome with TLS.
            let request = request.with("Host", "evil.example");
            answers.push(shown(&ask_on(http1, &request).await?));
        }
        secure.stop().await?;
    }
    let [ours, theirs] = answers;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    Ok(())
}

//! Asking another server's supervisor, as k3s's `clientaccess`: its authority is fetched without
//! being believed, compared with the hash in the token, and believed from then on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use transport::{AnonymousTls, Dial, Dialer, TlsClient, TlsParameters};
use types::{SystemClock, Url};

use crate::layout::write_private;
use crate::pki;
use crate::token::{SERVER_USER, Token};

/// k3s's.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A snapshot of a large store takes its time.
pub(crate) const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);

/// A server that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    base: Url,
    tls: TlsClient,
    password: String,
}

impl Access {
    /// Fetches the server's authority, and checks it against the token. `ca_file` is where it goes.
    pub(crate) async fn with_token(server: &str, token: &Token, ca_file: &Path) -> Result<Self> {
        let base = base_url(server)?;
        let anybody = AnonymousTls {
            trusted_ca_file: None,
            insecure_skip_verify: true,
            parameters: TlsParameters::default(),
        };
        let anybody = TlsClient::anonymous(&anybody, Arc::new(SystemClock))?;
        let mut access = Self {
            base,
            tls: anybody,
            password: String::new(),
        };
        let fetched = access.get("/cacerts").await;
        let ca = fetched.context("failed to get CA certs")?;
        let ca = String::from_utf8(ca).context("failed to get CA certs")?;
        token.check_ca(&ca)?;
        write_private(ca_file, &ca)?;
        pki::check_authority(ca_file).context("CA cert validation failed")?;
        access.tls = believing(ca_file)?;
        let again = access.get("/cacerts").await;
        again.context("CA cert validation failed")?;
        access.password.clone_from(&token.password);
        Ok(access)
    }

    /// A server whose authority is on the disk already.
    pub(crate) fn with_file(server: &str, password: &str, ca_file: &Path) -> Result<Self> {
        Ok(Self {
            base: base_url(server)?,
            tls: believing(ca_file)?,
            password: password.to_owned(),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.ask(Method::GET, path, Vec::new(), TIMEOUT).await
    }

    /// Sends a request, and returns the answer's body if it is a good one.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Vec<u8>> {
        let url = format!("{}{path}", self.base);
        let asked = tokio::time::timeout(patience, self.exchange(method, &url, body)).await;
        let Ok(answered) = asked else {
            bail!("{url}: no answer in {patience:?}");
        };
        let (status, body) = answered.with_context(|| url.clone())?;
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        match text.trim() {
            "" => bail!("{url}: {status}"),
            text => bail!("{url}: {status}: {text}"),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Vec<u8>)> {
        let dialer = Dialer::new(Some(self.tls.clone()), None);
        let stream = dialer.dial(&self.base).await?;
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        let mut request = Request::builder().method(method).uri(url);
        if !self.password.is_empty() {
            let credentials = BASE64.encode(format!("{SERVER_USER}:{}", self.password));
            request = request.header(AUTHORIZATION, format!("Basic {credentials}"));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, body.to_vec()))
        };
        tokio::select! {
            answered = exchange => answered,
            ended = connection => match ended {
                Ok(()) => bail!("the connection was closed before the answer"),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// Believes the authorities in this file.
pub(crate) fn believing(ca_file: &Path) -> Result<TlsClient> {
    let believing = AnonymousTls {
        trusted_ca_file: Some(ca_file.to_owned()),
        insecure_skip_verify: false,
        parameters: TlsParameters::default(),
    };
    Ok(TlsClient::anonymous(&believing, Arc::new(SystemClock))?)
}

fn base_url(server: &str) -> Result<Url> {
    let Some((scheme, _rest)) = server.split_once("://") else {
        bail!("Invalid server url, failed to parse: {server}");
    };
    if scheme != "https" {
        bail!("only https:// URLs are supported, invalid scheme: {server}");
    }
    Url::parse(server.trim_end_matches('/'))
        .with_context(|| format!("Invalid server url, failed to parse: {server}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_spoken() {
        assert_eq!(
            base_url("https://127.0.0.1:6443/").unwrap().as_str(),
            "https://127.0.0.1:6443"
        );
        for (url, refusal) in [
            (
                "127.0.0.1:6443",
                "Invalid server url, failed to parse: 127.0.0.1:6443",
            ),
            (
                "http://127.0.0.1:6443",
                "only https:// URLs are supported, invalid scheme: http://127.0.0.1:6443",
            ),
        ] {
            assert_eq!(base_url(url).unwrap_err().to_string(), refusal);
        }
    }
}

//! Who may ask over HTTP, and from where: the host whitelist and CORS (`server/embed/serve.go`,
//! `server/etcdserver/server_access_control.go`).
//!
//! What this is not: authentication. It keeps a browser from being used by a page of somebody else's.

use std::collections::BTreeSet;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST,
    HeaderMap, HeaderValue, ORIGIN,
};
use http::{Request, Response, StatusCode, Uri};
use transport::PeerInfo;

use super::paths::GATEWAY;
use super::{Body, error};
use crate::EtcdServer;

/// How a member treats its clients' HTTP.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// `--enable-grpc-gateway`: whether there is a JSON gateway under `/v3/`.
    pub gateway: bool,
    /// `--enable-pprof`: whether there is something under `/debug/pprof/`.
    pub pprof: bool,
    /// `--cors`: origins whose pages may ask; none or `*` means every.
    pub cors: BTreeSet<String>,
    /// `--host-whitelist`: names under which plain HTTP may be asked; none or `*` means every.
    pub host_whitelist: BTreeSet<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            gateway: true,
            pprof: false,
            cors: BTreeSet::new(),
            host_whitelist: BTreeSet::new(),
        }
    }
}

impl HttpOptions {
    /// Refuses a request that this listener must not answer.
    pub(crate) fn refuse<B>(
        &self,
        server: &EtcdServer,
        peer: &PeerInfo,
        request: &Request<B>,
    ) -> Option<Response<Body>> {
        if !peer.tls {
            return self.refuse_host(&host_name(request.headers(), request.uri()));
        }
        let name = peer.certificate.as_ref()?.common_name.as_deref();
        let is_gateways = self.gateway && request.uri().path().starts_with(GATEWAY);
        let would_count = server.config().client_cert_auth && server.views().auth.is_enabled();
        let is_ignored = is_gateways && would_count && name.is_some_and(|name| !name.is_empty());
        is_ignored.then(|| {
            let words = "CommonName of client sending a request against gateway will be ignored \
                         and not used as expected";
            error(StatusCode::BAD_REQUEST, words)
        })
    }

    fn refuse_host(&self, host: &str) -> Option<Response<Body>> {
        if allows(&self.host_whitelist, host) {
            return None;
        }
        tracing::warn!(
            host,
            "rejecting HTTP request to prevent DNS rebinding attacks"
        );
        let words = format!(
            "\netcd received your request, but the Host header was unrecognized.\n\n\
             To fix this, choose one of the following options:\n\
             - Enable TLS, then any HTTPS request will be allowed.\n\
             - Add the hostname you want to use to the whitelist in settings.\n  \
             - e.g. etcd --host-whitelist {host:?}\n\n\
             This requirement has been added to help prevent \"DNS Rebinding\" attacks \
             (CVE-2018-5702).\n"
        );
        Some(error(StatusCode::MISDIRECTED_REQUEST, &words))
    }

    /// What a browser is told about an answer to a page of this origin.
    pub(crate) fn allow_origin<T>(&self, origin: Option<&HeaderValue>, response: &mut Response<T>) {
        let nobody = HeaderValue::from_static("");
        let origin = origin.unwrap_or(&nobody);
        let allowed = if allows(&self.cors, "*") {
            HeaderValue::from_static("*")
        } else if origin
            .to_str()
            .is_ok_and(|origin| allows(&self.cors, origin))
        {
            origin.clone()
        } else {
            return;
        };
        let headers = response.headers_mut();
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("accept, content-type, authorization"),
        );
    }
}

/// The origin of the page that asks.
pub(crate) fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ORIGIN).cloned()
}

fn allows(list: &BTreeSet<String>, it: &str) -> bool {
    list.is_empty() || list.contains("*") || list.contains(it)
}

/// The host that is asked for, without its port (Go's `net.SplitHostPort`).
fn host_name(headers: &HeaderMap, uri: &Uri) -> String {
    let header = headers.get(HOST).map(HeaderValue::as_bytes);
    let named = header.map(|host| String::from_utf8_lossy(host).into_owned());
    let host = match uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => named.unwrap_or_default(),
    };
    let split = match host.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => host
            .rsplit_once(':')
            .filter(|(name, _)| !name.contains(':')),
    };
    match split {
        Some((name, _port)) => name.to_owned(),
        None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn hosts_lose_their_port() {
        for (header, name) in [
            ("localhost:2379", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:2379", "::1"),
            ("[::1]", "[::1]"),
            ("a:b:c", "a:b:c"),
            ("", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(header).unwrap());
            assert_eq!(host_name(&headers, &Uri::from_static("/v3/kv/put")), name);
        }
    }

    #[test]
    fn only_hosts_of_the_list_are_answered() {
        let options = HttpOptions {
            host_whitelist: list(&["a.example", "127.0.0.1"]),
            ..HttpOptions::default()
        };
        assert!(options.refuse_host("a.example").is_none());
        let refusal = options.refuse_host("evil\".example").unwrap();
        assert_eq!(refusal.status(), StatusCode::MISDIRECTED_REQUEST);
        assert!(HttpOptions::default().refuse_host("evil.example").is_none());
    }

    #[test]
    fn an_origin_is_told_itself_unless_all_are_allowed() {
        let told = |cors: &[&str], origin: &str| {
            let options = HttpOptions {
                cors: list(cors),
                ..HttpOptions::default()
            };
            let mut response = Response::new(());
            options.allow_origin(HeaderValue::from_str(origin).ok().as_ref(), &mut response);
            let header = response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
            header.map(|it| it.to_str().unwrap().to_owned())
        };
        assert_eq!(told(&[], "http://a"), Some("*".to_owned()));
        assert_eq!(told(&["*", "http://b"], "http://a"), Some("*".to_owned()));
        assert_eq!(told(&["http://a"], "http://a"), Some("http://a".to_owned()));
        assert_eq!(told(&["http://a"], "http://b"), None);
    }
}

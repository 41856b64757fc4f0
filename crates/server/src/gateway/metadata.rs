//! From HTTP headers to a call's metadata (grpc-gateway's `runtime/context.go`).
//!
//! What this is not: who the caller is. A token is handed on as it came.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE,
};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use tokio::time::Instant;
use tonic::Status;
use transport::{PeerInfo, RemoteAddr};

use super::call::deadline_exceeded;
use super::error::Trailers;
use crate::framing::CONTENT_TYPE_GRPC;

const METADATA_PREFIX: &str = "grpc-metadata-";
const HTTP_PREFIX: &str = "grpcgateway-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Headers of HTTP itself, which go on under a prefix.
const PERMANENT: [&str; 24] = [
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "authorization",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "warning",
];

/// Metadata that belongs to gRPC itself: nobody's to set.
const RESERVED: [&str; 8] = [
    "content-type",
    "user-agent",
    "te",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-status",
    "grpc-message",
    "grpc-accept-encoding",
];

/// What a request asks of its call, besides its messages.
pub(super) struct Call {
    metadata: HeaderMap,
    peer: Option<Arc<PeerInfo>>,
    pub(super) deadline: Option<Instant>,
    pub(super) wants_trailers: bool,
}

impl Call {
    pub(super) fn of(request: &Parts) -> Result<Self, Status> {
        let timeout = match request.headers.get(GRPC_TIMEOUT) {
            Some(timeout) => parse_timeout(timeout)?,
            None => None,
        };
        let te = request.headers.get(TE).map(HeaderValue::as_bytes);
        let te = te.unwrap_or_default().to_ascii_lowercase();
        let peer = request.extensions.get::<Arc<PeerInfo>>();
        Ok(Self {
            metadata: metadata(request, peer.map(Arc::as_ref)),
            peer: peer.map(|peer| Arc::new(without_certificate(peer))),
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            wants_trailers: te
                .windows(b"trailers".len())
                .any(|word| word == b"trailers"),
        })
    }

    /// The call as the services get it.
    pub(super) fn request<B>(&self, path: &Uri, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.metadata.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(Arc::clone(peer));
        }
        request
    }

    /// These, if the client wants any.
    pub(super) fn trailers(&self, trailers: Trailers) -> Trailers {
        match self.wants_trailers {
            true => trailers,
            false => Trailers::None,
        }
    }

    /// Runs the call, but no longer than asked for.
    pub(super) async fn within_deadline<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        match self.deadline {
            None => call.await,
            // Before the call is begun: timers are too coarse for that.
            Some(deadline) if deadline <= Instant::now() => Err(deadline_exceeded()),
            Some(deadline) => tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline) => Err(deadline_exceeded()),
                outcome = call => outcome,
            },
        }
    }
}

/// Nobody is somebody by their certificate here: etcd's gateway has a connection of its own.
fn without_certificate(peer: &PeerInfo) -> PeerInfo {
    PeerInfo {
        certificate: None,
        ..peer.clone()
    }
}

fn metadata(request: &Parts, peer: Option<&PeerInfo>) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = name.as_str();
        // What is not printable cannot be metadata.
        if value.to_str().is_err() {
            continue;
        }
        if name == AUTHORIZATION {
            metadata.append(AUTHORIZATION, value.clone());
        }
        if let Some(name) = metadata_name(name) {
            metadata.append(name, value.clone());
        }
    }
    forwarded(request, peer, &mut metadata);
    metadata
}

fn metadata_name(header: &str) -> Option<HeaderName> {
    let name = match header.strip_prefix(METADATA_PREFIX) {
        Some(name) if RESERVED.contains(&name) || name == CONNECTION => return None,
        Some(name) => name.to_owned(),
        None if PERMANENT.contains(&header) => format!("{HTTP_PREFIX}{header}"),
        None => return None,
    };
    HeaderName::try_from(name).ok()
}

/// For whom, and for which host, the call is made.
fn forwarded(request: &Parts, peer: Option<&PeerInfo>, metadata: &mut HeaderMap) {
    let host = request.headers.get(&FORWARDED_HOST);
    if let Some(host) = host.or_else(|| request.headers.get(HOST)) {
        metadata.insert(FORWARDED_HOST, host.clone());
    }
    let mut path: Vec<String> = request
        .headers
        .get_all(&FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    if let Some(RemoteAddr::Tcp(address)) = peer.map(|peer| peer.remote) {
        path.push(address.ip().to_string());
    }
    if let Ok(path) = HeaderValue::try_from(path.join(", "))
        && !path.is_empty()
    {
        metadata.insert(FORWARDED_FOR, path);
    }
}

fn parse_timeout(timeout: &HeaderValue) -> Result<Option<Duration>, Status> {
    let shown = String::from_utf8_lossy(timeout.as_bytes());
    let refused = || Status::invalid_argument(format!("invalid grpc-timeout: {shown}"));
    let (digits, unit) = match shown.char_indices().last() {
        Some((at, unit)) if at > 0 => (&shown[..at], unit),
        _ => return Err(refused()),
    };
    let nanoseconds: i128 = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return Err(refused()),
    };
    let count: i64 = digits.parse().map_err(|_not_a_number| refused())?;
    let timeout = i128::from(count) * nanoseconds;
    if timeout == 0 {
        return Ok(None);
    }
    // As long as Go can count; less than nothing is over at once.
    let timeout = timeout.clamp(0, i128::from(i64::MAX));
    Ok(u64::try_from(timeout).ok().map(Duration::from_nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = PeerInfo {
            remote: RemoteAddr::Tcp("10.0.0.7:1234".parse().unwrap()),
            tls: false,
            certificate: None,
        };
        metadata(&request.body(()).unwrap().into_parts().0, Some(&peer))
    }

    #[test]
    fn a_token_goes_on_under_both_names() {
        let metadata = of(&[("Authorization", "secret.1")]);
        assert_eq!(metadata["authorization"], "secret.1");
        assert_eq!(metadata["grpcgateway-authorization"], "secret.1");
    }

    #[test]
    fn metadata_is_what_its_prefix_says_and_never_grpcs_own() {
        let metadata = of(&[
            ("Grpc-Metadata-HasLeader", "true"),
            ("Grpc-Metadata-Content-Type", "text/html"),
            ("Grpc-Metadata-Grpc-Timeout", "1n"),
            ("Accept", "*/*"),
            ("X-Other", "no"),
        ]);
        assert_eq!(metadata["hasleader"], "true");
        assert_eq!(metadata["grpcgateway-accept"], "*/*");
        assert_eq!(metadata["x-forwarded-for"], "10.0.0.7");
        assert_eq!(metadata.len(), 3);
    }

    #[test]
    fn timeouts_are_read_as_grpc_gateway_reads_them() {
        let read = |text: &str| parse_timeout(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("2S").unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(read("0S").unwrap(), None);
        assert_eq!(read("-1S").unwrap(), Some(Duration::ZERO));
        assert!(read("99999999999999999H").unwrap().is_some());
        for bad in ["", "S", "5", "5x", "bogus", "1.5S"] {
            assert_eq!(
                read(bad).unwrap_err().message(),
                format!("invalid grpc-timeout: {bad}")
            );
        }
    }
}

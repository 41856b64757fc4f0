//! From the fields of a header block to a request (RFC 9113, 8).

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};

use crate::hpack::{Field, FieldName};

/// What the headers of one request may take (SETTINGS_MAX_HEADER_LIST_SIZE).
pub(crate) const HEADER_LIST_BYTES_MAX: usize = 64 * 1024;

/// The fields of a request, or of its trailers, as they come.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    method: Option<Method>,
    scheme: Option<Scheme>,
    /// There may be one that no URI has.
    authority: Option<Option<Authority>>,
    path: Option<PathAndQuery>,
    headers: HeaderMap,
    bytes: usize,
    is_malformed: bool,
}

/// What a request cannot be answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Against the rules.
    Malformed,
    /// Larger than [`HEADER_LIST_BYTES_MAX`].
    TooLarge,
}

impl Fields {
    pub(crate) fn add(&mut self, field: Field) {
        self.bytes += field.size();
        if self.bytes > HEADER_LIST_BYTES_MAX {
            // Nothing more is kept; the block is read to its end for what comes after it.
            return;
        }
        // Pseudo-headers come first, each once.
        let is_well_placed = match field {
            Field::Method(method) => {
                self.headers.is_empty() && self.method.replace(method).is_none()
            }
            Field::Scheme(scheme) => {
                self.headers.is_empty() && self.scheme.replace(scheme).is_none()
            }
            Field::Path(path) => self.headers.is_empty() && self.path.replace(path).is_none(),
            Field::Authority(authority) => {
                self.headers.is_empty() && self.authority.replace(Some(authority)).is_none()
            }
            // Clients name the path of a socket, or a list of endpoints, and grpc-go does not look at it.
            Field::Malformed(FieldName::Authority, _) => {
                self.headers.is_empty() && self.authority.replace(None).is_none()
            }
            Field::Header(name, value) => {
                let is_allowed = is_allowed(&name, &value);
                is_allowed && self.headers.try_append(name, value).is_ok()
            }
            Field::Malformed(..) => false,
        };
        self.is_malformed |= !is_well_placed;
    }

    /// A request without its body, and what it says of the body's length.
    pub(crate) fn into_request(self) -> Result<(Request<()>, Option<u64>), Unusable> {
        self.check()?;
        let (Some(method), Some(_), Some(path)) = (self.method, &self.scheme, self.path) else {
            return Err(Unusable::Malformed);
        };
        let length = content_length(&self.headers)?;
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path);
        // A URI with a scheme has a host; a request need not name one.
        if let Some(authority) = self.authority.flatten() {
            (uri.scheme, uri.authority) = (self.scheme, Some(authority));
        }
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_no_uri| Unusable::Malformed)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        Ok((request, length))
    }

    /// A request's trailers.
    pub(crate) fn into_trailers(self) -> Result<HeaderMap, Unusable> {
        self.check()?;
        let has_pseudo = self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some();
        match has_pseudo {
            true => Err(Unusable::Malformed),
            false => Ok(self.headers),
        }
    }

    fn check(&self) -> Result<(), Unusable> {
        if self.bytes > HEADER_LIST_BYTES_MAX {
            Err(Unusable::TooLarge)
        } else if self.is_malformed {
            Err(Unusable::Malformed)
        } else {
            Ok(())
        }
    }
}

/// Whether a field is not one of HTTP/1's about a connection (RFC 9113, 8.2.2).
fn is_allowed(name: &HeaderName, value: &HeaderValue) -> bool {
    match name {
        &CONNECTION | &TRANSFER_ENCODING | &UPGRADE => false,
        &TE => value == "trailers",
        _ => !matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Unusable> {
    let mut all = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = all.next() else {
        return Ok(None);
    };
    if all.any(|other| other != length) {
        return Err(Unusable::Malformed);
    }
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or(Unusable::Malformed)
}

//! A header field as a request needs it: checked once when it comes, and cheap to take again out of the table.

use std::str;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode};

/// What each entry of a table counts beside its name and value (RFC 7541, 4.1).
pub(super) const ENTRY_BYTES: usize = 32;

/// A header field's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldName {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Header(HeaderName),
    /// Not a name: upper case, say, or a pseudo-header that there is not.
    Malformed(usize),
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Authority(Authority),
    Method(Method),
    Path(PathAndQuery),
    Scheme(Scheme),
    Header(HeaderName, HeaderValue),
    /// Its request cannot be answered; the connection can go on.
    Malformed(FieldName, usize),
}

impl FieldName {
    pub(super) fn parse(name: &[u8]) -> Self {
        match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            _ if name.iter().any(u8::is_ascii_uppercase) => Self::Malformed(name.len()),
            _ => HeaderName::from_bytes(name)
                .map_or_else(|_no_name| Self::Malformed(name.len()), Self::Header),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Authority => ":authority".len(),
            Self::Method | Self::Status => ":method".len(),
            Self::Path => ":path".len(),
            Self::Scheme => ":scheme".len(),
            Self::Header(name) => name.as_str().len(),
            Self::Malformed(len) => *len,
        }
    }
}

impl Field {
    pub(super) fn parse(name: FieldName, value: Bytes) -> Self {
        let len = value.len();
        let parsed = match &name {
            FieldName::Authority => Authority::from_maybe_shared(value)
                .ok()
                .map(Self::Authority),
            FieldName::Method => Method::from_bytes(&value).ok().map(Self::Method),
            FieldName::Path => PathAndQuery::from_maybe_shared(value).ok().map(Self::Path),
            FieldName::Scheme => Scheme::try_from(&*value).ok().map(Self::Scheme),
            FieldName::Header(name) => HeaderValue::from_maybe_shared(value)
                .ok()
                .map(|value| Self::Header(name.clone(), value)),
            FieldName::Status | FieldName::Malformed(_) => None,
        };
        // A path loses what is behind a `#`; the table counts what came.
        let counted = name.len() + len + ENTRY_BYTES;
        parsed
            .filter(|field| field.size() == counted)
            .unwrap_or(Self::Malformed(name, len))
    }

    pub(super) fn name(&self) -> FieldName {
        match self {
            Self::Authority(_) => FieldName::Authority,
            Self::Method(_) => FieldName::Method,
            Self::Path(_) => FieldName::Path,
            Self::Scheme(_) => FieldName::Scheme,
            Self::Header(name, _) => FieldName::Header(name.clone()),
            Self::Malformed(name, _) => name.clone(),
        }
    }

    /// What it counts in a table and in a list of headers, in bytes.
    pub(crate) fn size(&self) -> usize {
        let (name, value) = match self {
            Self::Authority(value) => (":authority".len(), value.as_str().len()),
            Self::Method(value) => (":method".len(), value.as_str().len()),
            Self::Path(value) => (":path".len(), value.as_str().len()),
            Self::Scheme(value) => (":scheme".len(), value.as_str().len()),
            Self::Header(name, value) => (name.as_str().len(), value.len()),
            Self::Malformed(name, len) => (name.len(), *len),
        };
        name + value + ENTRY_BYTES
    }
}

/// The names and values that both sides know from the beginning (RFC 7541, Appendix A).
#[rustfmt::skip]
pub(super) const STATIC_FIELDS: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""),
    ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

/// Where a status, if it is one of these, or a name stands in the static table; from 1.
pub(super) fn static_status(status: StatusCode) -> Option<usize> {
    let at = |&(name, value): &(&str, &str)| name == ":status" && value == status.as_str();
    STATIC_FIELDS.iter().position(at).map(|at| at + 1)
}

/// Where a header's name stands first in the static table; from 1.
pub(super) fn static_name(name: &str) -> Option<usize> {
    let at = STATIC_FIELDS.iter().position(|&(it, _)| it == name);
    at.map(|at| at + 1)
}

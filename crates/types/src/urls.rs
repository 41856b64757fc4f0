//! The urls that members listen on and advertise, checked as etcd checks them. No name is resolved
//! here.
//!
//! The behaviour is that of `client/pkg/types/urls.go` and of the bind check in
//! `server/embed/config.go`.

use std::fmt;
use std::net::IpAddr;

/// How a url is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A plain unix socket.
    Unix,
    /// TLS over a unix socket.
    Unixs,
}

impl Scheme {
    /// Whether TLS is spoken.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }

    /// Whether this is a unix socket.
    #[must_use]
    pub const fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }

    /// The scheme as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }
}

/// A url of a member. Displays exactly as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Url {
    text: String,
    scheme: Scheme,
    authority: String,
    path: String,
}

/// A url was refused. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing was given.
    #[error("no valid URLs given")]
    Empty,
    /// Not one of the four schemes.
    #[error("URL scheme must be http, https, unix, or unixs: {url}")]
    Scheme {
        /// The url.
        url: String,
    },
    /// No `host:port`.
    #[error("URL address does not have the form \"host:port\": {url}")]
    HostPort {
        /// The url.
        url: String,
    },
    /// Something after the port.
    #[error("URL must not contain a path: {url}")]
    Path {
        /// The url.
        url: String,
    },
    /// Not a url at all.
    #[error("parse {url:?}: {reason}")]
    Syntax {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name where an address to bind is needed.
    #[error("expected IP in URL for binding ({url})")]
    NotAnAddress {
        /// The url.
        url: String,
    },
}

impl Url {
    /// The url that `text` is.
    pub fn parse(_text: &str) -> Result<Self, UrlError> {
        todo!()
    }

    /// The urls of a comma-separated list, sorted as etcd sorts them.
    pub fn parse_list(_text: &str) -> Result<Vec<Self>, UrlError> {
        todo!()
    }

    /// How it is spoken.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The url as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port` of a TCP url; what follows the scheme of a unix socket's.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host of a TCP url, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        todo!()
    }

    /// The port of a TCP url; 0 for a unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        todo!()
    }

    /// The file of a unix socket's url.
    #[must_use]
    pub fn socket_path(&self) -> Option<&str> {
        todo!()
    }

    /// Whether one can listen on it: an IP address, `localhost`, or a unix socket.
    pub fn check_bind(&self) -> Result<Option<IpAddr>, UrlError> {
        todo!()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

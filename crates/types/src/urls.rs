//! The urls that members listen on and advertise, checked as etcd checks them. No name is resolved
//! here.
//!
//! The behaviour is that of `client/pkg/types/urls.go` and of the bind check in
//! `server/embed/config.go`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

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

/// A url of a member. Displays as it was written, with its scheme in lower case.
///
/// ```
/// # use kvorum_types::Url;
/// let url = Url::parse("https://[::1]:2379")?;
/// assert_eq!((url.host(), url.port()?), ("::1", 2379));
/// assert!(url.scheme().is_tls());
/// assert_eq!(url.with_port(2380).to_string(), "https://[::1]:2380");
/// # Ok::<(), kvorum_types::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Url {
    text: String,
    scheme: Scheme,
    /// Without userinfo; with the brackets of an IPv6 address.
    authority: String,
    path: String,
}

/// A url was refused. The texts are etcd's.
///
/// ```
/// # use kvorum_types::{Url, UrlError};
/// let refused = Url::parse("http://10.0.0.1:2379/v3").expect_err("a member has no path");
/// assert!(matches!(refused, UrlError::Path { .. }));
/// assert_eq!(refused.to_string(), "URL must not contain a path: http://10.0.0.1:2379/v3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a url at all.
    #[error("parse {url:?}: {fault}")]
    Syntax {
        /// What was given.
        url: String,
        /// What is wrong with it.
        fault: Fault,
    },
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
    /// A name where an address to bind is needed.
    #[error("expected IP in URL for binding ({url})")]
    NotAnAddress {
        /// The url.
        url: String,
    },
    /// Nobody can be reached at an empty host.
    #[error("unexpected empty host ({url})")]
    EmptyHost {
        /// The url.
        url: String,
    },
    /// A port that does not exist.
    #[error("listen tcp: address {port}: invalid port")]
    Port {
        /// What was given as port.
        port: String,
    },
}

/// What makes a text no url, in the words of Go's `net/url`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A control character.
    #[error("net/url: invalid control character in URL")]
    ControlCharacter,
    /// It starts with a colon.
    #[error("missing protocol scheme")]
    MissingScheme,
    /// `host:port` without a scheme, most often.
    #[error("first path segment in URL cannot contain colon")]
    ColonInFirstSegment,
    /// An IPv6 address that does not end.
    #[error("missing ']' in host")]
    MissingBracket,
    /// A port that is no number.
    #[error("invalid port {port:?} after host")]
    Port {
        /// The colon and what follows it.
        port: String,
    },
    /// Something that no host name may hold.
    #[error("invalid character {character:?} in host name")]
    HostCharacter {
        /// The character.
        character: String,
    },
    /// A percent sign without two hexadecimal digits.
    #[error("invalid URL escape {escape:?}")]
    Escape {
        /// The percent sign and what follows it.
        escape: String,
    },
}

impl Url {
    /// The url that `text` is.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let syntax = |fault| UrlError::Syntax {
            url: text.to_owned(),
            fault,
        };
        let (scheme, authority, path) = split(text).map_err(syntax)?;
        let url = text.to_owned();
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(UrlError::Scheme { url }),
        };
        if !scheme.is_unix() {
            if split_host_port(authority).is_none() {
                return Err(UrlError::HostPort { url });
            }
            if !path.is_empty() {
                return Err(UrlError::Path { url });
            }
        }
        let name = scheme.as_str();
        Ok(Self {
            text: format!("{name}{}", &text[name.len()..]),
            scheme,
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }

    /// The urls of a comma-separated list, each once, in etcd's order.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut urls = text
            .split(',')
            .map(Self::parse)
            .collect::<Result<Vec<_>, _>>()?;
        urls.sort_unstable();
        urls.dedup();
        Ok(urls)
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

    /// `host:port` of a TCP url.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host of a TCP url, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        split_host_port(&self.authority).map_or(self.authority.as_str(), |(host, _)| host)
    }

    /// The port of a TCP url, as written; 0 when it is empty or this is a unix socket.
    pub fn port(&self) -> Result<u16, UrlError> {
        if self.scheme.is_unix() {
            return Ok(0);
        }
        match split_host_port(&self.authority) {
            None | Some((_, "")) => Ok(0),
            Some((_, port)) => port.parse().map_err(|_not_a_port| UrlError::Port {
                port: port.to_owned(),
            }),
        }
    }

    /// The file of a unix socket's url.
    #[must_use]
    pub fn socket_path(&self) -> Option<String> {
        self.scheme
            .is_unix()
            .then(|| format!("{}{}", self.authority, self.path))
    }

    /// The address to listen on; `None` for a unix socket. `localhost` is the IPv4 loopback.
    pub fn bind_address(&self) -> Result<Option<(IpAddr, u16)>, UrlError> {
        if self.scheme.is_unix() {
            return Ok(None);
        }
        let host = self.host();
        let ip = if host == "localhost" {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            host.parse().map_err(|_a_name| UrlError::NotAnAddress {
                url: self.text.clone(),
            })?
        };
        Ok(Some((ip, self.port()?)))
    }

    /// Whether somebody can be told to go there: a TCP url needs a host.
    pub fn check_advertised(&self) -> Result<(), UrlError> {
        if !self.scheme.is_unix() && self.host().is_empty() {
            return Err(UrlError::EmptyHost {
                url: self.text.clone(),
            });
        }
        Ok(())
    }

    /// The same url with another port, for a listener that was given port 0.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        let Some((host, _)) = split_host_port(&self.authority) else {
            return self.clone();
        };
        let bracketed = host.contains(':');
        let authority = if bracketed {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        Self {
            text: format!("{}://{authority}", self.scheme.as_str()),
            scheme: self.scheme,
            authority,
            path: String::new(),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Scheme, authority without userinfo, and path, by the rules of Go's `url.Parse`.
fn split(text: &str) -> Result<(&str, &str, &str), Fault> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(Fault::ControlCharacter);
    }
    let text = text.split_once('#').map_or(text, |(url, _fragment)| url);
    let (scheme, rest) = split_scheme(text)?;
    let rest = rest.split_once('?').map_or(rest, |(before, _query)| before);
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            // `http:something`: neither a host nor a path.
            return Ok((scheme, "", ""));
        }
        if rest
            .split('/')
            .next()
            .is_some_and(|first| first.contains(':'))
        {
            return Err(Fault::ColonInFirstSegment);
        }
    }
    let (authority, path) = match rest.strip_prefix("//") {
        Some(after) if !scheme.is_empty() || !rest.starts_with("///") => {
            after.split_at(after.find('/').unwrap_or(after.len()))
        }
        _ => ("", rest),
    };
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_userinfo, host)| host);
    check_host(authority)?;
    check_escapes(path)?;
    Ok((scheme, authority, path))
}

fn split_scheme(text: &str) -> Result<(&str, &str), Fault> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err(Fault::MissingScheme),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(authority: &str) -> Result<(), Fault> {
    let port = if authority.starts_with('[') {
        let end = authority.rfind(']').ok_or(Fault::MissingBracket)?;
        &authority[end + 1..]
    } else {
        authority.rfind(':').map_or("", |at| &authority[at..])
    };
    if !port.is_empty()
        && !port
            .strip_prefix(':')
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(Fault::Port {
            port: port.to_owned(),
        });
    }
    let forbidden = |c: &char| c.is_ascii() && !is_host_character(*c);
    match authority.chars().find(forbidden) {
        Some(c) => Err(Fault::HostCharacter {
            character: c.to_string(),
        }),
        None => Ok(()),
    }
}

fn is_host_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c)
}

fn check_escapes(path: &str) -> Result<(), Fault> {
    for (at, _) in path.match_indices('%') {
        let escape: String = path[at..].chars().take(3).collect();
        if escape.len() != 3 || !escape[1..].bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Fault::Escape { escape });
        }
    }
    Ok(())
}

/// Host without brackets, and port, by the rules of Go's `net.SplitHostPort`.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return Some((host, after.strip_prefix(':')?));
    }
    let (host, port) = authority.split_once(':')?;
    (!port.contains(':')).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_urls_are_refused_in_etcds_words() {
        let cases = [
            (
                "ftp://1.2.3.4:1",
                "URL scheme must be http, https, unix, or unixs: ftp://1.2.3.4:1",
            ),
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            (
                "127.0.0.1:2379",
                "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
            ),
            (
                "http://127.0.0.1",
                "URL address does not have the form \"host:port\": http://127.0.0.1",
            ),
            (
                "http://",
                "URL address does not have the form \"host:port\": http://",
            ),
            (
                "http://127.0.0.1:1/x",
                "URL must not contain a path: http://127.0.0.1:1/x",
            ),
            (
                "http://127.0.0.1:1/",
                "URL must not contain a path: http://127.0.0.1:1/",
            ),
            (
                "http://[::1]:x",
                "parse \"http://[::1]:x\": invalid port \":x\" after host",
            ),
            ("http://[::1", "parse \"http://[::1\": missing ']' in host"),
            (
                "http:// 1:2",
                "parse \"http:// 1:2\": invalid character \" \" in host name",
            ),
            ("%zz", "parse \"%zz\": invalid URL escape \"%zz\""),
            (":2379", "parse \":2379\": missing protocol scheme"),
        ];
        for (url, text) in cases {
            assert_eq!(Url::parse(url).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn accepted_urls_show_as_they_were_written() {
        for url in [
            "http://127.0.0.1:2379",
            "https://[::1]:2379",
            "http://localhost:0",
            "http://10.0.0.1:",
            "http://u@10.0.0.1:1",
            "unix:///run/kvorum.sock",
            "unixs://localhost:12345",
            "http://example.com:99999",
        ] {
            assert_eq!(Url::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Url::parse(" HTTP://a:1 ").unwrap().as_str(), "http://a:1");
    }

    #[test]
    fn only_addresses_can_be_bound() {
        let bind = |url: &str| Url::parse(url).unwrap().bind_address();
        assert_eq!(
            bind("http://localhost:1").unwrap(),
            Some(([127, 0, 0, 1].into(), 1))
        );
        assert_eq!(bind("https://[::1]:2").unwrap().unwrap().1, 2);
        assert_eq!(bind("unix:///run/kvorum.sock").unwrap(), None);
        for url in ["http://foo:1", "http://:1"] {
            let text = bind(url).unwrap_err().to_string();
            assert_eq!(text, format!("expected IP in URL for binding ({url})"));
        }
        let text = bind("http://127.0.0.1:99999").unwrap_err().to_string();
        assert_eq!(text, "listen tcp: address 99999: invalid port");
    }

    #[test]
    fn a_unix_url_names_its_file() {
        let path = |url: &str| Url::parse(url).unwrap().socket_path();
        assert_eq!(path("unix:///run/k.sock").as_deref(), Some("/run/k.sock"));
        assert_eq!(
            path("unix://localhost:1234").as_deref(),
            Some("localhost:1234")
        );
        assert_eq!(path("http://127.0.0.1:1"), None);
    }

    #[test]
    fn a_list_is_sorted_and_has_each_url_once() {
        let urls = Url::parse_list("http://b:1, http://a:1,http://b:1").unwrap();
        assert_eq!(
            urls.iter().map(Url::as_str).collect::<Vec<_>>(),
            ["http://a:1", "http://b:1"]
        );
    }

    #[test]
    fn a_port_can_be_filled_in() {
        let port = |url: &str| Url::parse(url).unwrap().with_port(7).to_string();
        assert_eq!(port("http://[::1]:0"), "http://[::1]:7");
        assert_eq!(port("https://localhost:0"), "https://localhost:7");
    }
}

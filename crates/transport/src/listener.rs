//! Accepting connections on a url.

use std::io;

use types::Url;

use crate::{ListenError, PeerInfo, Stream, TlsServer};

/// Whose connections these are; only for the words in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// Clients' (`--listen-client-urls`).
    Client,
    /// Peers' (`--listen-peer-urls`).
    Peer,
    /// Probes' and scrapers' (`--listen-metrics-urls`).
    Metrics,
}

/// One address to listen on, and what is spoken there: plain text, TLS, or both when an `http` and
/// an `https` url name the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its urls: one, or the two that share the address.
    pub urls: Vec<Url>,
}

/// A bound address. Connections come out of [`Listener::accept`] with their handshake done; a slow
/// or broken handshake holds up nobody else.
#[derive(Debug)]
pub struct Listener {}

impl Endpoint {
    /// The endpoints that these urls make, one for each address.
    #[must_use]
    pub fn from_urls(_urls: &[Url]) -> Vec<Self> {
        todo!()
    }
}

impl Listener {
    /// Binds the endpoint. `tls` is needed when one of its urls is `https` or `unixs`.
    pub async fn bind(
        _endpoint: &Endpoint,
        _kind: EndpointKind,
        _tls: Option<&TlsServer>,
    ) -> Result<Self, ListenError> {
        todo!()
    }

    /// The urls it was bound for, with the real port where port 0 was asked for.
    #[must_use]
    pub fn urls(&self) -> &[Url] {
        todo!()
    }

    /// The next connection. Cancel safe. An error means that the listener is of no use any more:
    /// passing trouble (no descriptors left) is waited out, failed handshakes are logged.
    pub async fn accept(&mut self) -> io::Result<(Stream, PeerInfo)> {
        todo!()
    }
}

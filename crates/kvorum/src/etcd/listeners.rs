//! Every address of a member, bound before anything else happens.

use transport::{Endpoint, EndpointKind, ListenError, ListenOptions, Listener, TlsServer};
use types::Url;

use super::certificates::Certificates;
use crate::config::Config;

/// A member's listeners.
pub(super) struct Listeners {
    pub(super) client: Vec<Listener>,
    /// For clients' HTTP only.
    pub(super) client_http: Vec<Listener>,
    pub(super) peer: Vec<Listener>,
    pub(super) metrics: Vec<Listener>,
}

impl Listeners {
    /// Binds every url of the configuration, peers' first, as etcd does.
    pub(super) fn bind(config: &Config, certificates: &Certificates) -> Result<Self, ListenError> {
        let options = ListenOptions {
            reuse_port: config.sockets.reuse_port,
        };
        let bind_all = |urls: &[Url], kind, tls| bind_all(urls, kind, tls, options);
        let (peer, client) = (certificates.peer.as_ref(), certificates.client.as_ref());
        Ok(Self {
            peer: bind_all(&config.listen_peer_urls, EndpointKind::Peer, peer)?,
            client: bind_all(&config.listen_client_urls, EndpointKind::Client, client)?,
            client_http: bind_all(
                &config.listen_client_http_urls,
                EndpointKind::Client,
                client,
            )?,
            metrics: bind_all(&config.listen_metrics_urls, EndpointKind::Metrics, client)?,
        })
    }

    /// The urls of clients, peers and probes, with the real ports.
    pub(super) fn urls(&self) -> (Vec<Url>, Vec<Url>, Vec<Url>) {
        (urls(&self.client), urls(&self.peer), urls(&self.metrics))
    }
}

fn bind_all(
    urls: &[Url],
    kind: EndpointKind,
    tls: Option<&TlsServer>,
    options: ListenOptions,
) -> Result<Vec<Listener>, ListenError> {
    Endpoint::from_urls(urls)
        .iter()
        .map(|endpoint| Listener::bind_with(endpoint, kind, tls, options))
        .collect()
}

fn urls(listeners: &[Listener]) -> Vec<Url> {
    listeners
        .iter()
        .flat_map(|listener| listener.urls().iter().cloned())
        .collect()
}

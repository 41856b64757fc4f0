//! Every address of a member, bound before anything else happens.

use std::sync::Arc;

use transport::{Endpoint, EndpointKind, ListenError, Listener, TlsServer};
use types::{Clock, Url};

use crate::config::Config;
use crate::error::StartError;

/// A member's listeners.
pub(super) struct Listeners {
    pub(super) client: Vec<Listener>,
    pub(super) peer: Vec<Listener>,
    pub(super) metrics: Vec<Listener>,
}

impl Listeners {
    /// Binds every url of the configuration, peers' first, as etcd does.
    pub(super) fn bind(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, StartError> {
        let tls = config.client_tls.as_ref();
        let tls = tls
            .map(|tls| TlsServer::load(tls, Arc::clone(clock)))
            .transpose()?;
        let tls = tls.as_ref();
        Ok(Self {
            peer: bind_all(&config.listen_peer_urls, EndpointKind::Peer, None)?,
            client: bind_all(&config.listen_client_urls, EndpointKind::Client, tls)?,
            metrics: bind_all(&config.listen_metrics_urls, EndpointKind::Metrics, tls)?,
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
) -> Result<Vec<Listener>, ListenError> {
    Endpoint::from_urls(urls)
        .iter()
        .map(|endpoint| Listener::bind(endpoint, kind, tls))
        .collect()
}

fn urls(listeners: &[Listener]) -> Vec<Url> {
    listeners
        .iter()
        .flat_map(|listener| listener.urls().iter().cloned())
        .collect()
}

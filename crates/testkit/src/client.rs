//! Typed gRPC clients of one endpoint, over one connection.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::watch_client::WatchClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::certs::Certs;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A member that was stopped in its tracks still answers the kernel's handshake, so this bounds
/// how long a lost connection goes unnoticed.
const LAZY_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// All clients of one endpoint; cheap to clone, clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Key-values.
    pub kv: KvClient<Channel>,
    /// Watches.
    pub watch: WatchClient<Channel>,
    /// Leases.
    pub lease: LeaseClient<Channel>,
    /// Members.
    pub cluster: ClusterClient<Channel>,
    /// Status, hashes, alarms.
    pub maintenance: MaintenanceClient<Channel>,
}

impl Client {
    /// Connects to a plaintext endpoint (`http://127.0.0.1:port`).
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(endpoint: &str) -> Result<Client> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect()
            .await
            .with_context(|| format!("connecting to {endpoint}"))?;
        Ok(Client::over(&channel))
    }

    /// A client that connects when it is used, and again whenever the connection is lost; over
    /// TLS with the client's certificate if there are certificates.
    ///
    /// # Errors
    /// When the endpoint is no url, or a certificate cannot be read.
    pub fn lazy(endpoint: &str, tls: Option<&Certs>) -> Result<Client> {
        let mut endpoint = Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(LAZY_CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if let Some(certs) = tls {
            let identity = Identity::from_pem(
                std::fs::read(&certs.client.cert)?,
                std::fs::read(&certs.client.key)?,
            );
            let config = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(std::fs::read(&certs.ca)?))
                .identity(identity);
            endpoint = endpoint.tls_config(config)?;
        }
        Ok(Client::over(&endpoint.connect_lazy()))
    }

    /// Clients over a channel made by the caller.
    #[must_use]
    pub fn over(channel: &Channel) -> Client {
        let unlimited = usize::MAX;
        Client {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(unlimited),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(unlimited),
            lease: LeaseClient::new(channel.clone()).max_decoding_message_size(unlimited),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone())
                .max_decoding_message_size(unlimited),
        }
    }
}

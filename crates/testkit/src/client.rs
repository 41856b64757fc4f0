//! Typed gRPC clients of one endpoint, over one connection.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::watch_client::WatchClient;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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

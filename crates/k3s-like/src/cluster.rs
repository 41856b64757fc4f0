//! The cluster as a server sees it that is not in it yet: over the network, with the clients' certificate.
//!
//! Once a server has joined, it asks the member inside it (`kvorum::Client`).

use std::sync::Arc;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use kvorum::api::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use transport::{Dial, Dialer, TlsClient, TlsClientConfig, TlsParameters};
use types::{SystemClock, Url};

use crate::layout::Layout;

/// Members that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    dialer: Arc<Dialer>,
    urls: Vec<Url>,
}

impl Remote {
    /// Shows the certificate `etcd/client.crt`, believes `etcd/server-ca.crt`.
    pub(crate) fn new(layout: &Layout, urls: &[String]) -> Result<Self> {
        let config = TlsClientConfig {
            cert_file: layout.tls_file("etcd/client.crt"),
            key_file: layout.tls_file("etcd/client.key"),
            trusted_ca_file: Some(layout.tls_file("etcd/server-ca.crt")),
            insecure_skip_verify: false,
            parameters: TlsParameters::default(),
        };
        let tls = TlsClient::load(&config, Arc::new(SystemClock))?;
        let urls = urls.iter().map(|url| Url::parse(url));
        Ok(Self {
            dialer: Arc::new(Dialer::new(Some(tls), None)),
            urls: urls
                .collect::<Result<_, _>>()
                .context("a member's client url")?,
        })
    }

    fn channel(&self, url: &Url) -> Result<Channel, Status> {
        // The scheme is the dialer's business.
        let named = Endpoint::from_shared(format!("http://{}", url.authority()));
        let named = named.map_err(|error| Status::internal(error.to_string()))?;
        let (dialer, url) = (Arc::clone(&self.dialer), url.clone());
        let connect = tower::service_fn(move |_named: Uri| {
            let dialed = dialer.dial(&url);
            async move { dialed.await.map(TokioIo::new) }
        });
        Ok(named.connect_with_connector_lazy(connect))
    }

    /// Asks one member after the other, until one can be reached.
    async fn ask<T>(
        &self,
        question: impl AsyncFn(ClusterClient<Channel>) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut unreachable = Status::unavailable("no member is known");
        for url in &self.urls {
            match question(ClusterClient::new(self.channel(url)?)).await {
                Err(status) if status.code() == tonic::Code::Unavailable => unreachable = status,
                answered => return answered,
            }
        }
        Err(unreachable)
    }

    /// The members.
    pub(crate) async fn members(&self) -> Result<Vec<pb::Member>, Status> {
        let request = pb::MemberListRequest { linearizable: true };
        self.ask(async |mut client| {
            let list = client.member_list(request).await?;
            Ok(list.into_inner().members)
        })
        .await
    }

    /// Adds a learner.
    pub(crate) async fn add_learner(&self, peer_url: &str) -> Result<(), Status> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![peer_url.to_owned()],
            is_learner: true,
        };
        self.ask(async |mut client| client.member_add(request.clone()).await.map(drop))
            .await
    }

    /// How far the first member is that answers.
    pub(crate) async fn applied_index(&self) -> Option<u64> {
        for url in &self.urls {
            let mut client = MaintenanceClient::new(self.channel(url).ok()?);
            if let Ok(status) = client.status(pb::StatusRequest {}).await {
                return Some(status.into_inner().raft_applied_index);
            }
        }
        None
    }
}

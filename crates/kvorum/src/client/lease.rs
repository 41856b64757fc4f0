//! Leases: keys that go when nobody keeps them.

use std::time::Duration;

use api::etcdserverpb as pb;
use futures_util::stream;
use tonic::Status;

use super::Client;

/// A lease that was granted. Dropping this does nothing: the lease ends when it is revoked, or when
/// nobody has renewed it for its time to live.
///
/// ```
/// # use kvorum::{Config, Kvorum};
/// # use std::time::Duration;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let client = member.client();
/// let lease = client.grant(Duration::from_secs(60)).await?;
/// client.put_with_lease("alive", "yes", &lease).await?;
/// assert_eq!(lease.renew().await?, Duration::from_secs(60));
/// lease.revoke().await?;
/// assert!(client.get("alive").await?.is_none());
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Lease {
    client: Client,
    id: i64,
    ttl: Duration,
}

impl Client {
    /// Makes a lease. Its time to live is in whole seconds, and no shorter than an election.
    ///
    /// # Errors
    ///
    /// As etcd's `LeaseGrant`.
    pub async fn grant(&self, ttl: Duration) -> Result<Lease, Status> {
        let seconds = ttl.as_millis().div_ceil(1000);
        let request = pb::LeaseGrantRequest {
            ttl: i64::try_from(seconds).unwrap_or(i64::MAX),
            id: 0,
        };
        let granted = self.lease_client().lease_grant(request).await?.into_inner();
        Ok(Lease {
            client: self.clone(),
            id: granted.id,
            ttl: seconds_of(granted.ttl),
        })
    }
}

impl Lease {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> i64 {
        self.id
    }

    /// How long it lives without being renewed.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Gives it its full time again, and says how long that is.
    ///
    /// # Errors
    ///
    /// `NotFound` when it has ended; as etcd's `LeaseKeepAlive` otherwise.
    pub async fn renew(&self) -> Result<Duration, Status> {
        let request = pb::LeaseKeepAliveRequest { id: self.id };
        let mut client = self.client.lease_client();
        let responses = client.lease_keep_alive(stream::iter([request])).await?;
        let renewed = responses.into_inner().message().await?;
        match renewed {
            Some(renewed) if renewed.ttl > 0 => Ok(seconds_of(renewed.ttl)),
            _ => Err(api::rpctypes::ErrorCode::LeaseNotFound.into()),
        }
    }

    /// Renews it, three times in its life, until it has ended or cannot be renewed; returns why. To be
    /// dropped when the lease is not to be kept any more.
    pub async fn keep(&self) -> Status {
        loop {
            match self.renew().await {
                Ok(ttl) => tokio::time::sleep(ttl / 3).await,
                Err(status) => return status,
            }
        }
    }

    /// Ends it, and deletes its keys.
    ///
    /// # Errors
    ///
    /// As etcd's `LeaseRevoke`.
    pub async fn revoke(self) -> Result<(), Status> {
        let request = pb::LeaseRevokeRequest { id: self.id };
        let mut client = self.client.lease_client();
        client.lease_revoke(request).await.map(drop)
    }
}

fn seconds_of(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

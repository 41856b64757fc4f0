//! A client of a member in the same process: no connection, the same rules.
//!
//! A call goes straight to the member's services and is checked, limited, counted and answered as one
//! from outside; it is replicated and durable like one. What this is not: a client of a cluster. It talks to
//! the member it was made from, and ends with it. [`Client`] has an example.

mod lease;
mod members;
mod snapshot;
mod txn;
mod watch;

use api::etcdserverpb as pb;
use api::mvccpb::KeyValue;
use server::InProcess;
use tonic::Status;

pub use lease::Lease;
pub use snapshot::SaveError;
pub use txn::{Compare, Op, Txn, TxnOutcome};
pub use watch::{Changes, WatchOptions, Watcher};

/// Messages inside the process have no limit of their own: the member's limits count.
const MESSAGE_BYTES_MAX: usize = usize::MAX;

/// Talks to a member in the same process. Cheap to clone.
///
/// ```
/// use kvorum::Client;
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let client: Client = member.client();
/// let revision = client.put("greeting", "hello").await?;
/// let pair = client.get("greeting").await?.expect("it was just put");
/// assert_eq!((&pair.value[..], pair.mod_revision), (&b"hello"[..], revision));
/// assert_eq!(client.delete("greeting").await?, 1);
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    channel: InProcess,
}

/// Makes a generated client that takes answers of any size.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $client:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $client {
            <$client>::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
        }
    };
}

impl Client {
    pub(crate) fn new(channel: InProcess) -> Self {
        Self { channel }
    }

    /// What takes the place of a connection, for clients that others have generated.
    #[must_use]
    pub fn channel(&self) -> InProcess {
        self.channel.clone()
    }

    generated!(
        /// The KV service, with every field of its messages.
        kv_client, pb::kv_client::KvClient<InProcess>
    );
    generated!(
        /// The Watch service.
        watch_client, pb::watch_client::WatchClient<InProcess>
    );
    generated!(
        /// The Lease service.
        lease_client, pb::lease_client::LeaseClient<InProcess>
    );
    generated!(
        /// The Cluster service.
        cluster_client, pb::cluster_client::ClusterClient<InProcess>
    );
    generated!(
        /// The Maintenance service.
        maintenance_client, pb::maintenance_client::MaintenanceClient<InProcess>
    );
    generated!(
        /// The Auth service.
        auth_client, pb::auth_client::AuthClient<InProcess>
    );
    generated!(
        /// The Lock service.
        lock_client, api::v3lockpb::lock_client::LockClient<InProcess>
    );
    generated!(
        /// The Election service.
        election_client, api::v3electionpb::election_client::ElectionClient<InProcess>
    );

    /// The key's newest version.
    ///
    /// # Errors
    ///
    /// As etcd's `Range`: above all when there is no quorum.
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<KeyValue>, Status> {
        let request = pb::RangeRequest {
            key: key.into(),
            ..pb::RangeRequest::default()
        };
        let response = self.kv_client().range(request).await?.into_inner();
        Ok(response.kvs.into_iter().next())
    }

    /// Every key with this prefix, in order.
    ///
    /// # Errors
    ///
    /// See [`Client::get`].
    pub async fn get_prefix(&self, prefix: impl Into<Vec<u8>>) -> Result<Vec<KeyValue>, Status> {
        let (key, range_end) = prefix_range(prefix.into());
        let request = pb::RangeRequest {
            key,
            range_end,
            ..pb::RangeRequest::default()
        };
        Ok(self.kv_client().range(request).await?.into_inner().kvs)
    }

    /// Writes a key, and says at which revision.
    ///
    /// # Errors
    ///
    /// As etcd's `Put`: no quorum, no space, too large.
    pub async fn put(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<i64, Status> {
        self.put_request(key.into(), value.into(), 0).await
    }

    /// Writes a key that goes with a lease.
    ///
    /// # Errors
    ///
    /// See [`Client::put`]; and when there is no such lease.
    pub async fn put_with_lease(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        lease: &Lease,
    ) -> Result<i64, Status> {
        self.put_request(key.into(), value.into(), lease.id()).await
    }

    async fn put_request(&self, key: Vec<u8>, value: Vec<u8>, lease: i64) -> Result<i64, Status> {
        let request = pb::PutRequest {
            key,
            value,
            lease,
            ..pb::PutRequest::default()
        };
        let response = self.kv_client().put(request).await?.into_inner();
        Ok(revision(response.header))
    }

    /// Deletes a key, and says how many there were: one or none.
    ///
    /// # Errors
    ///
    /// See [`Client::put`].
    pub async fn delete(&self, key: impl Into<Vec<u8>>) -> Result<i64, Status> {
        self.delete_range(key.into(), Vec::new()).await
    }

    /// Deletes every key with this prefix, and says how many there were.
    ///
    /// # Errors
    ///
    /// See [`Client::put`].
    pub async fn delete_prefix(&self, prefix: impl Into<Vec<u8>>) -> Result<i64, Status> {
        let (key, range_end) = prefix_range(prefix.into());
        self.delete_range(key, range_end).await
    }

    async fn delete_range(&self, key: Vec<u8>, range_end: Vec<u8>) -> Result<i64, Status> {
        let request = pb::DeleteRangeRequest {
            key,
            range_end,
            ..pb::DeleteRangeRequest::default()
        };
        let response = self.kv_client().delete_range(request).await?;
        Ok(response.into_inner().deleted)
    }

    /// Gives up history below a revision.
    ///
    /// # Errors
    ///
    /// As etcd's `Compact`: it is compacted already, or in the future.
    pub async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = pb::CompactionRequest {
            revision,
            ..pb::CompactionRequest::default()
        };
        self.kv_client().compact(request).await.map(drop)
    }

    /// How the member does, as etcd's `Status` tells it.
    ///
    /// # Errors
    ///
    /// As etcd's `Status`.
    pub async fn status(&self) -> Result<pb::StatusResponse, Status> {
        let request = pb::StatusRequest {};
        let status = self.maintenance_client().status(request).await?;
        Ok(status.into_inner())
    }
}

/// The range of every key with a prefix; without one, of every key.
fn prefix_range(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    if prefix.is_empty() {
        return (vec![0], vec![0]);
    }
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return (prefix, end);
        }
    }
    // All bytes are the highest: everything from there on.
    (prefix, vec![0])
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_before_the_next_one() {
        for (prefix, end) in [
            (&b"a"[..], &b"b"[..]),
            (b"a\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"a/", b"a0"),
        ] {
            assert_eq!(
                prefix_range(prefix.to_vec()),
                (prefix.to_vec(), end.to_vec())
            );
        }
        assert_eq!(prefix_range(Vec::new()), (vec![0], vec![0]));
    }
}

//! Transactions: comparisons, and what is done when all of them hold, or when not.

use api::etcdserverpb as pb;
use api::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Status;

use super::{Client, revision};

/// A transaction that is being put together.
///
/// ```
/// # use kvorum::{Config, Kvorum};
/// use kvorum::client::{Compare, Op, Txn};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let client = member.client();
/// let claim = |who: &str| {
///     Txn::new()
///         .when(Compare::missing("owner"))
///         .then(Op::put("owner", who))
///         .otherwise(Op::get("owner"))
/// };
/// assert!(client.txn(claim("me")).await?.succeeded);
/// let second = client.txn(claim("you")).await?;
/// assert!(!second.succeeded);
/// assert_eq!(&second.read[0][0].value[..], b"me");
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Txn {
    request: pb::TxnRequest,
}

/// A condition of a transaction.
///
/// ```
/// use kvorum::client::{Compare, Op, Txn};
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let client = member.client();
/// let free = || Txn::new().when(Compare::missing("lock")).then(Op::put("lock", "mine"));
/// assert!(client.txn(free()).await?.succeeded);
/// assert!(!client.txn(free()).await?.succeeded);
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Compare(pb::Compare);

/// Something that a transaction does.
///
/// ```
/// use kvorum::client::{Op, Txn};
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let both = Txn::new().then(Op::put("a", "1")).then(Op::put("b", "2"));
/// let outcome = member.client().txn(both).await?;
/// let pair = member.client().get("b").await?.expect("it was put");
/// assert_eq!(pair.mod_revision, outcome.revision);
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Op(pb::RequestOp);

/// What a transaction did.
///
/// ```
/// use kvorum::client::TxnOutcome;
///
/// let outcome = TxnOutcome::default();
/// assert!(!outcome.succeeded && outcome.read.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct TxnOutcome {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// The revision it was done at.
    pub revision: i64,
    /// What each read found, in order.
    pub read: Vec<Vec<KeyValue>>,
}

impl Txn {
    /// One without conditions, that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// With another condition.
    pub fn when(mut self, compare: Compare) -> Self {
        self.request.compare.push(compare.0);
        self
    }

    /// With something else to do when all conditions hold.
    pub fn then(mut self, op: Op) -> Self {
        self.request.success.push(op.0);
        self
    }

    /// With something else to do when one does not.
    pub fn otherwise(mut self, op: Op) -> Self {
        self.request.failure.push(op.0);
        self
    }
}

impl Compare {
    /// The key is not there.
    pub fn missing(key: impl Into<Vec<u8>>) -> Self {
        let zero = TargetUnion::CreateRevision(0);
        Self::equal(key.into(), CompareTarget::Create, zero)
    }

    /// The key was last written at this revision.
    pub fn unchanged_since(key: impl Into<Vec<u8>>, mod_revision: i64) -> Self {
        let revision = TargetUnion::ModRevision(mod_revision);
        Self::equal(key.into(), CompareTarget::Mod, revision)
    }

    /// The key has this value.
    pub fn value(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        let value = TargetUnion::Value(value.into());
        Self::equal(key.into(), CompareTarget::Value, value)
    }

    fn equal(key: Vec<u8>, target: CompareTarget, union: TargetUnion) -> Self {
        Self(pb::Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key,
            range_end: Vec::new(),
            target_union: Some(union),
        })
    }
}

impl Op {
    /// Writes a key.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::of(Request::RequestPut(pb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..pb::PutRequest::default()
        }))
    }

    /// Reads a key.
    pub fn get(key: impl Into<Vec<u8>>) -> Self {
        Self::of(Request::RequestRange(pb::RangeRequest {
            key: key.into(),
            ..pb::RangeRequest::default()
        }))
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Vec<u8>>) -> Self {
        Self::of(Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.into(),
            ..pb::DeleteRangeRequest::default()
        }))
    }

    fn of(request: Request) -> Self {
        Self(pb::RequestOp {
            request: Some(request),
        })
    }
}

impl Client {
    /// Carries a transaction out, as one change.
    ///
    /// # Errors
    ///
    /// As etcd's `Txn`.
    pub async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Status> {
        let response = self.kv_client().txn(txn.request).await?.into_inner();
        let reads = response.responses.into_iter();
        let read = reads.filter_map(|response| match response.response {
            Some(Response::ResponseRange(range)) => Some(range.kvs),
            _ => None,
        });
        Ok(TxnOutcome {
            succeeded: response.succeeded,
            revision: revision(response.header),
            read: read.collect(),
        })
    }
}

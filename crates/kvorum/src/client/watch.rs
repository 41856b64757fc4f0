//! Watching: changes as they happen, from any revision that history still has.

use api::etcdserverpb as pb;
use api::mvccpb::Event;
use api::rpctypes::ErrorCode;
use futures_util::{StreamExt, stream};
use pb::watch_request::RequestUnion;
use tonic::{Status, Streaming};

use super::{Client, prefix_range, revision};

/// What is watched, and from when on.
///
/// ```
/// use kvorum::client::WatchOptions;
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let client = member.client();
/// let first = client.put("a", "1").await?;
/// client.put("a", "2").await?;
/// let options = WatchOptions::key("a").from_revision(first + 1).with_previous();
/// let changes = client.watch(options).await?.next().await?.expect("the member runs");
/// let before = changes.events[0].prev_kv.as_ref().expect("it was there");
/// assert_eq!(&before.value[..], b"1");
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct WatchOptions {
    request: pb::WatchCreateRequest,
}

impl WatchOptions {
    /// One key.
    pub fn key(key: impl Into<Vec<u8>>) -> Self {
        Self {
            request: pb::WatchCreateRequest {
                key: key.into(),
                ..pb::WatchCreateRequest::default()
            },
        }
    }

    /// Every key with this prefix.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let (key, range_end) = prefix_range(prefix.into());
        let mut options = Self::key(key);
        options.request.range_end = range_end;
        options
    }

    /// From this revision on, instead of from now on.
    pub fn from_revision(mut self, revision: i64) -> Self {
        self.request.start_revision = revision;
        self
    }

    /// With what each key was before.
    pub fn with_previous(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }
}

/// The changes of one revision, or some of those of many that it catches up with.
///
/// ```
/// use kvorum::client::WatchOptions;
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let client = member.client();
/// let mut all = client.watch(WatchOptions::prefix("")).await?;
/// let revision = client.put("a", "1").await?;
/// let changes = all.next().await?.expect("the member runs");
/// assert_eq!((changes.revision, changes.events.len()), (revision, 1));
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// Everything up to this revision has been told.
    pub revision: i64,
    /// In order.
    pub events: Vec<Event>,
}

/// A watch. It ends when it is dropped.
///
/// ```
/// # use kvorum::{Config, Kvorum};
/// use kvorum::client::WatchOptions;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let client = member.client();
/// let first = client.put("jobs/1", "new").await?;
/// let mut jobs = client.watch(WatchOptions::prefix("jobs/").from_revision(first)).await?;
/// client.put("jobs/2", "new").await?;
/// let mut seen = Vec::new();
/// while seen.len() < 2 {
///     seen.extend(jobs.next().await?.expect("the member runs").events);
/// }
/// assert_eq!(&seen[1].kv.as_ref().expect("it was put").key[..], b"jobs/2");
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Debug)]
pub struct Watcher {
    responses: Streaming<pb::WatchResponse>,
}

impl Client {
    /// Begins to watch; whatever changes from then on is told.
    ///
    /// # Errors
    ///
    /// `OutOfRange` when history does not go back that far; as etcd's `Watch` otherwise.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watcher, Status> {
        let create = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(options.request)),
        };
        // The request stream stays open: its end is the watch's.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut responses = self.watch_client().watch(requests).await?.into_inner();
        match responses.message().await? {
            Some(created) => refusal(&created).map_or(Ok(Watcher { responses }), Err),
            None => Err(ErrorCode::Stopped.into()),
        }
    }
}

impl Watcher {
    /// The next changes. None when the member has stopped. Cancel safe.
    ///
    /// # Errors
    ///
    /// When the watch ends for another reason: `OutOfRange` when what it was to tell has been compacted.
    pub async fn next(&mut self) -> Result<Option<Changes>, Status> {
        loop {
            let Some(response) = self.responses.message().await? else {
                return Ok(None);
            };
            if let Some(status) = refusal(&response) {
                return Err(status);
            }
            if !response.events.is_empty() {
                return Ok(Some(Changes {
                    revision: revision(response.header),
                    events: response.events,
                }));
            }
        }
    }
}

fn refusal(response: &pb::WatchResponse) -> Option<Status> {
    if response.compact_revision != 0 {
        return Some(ErrorCode::Compacted.into());
    }
    response
        .canceled
        .then(|| Status::cancelled(&response.cancel_reason))
}

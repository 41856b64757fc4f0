//! How a member does, for the program it lives in.

use futures_util::Stream;
use futures_util::stream;
use tokio::sync::watch;
use types::MemberId;

use super::Kvorum;

/// How a member does.
///
/// ```
/// use std::pin::pin;
/// use futures_util::StreamExt;
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let mut changes = pin!(member.watch_status());
/// let status = changes.next().await.expect("the member runs");
/// assert!(status.is_ready && status.is_leader() && !status.is_learner);
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// The member.
    pub member: MemberId,
    /// Who leads, if anybody is known to.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: u64,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Whether it serves clients.
    pub is_ready: bool,
    /// The last entry of the log that is certain.
    pub committed_index: u64,
    /// The last entry that is in the store.
    pub applied_index: u64,
}

impl MemberStatus {
    /// Whether it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.member)
    }

    fn of(member: MemberId, status: raft::Status, is_ready: bool) -> Self {
        Self {
            member,
            leader: status.leader,
            term: status.term,
            is_learner: status.is_learner,
            is_ready,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
        }
    }
}

impl Kvorum {
    /// How the member does now.
    #[must_use]
    pub fn status(&self) -> MemberStatus {
        let is_ready = *self.ready.borrow();
        MemberStatus::of(self.member_id(), self.node.status(), is_ready)
    }

    /// How it does now, and again whenever that changes; what changes faster than it is looked at is
    /// passed over. Ends with the member.
    pub fn watch_status(&self) -> impl Stream<Item = MemberStatus> + Send + use<> {
        let watched = Watched {
            member: self.member_id(),
            node: self.node.watch_status(),
            ready: self.ready.clone(),
            told: None,
        };
        stream::unfold(watched, async |mut watched| {
            let status = watched.next().await?;
            Some((status, watched))
        })
    }

    /// What the member counts, in Prometheus' text format, as `/metrics` shows it.
    ///
    /// # Errors
    ///
    /// When it cannot be rendered.
    pub fn metrics(&self) -> Result<String, MetricsError> {
        let text = self.server.metrics().render(&self.server);
        let text = text.map_err(|error| MetricsError(error.to_string()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The metrics could not be rendered.
///
/// ```
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// let text = member.metrics()?;
/// assert!(text.contains("etcd_server_has_leader 1"));
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(String);

struct Watched {
    member: MemberId,
    node: watch::Receiver<raft::Status>,
    ready: watch::Receiver<bool>,
    told: Option<MemberStatus>,
}

impl Watched {
    async fn next(&mut self) -> Option<MemberStatus> {
        loop {
            let node = *self.node.borrow_and_update();
            let is_ready = *self.ready.borrow_and_update();
            let status = MemberStatus::of(self.member, node, is_ready);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some(status);
            }
            tokio::select! {
                biased;
                changed = self.node.changed() => changed.ok()?,
                // Once it is ready, or never will be, nothing more comes from there.
                Ok(()) = self.ready.changed() => {}
            }
        }
    }
}

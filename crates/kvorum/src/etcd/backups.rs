//! Backups that the cluster takes by itself: one for each time of the schedule, whoever takes it.
//!
//! ```text
//!  leader ── POST /kvorum/backup, on the peer port ──> a follower that answers
//!    │  GET, until it is done                           reads index, pins its state, writes, verifies, uploads
//!    └── the next follower, or itself, when that fails
//! ```
//!
//! Only the leader decides, so nothing has to be agreed on. One that begins to lead asks the others for their last
//! good backup, and looks at its own; what was due meanwhile is taken then. Two leaders can at worst take
//! two backups. A member makes sure with a read index that its state has all that was acknowledged before it
//! is held, so one that is behind fails, and the next one is asked.
//!
//! What this is not: the files; the crate `backup` writes them.

mod job;
mod leader;
mod metrics;
mod protocol;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup::{Metadata, Origin, Position};
use bytes::Bytes;
use etcdfile::TimeMark;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use server::EtcdServer;
use types::Clock;

use super::opened::blocking;
use super::peer::{CLUSTER_ID, json, plain};
use super::peer_client::PeerClient;
use super::tasks::Tasks;
use crate::bucket::bucket_config;
use crate::config::{BackupSettings, Config};
use crate::error::StartError;
use metrics::BackupMetrics;
use protocol::{Done, Order, Report};

/// Where members speak of backups, on the peer port.
pub(super) const PATH: &str = "/kvorum/backup";
/// Bytes of the largest order; one is far smaller.
const ORDER_BYTES_MAX: usize = 1 << 16;
/// How often it is noted which revision there is.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// Notes that wait to be archived; when there are more, the oldest go, and a restore to a time in that
/// hour goes to the end of its segment instead.
const MARKS_MAX: usize = 3600;
/// Where files are written before they are uploaded, in the data directory.
const STAGING: &str = "backup";

/// Where backups go; nothing is running yet.
pub(super) struct Opened {
    settings: BackupSettings,
    store: backup::Store,
}

/// Opens the place for backups, if there are to be any.
pub(super) async fn open(config: &Arc<Config>) -> Result<Option<Opened>, StartError> {
    let Some(settings) = config.backup.clone() else {
        return Ok(None);
    };
    let runtime = tokio::runtime::Handle::current();
    blocking(move || {
        let bucket = bucket_config(&settings.s3)?;
        let store = backup::Store::open(&settings.location, &bucket, runtime)
            .map_err(crate::bucket::BucketError::from)?;
        Ok(Some(Opened { settings, store }))
    })
    .await
}

/// Puts the parts together. The metrics are there in any case: an alert that finds none says nothing.
pub(super) fn begin(
    opened: Option<Opened>,
    config: &Config,
    server: &EtcdServer,
    peers: PeerClient,
    tasks: Tasks,
) -> Option<Backups> {
    let metrics = BackupMetrics::register(server.metrics().registry())
        .expect("no other part has metrics of these names");
    let Opened { settings, store } = opened?;
    let identity = server.config();
    Some(Backups {
        shared: Arc::new(Shared {
            origin: Origin {
                cluster: identity.cluster,
                member: identity.member,
                member_name: config.name.clone(),
                version: api::version::KVORUM_VERSION,
            },
            staging: config.data_dir.join(STAGING),
            settings,
            store,
            server: server.clone(),
            peers,
            tasks,
            metrics,
            state: Mutex::default(),
            is_stopping: Arc::default(),
        }),
    })
}

/// A member's part in backups. Cheap to clone.
#[derive(Clone)]
pub(super) struct Backups {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Backups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backups")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

struct Shared {
    origin: Origin,
    staging: PathBuf,
    settings: BackupSettings,
    store: backup::Store,
    server: EtcdServer,
    peers: PeerClient,
    tasks: Tasks,
    metrics: BackupMetrics,
    state: Mutex<State>,
    /// Breaks off what is being written.
    is_stopping: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// The order that is being carried out.
    running: Option<u64>,
    /// The last one that was.
    done: Option<Done>,
    /// The last good backup that this member knows of.
    last: Option<Metadata>,
    /// How far the archive has come, as this member knows since this session began.
    archived: Option<(u64, Position)>,
    /// Which revisions there were when.
    marks: VecDeque<TimeMark>,
}

impl Backups {
    /// Runs until the member stops.
    pub(super) fn run(self) {
        let tasks = self.shared.tasks.clone();
        let stopping = tasks.stopping();
        let this = self.clone();
        let (stopping_mark, marker) = (stopping.clone(), self.clone());
        if self.shared.settings.archive_interval.is_some() {
            tasks.spawn(async move {
                tokio::select! {
                    () = stopping_mark.cancelled() => {}
                    () = marker.mark() => {}
                }
            });
        }
        tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = leader::run(&this) => {}
            }
            this.shared.is_stopping.store(true, Ordering::Release);
        });
    }

    fn clock(&self) -> &dyn Clock {
        &*self.shared.server.config().clock
    }

    /// Notes again and again which revision there is.
    async fn mark(&self) {
        loop {
            tokio::time::sleep(MARK_INTERVAL).await;
            // First the revision: it was there at that time.
            let revision = self.shared.server.views().store.view().revision();
            let unix_ms = protocol::unix_ms(self.clock().wall());
            let marks = &mut self.shared.state.lock().marks;
            if marks.back().is_none_or(|last| last.revision < revision) {
                if marks.len() == MARKS_MAX {
                    marks.pop_front();
                }
                marks.push_back(TimeMark { revision, unix_ms });
            }
        }
    }

    fn report(&self) -> Report {
        let state = self.shared.state.lock();
        Report {
            running: state.running,
            done: state.done.clone(),
            last: state.last.clone(),
        }
    }

    /// Answers another member.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match *request.method() {
            Method::GET => {}
            Method::POST => {
                if let Err(refused) = self.take_order(request).await {
                    return refused;
                }
            }
            _ => return plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
        }
        let report = serde_json::to_string(&self.report());
        json(report.expect("texts and numbers are JSON"))
    }

    async fn take_order(&self, request: Request<Incoming>) -> Result<(), Response<Full<Bytes>>> {
        let cluster = self.shared.origin.cluster.to_string();
        let named = request.headers().get(CLUSTER_ID);
        if named.is_none_or(|named| named.as_bytes() != cluster.as_bytes()) {
            let text = "this is another cluster\n";
            return Err(plain(StatusCode::PRECONDITION_FAILED, text));
        }
        let body = Limited::new(request.into_body(), ORDER_BYTES_MAX)
            .collect()
            .await;
        let order = body
            .ok()
            .and_then(|body| serde_json::from_slice::<Order>(&body.to_bytes()).ok());
        let Some(order) = order else {
            return Err(plain(StatusCode::BAD_REQUEST, "this is no order\n"));
        };
        if !self.begin(order) {
            return Err(plain(StatusCode::CONFLICT, "a backup is being taken\n"));
        }
        Ok(())
    }
}

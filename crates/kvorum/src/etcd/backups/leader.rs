//! The leader decides when a backup is taken, and by whom.

use std::time::{Duration, SystemTime};

use backup::{Metadata, Schedule};
use bytes::Bytes;
use tokio::time::Instant;
use types::{MemberId, Url};

use super::protocol::{Done, Kind, Order, Report, unix_ms};
use super::{Backups, PATH};
use crate::error::chain;

/// How often it is looked whether something is due, and whether something is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// What has failed is tried again after this, or sooner if it is due more often.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// A member that is asked answers within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// A member that takes a backup and does not answer for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often it is said that the last backup is too old.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(600);

/// What a leader knows.
struct Led {
    /// Names what is ordered.
    order: u64,
    /// Changes with whoever archives.
    session: u64,
    /// Who took the last backup, if it was another member.
    taker: Option<MemberId>,
    since: SystemTime,
    last: Option<Metadata>,
    /// Nothing is tried before.
    pause_until: Option<Instant>,
    archived_at: Option<Instant>,
    complained_at: Option<Instant>,
}

/// Why a member has not carried out an order.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("it has no address")]
    NoAddress,
    #[error("it does not answer")]
    Ask(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer cannot be understood")]
    Answer(#[from] serde_json::Error),
    #[error("it is busy")]
    Busy,
    #[error("it has begun anew")]
    Forgotten,
    #[error("{0}")]
    Failed(String),
    #[error("this member does not lead any more")]
    NotLeader,
}

/// Decides while this member leads.
pub(super) async fn run(backups: &Backups) {
    let mut led = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !backups.shared.server.is_leader() {
            if led.take().is_some() {
                backups.shared.metrics.overdue(false);
                backups.shared.server.set_notice("");
            }
            continue;
        }
        match &mut led {
            None => led = backups.begin_to_lead().await,
            Some(led) => led.look(backups).await,
        }
    }
}

impl Backups {
    /// Finds the last good backup. `None`: somebody still takes one for the leader before, or it cannot be
    /// known yet.
    async fn begin_to_lead(&self) -> Option<Led> {
        let mut last = None;
        for (member, urls) in self.others() {
            let Ok(report) = self.ask(&urls).await else {
                tracing::debug!(%member, "does not say when it took its last backup");
                continue;
            };
            if report.running.is_some() {
                return None;
            }
            last = later(last, report.last);
        }
        last = later(last, self.own_last().await?);
        let now = self.clock().wall();
        let order = u64::try_from(unix_ms(now)).unwrap_or_default();
        tracing::info!(
            last = last.as_ref().map(|last| last.name.as_str()),
            "this member decides when backups are taken"
        );
        if let Some(last) = &last {
            self.shared.metrics.known(last);
        }
        Some(Led {
            order,
            session: order,
            taker: None,
            since: now,
            last,
            pause_until: None,
            archived_at: None,
            complained_at: None,
        })
    }

    /// The last good backup in this member's own place.
    async fn own_last(&self) -> Option<Option<Metadata>> {
        let (store, cluster) = (self.shared.store.clone(), self.shared.origin.cluster);
        let newest = tokio::task::spawn_blocking(move || backup::newest(&store, cluster)).await;
        match newest {
            Ok(Ok(last)) => Some(last),
            Ok(Err(error)) => {
                tracing::error!(
                    error = chain(&error),
                    "the place for backups cannot be read"
                );
                self.shared.metrics.failed();
                tokio::time::sleep(RETRY_INTERVAL).await;
                None
            }
            // The runtime is going away, and the member with it.
            Err(_gone) => None,
        }
    }

    /// The other voters that answer, by their ids, and where they are.
    fn others(&self) -> Vec<(MemberId, Vec<String>)> {
        let server = &self.shared.server;
        let active: Vec<MemberId> = server
            .node()
            .peers()
            .into_iter()
            .filter(|peer| peer.active_since.is_some())
            .map(|peer| peer.id)
            .collect();
        let mut others: Vec<_> = server
            .views()
            .cluster
            .members()
            .into_iter()
            .filter(|member| !member.is_learner && active.contains(&member.id))
            .map(|member| (member.id, member.peer_urls))
            .collect();
        others.sort_unstable();
        others
    }

    async fn ask(&self, urls: &[String]) -> Result<Report, OrderError> {
        let url = first(urls)?;
        let answer = self.shared.peers.get_text(&url, PATH, ANSWER_TIMEOUT).await;
        let answer = answer.map_err(|error| OrderError::Ask(Box::new(error)))?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Has an order carried out by another member, and waits.
    async fn order(&self, urls: &[String], order: Order) -> Result<Done, OrderError> {
        let url = first(urls)?;
        let body = serde_json::to_vec(&order).map(Bytes::from)?;
        let cluster = self.shared.origin.cluster;
        let sent = self
            .shared
            .peers
            .post((&url, PATH), cluster, body, ANSWER_TIMEOUT)
            .await;
        sent.map_err(|error| OrderError::Ask(Box::new(error)))?;
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            match self.ask(urls).await {
                Ok(report) => match report.of(order.id) {
                    Some(done) => return done,
                    None => heard = Instant::now(),
                },
                Err(error) if heard.elapsed() > SILENCE_MAX => return Err(error),
                Err(_silent) => {}
            }
            if !self.shared.server.is_leader() {
                return Err(OrderError::NotLeader);
            }
        }
    }

    /// Carries out an order here, and waits.
    async fn order_here(&self, order: Order) -> Result<Done, OrderError> {
        if !self.begin(order) {
            return Err(OrderError::Busy);
        }
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Some(done) = self.report().of(order.id) {
                return done;
            }
        }
    }
}

impl Report {
    /// What became of an order; `None`: nothing yet.
    fn of(self, id: u64) -> Option<Result<Done, OrderError>> {
        match self.done.filter(|done| done.id == id) {
            Some(Done {
                error: Some(error), ..
            }) => Some(Err(OrderError::Failed(error))),
            Some(done) => Some(Ok(done)),
            None if self.running == Some(id) => None,
            None => Some(Err(OrderError::Forgotten)),
        }
    }
}

impl Led {
    /// Does what is due.
    async fn look(&mut self, backups: &Backups) {
        self.complain(backups);
        if self.pause_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let settings = &backups.shared.settings;
        let now = backups.clock().wall();
        let last = self.last.as_ref().map(last_time);
        // Without any, the first time after this member began to lead.
        let due = match last {
            Some(last) => settings.schedule.due(Some(last), now),
            None => settings.schedule.due(None, self.since),
        };
        if let Some(due) = due.filter(|due| *due <= now) {
            self.have_done(backups, Kind::Backup, due).await;
            return;
        }
        let is_due = |interval| self.archived_at.is_none_or(|at| at.elapsed() >= interval);
        if settings.archive_interval.is_some_and(is_due) {
            self.have_done(backups, Kind::Archive, now).await;
        }
    }

    /// Has it done by another member, or does it.
    async fn have_done(&mut self, backups: &Backups, kind: Kind, due: SystemTime) {
        let mut others = backups.others();
        // Whoever took the last one knows how far the archive is, and has it if it is in a directory.
        let taker = self.taker;
        others.sort_by_key(|(member, _)| Some(*member) != taker);
        for (member, urls) in others {
            if self.taker != Some(member) {
                self.taker = Some(member);
                self.session += 1;
            }
            let order = self.next_order(kind, due);
            match backups.order(&urls, order).await {
                Ok(done) => return self.done(backups, &done),
                Err(OrderError::NotLeader) => return,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(%member, error, ?kind, "a member has taken no backup; another one is asked");
                }
            }
        }
        if self.taker.take().is_some() {
            self.session += 1;
        }
        let order = self.next_order(kind, due);
        match backups.order_here(order).await {
            Ok(done) => self.done(backups, &done),
            Err(error) => self.failed(backups, &chain(&error), kind),
        }
    }

    fn next_order(&mut self, kind: Kind, due: SystemTime) -> Order {
        self.order += 1;
        Order {
            id: self.order,
            kind,
            due_unix_ms: unix_ms(due),
            session: self.session,
        }
    }

    fn done(&mut self, backups: &Backups, done: &Done) {
        self.archived_at = Some(Instant::now());
        self.pause_until = None;
        if let Some(revision) = done.archived {
            backups.shared.metrics.archived(revision);
        }
        if let Some(backup) = &done.backup {
            backups.shared.metrics.known(backup);
            self.last = later(self.last.take(), Some(backup.clone()));
            self.complain(backups);
        }
    }

    fn failed(&mut self, backups: &Backups, error: &str, kind: Kind) {
        backups.shared.metrics.failed();
        tracing::error!(error, ?kind, "no member could take a backup");
        let settings = &backups.shared.settings;
        let pause = match settings.schedule {
            Schedule::Every(interval) => interval.min(RETRY_INTERVAL),
            Schedule::Cron(_) => RETRY_INTERVAL,
        };
        let pause = settings
            .archive_interval
            .map_or(pause, |interval| interval.min(pause));
        self.pause_until = Some(Instant::now() + pause);
    }

    /// Says so when the last good backup is too old.
    fn complain(&mut self, backups: &Backups) {
        let Some(age_max) = backups.shared.settings.age_max else {
            return;
        };
        let last = self.last.as_ref().map_or(self.since, Metadata::taken);
        let age = backups.clock().wall().duration_since(last);
        // A clock that was put back makes a backup no older.
        let age = age.unwrap_or_default();
        let is_overdue = age > age_max;
        backups.shared.metrics.overdue(is_overdue);
        if !is_overdue {
            self.complained_at = None;
            backups.shared.server.set_notice("");
            return;
        }
        let is_first = self
            .complained_at
            .is_none_or(|at| at.elapsed() > COMPLAINT_INTERVAL);
        let last = self.last.as_ref().map_or("none", |last| last.name.as_str());
        let seconds = age.as_secs();
        let notice = format!("BACKUP OVERDUE: the last good one is {last}, for {seconds}s");
        backups.shared.server.set_notice(notice);
        if is_first {
            self.complained_at = Some(Instant::now());
            tracing::error!(
                last,
                age_seconds = seconds,
                "the last good backup is too old"
            );
        }
    }
}

/// From when the next one counts.
fn last_time(last: &Metadata) -> SystemTime {
    last.taken().max(last.due())
}

fn later(one: Option<Metadata>, other: Option<Metadata>) -> Option<Metadata> {
    one.into_iter().chain(other).max_by_key(last_time)
}

fn first(urls: &[String]) -> Result<Url, OrderError> {
    let url = urls.first().and_then(|url| Url::parse(url).ok());
    url.ok_or(OrderError::NoAddress)
}

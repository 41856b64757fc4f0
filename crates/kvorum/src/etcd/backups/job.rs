//! An order is carried out: the state is held, archived and written, on a thread that may block.

use std::sync::Arc;
use std::time::SystemTime;

use apply::Pinned;
use backup::{Archived, BackupError, Metadata, Position};
use etcdfile::TimeMark;

use super::protocol::{Done, Kind, Order, unix_ms, wall};
use super::{Backups, Shared};
use crate::error::chain;

/// What came of an order.
#[derive(Default)]
struct Outcome {
    backup: Option<Metadata>,
    position: Option<Position>,
}

/// An order was not carried out.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("this member is not up to date")]
    ReadIndex(#[source] server::RequestError),
    #[error("the state cannot be held")]
    Pin(#[source] Box<raft::Fatal>),
    #[error("the thread that wrote it has panicked")]
    Panicked,
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl Backups {
    /// Begins with an order, unless there is another one.
    pub(super) fn begin(&self, order: Order) -> bool {
        {
            let mut state = self.shared.state.lock();
            if state.running.is_some() {
                return false;
            }
            state.running = Some(order.id);
        }
        let this = self.clone();
        let stopping = self.shared.tasks.stopping();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                // What is being written notices by itself.
                () = stopping.cancelled() => {}
                () = this.carry_out(order) => {}
            }
        });
        true
    }

    async fn carry_out(&self, order: Order) {
        let started = self.clock().now();
        let outcome = self.try_carry_out(order).await;
        let took = self.clock().now().saturating_duration_since(started);
        let done = match outcome {
            Ok(outcome) => {
                self.succeeded(&outcome, took);
                Done {
                    id: order.id,
                    error: None,
                    archived: outcome.position.map(|position| position.revision),
                    backup: outcome.backup,
                }
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, kind = ?order.kind, "this member has failed to take a backup");
                Done {
                    id: order.id,
                    error: Some(error),
                    backup: None,
                    archived: None,
                }
            }
        };
        let mut state = self.shared.state.lock();
        state.running = None;
        state.done = Some(done);
    }

    fn succeeded(&self, outcome: &Outcome, took: std::time::Duration) {
        if let Some(backup) = &outcome.backup {
            tracing::info!(
                name = backup.name,
                revision = backup.revision,
                bytes = backup.file_bytes,
                took_ms = backup.took_ms,
                "took and verified a backup"
            );
            self.shared.metrics.taken(backup, took);
            self.shared.state.lock().last = Some(backup.clone());
        }
        if let Some(position) = outcome.position {
            self.shared.metrics.archived(position.revision);
        }
    }

    async fn try_carry_out(&self, order: Order) -> Result<Outcome, JobError> {
        let server = &self.shared.server;
        // What was acknowledged before is in it then.
        server.read_index().await.map_err(JobError::ReadIndex)?;
        let taken = self.clock().wall();
        let pinned = server.node().pin().await;
        let pinned = pinned.map_err(|error| JobError::Pin(Box::new(error)))?;
        let pinned = pinned.ok_or(BackupError::NoState)?;
        let shared = Arc::clone(&self.shared);
        let written = tokio::task::spawn_blocking(move || shared.write(order, pinned, taken)).await;
        Ok(written.map_err(|_panic| JobError::Panicked)??)
    }
}

impl Shared {
    /// Blocks.
    fn write(
        &self,
        order: Order,
        pinned: Pinned,
        taken: SystemTime,
    ) -> Result<Outcome, BackupError> {
        let Some(_interval) = self.settings.archive_interval else {
            return self.back_up(order, pinned, taken, None);
        };
        let known = self.state.lock().archived;
        let position = match known {
            Some((session, position)) if session == order.session => Some(position),
            _ => backup::latest(&self.store, self.origin.cluster)?,
        };
        let archived = match position {
            Some(position) => self.archive(&pinned, taken, position)?,
            None => Archived::Broken("there is none"),
        };
        let position = match archived {
            Archived::Nothing => position,
            Archived::Segment { position, bytes } => {
                tracing::debug!(revision = position.revision, bytes, "archived changes");
                Some(position)
            }
            Archived::Broken(why) => {
                tracing::info!(why, "the archive of changes begins anew, with a backup");
                None
            }
        };
        let outcome = match (order.kind, position) {
            (Kind::Archive, Some(position)) => Outcome {
                backup: None,
                position: Some(position),
            },
            (_, position) => {
                // Nobody has used the time of this one yet.
                let anew = || u64::try_from(unix_ms(taken)).unwrap_or_default();
                let chain = position.map_or_else(anew, |position| position.chain);
                self.back_up(order, pinned, taken, Some(chain))?
            }
        };
        self.note(order.session, outcome.position);
        Ok(outcome)
    }

    /// Remembers how far the archive has come; what was noted of earlier revisions is not needed.
    fn note(&self, session: u64, position: Option<Position>) {
        let Some(position) = position else {
            return;
        };
        let mut state = self.state.lock();
        state.archived = Some((session, position));
        let is_archived = |mark: &TimeMark| mark.revision <= position.revision;
        while state.marks.front().is_some_and(is_archived) && state.marks.len() > 1 {
            state.marks.pop_front();
        }
    }

    fn archive(
        &self,
        pinned: &Pinned,
        taken: SystemTime,
        from: Position,
    ) -> Result<Archived, BackupError> {
        let marks: Vec<TimeMark> = self.state.lock().marks.iter().copied().collect();
        let staging = (
            self.staging.as_path(),
            self.origin.member,
            &*self.is_stopping,
        );
        backup::archive(&self.store, pinned, taken, from, &marks, staging)
    }

    fn back_up(
        &self,
        order: Order,
        pinned: Pinned,
        taken: SystemTime,
        chain: Option<u64>,
    ) -> Result<Outcome, BackupError> {
        let request = backup::Request {
            pinned,
            taken,
            due: wall(order.due_unix_ms),
            prefix: &self.settings.name,
            form: self.settings.compression,
            chain,
            origin: &self.origin,
            staging: &self.staging,
            is_stopping: &self.is_stopping,
        };
        let metadata = backup::take(&self.store, &request, &*self.server.config().clock)?;
        // The new one is good: an old one that cannot be removed does not change that.
        match backup::retain(&self.store, self.origin.cluster, self.settings.retention) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed old backups"),
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::warn!(error, "old backups cannot be removed");
            }
        }
        Ok(Outcome {
            position: metadata.position(),
            backup: Some(metadata),
        })
    }
}

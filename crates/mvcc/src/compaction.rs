//! Dropping history.
//!
//! Compaction at revision c makes everything before c unreadable and keeps, of every key, what a
//! read at c finds. There are three things to do, and only the first has to happen at once:
//!
//! ```text
//!            apply the command          the next stages ...                      ... and later ones
//!  reads     refused below c            |                                        |
//!  memory                               | key by key: older versions are         |
//!                                       | forgotten, their segments count down   |
//!  disk                                 |                                        | segment by segment:
//!                                       |                                        | dead ones removed,
//!                                       |                                        | half dead ones rewritten
//! ```
//!
//! 1. *Refuse.* The compacted revision moves; from the next publication on, reads below it are
//!    refused. Nothing that is still allowed can see whether the old versions are there or not, so
//!    the rest may take its time, and does not make the apply path wait.
//! 2. *Forget.* The index is walked, a bounded number of keys in each step. It knows of each subtree whether
//!    there is [anything to drop](crate::key_index::Tally), so that keys without a past are passed over by the
//!    thousand. Each dropped version is counted off in the segment that holds it. When the walk is
//!    through, the counters are exact, and not one byte of the disk has been read.
//! 3. *Scrub.* In the order of history: a segment with no live version is removed unread; one with
//!    some dead ones is read, and written again without them, under the same key; a clean one is not
//!    touched. Nor is one whose own batch is not committed yet, nor the last one, which is still
//!    being filled. While the state is sent to another member (`install`), scrubbing waits.
//!
//! The order matters. Say that a key was written at 2 and deleted at 7, and everything up to 9 is
//! compacted: neither version counts any more. But whoever finds 2 on the disk without 7 takes the key
//! for alive. So the version has to go before its tombstone, or with it, and that is also why no dead
//! version may be left behind to save the writing.
//!
//! A version on the disk is dead exactly if it is not in the index, so scrubbing needs no list of what
//! to remove, and reading a segment as it was before the last scrub does no harm: the same versions
//! are removed from it again.
//!
//! What survives a crash: the scheduled revision is staged in the same batch as everything before
//! it. On opening, the whole index is rebuilt from what is on the disk and compacted at that revision
//! in memory; if the finished mark is behind, scrubbing goes on.

use std::collections::VecDeque;

use backend::schema::key;
use backend::{Batch, Bucket};
use types::Revision;

use crate::config::{COMPACT_KEYS_PER_STEP, SCRUB_BYTES_PER_STEP, SCRUB_SEGMENTS_PER_STEP};
use crate::segment::{Record, Segment, SegmentBuilder, Segments};
use crate::tree_index::{Progress, TreeIndex};
use crate::{StoreError, Writer, meta};

/// What compaction is doing.
#[derive(Debug)]
enum Phase {
    Idle,
    /// Walking the index; go on at this key.
    Forget(Box<[u8]>),
    /// Cleaning these segments.
    Scrub(VecDeque<Revision>),
}

/// The compacted revision, and how far the work that follows from it has come.
#[derive(Debug)]
pub(crate) struct Compaction {
    /// -1 before the first one.
    revision: i64,
    phase: Phase,
    /// No batch has the scheduled mark yet.
    mark_unstaged: bool,
    /// What was done on the disk and is not told yet.
    scrubbed: Scrubbed,
}

/// What compactions have done on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Revisions that were looked at.
    pub revisions: usize,
    /// Revisions that were removed.
    pub removed: usize,
}

impl Compaction {
    /// Compacts what was loaded from the disk, as the marks found there say.
    pub(crate) fn resume(
        scheduled: Option<i64>,
        finished: Option<i64>,
        index: &mut TreeIndex,
        segments: &mut Segments,
    ) -> Self {
        let Some(revision) = scheduled.max(finished) else {
            return Self {
                revision: -1,
                phase: Phase::Idle,
                mark_unstaged: false,
                scrubbed: Scrubbed::default(),
            };
        };
        let all = index.compact_step(&[], usize::MAX, revision, |dropped| {
            segments.drop_version(dropped);
        });
        debug_assert_eq!(all, Progress::Done);
        let phase = if scheduled > finished {
            tracing::info!(
                "scheduled-compact-revision" = revision,
                "resume scheduled compaction"
            );
            Phase::Scrub(segments.dirty().collect())
        } else {
            Phase::Idle
        };
        Self {
            revision,
            phase,
            mark_unstaged: false,
            scrubbed: Scrubbed::default(),
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether [`Writer::stage`] has anything to do for it.
    pub(crate) fn is_running(&self) -> bool {
        self.mark_unstaged || !matches!(self.phase, Phase::Idle)
    }

    /// Whether all that is left to do is to be done on the disk.
    pub(crate) fn is_at_the_disk(&self) -> bool {
        !self.mark_unstaged && matches!(self.phase, Phase::Scrub(_))
    }

    /// The compacted revision as far as the disk is concerned; for the handle that waits for it.
    pub(crate) fn finished(&self) -> i64 {
        if self.is_running() { -1 } else { self.revision }
    }

    pub(crate) fn take_scrubbed(&mut self) -> Scrubbed {
        std::mem::take(&mut self.scrubbed)
    }

    /// Compacts at `revision`. One that is still going on is overtaken.
    pub(crate) fn schedule(&mut self, revision: i64) {
        debug_assert!(revision > self.revision);
        *self = Self {
            revision,
            phase: Phase::Forget(Box::default()),
            mark_unstaged: true,
            scrubbed: self.scrubbed,
        };
    }
}

impl Writer {
    /// The next step; says whether the index has changed.
    pub(crate) fn step_compaction(
        &mut self,
        batch: &mut Batch,
        scrub_max: usize,
    ) -> Result<bool, StoreError> {
        let revision = self.compaction.revision;
        if std::mem::take(&mut self.compaction.mark_unstaged) {
            meta::put(batch, meta::SCHEDULED_COMPACT, revision);
        }
        if self.shared.compact_revision() < revision {
            // Readers may still ask for what would be dropped.
            return Ok(false);
        }
        match &mut self.compaction.phase {
            Phase::Idle => Ok(false),
            Phase::Forget(from) => {
                let from = std::mem::take(from);
                self.forget(&from);
                Ok(true)
            }
            Phase::Scrub(_) if self.hold.is_held() || scrub_max == 0 => Ok(false),
            Phase::Scrub(queue) => {
                let queue = std::mem::take(queue);
                self.scrub(queue, scrub_max, batch)?;
                Ok(false)
            }
        }
    }

    /// Forgets what is compacted of the next keys.
    fn forget(&mut self, from: &[u8]) {
        let (segments, revision) = (&mut self.segments, self.compaction.revision);
        let progress = self
            .index
            .compact_step(from, COMPACT_KEYS_PER_STEP, revision, |dropped| {
                segments.drop_version(dropped);
            });
        self.compaction.phase = match progress {
            Progress::At(key) => Phase::Forget(key),
            Progress::Done => Phase::Scrub(self.segments.dirty().collect()),
        };
    }

    /// Cleans the next segments, until they had `revisions_max` revisions.
    fn scrub(
        &mut self,
        mut queue: VecDeque<Revision>,
        revisions_max: usize,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let persisted = self.past.log.read().persisted();
        let mut bytes_left = SCRUB_BYTES_PER_STEP;
        let (mut revisions, mut removed) = (0, 0);
        for _ in 0..SCRUB_SEGMENTS_PER_STEP {
            let Some((first, info)) = queue
                .front()
                .and_then(|first| self.segments.get(*first).map(|info| (*first, *info)))
            else {
                break;
            };
            if bytes_left == 0 || revisions >= revisions_max || info.last.main > persisted {
                break;
            }
            queue.pop_front();
            // At least one, so that an empty one counts as well.
            revisions += info.versions.max(1) as usize;
            removed += info.versions.saturating_sub(info.live) as usize;
            if info.live == 0 {
                batch.delete(Bucket::Key, key::encode(first).to_vec());
                self.segments.remove(first);
            } else {
                bytes_left = bytes_left.saturating_sub(info.bytes);
                self.rewrite(first, batch)?;
            }
        }
        self.compaction.scrubbed.revisions += revisions;
        self.compaction.scrubbed.removed += removed;
        if queue.is_empty() {
            let revision = self.compaction.revision;
            meta::put(batch, meta::FINISHED_COMPACT, revision);
            self.compaction.phase = Phase::Idle;
            self.shared
                .scrubbed
                .send_replace(self.compaction.finished());
        } else {
            self.compaction.phase = Phase::Scrub(queue);
        }
        Ok(())
    }

    /// Writes a segment again without its dead versions.
    fn rewrite(&mut self, first: Revision, batch: &mut Batch) -> Result<(), StoreError> {
        let stored_at = key::encode(first);
        let Some(value) = self.past.reader().get(Bucket::Key, &stored_at)? else {
            return Err(StoreError::Missing { revision: first });
        };
        let segment = Segment::decode(&stored_at, &value)?;
        let mut kept = SegmentBuilder::new();
        for record in &segment.records {
            if self
                .is_live(record)
                .map_err(|problem| segment.corrupt(problem))?
            {
                kept.push(record.revision, record.kind, &record.stored);
            }
        }
        batch.put(Bucket::Key, stored_at.to_vec(), kept.finish());
        self.segments.rewritten(first);
        Ok(())
    }

    fn is_live(&self, record: &Record) -> Result<bool, crate::error::SegmentProblem> {
        let index = self.index.get(record.key()?);
        Ok(index.is_some_and(|index| index.holds(record.version())))
    }
}

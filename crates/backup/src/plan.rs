//! Which backup and which segments lead to a revision or to a time.

use std::collections::BTreeMap;
use std::time::SystemTime;

use etcdfile::TimeMark;

use crate::archive::{Position, segments};
use crate::error::BackupError;
use crate::metadata::Metadata;
use crate::name::{SegmentName, unix_ms};
use crate::store::Store;
use crate::take::{backups, metadata};

/// As of when a store is to be restored.
///
/// ```
/// # use backup::Target;
/// use std::time::{Duration, SystemTime};
///
/// let before_the_mistake = Target::Revision(1200);
/// let an_hour_ago = Target::Time(SystemTime::now() - Duration::from_secs(60 * 60));
/// assert_ne!(before_the_mistake, an_hour_ago);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// As the newest backup has it.
    Latest,
    /// As of a revision.
    Revision(i64),
    /// As of a time.
    Time(SystemTime),
}

/// How to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The backup to begin with.
    pub base: Metadata,
    /// What comes on top, in this order.
    pub segments: Vec<SegmentName>,
    /// The end.
    pub target: Target,
}

/// There is no way there.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It cannot be looked at.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// There is nothing to begin with.
    #[error("there is no backup")]
    NoBackup,
    /// Whose is wanted?
    #[error("there are backups of several clusters ({}): name the one to begin with", clusters.join(", "))]
    SeveralClusters {
        /// Their ids.
        clusters: Vec<String>,
    },
    /// The first backup is later.
    #[error(
        "the oldest backup, {name}, is of revision {revision} and of {unix_ms} ms since 1970, which is later"
    )]
    TooEarly {
        /// The oldest.
        name: String,
        /// Its revision.
        revision: i64,
        /// When it was taken.
        unix_ms: i64,
    },
    /// The backup has no archive.
    #[error(
        "the backup {name} ends at revision {revision}, and no archive of changes belongs to it"
    )]
    NoArchive {
        /// The backup.
        name: String,
        /// Its revision.
        revision: i64,
    },
    /// The archive does not reach so far, or something is missing in between.
    #[error(
        "after the backup {name} the archive has no changes after revision {revision} ({unix_ms} ms since \
         1970){}",
        match gap { Some(next) => format!(": a segment is missing before the one that begins at revision {next}"), None => String::new() }
    )]
    Gap {
        /// The backup.
        name: String,
        /// How far the archive leads.
        revision: i64,
        /// When that was.
        unix_ms: i64,
        /// Where it goes on, if it does.
        gap: Option<i64>,
    },
}

/// Finds the way. `base` names a backup; without, the newest from which the target can be reached is taken.
///
/// # Errors
/// When there is none.
pub fn plan(store: &Store, base: Option<&str>, target: Target) -> Result<Plan, PlanError> {
    let names = store.list()?;
    let candidates = match base {
        Some(name) => vec![metadata(store, name)?],
        None => backups(store, &names, None)?,
    };
    let Some(oldest) = candidates.first() else {
        return Err(PlanError::NoBackup);
    };
    let mut clusters: Vec<String> = candidates
        .iter()
        .map(|backup| backup.cluster_id.clone())
        .collect();
    clusters.sort();
    clusters.dedup();
    if clusters.len() > 1 {
        return Err(PlanError::SeveralClusters { clusters });
    }
    let mut problem = PlanError::TooEarly {
        name: oldest.name.clone(),
        revision: oldest.revision,
        unix_ms: oldest.taken_unix_ms,
    };
    let mut is_first = true;
    for base in candidates.iter().rev().filter(|base| target.is_after(base)) {
        match way(base, target, &names) {
            Ok(segments) => {
                return Ok(Plan {
                    base: base.clone(),
                    segments,
                    target,
                });
            }
            // The newest backup is the one to speak of.
            Err(found) if is_first => problem = found,
            Err(_older) => {}
        }
        is_first = false;
    }
    Err(problem)
}

impl Target {
    /// Whether it is not before a backup.
    fn is_after(self, base: &Metadata) -> bool {
        match self {
            Self::Latest => true,
            Self::Revision(revision) => base.revision <= revision,
            Self::Time(time) => base.taken_unix_ms <= unix_ms(time),
        }
    }

    /// Whether a segment reaches it.
    fn is_in(self, segment: &SegmentName) -> bool {
        match self {
            Self::Latest => true,
            Self::Revision(revision) => segment.to >= revision,
            Self::Time(time) => segment.unix_ms >= unix_ms(time),
        }
    }
}

fn way(base: &Metadata, target: Target, names: &[String]) -> Result<Vec<SegmentName>, PlanError> {
    let is_there = match target {
        Target::Latest => true,
        Target::Revision(revision) => revision == base.revision,
        Target::Time(time) => unix_ms(time) == base.taken_unix_ms,
    };
    if is_there {
        return Ok(Vec::new());
    }
    let no_archive = || PlanError::NoArchive {
        name: base.name.clone(),
        revision: base.revision,
    };
    let start = base.position().ok_or_else(no_archive)?;
    let segments = segments(names, start.chain);
    let walked = walk(start, &segments);
    let reached = walked
        .values()
        .filter(|segment| target.is_in(segment))
        .min_by_key(|segment| segment.to);
    let Some(last) = reached else {
        let end = furthest(start, &segments);
        let step = walked.get(&(end.revision, end.tip));
        let next = segments.iter().find(|segment| segment.from > end.revision);
        return Err(PlanError::Gap {
            name: base.name.clone(),
            revision: end.revision,
            unix_ms: step.map_or(base.taken_unix_ms, |step| step.unix_ms),
            gap: next.map(|segment| segment.from),
        });
    };
    let mut way = vec![*last];
    let mut at = (last.from, last.from_tip);
    while let Some(step) = walked
        .get(&at)
        .filter(|_| at != (start.revision, start.tip))
    {
        way.push(*step);
        at = (step.from, step.from_tip);
    }
    way.reverse();
    Ok(way)
}

/// Every place that can be reached, with the segment that leads there.
fn walk(start: Position, segments: &[SegmentName]) -> BTreeMap<(i64, u32), SegmentName> {
    let mut walked = BTreeMap::new();
    // By where they begin, and a segment ends after it begins: one look at each is enough.
    for segment in segments {
        let from = (segment.from, segment.from_tip);
        if from == (start.revision, start.tip) || walked.contains_key(&from) {
            walked
                .entry((segment.to, segment.to_tip))
                .or_insert(*segment);
        }
    }
    walked
}

/// How far the segments lead.
pub(crate) fn furthest(start: Position, segments: &[SegmentName]) -> Position {
    let last = walk(start, segments).into_keys().next_back();
    let (revision, tip) = last.unwrap_or((start.revision, start.tip));
    Position {
        chain: start.chain,
        revision,
        tip,
    }
}

/// Finds the revision of a time in what is known of the times of revisions, given in their order.
#[derive(Debug)]
pub struct UntilTime {
    unix_ms: i64,
    revision: i64,
    is_past: bool,
}

impl UntilTime {
    /// The last revision not after this time, beginning with a backup.
    #[must_use]
    pub fn new(time: SystemTime, base: &Metadata) -> Self {
        Self {
            unix_ms: unix_ms(time),
            revision: base.revision,
            is_past: false,
        }
    }

    /// Takes the times that a segment knows, and its end.
    pub fn take(&mut self, marks: &[TimeMark], segment: &SegmentName) {
        let end = TimeMark {
            revision: segment.to,
            unix_ms: segment.unix_ms,
        };
        for mark in marks.iter().chain([&end]) {
            self.is_past |= mark.unix_ms > self.unix_ms;
            if !self.is_past {
                self.revision = self.revision.max(mark.revision);
            }
        }
    }

    /// The revision.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(from: (i64, u32), to: (i64, u32), unix_ms: i64) -> SegmentName {
        SegmentName {
            chain: 1,
            from: from.0,
            from_tip: from.1,
            to: to.0,
            to_tip: to.1,
            unix_ms,
        }
    }

    const START: Position = Position {
        chain: 1,
        revision: 10,
        tip: 1,
    };

    #[test]
    fn the_way_is_found_among_segments_of_two_who_archived_at_the_same_time() {
        let mut segments = vec![
            segment((10, 1), (20, 2), 20),
            segment((20, 2), (30, 3), 30),
            segment((20, 2), (25, 7), 25),
            segment((25, 7), (40, 4), 40),
            // Another history.
            segment((30, 9), (50, 5), 50),
        ];
        segments.sort_unstable();
        assert_eq!(furthest(START, &segments).revision, 40);
        let walked = walk(START, &segments);
        assert!(!walked.contains_key(&(50, 5)));
        segments.retain(|segment| segment.to != 20);
        assert_eq!(furthest(START, &segments), START);
    }
}

//! The archive of changes between backups: segments, each with all that came after one revision up to another.
//!
//! A segment is a snapshot with only that part of history, so it is written, checked and read by the same
//! code. It begins where another segment or a backup ends; revision and digest of that place are in both names.
//! A *chain* is one history without a gap. It begins with a backup, and another one begins when it cannot
//! go on: a compaction has removed what was not archived, or the history is another one (a cluster that was
//! restored, or begun anew, under the same ids).

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use apply::Pinned;
use etcdfile::{Image, TimeMark, Tip};
use mvcc::EventKind;
use types::{ClusterId, MemberId};

use crate::compression::Compression;
use crate::error::BackupError;
use crate::name::{Named, SegmentName, unix_ms};
use crate::plan::furthest;
use crate::store::Store;
use crate::take::{Part, backups, check, check_digest, write};

/// How far an archive has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The archive.
    pub chain: u64,
    /// The last revision that is in it.
    pub revision: i64,
    /// The digest of that revision.
    pub tip: u32,
}

/// What became of the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archived {
    /// There are none.
    Nothing,
    /// They are in a segment.
    Segment {
        /// How far the archive has come.
        position: Position,
        /// Bytes of the segment.
        bytes: u64,
    },
    /// The archive cannot go on: a new one has to begin, with a backup.
    Broken(&'static str),
}

/// The digest of a revision in a state; 0 if it has no records.
pub(crate) fn tip(pinned: &Pinned, revision: i64) -> Result<u32, BackupError> {
    let mut tip = Tip::default();
    for version in pinned.store().versions_after(revision - 1)? {
        let version = version?;
        if version.revision.main != revision {
            break;
        }
        let is_tombstone = version.kind == EventKind::Delete;
        tip.add(version.revision, is_tombstone, &version.stored);
    }
    Ok(tip.digest())
}

/// How far the archive that the last backup of a cluster belongs to has come, on a way without gaps.
///
/// # Errors
/// When it cannot be read.
pub fn latest(store: &Store, cluster: ClusterId) -> Result<Option<Position>, BackupError> {
    let names = store.list()?;
    let backups = backups(store, &names, Some(cluster))?;
    let Some(chain) = backups.last().and_then(|last| last.position()) else {
        return Ok(None);
    };
    let segments = segments(&names, chain.chain);
    let starts = backups.iter().filter_map(|backup| backup.position());
    let starts = starts.filter(|start| start.chain == chain.chain);
    Ok(starts
        .map(|start| furthest(start, &segments))
        .max_by_key(|position| position.revision))
}

/// The segments of an archive, by where they begin.
pub(crate) fn segments(names: &[String], chain: u64) -> Vec<SegmentName> {
    let mut segments: Vec<SegmentName> = names
        .iter()
        .filter_map(|name| match Named::read(name) {
            Named::Segment(segment) if segment.chain == chain => Some(segment),
            _ => None,
        })
        .collect();
    segments.sort_unstable();
    segments
}

/// Archives what has changed since. `marks` are the times at which revisions were seen.
///
/// # Errors
/// When it could not be archived; the archive is as it was.
pub fn archive(
    store: &Store,
    pinned: &Pinned,
    taken: SystemTime,
    from: Position,
    marks: &[TimeMark],
    (staging, member, is_stopping): (&Path, MemberId, &AtomicBool),
) -> Result<Archived, BackupError> {
    let to = pinned.store().revision();
    let (scheduled, finished) = pinned.store().compactions();
    if to < from.revision {
        return Ok(Archived::Broken("the archive is ahead of the store"));
    }
    if scheduled.max(finished).unwrap_or(0) > from.revision {
        return Ok(Archived::Broken(
            "a compaction has removed what was not archived",
        ));
    }
    if tip(pinned, from.revision)? != from.tip {
        return Ok(Archived::Broken("the archive has another history"));
    }
    if to == from.revision {
        return Ok(Archived::Nothing);
    }
    let name = SegmentName {
        chain: from.chain,
        from: from.revision,
        from_tip: from.tip,
        to,
        to_tip: tip(pinned, to)?,
        unix_ms: unix_ms(taken),
    };
    let within = |mark: &&TimeMark| mark.revision > from.revision && mark.revision <= to;
    let marks: Vec<TimeMark> = marks.iter().filter(within).copied().collect();
    let part = Part::new(
        store
            .staging(staging)?
            .join(format!(".kvorum-{member}-archive.part")),
    );
    let image = Image::measure_after(pinned.clone(), from.revision, &marks)?;
    let written = write(&image, &part.path, Compression::Zstd, is_stopping)?;
    check(&part.path, &part.unpacked(), Compression::Zstd)?;
    let text = name.to_string();
    store.put_file(&part.path, &text)?;
    check_digest(store, &text, &written.sha256)?;
    Ok(Archived::Segment {
        position: Position {
            chain: name.chain,
            revision: name.to,
            tip: name.to_tip,
        },
        bytes: written.bytes,
    })
}

//! What comes on top of a backup: segments of the archive, up to a revision or a time.
//!
//! All of them are opened and checked before the first is used. Where one file ends and the next begins, the
//! digest of that revision has to be the one in their names, so that nothing of another history gets in.
//!
//! Keys and their history are exactly those of the revision. Leases, users and roles are those of the last
//! segment that ends at or before it, and of the backup before the first: nothing else of them has a revision. A
//! lease that was granted after that and that a key is attached to is there too; if it was gone again before
//! the next segment ended, it begins anew with [`UNKNOWN_LEASE_TTL_S`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api::leasepb::Lease;
use api::mvccpb;
use apply::{Import, Registers};
use backup::{SegmentName, Target, UntilTime};
use etcdfile::{Contents, EtcdFile, FileError, HashCheck, Tip, Within};
use mvcc::{EventKind, VersionRecord};
use prost::Message;

use super::RestoreError;
use super::fetch::Way;

/// A lease whose time to live nobody knows any more has this one, in seconds: it ended soon after.
const UNKNOWN_LEASE_TTL_S: i64 = 60;

/// Segments that were checked, and up to which revision they count.
pub(super) struct Replay {
    segments: Vec<Segment>,
    until: i64,
}

struct Segment {
    name: SegmentName,
    path: PathBuf,
    file: EtcdFile,
    contents: Contents,
}

/// The digest of the last revision that was taken.
#[derive(Default)]
struct Last {
    revision: i64,
    tip: Tip,
}

impl Last {
    fn see(&mut self, version: &VersionRecord) {
        if version.revision.main != self.revision {
            *self = Self {
                revision: version.revision.main,
                tip: Tip::default(),
            };
        }
        let is_tombstone = version.kind == EventKind::Delete;
        self.tip
            .add(version.revision, is_tombstone, &version.stored);
    }

    fn digest(&self, revision: i64) -> u32 {
        match self.revision == revision {
            true => self.tip.digest(),
            false => 0,
        }
    }
}

impl Replay {
    /// Opens and checks everything.
    pub(super) fn open(way: &Way) -> Result<Self, RestoreError> {
        let mut segments = Vec::new();
        for (name, path) in &way.segments {
            let failed = in_file(path);
            let file = EtcdFile::open(path, HashCheck::Required).map_err(&failed)?;
            let contents = file.contents().map_err(&failed)?;
            segments.push(Segment {
                name: *name,
                path: path.clone(),
                file,
                contents,
            });
        }
        let end = segments
            .last()
            .map_or(way.base.revision, |last| last.name.to);
        let until = match way.target {
            Target::Latest => end,
            Target::Revision(revision) => revision.min(end),
            Target::Time(time) => {
                let mut until = UntilTime::new(time, &way.base);
                for segment in &segments {
                    until.take(&segment.contents.time_marks, &segment.name);
                }
                until.revision()
            }
        };
        Ok(Self { segments, until })
    }

    /// The revision that is restored.
    pub(super) const fn revision(&self) -> i64 {
        self.until
    }

    /// Takes the base and everything on top of it, and returns what belongs to it beside history. `seen` is
    /// told how many versions have been read.
    pub(super) fn import(
        &self,
        (base, base_path): (&EtcdFile, &Path),
        contents: Contents,
        import: &mut Import,
        mut seen: impl FnMut(u64),
    ) -> Result<(Registers, u64), RestoreError> {
        let mut last = Last::default();
        let mut taken = 0;
        base.versions(Within::ALL, |version, _so_far| {
            last.see(version);
            import.version(version)?;
            taken += 1;
            seen(taken);
            Ok(())
        })
        .map_err(in_file(base_path))?;
        let mut registers = contents.registers;
        for segment in &self.segments {
            let name = segment.name;
            let found = last.digest(name.from);
            if found != name.from_tip {
                return Err(RestoreError::OtherHistory {
                    path: segment.path.clone(),
                    revision: name.from,
                });
            }
            let mut leases = BTreeSet::new();
            segment
                .file
                .versions(within(&name, self.until), |version, _so_far| {
                    last.see(version);
                    import.version(version)?;
                    leases.extend(lease(version)?);
                    taken += 1;
                    seen(taken);
                    Ok(())
                })
                .map_err(in_file(&segment.path))?;
            if name.to <= self.until {
                registers = segment.contents.registers.clone();
            } else {
                add_leases(&mut registers, &segment.contents.registers, &leases);
            }
        }
        Ok((registers, taken))
    }
}

fn within(name: &SegmentName, until: i64) -> Within {
    Within {
        after: name.from,
        until: name.to.min(until),
    }
}

/// The lease that a version is attached to.
fn lease(version: &VersionRecord) -> Result<Option<i64>, FileError> {
    if version.kind == EventKind::Delete {
        return Ok(None);
    }
    let kv = mvccpb::KeyValue::decode(version.stored.clone());
    // It was packed, and with that looked at, before.
    Ok(kv.ok().map(|kv| kv.lease).filter(|lease| *lease != 0))
}

/// Adds the leases of keys that the segment before did not know of.
fn add_leases(registers: &mut Registers, later: &Registers, attached: &BTreeSet<i64>) {
    let known: BTreeSet<i64> = registers.leases.iter().map(|lease| lease.id).collect();
    for id in attached.difference(&known) {
        let found = later.leases.iter().find(|lease| lease.id == *id);
        registers.leases.push(found.cloned().unwrap_or(Lease {
            id: *id,
            ttl: UNKNOWN_LEASE_TTL_S,
            remaining_ttl: 0,
        }));
    }
}

fn in_file(path: &Path) -> impl Fn(FileError) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::File {
        path: path.clone(),
        source,
    }
}

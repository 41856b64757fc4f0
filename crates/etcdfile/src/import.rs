//! A database taken apart: everything but history as our types, and history handed on version by
//! version.

use api::etcdserverpb::{AlarmMember, AlarmType};
use api::leasepb;
use apply::{Alarm, AlarmKind, Import, Member, Record, Registers};
use backend::Bucket;
use boltfile::Value;
use bytes::Bytes;
use mvcc::{EventKind, VersionRecord};
use prost::Message;
use types::{MemberId, Revision};

use crate::error::{FileError, RecordProblem};
use crate::file::EtcdFile;
use crate::marks::TimeMark;
use crate::schema::{self, ConfState, Downgrade};
use crate::version;

/// Everything of a database but its history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The last entry of the log that is in it, counted from 1; 0: none.
    pub consistent_index: u64,
    /// That entry's term; 0 before 3.5.
    pub term: u64,
    /// Who has a vote; `None` before 3.5.
    pub conf_state: Option<ConfState>,
    /// The version of what is in it; `None` before 3.6.
    pub storage_version: Option<String>,
    /// The version of its cluster.
    pub cluster_version: Option<String>,
    /// Whether its cluster was going back to an earlier version.
    pub downgrade: Option<Downgrade>,
    /// When revisions were seen; only increments know.
    pub time_marks: Vec<TimeMark>,
    /// What a state of ours holds beside its history.
    pub registers: Registers,
}

/// What was handed on of history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Versions.
    pub versions: u64,
    /// The revision of the last record, also of one that `--bump-revision` has left.
    pub revision: i64,
}

/// The revisions of history that are taken: after the first, up to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    /// These and everything before are left out.
    pub after: i64,
    /// The last one.
    pub until: i64,
}

impl Within {
    /// All of them.
    pub const ALL: Self = Self {
        after: -1,
        until: i64::MAX,
    };
}

/// How watchers are told that history was turned back (`--bump-revision`, `--mark-compacted`): the
/// revision goes far ahead, and everything up to there counts as compacted.
///
/// ```
/// # use etcdfile::RevisionBump;
/// // What etcd advises: more than the cluster can have written since the snapshot was taken.
/// let (writes_a_second, week) = (1500, 7 * 24 * 60 * 60);
/// let bump = RevisionBump(writes_a_second * week);
/// assert_eq!(bump.0, 907_200_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionBump(pub i64);

impl EtcdFile {
    /// Everything but the history.
    ///
    /// # Errors
    /// When a record is not what its bucket can hold, or the layout is newer than what is known.
    pub fn contents(&self) -> Result<Contents, FileError> {
        if self.bucket(schema::KEY)?.is_none() {
            let name = String::from_utf8_lossy(schema::KEY).into_owned();
            return Err(FileError::NoBucket { name });
        }
        let mut contents = Contents::default();
        self.each(schema::META, |key, value| meta(&mut contents, key, value))?;
        if let Some(version) = &contents.storage_version {
            version::check(version)?;
        }
        self.each(schema::CLUSTER, |key, value| {
            match key {
                schema::CLUSTER_VERSION => contents.cluster_version = Some(text(value)?),
                schema::DOWNGRADE => contents.downgrade = Some(serde_json::from_slice(value)?),
                // What later versions know more is nothing that a state of ours has.
                _ => {}
            }
            Ok(())
        })?;
        let registers = &mut contents.registers;
        for (name, bucket) in schema::AUTH_BUCKETS {
            self.each(name, |key, value| {
                // What later versions know more is nothing that a state of ours has.
                let is_known = bucket != Bucket::Auth || backend::schema::auth::decode(key).is_ok();
                registers.auth.extend(is_known.then(|| Record {
                    bucket,
                    key: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(value),
                }));
                Ok(())
            })?;
        }
        self.each(schema::LEASE, |key, value| {
            registers.leases.push(lease(key, value)?);
            Ok(())
        })?;
        self.each(schema::ALARM, |key, _value| {
            registers.alarms.extend(alarm(key)?);
            Ok(())
        })?;
        self.each(schema::MEMBERS, |key, value| {
            registers.members.push(member(key, value)?);
            Ok(())
        })?;
        self.each(schema::MEMBERS_REMOVED, |key, _removed| {
            let id = schema::decode_member_key(key).ok_or(RecordProblem::Key)?;
            registers.removed.push(id);
            Ok(())
        })?;
        Ok(contents)
    }

    /// Visits the records of a bucket, if there is one.
    fn each(
        &self,
        name: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), RecordProblem>,
    ) -> Result<(), FileError> {
        let Some(bucket) = self.bucket(name)? else {
            return Ok(());
        };
        for record in bucket.entries() {
            let record = record?;
            let Value::Bytes(value) = record.value else {
                return Err(FileError::record(name, &record.key, RecordProblem::Bucket));
            };
            visit(&record.key, &value)
                .map_err(|problem| FileError::record(name, &record.key, problem))?;
        }
        Ok(())
    }

    /// Hands history on. `seen` is told how many records have been read.
    ///
    /// # Errors
    /// When a record of history is none, or cannot be taken.
    pub fn import(
        &self,
        import: &mut Import,
        mut seen: impl FnMut(u64),
    ) -> Result<Imported, FileError> {
        self.versions(Within::ALL, |version, so_far| {
            import.version(version)?;
            seen(so_far);
            Ok(())
        })
    }

    /// Visits versions, in the order of history, each with how many there were so far.
    ///
    /// # Errors
    /// When a record of history is none, or was not taken.
    pub fn versions(
        &self,
        within: Within,
        mut take: impl FnMut(&VersionRecord, u64) -> Result<(), FileError>,
    ) -> Result<Imported, FileError> {
        let mut imported = Imported::default();
        let Some(bucket) = self.bucket(schema::KEY)? else {
            return Ok(imported);
        };
        for record in bucket.entries() {
            let record = record?;
            let problem = |problem| FileError::record(schema::KEY, &record.key, problem);
            let Value::Bytes(value) = record.value else {
                return Err(problem(RecordProblem::Bucket));
            };
            let (revision, is_tombstone) =
                schema::decode_revision(&record.key).ok_or_else(|| problem(RecordProblem::Key))?;
            if revision.main > within.until {
                break;
            }
            if revision.main <= within.after {
                continue;
            }
            imported.revision = revision.main;
            // Where a bump of the revision has left a mark there is no key.
            if value.is_empty() {
                continue;
            }
            imported.versions += 1;
            take(&version(revision, is_tombstone, value), imported.versions)?;
        }
        Ok(imported)
    }
}

fn version(revision: Revision, is_tombstone: bool, stored: Bytes) -> VersionRecord {
    let kind = match is_tombstone {
        true => EventKind::Delete,
        false => EventKind::Put,
    };
    VersionRecord {
        revision,
        kind,
        stored,
    }
}

fn meta(contents: &mut Contents, key: &[u8], value: &[u8]) -> Result<(), RecordProblem> {
    let number = || schema::decode_number(value).ok_or(RecordProblem::Value);
    let revision = || {
        let revision = schema::decode_revision(value).ok_or(RecordProblem::Value)?;
        Ok::<_, RecordProblem>(revision.0.main)
    };
    let registers = &mut contents.registers;
    match key {
        schema::CONSISTENT_INDEX => contents.consistent_index = number()?,
        schema::TERM => contents.term = number()?,
        schema::CONF_STATE => contents.conf_state = Some(serde_json::from_slice(value)?),
        schema::SCHEDULED_COMPACT => registers.scheduled_compaction = Some(revision()?),
        schema::FINISHED_COMPACT => registers.finished_compaction = Some(revision()?),
        schema::STORAGE_VERSION => contents.storage_version = Some(text(value)?),
        schema::TIME_MARKS => {
            let marks = TimeMark::decode(value).ok_or(RecordProblem::Value)?;
            contents.time_marks = marks;
        }
        // What later versions know more is nothing that a state of ours has.
        _ => {}
    }
    Ok(())
}

fn text(value: &[u8]) -> Result<String, RecordProblem> {
    let text = std::str::from_utf8(value);
    Ok(text.map_err(|_no_text| RecordProblem::Value)?.to_owned())
}

fn lease(key: &[u8], value: &[u8]) -> Result<leasepb::Lease, RecordProblem> {
    let id = key.try_into().map_err(|_other_length| RecordProblem::Key)?;
    let lease = leasepb::Lease::decode(value)?;
    if lease.id != i64::from_be_bytes(id) {
        return Err(RecordProblem::Value);
    }
    Ok(lease)
}

fn alarm(key: &[u8]) -> Result<Option<Alarm>, RecordProblem> {
    let alarm = AlarmMember::decode(key)?;
    let kind = match AlarmType::try_from(alarm.alarm) {
        Ok(AlarmType::Nospace) => AlarmKind::NoSpace,
        Ok(AlarmType::Corrupt) => AlarmKind::Corrupt,
        Ok(AlarmType::None) => return Ok(None),
        Err(_unknown) => return Err(RecordProblem::Key),
    };
    Ok(Some(Alarm {
        member: MemberId(alarm.member_id),
        kind,
    }))
}

fn member(key: &[u8], value: &[u8]) -> Result<Member, RecordProblem> {
    let id = schema::decode_member_key(key).ok_or(RecordProblem::Key)?;
    let member = schema::decode_member(value)?;
    if member.id != id {
        return Err(RecordProblem::Value);
    }
    Ok(member)
}

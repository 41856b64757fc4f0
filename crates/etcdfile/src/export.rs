//! A pinned state as an etcd's database.
//!
//! It holds exactly what an etcd would at that entry: all history that is not compacted yet, the marks
//! of a compaction that is still going on (whoever restores it finishes it, as after a crash), leases,
//! alarms and members.
//!
//! Differs from etcd: there is no cluster version in it. An etcd that finds one refuses to start if its
//! own is lower; without one the members of the restored cluster agree on theirs, whatever it is, and
//! so the way back leads to any etcd.

use std::collections::BTreeMap;
use std::io::Write;

use api::etcdserverpb::{AlarmMember, AlarmType};
use apply::{AlarmKind, Pinned, Registers};
use boltfile::{Plan, Writer};
use mvcc::EventKind;
use prost::Message;
use types::{Revision, Version};

use crate::error::ExportError;
use crate::marks::TimeMark;
use crate::schema::{self, storage_version};

type Bucket = BTreeMap<Vec<u8>, Vec<u8>>;

/// A state as a database that can be written. Reads the state twice: once to be measured, once to be
/// written. Blocks on the disk.
#[derive(Debug)]
pub struct Image {
    pinned: Pinned,
    storage_version: Version,
    /// Everything but the history.
    small: BTreeMap<&'static [u8], Bucket>,
    /// History begins after this revision; 0: it is all there.
    after: i64,
    plan: Plan,
}

impl Image {
    /// Measures it.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn measure(pinned: Pinned) -> Result<Self, ExportError> {
        let registers = pinned.registers()?;
        let small = small(&pinned, &registers);
        Self::of(pinned, &registers, small, 0)
    }

    /// Measures an increment: of history only what came after revision `after`, and all the rest.
    /// `marks` are the times at which revisions were seen, see [`TimeMark`]. No etcd reads this; with the
    /// snapshot before it, [`EtcdFile`](crate::EtcdFile) does.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn measure_after(
        pinned: Pinned,
        after: i64,
        marks: &[TimeMark],
    ) -> Result<Self, ExportError> {
        let registers = pinned.registers()?;
        let mut small = small(&pinned, &registers);
        let meta = small.entry(schema::META).or_default();
        meta.insert(schema::TIME_MARKS.to_vec(), TimeMark::encode(marks));
        Self::of(pinned, &registers, small, after)
    }

    fn of(
        pinned: Pinned,
        registers: &Registers,
        small: BTreeMap<&'static [u8], Bucket>,
        after: i64,
    ) -> Result<Self, ExportError> {
        let plan = put_all(Writer::measure(), &pinned, &small, after)?;
        Ok(Self {
            pinned,
            storage_version: storage_version(registers.cluster_version),
            small,
            after,
            plan,
        })
    }

    /// Bytes of the database.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.plan.bytes()
    }

    /// Its revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.pinned.store().revision()
    }

    /// The version that it says it is of; empty before 3.6, when databases did not say.
    #[must_use]
    pub fn storage_version(&self) -> String {
        let version = Some(self.storage_version).filter(|version| schema::is_told(*version));
        version.map_or_else(String::new, |version| version.to_string())
    }

    /// Writes it, without a checksum at its end.
    ///
    /// # Errors
    /// When the state cannot be read, or `out` does not take it.
    pub fn write(&self, out: impl Write) -> Result<(), ExportError> {
        let writer = Writer::new(out, self.plan)?;
        put_all(writer, &self.pinned, &self.small, self.after)?;
        Ok(())
    }
}

fn put_all<W: Write>(
    mut writer: Writer<W>,
    pinned: &Pinned,
    small: &BTreeMap<&'static [u8], Bucket>,
    after: i64,
) -> Result<Plan, ExportError> {
    for (name, records) in small {
        writer.bucket(name)?;
        for (key, value) in records {
            writer.put(key, value)?;
        }
    }
    writer.bucket(schema::KEY)?;
    for version in pinned.store().versions_after(after)? {
        let version = version?;
        let is_tombstone = version.kind == EventKind::Delete;
        let key = schema::encode_revision(version.revision, is_tombstone);
        writer.put(&key, &version.stored)?;
    }
    Ok(writer.finish()?)
}

fn small(pinned: &Pinned, registers: &Registers) -> BTreeMap<&'static [u8], Bucket> {
    let mut small: BTreeMap<&'static [u8], Bucket> = schema::BUCKETS
        .into_iter()
        .filter(|name| *name != schema::KEY)
        .map(|name| (name, Bucket::new()))
        .collect();
    let mut put = |bucket, key: Vec<u8>, value: Vec<u8>| {
        small.entry(bucket).or_default().insert(key, value);
    };
    let applied = pinned.applied();
    for (name, value) in meta(registers) {
        put(schema::META, name.to_vec(), value);
    }
    // etcd counts entries from 1.
    let index = (applied.index + 1).to_be_bytes().to_vec();
    put(schema::META, schema::CONSISTENT_INDEX.to_vec(), index);
    put(
        schema::META,
        schema::TERM.to_vec(),
        applied.term.to_be_bytes().to_vec(),
    );
    for lease in &registers.leases {
        let key = lease.id.to_be_bytes().to_vec();
        put(schema::LEASE, key, lease.encode_to_vec());
    }
    for record in &registers.auth {
        let same = schema::AUTH_BUCKETS.into_iter();
        for (name, _) in same.filter(|(_, bucket)| *bucket == record.bucket) {
            put(name, record.key.to_vec(), record.value.to_vec());
        }
    }
    for alarm in &registers.alarms {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => AlarmType::Nospace,
            AlarmKind::Corrupt => AlarmType::Corrupt,
        };
        let alarm = AlarmMember {
            member_id: alarm.member.0,
            alarm: kind.into(),
        };
        put(schema::ALARM, alarm.encode_to_vec(), Vec::new());
    }
    for member in &registers.members {
        let key = schema::member_key(member.id);
        put(schema::MEMBERS, key, schema::encode_member(member));
    }
    for id in &registers.removed {
        let value = schema::REMOVED.to_vec();
        put(schema::MEMBERS_REMOVED, schema::member_key(*id), value);
    }
    small
}

fn meta(registers: &Registers) -> Vec<(&'static [u8], Vec<u8>)> {
    let conf_state = schema::encode_conf_state(&registers.members);
    let mut meta = vec![(schema::CONF_STATE, conf_state)];
    let storage_version = storage_version(registers.cluster_version);
    if schema::is_told(storage_version) {
        let version = storage_version.to_string().into_bytes();
        meta.push((schema::STORAGE_VERSION, version));
    }
    let compactions = [
        (schema::SCHEDULED_COMPACT, registers.scheduled_compaction),
        (schema::FINISHED_COMPACT, registers.finished_compaction),
    ];
    for (name, revision) in compactions {
        if let Some(main) = revision {
            let revision = schema::encode_revision(Revision::new(main, 0), false);
            meta.push((name, revision));
        }
    }
    meta
}

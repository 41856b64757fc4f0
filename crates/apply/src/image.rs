//! A state that leaves for a store of another kind, and one that comes from there: history version by
//! version, and everything else as the types that commands have.
//!
//! What this is not: it knows no other kind of store; `etcdfile` knows etcd's.

use api::leasepb;
use backend::schema::meta::{self, MetaKey};
use backend::{Backend, Batch, Bucket, schema};
use bytes::Bytes;
use mvcc::{PackedSegment, SegmentPacker, VersionRecord};
use prost::Message;
use types::{LeaseId, MemberId, Version};

use crate::alarm::{self, Alarm};
use crate::command::codec;
use crate::state_machine::Loaded;
use crate::{LogPosition, Member, OpenError, Pinned, Record, storage, versions};

use filler::Filler;

mod filler;

/// Records that go into a new store in one batch, at most.
const BATCH_RECORDS_MAX: usize = 256;
/// Bytes of segments that go into a new store in one batch, about.
const BATCH_BYTES: usize = 8 << 20;

/// Everything of a state but its history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registers {
    /// The current revision, if it is not that of the last version.
    pub revision: Option<i64>,
    /// The revision up to which history is to be removed.
    pub scheduled_compaction: Option<i64>,
    /// The revision up to which it has been.
    pub finished_compaction: Option<i64>,
    /// The leases.
    pub leases: Vec<leasepb::Lease>,
    /// Users, roles and whether they count: records of the buckets `Auth`, `AuthUsers` and `AuthRoles`,
    /// whose keys and values are etcd's.
    pub auth: Vec<Record>,
    /// The alarms that stand.
    pub alarms: Vec<Alarm>,
    /// The members.
    pub members: Vec<Member>,
    /// The ids of those that were removed.
    pub removed: Vec<MemberId>,
    /// The cluster's version. It is read, and not written: the members of a cluster agree on theirs.
    pub cluster_version: Option<Version>,
}

impl Pinned {
    /// Everything but the history.
    pub fn registers(&self) -> Result<Registers, OpenError> {
        let (scheduled_compaction, finished_compaction) = self.store().compactions();
        let mut registers = Registers {
            revision: Some(self.store().revision()),
            scheduled_compaction,
            finished_compaction,
            ..Registers::default()
        };
        for record in self.small() {
            let decode = |source| OpenError::Decode {
                bucket: record.bucket,
                key: record.key.clone(),
                source,
            };
            let value = record.value.clone();
            match record.bucket {
                Bucket::Lease => {
                    let lease = leasepb::Lease::decode(value).map_err(decode)?;
                    registers.leases.push(lease);
                }
                Bucket::Auth | Bucket::AuthUsers | Bucket::AuthRoles => {
                    registers.auth.push(record.clone());
                }
                Bucket::Alarm => registers.alarms.push(alarm::decode(&record.key)?),
                Bucket::Members => {
                    let message = api::internalpb::Member::decode(value).map_err(decode)?;
                    registers.members.push(codec::member_from(message));
                }
                Bucket::MembersRemoved => {
                    let id = schema::members::decode(&record.key)?;
                    registers.removed.push(id);
                }
                Bucket::Meta if record.key == meta::encode(MetaKey::ClusterVersion) => {
                    registers.cluster_version = Some(versions::decode(&value)?);
                }
                _ => {}
            }
        }
        Ok(registers)
    }
}

/// A state could not be made out of what came.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A version is none.
    #[error(transparent)]
    Version(#[from] mvcc::StoreError),
    /// It cannot be written.
    #[error("cannot write the state")]
    Write(#[from] backend::WriteError),
    /// There is no thread to write it.
    #[error("cannot start the thread that writes the state")]
    Thread(#[source] std::io::Error),
    /// What was made cannot be loaded.
    #[error("the state that was made cannot be loaded")]
    Load(#[from] OpenError),
}

/// A state that is made in an empty store: its history first, version by version, then the rest. It is
/// nothing before [`Import::finish`] has returned: a store that is left before cannot be opened.
#[derive(Debug)]
pub struct Import {
    filler: Filler,
    packer: SegmentPacker,
    batch: Batch,
    records: usize,
    bytes: usize,
}

impl Import {
    /// Begins. Blocks on the disk, as everything here.
    pub fn begin(mut backend: Backend) -> Result<Self, ImportError> {
        // Until it is whole, nobody opens it.
        let mut batch = Batch::new();
        batch.put(Bucket::Meta, meta::encode(MetaKey::Incoming), Bytes::new());
        backend.writer.commit(batch)?;
        Ok(Self {
            filler: Filler::start(backend).map_err(ImportError::Thread)?,
            packer: SegmentPacker::default(),
            batch: Batch::new(),
            records: 0,
            bytes: 0,
        })
    }

    /// Adds a version, in the order of history.
    pub fn version(&mut self, version: &VersionRecord) -> Result<(), ImportError> {
        if let Some(full) = self.packer.push(version)? {
            self.segment(full)?;
        }
        Ok(())
    }

    fn segment(&mut self, (key, value): PackedSegment) -> Result<(), ImportError> {
        self.put(Bucket::Key, key, value)
    }

    fn put(&mut self, bucket: Bucket, key: Bytes, value: Bytes) -> Result<(), ImportError> {
        self.records += 1;
        self.bytes += key.len() + value.len();
        self.batch.put(bucket, key, value);
        if self.records >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), ImportError> {
        (self.records, self.bytes) = (0, 0);
        self.filler.fill(std::mem::take(&mut self.batch))
    }

    /// Adds the rest: the state is that of entry `at`, with the `membership` that Raft wants back. Makes
    /// it durable, and loads it, which checks it, before anybody may open it.
    pub fn finish(
        mut self,
        registers: &Registers,
        at: LogPosition,
        membership: Bytes,
    ) -> Result<Backend, ImportError> {
        if let Some(last) = self.packer.finish() {
            self.segment(last)?;
        }
        self.registers(registers)?;
        storage::stage_membership(&mut self.batch, membership);
        storage::stage_installed(&mut self.batch, at);
        self.commit()?;
        let mut backend = self.filler.finish()?;
        backend.writer.flush_durable()?;
        let usage = Loaded::load_incoming(&backend.reader)?.counted();
        let mut batch = Batch::new();
        storage::stage(&mut batch, Some(at), &usage);
        batch.delete(Bucket::Meta, meta::encode(MetaKey::Incoming));
        backend.writer.commit(batch)?;
        backend.writer.flush_durable()?;
        storage::open(&backend.reader)?;
        Ok(backend)
    }

    fn registers(&mut self, registers: &Registers) -> Result<(), ImportError> {
        let revisions = [
            (MetaKey::CurrentRevision, registers.revision),
            (MetaKey::ScheduledCompact, registers.scheduled_compaction),
            (MetaKey::FinishedCompact, registers.finished_compaction),
        ];
        for (key, revision) in revisions {
            if let Some(revision) = revision {
                let value = Bytes::copy_from_slice(&revision.to_be_bytes());
                self.put(Bucket::Meta, Bytes::from_static(meta::encode(key)), value)?;
            }
        }
        for lease in &registers.leases {
            let key = Bytes::copy_from_slice(&schema::lease::encode(LeaseId(lease.id)));
            self.put(Bucket::Lease, key, lease.encode_to_vec().into())?;
        }
        for record in registers.auth.iter().cloned() {
            self.put(record.bucket, record.key, record.value)?;
        }
        for alarm in &registers.alarms {
            self.put(Bucket::Alarm, alarm::encode(*alarm), Bytes::new())?;
        }
        for member in &registers.members {
            let key = Bytes::copy_from_slice(&schema::members::encode(member.id));
            let value = codec::member_to(member).encode_to_vec();
            self.put(Bucket::Members, key, value.into())?;
        }
        for id in &registers.removed {
            let key = Bytes::copy_from_slice(&schema::members::encode(*id));
            let value = Bytes::from_static(schema::members::REMOVED);
            self.put(Bucket::MembersRemoved, key, value)?;
        }
        Ok(())
    }
}

/// Says of a state that was made and has gone on since that it was made as of its last entry, and with
/// which `membership`. Durable on return.
pub fn stamp(
    backend: &mut Backend,
    at: LogPosition,
    membership: Bytes,
) -> Result<(), backend::WriteError> {
    let mut batch = Batch::new();
    storage::stage_membership(&mut batch, membership);
    storage::stage_installed(&mut batch, at);
    backend.writer.commit(batch)?;
    backend.writer.flush_durable()
}

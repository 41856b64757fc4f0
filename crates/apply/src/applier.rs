//! One command against everything that is replicated (`server/etcdserver/apply`).
//!
//! What etcd builds as a chain of appliers is one question here, asked before a command is looked
//! at: does an alarm forbid it.

mod auth;

use mvcc::{CompactError, RangeError};
use types::{KeyRange, LeaseId};

use crate::access::{Access, permit};
use crate::alarm::AlarmStore;
use crate::cluster::MemberStore;
use crate::quota::{self, Room, Usage};
use crate::txn::check::{self, Bounds};
use crate::txn::compare::Branch;
use crate::txn::write::Target;
use crate::versions::VersionStore;
use crate::{
    AlarmKind, Command, DeleteRange, Fatal, LogPosition, Put, Rejection, Reply, Request, Txn,
};

/// The outcome of a command: an answer or a refusal, or the end of this member.
type Outcome = Result<Result<Reply, Rejection>, Fatal>;

/// Everything replicated, with the right to change it.
#[derive(Debug)]
pub(crate) struct Applier {
    pub(crate) store: mvcc::Writer,
    pub(crate) leases: lease::Writer,
    pub(crate) auth: ::auth::Writer,
    pub(crate) alarms: AlarmStore,
    pub(crate) members: MemberStore,
    pub(crate) versions: VersionStore,
    pub(crate) usage: Usage,
    /// This member's own: it is told, and decides nothing.
    pub(crate) room: Room,
}

impl Applier {
    pub(crate) fn apply(&mut self, at: LogPosition, request: &Request) -> Outcome {
        let Request { asker, command } = request;
        if let Err(rejection) = self.admit(command) {
            return Ok(Err(rejection));
        }
        let access = Access::Command(command);
        if let Err(error) = permit(access, asker, self.auth.state(), &self.leases) {
            return Ok(Err(error.into()));
        }
        match command {
            Command::Put(put) => Ok(self.put(put)),
            Command::DeleteRange(delete) => Ok(Ok(self.delete_range(delete))),
            Command::Txn(txn) => self.txn(txn),
            Command::Compact { revision } => Ok(self.compact(*revision)),
            Command::LeaseGrant { id, ttl_s } => Ok(self.lease_grant(*id, *ttl_s)),
            Command::LeaseRevoke { id } => Ok(self.lease_revoke(*id)),
            Command::LeaseCheckpoint { leases } => {
                for (id, remaining_s) in leases {
                    self.leases.checkpoint(*id, *remaining_s);
                }
                Ok(Ok(self.done()))
            }
            Command::Alarm {
                action,
                member,
                alarm,
            } => Ok(Ok(Reply::Alarm(
                self.alarms.request(*action, *member, *alarm),
            ))),
            Command::PublishMember(member) => {
                self.members.publish_member(member);
                Ok(Ok(self.done()))
            }
            Command::Auth(command) => Ok(self.auth(at, command)),
            Command::ClusterVersionSet { version } => {
                self.versions.set_cluster(*version);
                Ok(Ok(self.done()))
            }
            Command::DowngradeInfoSet { target } => {
                self.versions.set_downgrade(*target);
                Ok(Ok(self.done()))
            }
        }
    }

    /// Refuses what an alarm forbids.
    fn admit(&self, command: &Command) -> Result<(), Rejection> {
        let is_exempt = matches!(
            command,
            Command::Alarm { .. }
                | Command::PublishMember(_)
                | Command::Auth(_)
                | Command::LeaseCheckpoint { .. }
                | Command::ClusterVersionSet { .. }
                | Command::DowngradeInfoSet { .. }
        );
        if !is_exempt && self.alarms.stands(AlarmKind::Corrupt) {
            return Err(Rejection::Corrupt);
        }
        let cost = quota::cost(command);
        if cost > 0 && self.alarms.stands(AlarmKind::NoSpace) {
            return Err(Rejection::NoSpace);
        }
        // Differs from etcd: it carries out what does not fit as well, but answers NOSPACE.
        self.room.note(self.store.size(), cost);
        Ok(())
    }

    fn done(&self) -> Reply {
        Reply::Done {
            revision: self.store.revision(),
        }
    }

    fn put(&mut self, put: &Put) -> Result<Reply, Rejection> {
        check::lease_exists(put, &self.leases)?;
        let mut txn = self.store.begin();
        if let Err(rejection) = check::kept_key_exists(put, &txn) {
            txn.end();
            return Err(rejection);
        }
        let (leases, usage) = (&mut self.leases, &mut self.usage);
        let put = Target {
            txn: &mut txn,
            leases,
            usage,
        }
        .put(put);
        Ok(Reply::Put {
            revision: txn.end(),
            put,
        })
    }

    fn delete_range(&mut self, delete: &DeleteRange) -> Reply {
        let mut txn = self.store.begin();
        let (leases, usage) = (&mut self.leases, &mut self.usage);
        let delete_range = Target {
            txn: &mut txn,
            leases,
            usage,
        }
        .delete_range(delete);
        Reply::DeleteRange {
            revision: txn.end(),
            delete_range,
        }
    }

    fn txn(&mut self, request: &Txn) -> Outcome {
        let bounds = Bounds {
            compact_revision: self.store.compact_revision(),
            revision: self.store.revision(),
        };
        let mut txn = self.store.begin();
        let branch = Branch::choose(&txn, request).map_err(broken)?;
        if let Err(rejection) = check::all(&branch, &txn, &self.leases, bounds) {
            txn.end();
            return Ok(Err(rejection));
        }
        let (leases, usage) = (&mut self.leases, &mut self.usage);
        let reply = Target {
            txn: &mut txn,
            leases,
            usage,
        }
        .execute(&branch);
        // Whatever has become of it: a transaction has to be ended.
        let revision = txn.end();
        Ok(Ok(Reply::Txn {
            revision,
            txn: reply.map_err(broken)?,
        }))
    }

    fn compact(&mut self, revision: i64) -> Result<Reply, Rejection> {
        self.store.compact(revision).map_err(|error| match error {
            CompactError::Compacted => Rejection::Compacted,
            CompactError::FutureRevision => Rejection::FutureRevision,
        })?;
        Ok(self.done())
    }

    fn lease_grant(&mut self, id: LeaseId, ttl_s: i64) -> Result<Reply, Rejection> {
        if id == LeaseId(0) {
            return Err(Rejection::LeaseNotFound);
        }
        match self.leases.grant(id, ttl_s) {
            Ok(()) => Ok(self.done()),
            Err(lease::GrantError::Exists) => Err(Rejection::LeaseExists),
        }
    }

    /// The keys go in sorted order, in one revision: the same on every member.
    fn lease_revoke(&mut self, id: LeaseId) -> Result<Reply, Rejection> {
        let Ok(keys) = self.leases.revoke(id) else {
            return Err(Rejection::LeaseNotFound);
        };
        debug_assert!(keys.is_sorted(), "a lease's keys are sorted");
        let mut txn = self.store.begin();
        let (leases, usage) = (&mut self.leases, &mut self.usage);
        let mut target = Target {
            txn: &mut txn,
            leases,
            usage,
        };
        for key in keys {
            target.delete_range(&DeleteRange {
                keys: KeyRange::Single(key),
                prev_kv: false,
            });
        }
        Ok(Reply::Done {
            revision: txn.end(),
        })
    }
}

/// A range inside a transaction failed that has passed the checks.
fn broken(error: RangeError) -> Fatal {
    match error {
        RangeError::Store(error) => Fatal::Store(error),
        RangeError::Compacted { .. } | RangeError::FutureRevision => {
            unreachable!("every revision was checked before the first operation")
        }
    }
}

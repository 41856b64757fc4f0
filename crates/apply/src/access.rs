//! What a request needs, and whether who asks has it (`server/etcdserver/apply/apply_auth.go`).
//!
//! The only place that derives permissions from requests: for what comes out of the log and for what
//! is read beside it, whatever nests in it. Nothing has a default: a kind of request, operation or lease
//! that is added does not compile until it has its rule here.
//!
//! What is read is checked by whoever reads, before and after: see [`Guard`].

use std::sync::Arc;

use auth::{Auth, AuthError, AuthInfo, State};
use bytes::Bytes;
use types::{KeyRange, LeaseId};

use crate::command::{Asker, AuthCommand};
use crate::{AlarmAction, Command, Compare, DeleteRange, Op, Put, PutLease, RangeOp, Txn};

/// What somebody wants. All that clients can ask for is one of these.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// Have a command carried out.
    Command(&'a Command),
    /// Read or watch keys.
    Keys(&'a KeyRange),
    /// Have a transaction answered that only reads.
    ReadTxn(&'a Txn),
    /// Renew a lease.
    LeaseRenew(LeaseId),
    /// Know what a lease has left.
    LeaseTimeToLive(LeaseId),
    /// ... and its keys.
    LeaseKeys(LeaseId),
    /// Know which leases there are.
    LeaseList,
    /// Know a user's roles.
    UserGet(&'a str),
    /// Know a role's permissions.
    RoleGet(&'a str),
    /// Something that nobody may have without a name, and everybody with one.
    Somebody,
    /// Something that only root may have.
    Admin,
}

/// Where the keys of leases are found.
pub trait LeaseKeys {
    /// The keys of a lease; none if it is not there.
    fn keys_of(&self, id: LeaseId) -> Vec<Bytes>;
    /// Every lease.
    fn all(&self) -> Vec<LeaseId>;
}

impl LeaseKeys for lease::Leases {
    fn keys_of(&self, id: LeaseId) -> Vec<Bytes> {
        self.get(id).map(|lease| lease.keys).unwrap_or_default()
    }

    fn all(&self) -> Vec<LeaseId> {
        self.list()
    }
}

/// A lease as it was read.
impl LeaseKeys for lease::Lease {
    fn keys_of(&self, id: LeaseId) -> Vec<Bytes> {
        debug_assert_eq!(id, self.id, "the lease that was asked for");
        self.keys.clone()
    }

    fn all(&self) -> Vec<LeaseId> {
        vec![self.id]
    }
}

impl LeaseKeys for lease::Writer {
    fn keys_of(&self, id: LeaseId) -> Vec<Bytes> {
        self.keys(id)
    }

    fn all(&self) -> Vec<LeaseId> {
        self.list()
    }
}

/// Whether `asker` may have what it wants, by these users and roles.
///
/// # Errors
///
/// When it may not.
pub fn permit(
    access: Access<'_>,
    asker: &Asker,
    state: &State,
    leases: &dyn LeaseKeys,
) -> Result<(), AuthError> {
    if !state.is_enabled() {
        return Ok(());
    }
    match asker {
        Asker::Member => Ok(()),
        Asker::Client(client) => Visitor {
            state,
            client,
            leases,
        }
        .access(access),
    }
}

/// Watches over a read beside the log: what is allowed before it must still be so after it.
#[derive(Clone, Debug)]
pub struct Guard {
    auth: Auth,
    asker: Asker,
    /// Whether names had to be said when it was allowed.
    was_enabled: bool,
}

impl Guard {
    /// Allows a read, if `asker` may have it now.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn new(
        access: Access<'_>,
        asker: Asker,
        auth: &Auth,
        leases: &dyn LeaseKeys,
    ) -> Result<Self, AuthError> {
        let state: Arc<State> = auth.state();
        permit(access, &asker, &state, leases)?;
        Ok(Self {
            auth: auth.clone(),
            asker,
            was_enabled: state.is_enabled(),
        })
    }

    /// Allows something once more, with the keys of leases from elsewhere.
    ///
    /// # Errors
    ///
    /// When who asks may not have it.
    pub fn permit(&self, access: Access<'_>, leases: &dyn LeaseKeys) -> Result<(), AuthError> {
        permit(access, &self.asker, &self.auth.state(), leases)
    }

    /// Whether what was read may be handed out.
    ///
    /// # Errors
    ///
    /// When users or roles have changed meanwhile.
    pub fn check_again(&self) -> Result<(), AuthError> {
        match &self.asker {
            // Nobody asked, because nobody had to say a name. If authentication was switched on meanwhile, what
            // was read may be from after that. Differs from etcd, which hands it out.
            Asker::Client(client)
                if !client.is_somebody() && !self.was_enabled && self.auth.is_enabled() =>
            {
                Err(AuthError::UserEmpty)
            }
            Asker::Client(client)
                if client.is_somebody() && client.revision != self.auth.revision() =>
            {
                Err(AuthError::AuthOldRevision)
            }
            Asker::Client(_) | Asker::Member => Ok(()),
        }
    }
}

/// Goes through a request and asks for everything that it needs.
struct Visitor<'a> {
    state: &'a State,
    client: &'a AuthInfo,
    leases: &'a dyn LeaseKeys,
}

impl Visitor<'_> {
    fn access(&self, access: Access<'_>) -> Result<(), AuthError> {
        match access {
            Access::Command(command) => self.command(command),
            Access::Keys(keys) => self.read(keys),
            Access::ReadTxn(txn) => self.txn(txn),
            Access::LeaseRenew(id) => {
                self.somebody()?;
                self.write_lease(id)
            }
            Access::LeaseKeys(id) => {
                self.somebody()?;
                self.read_leases(&[id])
            }
            Access::LeaseList => {
                self.somebody()?;
                if self.admin().is_ok() {
                    return Ok(());
                }
                self.read_leases(&self.leases.all())
            }
            Access::UserGet(name) => match self.admin() {
                Err(error) if name != self.client.user => Err(error),
                _ => Ok(()),
            },
            Access::RoleGet(role) => match self.admin() {
                Err(error) if !self.state.has_role(&self.client.user, role) => Err(error),
                _ => Ok(()),
            },
            Access::LeaseTimeToLive(_) | Access::Somebody => self.somebody(),
            Access::Admin => self.admin(),
        }
    }

    fn command(&self, command: &Command) -> Result<(), AuthError> {
        match command {
            Command::Put(put) => self.put(put),
            Command::DeleteRange(delete) => self.delete_range(delete),
            Command::Txn(txn) => self.txn(txn),
            Command::Compact { revision: _ } => self.admin(),
            Command::LeaseGrant { id: _, ttl_s: _ } => self.somebody(),
            Command::LeaseRevoke { id } => {
                self.somebody()?;
                self.write_lease(*id)
            }
            Command::Alarm {
                action: AlarmAction::Get,
                ..
            } => self.somebody(),
            Command::Alarm {
                action: AlarmAction::Activate | AlarmAction::Deactivate | AlarmAction::Quarantine,
                ..
            } => self.admin(),
            // Only a member says this, of itself or of what it knows as the leader.
            Command::PublishMember(_)
            | Command::LeaseCheckpoint { .. }
            | Command::ClusterVersionSet { .. } => Err(AuthError::PermissionDenied),
            Command::DowngradeInfoSet { .. } => self.admin(),
            Command::Auth(command) => self.auth(command),
        }
    }

    fn auth(&self, command: &AuthCommand) -> Result<(), AuthError> {
        match command {
            // The password has been checked, and says who asks.
            AuthCommand::Authenticate { .. } => Ok(()),
            AuthCommand::Enable
            | AuthCommand::Disable
            | AuthCommand::UserAdd { .. }
            | AuthCommand::UserDelete { .. }
            | AuthCommand::UserChangePassword { .. }
            | AuthCommand::UserGrantRole { .. }
            | AuthCommand::UserRevokeRole { .. }
            | AuthCommand::RoleAdd { .. }
            | AuthCommand::RoleDelete { .. }
            | AuthCommand::RoleGrantPermission { .. }
            | AuthCommand::RoleRevokePermission { .. } => self.admin(),
        }
    }

    fn put(&self, put: &Put) -> Result<(), AuthError> {
        let Put {
            key,
            value: _,
            lease,
            prev_kv,
        } = put;
        self.write_key(key)?;
        match lease {
            // Whoever attaches a key to a lease must be able to revoke it with all its keys.
            PutLease::Attach(id) => self.write_lease(*id)?,
            PutLease::Detach | PutLease::Keep => {}
        }
        match prev_kv {
            true => self.read(&KeyRange::Single(key.clone())),
            false => Ok(()),
        }
    }

    fn delete_range(&self, delete: &DeleteRange) -> Result<(), AuthError> {
        let DeleteRange { keys, prev_kv } = delete;
        self.write(keys)?;
        match prev_kv {
            true => self.read(keys),
            false => Ok(()),
        }
    }

    fn txn(&self, txn: &Txn) -> Result<(), AuthError> {
        let Txn {
            compare,
            success,
            failure,
        } = txn;
        for compare in compare {
            let Compare {
                keys,
                operator: _,
                target: _,
            } = compare;
            self.read(keys)?;
        }
        // Both branches, whichever will run: which one does is an answer, too.
        success.iter().chain(failure).try_for_each(|op| self.op(op))
    }

    fn op(&self, op: &Op) -> Result<(), AuthError> {
        match op {
            Op::Range(RangeOp { keys, .. }) => self.read(keys),
            Op::Put(put) => self.put(put),
            Op::DeleteRange(delete) => self.delete_range(delete),
            Op::Txn(txn) => self.txn(txn),
        }
    }

    fn write_lease(&self, id: LeaseId) -> Result<(), AuthError> {
        if self.admin().is_ok() {
            return Ok(());
        }
        let keys = self.leases.keys_of(id);
        keys.iter().try_for_each(|key| self.write_key(key))
    }

    fn read_leases(&self, ids: &[LeaseId]) -> Result<(), AuthError> {
        if self.admin().is_ok() {
            return Ok(());
        }
        for id in ids {
            for key in self.leases.keys_of(*id) {
                self.read(&KeyRange::Single(key))?;
            }
        }
        Ok(())
    }

    fn write_key(&self, key: &Bytes) -> Result<(), AuthError> {
        self.write(&KeyRange::Single(key.clone()))
    }

    fn read(&self, keys: &KeyRange) -> Result<(), AuthError> {
        self.state.check_read(self.client, keys)
    }

    fn write(&self, keys: &KeyRange) -> Result<(), AuthError> {
        self.state.check_write(self.client, keys)
    }

    fn somebody(&self) -> Result<(), AuthError> {
        self.state.check_somebody(self.client)
    }

    fn admin(&self) -> Result<(), AuthError> {
        self.state.check_admin(self.client)
    }
}

//! Who may do what, as of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::authpb::{Role, User};
use arc_swap::ArcSwap;
use backend::schema::auth::{self as schema, AuthKey};
use backend::{Bucket, Reader};
use bytes::Bytes;
use prost::Message;
use types::KeyRange;

use crate::range_perm::RangePermissions;
use crate::{AuthError, OpenError, ROOT_ROLE, Tokens};

/// The revision of a store that was never changed.
const FIRST_REVISION: u64 = 1;

/// Who asks, and what was known about users and roles when that was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthInfo {
    /// The user's name.
    pub user: String,
    /// The revision; 0 if nobody says who asks.
    pub revision: u64,
}

impl AuthInfo {
    /// Whether it is known who asks. That there is such a user is another question.
    #[must_use]
    pub fn is_somebody(&self) -> bool {
        *self != Self::default()
    }
}

/// Reads users and roles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth {
    pub(crate) published: Arc<ArcSwap<State>>,
    pub(crate) tokens: Tokens,
}

impl Auth {
    /// Users and roles as they are now.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.published.load_full()
    }

    /// Whether authentication is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.published.load().enabled
    }

    /// The revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.published.load().revision
    }

    /// This member's tokens.
    #[must_use]
    pub const fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

/// A user, with what its roles allow together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Account {
    pub(crate) user: User,
    pub(crate) permissions: RangePermissions,
}

/// Users, roles and the switch. Cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) enabled: bool,
    /// These have come with keys that are not in place yet.
    pub(crate) is_in_between: bool,
    pub(crate) revision: u64,
    pub(crate) users: BTreeMap<String, Arc<Account>>,
    pub(crate) roles: BTreeMap<String, Arc<Role>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            enabled: false,
            is_in_between: false,
            revision: FIRST_REVISION,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

/// How to find out whether a password is a user's.
#[derive(Clone, Debug)]
pub struct UserCheck {
    /// What [`crate::verify_password`] compares with.
    pub hash: Vec<u8>,
    /// The revision of which this is.
    pub revision: u64,
}

impl State {
    /// Whether authentication is on.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Counts changes. Not the revision of keys.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// All users, by name, as etcd stores them.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(|account| &account.user)
    }

    /// All roles, by name, as etcd stores them.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values().map(|role| &**role)
    }

    /// One user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|account| &account.user)
    }

    /// One role.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// Whether there is such a user, and the role is granted to it.
    #[must_use]
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.user(user).is_some_and(|user| has_role(user, role))
    }

    /// Whether these keys may be read.
    ///
    /// # Errors
    ///
    /// When they may not.
    pub fn check_read(&self, info: &AuthInfo, keys: &KeyRange) -> Result<(), AuthError> {
        self.check_op(info, |permissions| permissions.may_read(keys))
    }

    /// Whether these keys may be written.
    ///
    /// # Errors
    ///
    /// When they may not.
    pub fn check_write(&self, info: &AuthInfo, keys: &KeyRange) -> Result<(), AuthError> {
        self.check_op(info, |permissions| permissions.may_write(keys))
    }

    fn check_op(
        &self,
        info: &AuthInfo,
        allows: impl FnOnce(&RangePermissions) -> bool,
    ) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if info.revision == 0 {
            return Err(AuthError::UserEmpty);
        }
        if info.revision < self.revision || self.is_in_between {
            tracing::warn!(
                "current node auth revision" = self.revision,
                "request auth revision" = info.revision,
                "request auth revision is less than current node auth revision"
            );
            return Err(AuthError::AuthOldRevision);
        }
        let Some(account) = self.users.get(&info.user) else {
            tracing::error!(
                "user-name" = info.user,
                "cannot find a user for permission check"
            );
            return Err(AuthError::PermissionDenied);
        };
        if has_role(&account.user, ROOT_ROLE) || allows(&account.permissions) {
            return Ok(());
        }
        Err(AuthError::PermissionDenied)
    }

    /// Whether everything may be done.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn check_admin(&self, info: &AuthInfo) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if info.user.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.is_in_between {
            return Err(AuthError::AuthOldRevision);
        }
        let user = self.user(&info.user).ok_or(AuthError::UserNotFound)?;
        match has_role(user, ROOT_ROLE) {
            true => Ok(()),
            false => Err(AuthError::PermissionDenied),
        }
    }

    /// Whether it is known who asks.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn check_somebody(&self, info: &AuthInfo) -> Result<(), AuthError> {
        match !self.enabled || info.is_somebody() {
            true => Ok(()),
            false => Err(AuthError::UserEmpty),
        }
    }

    /// The same, while nobody is told yet what it means: every question is one of before.
    pub(crate) fn in_between(&self) -> Self {
        Self {
            is_in_between: true,
            ..self.clone()
        }
    }

    /// How to find out whether a password is the user's.
    ///
    /// # Errors
    ///
    /// When no password is.
    pub fn user_check(&self, name: &str) -> Result<UserCheck, AuthError> {
        if !self.enabled {
            return Err(AuthError::AuthNotEnabled);
        }
        let user = self.user(name).ok_or(AuthError::AuthFailed)?;
        if has_no_password(user) {
            return Err(AuthError::NoPasswordUser);
        }
        Ok(UserCheck {
            hash: user.password.clone(),
            revision: self.revision,
        })
    }

    /// The same user with what its roles allow now.
    pub(crate) fn account(&self, user: User) -> Arc<Account> {
        let roles = user.roles.iter().filter_map(|role| self.role(role));
        let permissions = RangePermissions::of(roles);
        Arc::new(Account { user, permissions })
    }
}

pub(crate) fn has_role(user: &User, role: &str) -> bool {
    user.roles.iter().any(|granted| granted == role)
}

pub(crate) fn has_no_password(user: &User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

/// Users and roles that were loaded and are not in use yet.
#[derive(Debug, Default)]
pub struct Loaded {
    pub(crate) state: State,
}

/// Loads users and roles.
///
/// # Errors
///
/// When they cannot be read.
pub fn load(reader: &Reader) -> Result<Loaded, OpenError> {
    let mut state = State::default();
    for record in reader.scan(Bucket::Auth, &[], None) {
        let (key, value) = record?;
        let malformed = || OpenError::Malformed {
            bucket: Bucket::Auth,
            key: key.clone(),
        };
        match schema::decode(&key)? {
            AuthKey::Enabled => state.enabled = value.as_ref() == [1],
            AuthKey::Revision => {
                let revision = value.as_ref().try_into().or(Err(malformed()))?;
                state.revision = u64::from_be_bytes(revision);
            }
        }
    }
    for record in reader.scan(Bucket::AuthRoles, &[], None) {
        let (key, value) = record?;
        let role = decode::<Role>(Bucket::AuthRoles, &key, value)?;
        let name = String::from_utf8_lossy(&key).into_owned();
        state.roles.insert(name, Arc::new(role));
    }
    for record in reader.scan(Bucket::AuthUsers, &[], None) {
        let (key, value) = record?;
        let user = decode::<User>(Bucket::AuthUsers, &key, value)?;
        let name = String::from_utf8_lossy(&key).into_owned();
        let account = state.account(user);
        state.users.insert(name, account);
    }
    Ok(Loaded { state })
}

fn decode<M: Message + Default>(bucket: Bucket, key: &Bytes, value: Bytes) -> Result<M, OpenError> {
    M::decode(value).map_err(|source| OpenError::Decode {
        bucket,
        key: key.clone(),
        source,
    })
}

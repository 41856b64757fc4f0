//! Changes of users, roles and the switch: what comes out of the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::authpb::{Permission, Role, User, UserAddOptions};
use arc_swap::ArcSwap;
use backend::schema::auth::{self as schema, AuthKey};
use backend::{Batch, Bucket};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;

use crate::state::{Auth, Loaded, State, has_no_password, has_role};
use crate::{AuthError, ROOT_ROLE, ROOT_USER, Tokens};

/// Changes users, roles and the switch. There is one; `apply` holds it. Changes show in [`Auth`] with
/// [`Writer::publish`].
#[derive(Debug)]
pub struct Writer {
    state: State,
    tokens: Tokens,
    published: Arc<ArcSwap<State>>,
    is_published: bool,
    unstaged: Unstaged,
}

/// What has changed since the last batch.
#[derive(Debug, Default)]
struct Unstaged {
    marks: bool,
    users: BTreeSet<String>,
    roles: BTreeSet<String>,
}

/// The users and roles that were loaded. `tokens` are this member's own.
#[must_use]
pub fn open_loaded(loaded: Loaded, tokens: Tokens) -> (Auth, Writer) {
    let published = Arc::new(ArcSwap::from_pointee(loaded.state.clone()));
    let auth = Auth {
        published: Arc::clone(&published),
        tokens: tokens.clone(),
    };
    let writer = Writer {
        state: loaded.state,
        tokens,
        published,
        is_published: true,
        unstaged: Unstaged::default(),
    };
    (auth, writer)
}

impl Writer {
    /// Users and roles with every change so far.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Switches authentication on.
    ///
    /// # Errors
    ///
    /// When there is nobody then who may do everything.
    pub fn enable(&mut self) -> Result<(), AuthError> {
        if self.state.enabled {
            tracing::info!("authentication is already enabled; ignored auth enable request");
            return Ok(());
        }
        let root = self.state.user(ROOT_USER);
        let root = root.ok_or(AuthError::RootUserNotExist)?;
        if !has_role(root, ROOT_ROLE) {
            return Err(AuthError::RootRoleNotExist);
        }
        self.state.enabled = true;
        self.unstaged.marks = true;
        self.is_published = false;
        tracing::info!("enabled authentication");
        Ok(())
    }

    /// Switches it off; no token is valid any more.
    pub fn disable(&mut self) {
        if !self.state.enabled {
            return;
        }
        self.state.enabled = false;
        self.tokens.clear();
        self.commit_revision();
        tracing::info!("disabled authentication");
    }

    /// A user whose password was checked gets a token, if this member's tokens are simple ones: the
    /// prefix and the index of the entry, on every member.
    ///
    /// # Errors
    ///
    /// When the user cannot have one any more.
    pub fn authenticate(&self, name: &str, prefix: &str, index: u64) -> Result<(), AuthError> {
        if !self.state.enabled {
            return Err(AuthError::AuthNotEnabled);
        }
        let user = self.state.user(name).ok_or(AuthError::AuthFailed)?;
        if has_no_password(user) {
            return Err(AuthError::AuthFailed);
        }
        self.tokens.assign(name, prefix, index);
        Ok(())
    }

    /// Adds a user. `hashed_password` is base64 of what is stored.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn user_add(
        &mut self,
        name: &str,
        hashed_password: &str,
        options: UserAddOptions,
    ) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.state.user(name).is_some() {
            return Err(AuthError::UserAlreadyExist);
        }
        let password = match options.no_password {
            true => Vec::new(),
            false => decode_password(hashed_password)?,
        };
        self.put_user(User {
            name: name.as_bytes().to_vec(),
            password,
            roles: Vec::new(),
            options: Some(options),
        });
        self.commit_revision();
        tracing::info!("user-name" = name, "added a user");
        Ok(())
    }

    /// Deletes a user; its tokens are not valid any more.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn user_delete(&mut self, name: &str) -> Result<(), AuthError> {
        if self.state.enabled && name == ROOT_USER {
            tracing::error!("user-name" = name, "cannot delete 'root' user");
            return Err(AuthError::InvalidAuthMgmt);
        }
        let account = self.state.users.remove(name);
        let account = account.ok_or(AuthError::UserNotFound)?;
        self.unstaged.users.insert(name.to_owned());
        self.tokens.invalidate_user(name);
        self.commit_revision();
        tracing::info!(
            "user-name" = name,
            "user-roles" = ?account.user.roles,
            "deleted a user"
        );
        Ok(())
    }

    /// Changes a password; the user's tokens are not valid any more.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn user_change_password(&mut self, name: &str, hashed: &str) -> Result<(), AuthError> {
        let mut user = self.user(name)?;
        user.password = match has_no_password(&user) {
            true => Vec::new(),
            false => decode_password(hashed)?,
        };
        let roles = user.roles.clone();
        self.put_user(user);
        self.tokens.invalidate_user(name);
        self.commit_revision();
        tracing::info!(
            "user-name" = name,
            "user-roles" = ?roles,
            "changed a password of a user"
        );
        Ok(())
    }

    /// Grants a role to a user.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn user_grant_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        let mut user = self.user(name)?;
        if role != ROOT_ROLE && self.state.role(role).is_none() {
            return Err(AuthError::RoleNotFound);
        }
        let Err(place) = user.roles.binary_search_by(|have| have.as_str().cmp(role)) else {
            tracing::warn!(
                "user-name" = name,
                "user-roles" = ?user.roles,
                "duplicate-role-name" = role,
                "ignored grant role request to a user"
            );
            return Ok(());
        };
        user.roles.insert(place, role.to_owned());
        let roles = user.roles.clone();
        self.put_user(user);
        self.commit_revision();
        tracing::info!(
            "user-name" = name,
            "user-roles" = ?roles,
            "added-role-name" = role,
            "granted a role to a user"
        );
        Ok(())
    }

    /// Takes a role away from a user.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn user_revoke_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        if self.state.enabled && name == ROOT_USER && role == ROOT_ROLE {
            tracing::error!(
                "user-name" = name,
                "role-name" = role,
                "'root' user cannot revoke 'root' role"
            );
            return Err(AuthError::InvalidAuthMgmt);
        }
        let mut user = self.user(name)?;
        let old_roles = user.roles.clone();
        user.roles.retain(|granted| granted != role);
        if user.roles.len() == old_roles.len() {
            return Err(AuthError::RoleNotGranted);
        }
        let new_roles = user.roles.clone();
        self.put_user(user);
        self.commit_revision();
        tracing::info!(
            "user-name" = name,
            "old-user-roles" = ?old_roles,
            "new-user-roles" = ?new_roles,
            "revoked-role-name" = role,
            "revoked a role from a user"
        );
        Ok(())
    }

    /// Adds a role.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn role_add(&mut self, name: &str) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.state.role(name).is_some() {
            return Err(AuthError::RoleAlreadyExist);
        }
        self.put_role(Role {
            name: name.as_bytes().to_vec(),
            key_permission: Vec::new(),
        });
        self.commit_revision();
        tracing::info!("role-name" = name, "created a role");
        Ok(())
    }

    /// Deletes a role, and takes it away from all who have it.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn role_delete(&mut self, name: &str) -> Result<(), AuthError> {
        if self.state.enabled && name == ROOT_ROLE {
            tracing::error!("role-name" = name, "cannot delete 'root' role");
            return Err(AuthError::InvalidAuthMgmt);
        }
        self.state
            .roles
            .remove(name)
            .ok_or(AuthError::RoleNotFound)?;
        self.unstaged.roles.insert(name.to_owned());
        for mut user in self.users_with(name) {
            user.roles.retain(|granted| granted != name);
            self.put_user(user);
        }
        self.commit_revision();
        tracing::info!("role-name" = name, "deleted a role");
        Ok(())
    }

    /// Grants a permission to a role; another one on the same range is replaced.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn role_grant_permission(
        &mut self,
        name: &str,
        permission: Option<&Permission>,
    ) -> Result<(), AuthError> {
        let permission = permission.ok_or(AuthError::PermissionNotGiven)?;
        if !is_valid_range(&permission.key, &permission.range_end) {
            return Err(AuthError::InvalidAuthMgmt);
        }
        let mut role = self.role(name)?;
        let granted = &mut role.key_permission;
        // As etcd: of several permissions that begin at this key only the first is looked at, and a
        // new one goes before or behind the others as its sort leaves it.
        let place = granted.partition_point(|have| have.key < permission.key);
        match granted.get_mut(place) {
            Some(have) if have.key == permission.key && have.range_end == permission.range_end => {
                have.perm_type = permission.perm_type;
            }
            _ => {
                granted.push(permission.clone());
                granted.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.put_role(role);
        self.refresh(name);
        self.commit_revision();
        tracing::info!(
            "user-name" = name,
            "permission-name" = permission.perm_type().as_str_name(),
            "granted/updated a permission to a user"
        );
        Ok(())
    }

    /// Takes the permission on a range away from a role.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn role_revoke_permission(
        &mut self,
        name: &str,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), AuthError> {
        let mut role = self.role(name)?;
        let before = role.key_permission.len();
        role.key_permission
            .retain(|permission| permission.key != key || permission.range_end != range_end);
        if role.key_permission.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        self.put_role(role);
        self.refresh(name);
        self.commit_revision();
        tracing::info!("role-name" = name, "revoked a permission on range");
        Ok(())
    }

    /// Shows the changes to readers.
    pub fn publish(&mut self) {
        if !self.is_published {
            self.published.store(Arc::new(self.state.clone()));
            self.is_published = true;
        }
    }

    /// Other users and roles take the place of these. What happened to them on the way is not known, so if
    /// anything did, no token is valid any more, and nobody may do anything until `keys` has put the keys that
    /// go with them in place: neither may these be read by older rights, nor older ones by these.
    pub fn install<T>(&mut self, loaded: Loaded, keys: impl FnOnce() -> T) -> T {
        let are_others = loaded.state.revision != self.state.revision;
        if are_others || !loaded.state.enabled {
            self.tokens.clear();
        }
        self.state = loaded.state;
        self.unstaged = Unstaged::default();
        if are_others && self.state.enabled {
            self.published.store(Arc::new(self.state.in_between()));
        } else {
            self.published.store(Arc::new(self.state.clone()));
        }
        let installed = keys();
        self.is_published = false;
        self.publish();
        installed
    }

    /// Everything is to be staged, not only what has changed.
    pub fn restage(&mut self) {
        self.unstaged = Unstaged {
            marks: true,
            users: self.state.users.keys().cloned().collect(),
            roles: self.state.roles.keys().cloned().collect(),
        };
    }

    /// Adds to `batch` all that has changed since the last call.
    pub fn stage(&mut self, batch: &mut Batch) {
        let Unstaged {
            marks,
            users,
            roles,
        } = std::mem::take(&mut self.unstaged);
        if marks {
            let enabled = [u8::from(self.state.enabled)];
            let revision = self.state.revision.to_be_bytes();
            batch.put(
                Bucket::Auth,
                schema::encode(AuthKey::Enabled),
                enabled.to_vec(),
            );
            batch.put(
                Bucket::Auth,
                schema::encode(AuthKey::Revision),
                revision.to_vec(),
            );
        }
        for name in users {
            let value = self.state.user(&name).map(Message::encode_to_vec);
            put_or_delete(batch, Bucket::AuthUsers, name, value);
        }
        for name in roles {
            let value = self.state.role(&name).map(Message::encode_to_vec);
            put_or_delete(batch, Bucket::AuthRoles, name, value);
        }
    }

    fn user(&self, name: &str) -> Result<User, AuthError> {
        self.state
            .user(name)
            .cloned()
            .ok_or(AuthError::UserNotFound)
    }

    fn role(&self, name: &str) -> Result<Role, AuthError> {
        self.state
            .role(name)
            .cloned()
            .ok_or(AuthError::RoleNotFound)
    }

    fn put_user(&mut self, user: User) {
        let name = String::from_utf8_lossy(&user.name).into_owned();
        let account = self.state.account(user);
        self.unstaged.users.insert(name.clone());
        self.state.users.insert(name, account);
    }

    fn put_role(&mut self, role: Role) {
        let name = String::from_utf8_lossy(&role.name).into_owned();
        self.unstaged.roles.insert(name.clone());
        self.state.roles.insert(name, Arc::new(role));
    }

    fn users_with(&self, role: &str) -> Vec<User> {
        let users = self.state.users().filter(|user| has_role(user, role));
        users.cloned().collect()
    }

    /// A role allows something else now: so do those who have it.
    fn refresh(&mut self, role: &str) {
        for user in self.users_with(role) {
            let name = String::from_utf8_lossy(&user.name).into_owned();
            let account = self.state.account(user);
            self.state.users.insert(name, account);
        }
    }

    fn commit_revision(&mut self) {
        self.state.revision += 1;
        self.unstaged.marks = true;
        self.is_published = false;
    }
}

fn put_or_delete(batch: &mut Batch, bucket: Bucket, name: String, value: Option<Vec<u8>>) {
    let name = Bytes::from(name);
    match value {
        Some(value) => batch.put(bucket, name, value),
        None => batch.delete(bucket, name),
    }
}

/// What is not base64 is etcd's error for a user without a password.
fn decode_password(hashed: &str) -> Result<Vec<u8>, AuthError> {
    STANDARD
        .decode(hashed)
        .map_err(|_not_base64| AuthError::NoPasswordUser)
}

/// Whether a permission can be on this range: on a key, up to a later one, or without end.
fn is_valid_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

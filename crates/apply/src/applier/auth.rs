//! Changes of users and roles. None of them moves the revision of the store.

use api::authpb::UserAddOptions;
use auth::AuthError;

use super::Applier;
use crate::{AuthCommand, LogPosition, Rejection, Reply};

impl Applier {
    pub(super) fn auth(
        &mut self,
        at: LogPosition,
        command: &AuthCommand,
    ) -> Result<Reply, Rejection> {
        if let AuthCommand::Authenticate { user, token_prefix } = command {
            // Counted from 1, as clients see indexes.
            let index = at.index + 1;
            self.auth.authenticate(user, token_prefix, index)?;
            return Ok(Reply::Authenticated {
                revision: self.store.revision(),
                auth_revision: self.auth.state().revision(),
                index,
            });
        }
        self.change_auth(command)?;
        Ok(self.done())
    }

    fn change_auth(&mut self, command: &AuthCommand) -> Result<(), AuthError> {
        let auth = &mut self.auth;
        match command {
            AuthCommand::Enable => auth.enable(),
            AuthCommand::Disable => {
                auth.disable();
                Ok(())
            }
            AuthCommand::Authenticate { .. } => unreachable!("it is no change"),
            AuthCommand::UserAdd {
                name,
                hashed_password,
                no_password,
            } => {
                let options = UserAddOptions {
                    no_password: *no_password,
                };
                auth.user_add(name, hashed_password, options)
            }
            AuthCommand::UserDelete { name } => auth.user_delete(name),
            AuthCommand::UserChangePassword {
                name,
                hashed_password,
            } => auth.user_change_password(name, hashed_password),
            AuthCommand::UserGrantRole { user, role } => auth.user_grant_role(user, role),
            AuthCommand::UserRevokeRole { user, role } => auth.user_revoke_role(user, role),
            AuthCommand::RoleAdd { name } => auth.role_add(name),
            AuthCommand::RoleDelete { name } => auth.role_delete(name),
            AuthCommand::RoleGrantPermission { role, permission } => {
                auth.role_grant_permission(role, permission.as_ref())
            }
            AuthCommand::RoleRevokePermission {
                role,
                key,
                range_end,
            } => auth.role_revoke_permission(role, key, range_end),
        }
    }
}

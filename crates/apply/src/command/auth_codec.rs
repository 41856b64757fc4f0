//! Changes of users and roles as the log holds them, and back.

use api::authpb::Permission;
use api::internalpb::auth as pb;
use api::internalpb::auth::Kind;
use bytes::Bytes;
use prost::Message;

use super::codec::bad;
use super::{AuthCommand, DecodeError};

pub(super) fn auth_to(command: &AuthCommand) -> api::internalpb::Auth {
    let user_role = |user: &String, role: &String| pb::UserRole {
        user: user.clone(),
        role: role.clone(),
    };
    let kind = match command {
        AuthCommand::Enable => Kind::Enable(pb::Empty {}),
        AuthCommand::Disable => Kind::Disable(pb::Empty {}),
        AuthCommand::Authenticate { user, token_prefix } => Kind::Authenticate(pb::Authenticate {
            user: user.clone(),
            token_prefix: token_prefix.clone(),
        }),
        AuthCommand::UserAdd {
            name,
            hashed_password,
            no_password,
        } => Kind::UserAdd(pb::UserAdd {
            name: name.clone(),
            hashed_password: hashed_password.clone(),
            no_password: *no_password,
        }),
        AuthCommand::UserDelete { name } => Kind::UserDelete(name.clone()),
        AuthCommand::UserChangePassword {
            name,
            hashed_password,
        } => Kind::UserChangePassword(pb::UserChangePassword {
            name: name.clone(),
            hashed_password: hashed_password.clone(),
        }),
        AuthCommand::UserGrantRole { user, role } => Kind::UserGrantRole(user_role(user, role)),
        AuthCommand::UserRevokeRole { user, role } => Kind::UserRevokeRole(user_role(user, role)),
        AuthCommand::RoleAdd { name } => Kind::RoleAdd(name.clone()),
        AuthCommand::RoleDelete { name } => Kind::RoleDelete(name.clone()),
        AuthCommand::RoleGrantPermission { role, permission } => {
            Kind::RoleGrantPermission(pb::Permission {
                role: role.clone(),
                permission: permission.as_ref().map(|it| it.encode_to_vec().into()),
            })
        }
        AuthCommand::RoleRevokePermission {
            role,
            key,
            range_end,
        } => Kind::RoleRevokePermission(pb::PermissionRange {
            role: role.clone(),
            key: key.clone(),
            range_end: range_end.clone(),
        }),
    };
    api::internalpb::Auth { kind: Some(kind) }
}

pub(super) fn auth_from(message: api::internalpb::Auth) -> Result<AuthCommand, DecodeError> {
    let kind = message
        .kind
        .ok_or_else(|| bad("a change of users of no known kind"))?;
    Ok(match kind {
        Kind::Enable(pb::Empty {}) => AuthCommand::Enable,
        Kind::Disable(pb::Empty {}) => AuthCommand::Disable,
        Kind::Authenticate(pb::Authenticate { user, token_prefix }) => {
            AuthCommand::Authenticate { user, token_prefix }
        }
        Kind::UserAdd(add) => AuthCommand::UserAdd {
            name: add.name,
            hashed_password: add.hashed_password,
            no_password: add.no_password,
        },
        Kind::UserDelete(name) => AuthCommand::UserDelete { name },
        Kind::UserChangePassword(change) => AuthCommand::UserChangePassword {
            name: change.name,
            hashed_password: change.hashed_password,
        },
        Kind::UserGrantRole(pb::UserRole { user, role }) => {
            AuthCommand::UserGrantRole { user, role }
        }
        Kind::UserRevokeRole(pb::UserRole { user, role }) => {
            AuthCommand::UserRevokeRole { user, role }
        }
        Kind::RoleAdd(name) => AuthCommand::RoleAdd { name },
        Kind::RoleDelete(name) => AuthCommand::RoleDelete { name },
        Kind::RoleGrantPermission(pb::Permission { role, permission }) => {
            AuthCommand::RoleGrantPermission {
                role,
                permission: permission.map(permission_from).transpose()?,
            }
        }
        Kind::RoleRevokePermission(pb::PermissionRange {
            role,
            key,
            range_end,
        }) => AuthCommand::RoleRevokePermission {
            role,
            key,
            range_end,
        },
    })
}

fn permission_from(bytes: Bytes) -> Result<Permission, DecodeError> {
    Permission::decode(bytes).map_err(|error| bad(error.to_string()))
}

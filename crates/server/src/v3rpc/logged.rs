//! Requests as they are in the log of an etcd, for whoever takes its data over: they become commands as a
//! client's would, but were accepted long ago.

use api::etcdserverpb::alarm_request::AlarmAction as WireAction;
use api::etcdserverpb::{AlarmRequest, AlarmType, AuthUserAddRequest};
use api::rpctypes::ErrorCode;
use apply::{AlarmAction, AlarmKind, Asker, AuthCommand, Command, Member, Request};
use auth::AuthInfo;
use etcdfile::wal::{InternalRaftRequest, V2Request};
use serde_json::Value;
use types::{LeaseId, MemberId};

use super::validate;

/// The shortest TTL that an etcd with its usual timeouts gives, in seconds; it raises shorter ones only
/// when it applies them.
const LEASE_TTL_MIN_S: i64 = 2;

/// A request in a log is none that this version can carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoggedError {
    /// It would have been refused.
    #[error("{}", .0.text())]
    Invalid(ErrorCode),
    /// A password that has to be hashed, which was done with chance before 3.5: start the etcd once more
    /// and stop it, so that its database has the user.
    #[error("it holds a password that is not hashed")]
    Password,
}

impl From<ErrorCode> for LoggedError {
    fn from(code: ErrorCode) -> Self {
        Self::Invalid(code)
    }
}

/// The command of a request, and who asked; `None`: it changes nothing that a state of ours has.
///
/// # Errors
/// When it cannot be carried out here.
pub fn logged_request(logged: InternalRaftRequest) -> Result<Option<Request>, LoggedError> {
    if let Some(member) = published(&logged) {
        return Ok(Some(Command::PublishMember(member).by_member()));
    }
    let header = logged.header.clone().unwrap_or_default();
    let asker = AuthInfo {
        user: header.username,
        revision: header.auth_revision,
    };
    let command = match of_keys(&logged)? {
        Some(command) => Some(command),
        None => of_auth(logged)?.map(Command::Auth),
    };
    Ok(command.map(|command| match command {
        // etcd asks for rights to these before they are in its log, and not again.
        Command::Compact { .. } | Command::LeaseGrant { .. } | Command::Alarm { .. } => {
            command.by_member()
        }
        command => command.asked_by(Asker::Client(asker)),
    }))
}

fn of_keys(logged: &InternalRaftRequest) -> Result<Option<Command>, LoggedError> {
    let command = if let Some(put) = logged.put.clone() {
        Command::Put(validate::put(put)?)
    } else if let Some(delete) = logged.delete_range.clone() {
        Command::DeleteRange(validate::delete_range(delete)?)
    } else if let Some(txn) = logged.txn.clone() {
        Command::Txn(validate::txn(txn, usize::MAX)?.0)
    } else if let Some(compaction) = &logged.compaction {
        let revision = compaction.revision;
        Command::Compact { revision }
    } else if let Some(grant) = &logged.lease_grant {
        Command::LeaseGrant {
            id: LeaseId(grant.id),
            ttl_s: grant.ttl.max(LEASE_TTL_MIN_S),
        }
    } else if let Some(revoke) = &logged.lease_revoke {
        let id = LeaseId(revoke.id);
        Command::LeaseRevoke { id }
    } else if let Some(request) = &logged.alarm {
        return Ok(alarm(request));
    } else {
        return Ok(None);
    };
    Ok(Some(command))
}

fn alarm(request: &AlarmRequest) -> Option<Command> {
    let action = match WireAction::try_from(request.action) {
        Ok(WireAction::Activate) => AlarmAction::Activate,
        Ok(WireAction::Deactivate) => AlarmAction::Deactivate,
        Ok(WireAction::Get) | Err(_) => return None,
    };
    let alarm = match AlarmType::try_from(request.alarm) {
        Ok(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
        Ok(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
        Ok(AlarmType::None) | Err(_) => None,
    };
    Some(Command::Alarm {
        action,
        member: MemberId(request.member_id),
        alarm,
    })
}

fn of_auth(logged: InternalRaftRequest) -> Result<Option<AuthCommand>, LoggedError> {
    let command = if logged.auth_enable.is_some() {
        AuthCommand::Enable
    } else if logged.auth_disable.is_some() {
        AuthCommand::Disable
    } else if let Some(add) = logged.auth_user_add {
        user_add(add)?
    } else if let Some(delete) = logged.auth_user_delete {
        AuthCommand::UserDelete { name: delete.name }
    } else if let Some(change) = logged.auth_user_change_password {
        if change.hashed_password.is_empty() && !change.password.is_empty() {
            return Err(LoggedError::Password);
        }
        AuthCommand::UserChangePassword {
            name: change.name,
            hashed_password: change.hashed_password,
        }
    } else if let Some(grant) = logged.auth_user_grant_role {
        let (user, role) = (grant.user, grant.role);
        AuthCommand::UserGrantRole { user, role }
    } else if let Some(revoke) = logged.auth_user_revoke_role {
        let (user, role) = (revoke.name, revoke.role);
        AuthCommand::UserRevokeRole { user, role }
    } else if let Some(add) = logged.auth_role_add {
        AuthCommand::RoleAdd { name: add.name }
    } else if let Some(delete) = logged.auth_role_delete {
        AuthCommand::RoleDelete { name: delete.role }
    } else if let Some(grant) = logged.auth_role_grant_permission {
        AuthCommand::RoleGrantPermission {
            role: grant.name,
            permission: grant.perm,
        }
    } else if let Some(revoke) = logged.auth_role_revoke_permission {
        AuthCommand::RoleRevokePermission {
            role: revoke.role,
            key: revoke.key.into(),
            range_end: revoke.range_end.into(),
        }
    } else {
        return Ok(None);
    };
    Ok(Some(command))
}

fn user_add(add: AuthUserAddRequest) -> Result<AuthCommand, LoggedError> {
    let no_password = add.options.is_some_and(|options| options.no_password);
    if !no_password && add.hashed_password.is_empty() && !add.password.is_empty() {
        return Err(LoggedError::Password);
    }
    Ok(AuthCommand::UserAdd {
        name: add.name,
        hashed_password: add.hashed_password,
        no_password,
    })
}

/// The member that tells its name and client urls: with a request of its own since 3.6, through the old
/// store before.
fn published(logged: &InternalRaftRequest) -> Option<Member> {
    if let Some(request) = &logged.cluster_member_attr_set {
        let attributes = request.attributes.clone().unwrap_or_default();
        return Some(Member {
            id: MemberId(request.member_id),
            name: attributes.name,
            client_urls: attributes.client_urls,
            ..Member::default()
        });
    }
    published_v2(logged.v2.as_ref()?)
}

fn published_v2(request: &V2Request) -> Option<Member> {
    let path = request.path.strip_prefix("/0/members/")?;
    let id = path.strip_suffix("/attributes")?;
    let attributes: Value = serde_json::from_str(&request.value).ok()?;
    let urls = attributes.get("clientURLs").and_then(Value::as_array);
    let urls = urls.into_iter().flatten().filter_map(Value::as_str);
    Some(Member {
        id: MemberId(u64::from_str_radix(id, 16).ok()?),
        name: attributes.get("name")?.as_str()?.to_owned(),
        client_urls: urls.map(str::to_owned).collect(),
        ..Member::default()
    })
}

#[cfg(test)]
mod tests {
    use api::encoded::etcdserverpb::PutRequest;
    use api::etcdserverpb::LeaseGrantRequest;
    use etcdfile::wal::Attributes;

    use super::*;

    #[test]
    fn both_ways_to_tell_a_name_are_understood() {
        let old = V2Request {
            method: "PUT".to_owned(),
            path: "/0/members/8e9e05c52164694d/attributes".to_owned(),
            value: r#"{"name":"n","clientURLs":["http://a:1"]}"#.to_owned(),
        };
        let new = etcdfile::wal::MemberAttributes {
            member_id: 0x8e9e_05c5_2164_694d,
            attributes: Some(Attributes {
                name: "n".to_owned(),
                client_urls: vec!["http://a:1".to_owned()],
            }),
        };
        let old = InternalRaftRequest {
            v2: Some(old),
            ..InternalRaftRequest::default()
        };
        let new = InternalRaftRequest {
            cluster_member_attr_set: Some(new),
            ..InternalRaftRequest::default()
        };
        assert!(logged_request(old.clone()).unwrap().is_some());
        assert_eq!(logged_request(old).unwrap(), logged_request(new).unwrap());
    }

    #[test]
    fn a_short_lease_gets_what_etcd_gives_it() {
        let grant = LeaseGrantRequest { id: 7, ttl: 1 };
        let logged = InternalRaftRequest {
            lease_grant: Some(grant),
            ..InternalRaftRequest::default()
        };
        let command = logged_request(logged).unwrap().unwrap().command;
        let id = LeaseId(7);
        assert_eq!(command, Command::LeaseGrant { id, ttl_s: 2 });
    }

    #[test]
    fn what_etcd_would_have_refused_is_an_error() {
        let logged = InternalRaftRequest {
            put: Some(PutRequest::default()),
            ..InternalRaftRequest::default()
        };
        assert!(logged_request(logged).is_err());
        assert_eq!(logged_request(InternalRaftRequest::default()), Ok(None));
    }
}

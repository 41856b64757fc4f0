//! Users and roles in the log: what they may do is decided when a command is applied.

use api::authpb::Permission;
use api::authpb::permission::Type;
use auth::{AuthError, AuthInfo};
use backend::engine::FaultyDisk;
use types::KeyRange;

use super::{Bench, bench, open_on, put};
use crate::{
    Access, Asker, AuthCommand, Command, DeleteRange, Guard, LogPosition, Quota, Rejection, Reply,
    Txn,
};

impl Bench {
    pub(super) fn run_by(&mut self, user: &str, command: Command) -> Result<Reply, Rejection> {
        let client = AuthInfo {
            user: user.to_owned(),
            revision: self.views.auth.revision(),
        };
        self.run_as(client, command)
    }

    pub(super) fn run_as(
        &mut self,
        client: AuthInfo,
        command: Command,
    ) -> Result<Reply, Rejection> {
        let at = LogPosition {
            term: 1,
            leader: 0,
            index: self.next,
        };
        self.next += 1;
        let outcome = self.apply_request(at, &command.asked_by(Asker::Client(client)));
        self.machine.finish_batch().unwrap();
        outcome
    }

    /// Users `root`, and `u` who may read and write keys from `a` up to `c`.
    pub(super) fn enable_auth(&mut self) {
        for command in [
            user_add("root"),
            AuthCommand::UserGrantRole {
                user: "root".to_owned(),
                role: "root".to_owned(),
            },
            user_add("u"),
            AuthCommand::RoleAdd {
                name: "r".to_owned(),
            },
            AuthCommand::RoleGrantPermission {
                role: "r".to_owned(),
                permission: Some(Permission {
                    perm_type: Type::Readwrite.into(),
                    key: b"a".to_vec(),
                    range_end: b"c".to_vec(),
                }),
            },
            AuthCommand::UserGrantRole {
                user: "u".to_owned(),
                role: "r".to_owned(),
            },
            AuthCommand::Enable,
        ] {
            self.run(&Command::Auth(command)).unwrap();
        }
    }
}

fn user_add(name: &str) -> AuthCommand {
    AuthCommand::UserAdd {
        name: name.to_owned(),
        hashed_password: "aGFzaA==".to_owned(),
        no_password: false,
    }
}

fn denied(error: AuthError) -> Result<(), Rejection> {
    Err(Rejection::Auth(error))
}

#[test]
fn a_change_of_users_moves_no_revision_of_the_store() {
    let mut b = bench();
    let before = b.views.store.view().revision();
    b.enable_auth();
    assert_eq!(b.views.store.view().revision(), before);
    assert_eq!(b.views.auth.revision(), 7);
}

#[test]
fn rights_are_those_of_the_moment_in_which_a_command_is_applied() {
    let mut b = bench();
    b.enable_auth();
    let command = Command::Put(put("a", "1"));
    let old = AuthInfo {
        user: "u".to_owned(),
        revision: b.views.auth.revision(),
    };
    b.run_as(old.clone(), command.clone()).unwrap();
    let revoke = Command::Auth(AuthCommand::UserRevokeRole {
        user: "u".to_owned(),
        role: "r".to_owned(),
    });
    b.run_by("root", revoke).unwrap();
    let stale = b.run_as(old, command.clone()).map(|_| ());
    assert_eq!(stale, denied(AuthError::AuthOldRevision));
    let now = b.run_by("u", command.clone()).map(|_| ());
    assert_eq!(now, denied(AuthError::PermissionDenied));
    let nobody = b.run(&command).map(|_| ());
    assert_eq!(nobody, denied(AuthError::UserEmpty));
}

#[test]
fn a_member_may_do_what_only_members_do_and_no_client_may() {
    let mut b = bench();
    b.enable_auth();
    let publish = Command::PublishMember(crate::Member::default());
    let client = b.run_by("root", publish.clone()).map(|_| ());
    assert_eq!(client, denied(AuthError::PermissionDenied));
    let at = LogPosition {
        term: 1,
        leader: 0,
        index: b.next,
    };
    b.apply_request(at, &publish.by_member()).unwrap();
    let version = types::Version { major: 9, minor: 9 };
    let set = Command::ClusterVersionSet { version };
    let client = b.run_by("root", set).map(|_| ());
    assert_eq!(client, denied(AuthError::PermissionDenied));
}

#[test]
fn only_root_may_enable_a_downgrade() {
    let mut b = bench();
    b.enable_auth();
    let target = Some(types::Version { major: 3, minor: 5 });
    let enable = Command::DowngradeInfoSet { target };
    let user = b.run_by("u", enable.clone()).map(|_| ());
    assert_eq!(user, denied(AuthError::PermissionDenied));
    assert_eq!(b.views.versions.get().downgrade, None);
    b.run_by("root", enable).unwrap();
    assert_eq!(b.views.versions.get().downgrade, target);
}

#[test]
fn a_token_ends_with_the_entry_that_made_it() {
    let mut b = bench();
    b.enable_auth();
    let authenticate = Command::Auth(AuthCommand::Authenticate {
        user: "u".to_owned(),
        token_prefix: "prefix".to_owned(),
    });
    let Ok(Reply::Authenticated { index, .. }) = b.run(&authenticate) else {
        panic!("a password was shown");
    };
    assert_eq!(index, b.next, "counted from 1");
    let auth = b.views.auth.clone();
    let token = format!("prefix.{index}");
    let info = |applied| auth.tokens().info(&token, auth.revision(), applied);
    assert_eq!(info(index - 1), auth::TokenInfo::NotYet { index });
    let auth::TokenInfo::User(info) = info(index) else {
        panic!("it is valid");
    };
    assert_eq!((info.user.as_str(), info.revision), ("u", auth.revision()));
}

#[test]
fn users_survive_a_restart_and_a_transfer() {
    let disk = FaultyDisk::new(1);
    let mut b = open_on(disk.open().unwrap(), Quota::Unlimited);
    b.enable_auth();
    b.machine.stage_all().unwrap();
    let before = b.views.auth.state();
    drop(b);
    let b = open_on(disk.open().unwrap(), Quota::Unlimited);
    let after = b.views.auth.state();
    assert!(after.is_enabled());
    assert_eq!(after.revision(), before.revision());
    assert!(after.users().eq(before.users()));
    assert!(after.roles().eq(before.roles()));
}

#[test]
fn what_was_done_before_rights_change_is_seen_before_they_do() {
    let mut b = bench();
    b.enable_auth();
    b.run_by("root", Command::Put(put("z", "secret"))).unwrap();
    let keys = KeyRange::Single("z".into());
    let root = || {
        let revision = b.views.auth.revision();
        let user = "root".to_owned();
        Asker::Client(AuthInfo { user, revision })
    };
    let delete = Command::DeleteRange(DeleteRange {
        keys: keys.clone(),
        prev_kv: false,
    });
    let grant = Command::Auth(AuthCommand::RoleGrantPermission {
        role: "r".to_owned(),
        permission: Some(Permission {
            perm_type: Type::Read.into(),
            key: b"z".to_vec(),
            range_end: Vec::new(),
        }),
    });
    // In one batch: a reader who comes in between must not find the old key with the new right.
    for (command, asker) in [(delete, root()), (grant, root())] {
        let at = LogPosition {
            term: 1,
            leader: 0,
            index: b.next,
        };
        b.next += 1;
        b.apply_request(at, &command.asked_by(asker)).unwrap();
    }
    let range = mvcc::Range {
        keys,
        at: None,
        limit: None,
        count_only: false,
    };
    assert_eq!(b.views.store.view().range(&range).unwrap().count, 0);
}

#[test]
fn who_had_to_say_no_name_is_not_answered_when_everybody_has_to() {
    let mut b = bench();
    let keys = KeyRange::Single("z".into());
    let (nobody, views) = (Asker::default(), b.views.clone());
    let access = Access::Keys(&keys);
    let guard = Guard::new(access, nobody, &views.auth, &views.leases).unwrap();
    assert_eq!(guard.check_again(), Ok(()));
    b.enable_auth();
    assert_eq!(guard.check_again(), Err(AuthError::UserEmpty));
    // What asks for nothing needs no name, as in etcd.
    let empty = Txn::default();
    let access = Access::ReadTxn(&empty);
    let guard = Guard::new(access, Asker::default(), &views.auth, &views.leases).unwrap();
    assert_eq!(guard.check_again(), Ok(()));
}

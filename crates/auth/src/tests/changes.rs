use std::sync::Arc;

use api::authpb::permission::Type;
use api::authpb::{Permission, UserAddOptions};
use backend::{Backend, Batch};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use types::{KeyRange, SystemClock};

use crate::{AuthError, AuthInfo, Loaded, Tokens, Writer, load, open_loaded};

fn writer() -> Writer {
    let tokens = Tokens::simple(Arc::new(SystemClock));
    open_loaded(Loaded::default(), tokens).1
}

fn add_user(writer: &mut Writer, name: &str) {
    let options = UserAddOptions { no_password: false };
    let hash = STANDARD.encode("hash");
    writer.user_add(name, &hash, options).unwrap();
}

fn with_root() -> Writer {
    let mut writer = writer();
    add_user(&mut writer, "root");
    writer.role_add("root").unwrap();
    writer.user_grant_role("root", "root").unwrap();
    writer
}

fn permission(kind: Type, key: &str, range_end: &str) -> Permission {
    Permission {
        perm_type: kind.into(),
        key: key.into(),
        range_end: range_end.into(),
    }
}

#[test]
fn the_revision_counts_changes_and_nothing_else() {
    let mut writer = writer();
    assert_eq!(writer.state().revision(), 1);
    assert_eq!(writer.enable(), Err(AuthError::RootUserNotExist));
    add_user(&mut writer, "root");
    assert_eq!(writer.enable(), Err(AuthError::RootRoleNotExist));
    writer.user_grant_role("root", "root").unwrap();
    assert_eq!(writer.state().revision(), 3);
    writer.user_grant_role("root", "root").unwrap();
    assert_eq!(writer.state().revision(), 3, "it was granted already");
    writer.enable().unwrap();
    writer.enable().unwrap();
    assert_eq!(writer.state().revision(), 3, "etcd does not count this");
    writer.disable();
    assert_eq!(writer.state().revision(), 4);
    writer.disable();
    assert_eq!(writer.state().revision(), 4, "it was off already");
}

#[test]
fn what_cannot_be_done_is_refused_as_etcd_does_it() {
    let mut writer = with_root();
    let options = UserAddOptions::default();
    for (refused, error) in [
        (writer.user_add("", "", options), AuthError::UserEmpty),
        (
            writer.user_add("root", "", options),
            AuthError::UserAlreadyExist,
        ),
        (
            writer.user_add("u", "no base64!", options),
            AuthError::NoPasswordUser,
        ),
        (writer.user_delete("u"), AuthError::UserNotFound),
        (
            writer.user_change_password("u", ""),
            AuthError::UserNotFound,
        ),
        (writer.user_grant_role("u", "r"), AuthError::UserNotFound),
        (writer.user_grant_role("root", "r"), AuthError::RoleNotFound),
        (writer.user_revoke_role("u", "r"), AuthError::UserNotFound),
        (
            writer.user_revoke_role("root", "r"),
            AuthError::RoleNotGranted,
        ),
        (writer.role_add(""), AuthError::RoleEmpty),
        (writer.role_add("root"), AuthError::RoleAlreadyExist),
        (writer.role_delete("r"), AuthError::RoleNotFound),
        (
            writer.role_grant_permission("r", None),
            AuthError::PermissionNotGiven,
        ),
        (
            writer.role_grant_permission("r", Some(&permission(Type::Read, "", "a"))),
            AuthError::InvalidAuthMgmt,
        ),
        (
            writer.role_grant_permission("r", Some(&permission(Type::Read, "b", "a"))),
            AuthError::InvalidAuthMgmt,
        ),
        (
            writer.role_grant_permission("r", Some(&permission(Type::Read, "a", ""))),
            AuthError::RoleNotFound,
        ),
        (
            writer.role_revoke_permission("r", b"a", b""),
            AuthError::RoleNotFound,
        ),
        (
            writer.role_revoke_permission("root", b"a", b""),
            AuthError::PermissionNotGranted,
        ),
    ] {
        assert_eq!(refused, Err(error));
    }
    assert_eq!(writer.state().revision(), 4);
    writer.enable().unwrap();
    for refused in [
        writer.user_delete("root"),
        writer.user_revoke_role("root", "root"),
        writer.role_delete("root"),
    ] {
        assert_eq!(refused, Err(AuthError::InvalidAuthMgmt));
    }
}

#[test]
fn rights_follow_roles_at_once() {
    let mut writer = with_root();
    add_user(&mut writer, "u");
    writer.role_add("r").unwrap();
    writer.enable().unwrap();
    let allowed = |writer: &Writer, key: &'static str| {
        let info = AuthInfo {
            user: "u".to_owned(),
            revision: writer.state().revision(),
        };
        let keys = KeyRange::Single(key.into());
        let read = writer.state().check_read(&info, &keys).is_ok();
        (read, writer.state().check_write(&info, &keys).is_ok())
    };
    writer
        .role_grant_permission("r", Some(&permission(Type::Read, "a", "c")))
        .unwrap();
    assert_eq!(allowed(&writer, "b"), (false, false));
    writer.user_grant_role("u", "r").unwrap();
    assert_eq!(allowed(&writer, "b"), (true, false));
    writer
        .role_grant_permission("r", Some(&permission(Type::Readwrite, "a", "c")))
        .unwrap();
    assert_eq!(allowed(&writer, "b"), (true, true));
    assert_eq!(writer.state().role("r").unwrap().key_permission.len(), 1);
    writer.role_revoke_permission("r", b"a", b"c").unwrap();
    assert_eq!(allowed(&writer, "b"), (false, false));
    writer
        .role_grant_permission("r", Some(&permission(Type::Write, "b", "")))
        .unwrap();
    assert_eq!(allowed(&writer, "b"), (false, true));
    writer.role_delete("r").unwrap();
    assert_eq!(allowed(&writer, "b"), (false, false));
    assert!(writer.state().user("u").unwrap().roles.is_empty());
}

#[test]
fn who_asks_is_looked_at_before_what() {
    let mut writer = with_root();
    add_user(&mut writer, "u");
    writer.enable().unwrap();
    let state = writer.state();
    let key = KeyRange::Single("k".into());
    let info = |user: &str, revision| AuthInfo {
        user: user.to_owned(),
        revision,
    };
    let now = state.revision();
    for (info, read, admin) in [
        (
            info("", 0),
            Err(AuthError::UserEmpty),
            Err(AuthError::UserEmpty),
        ),
        (info("root", now), Ok(()), Ok(())),
        (
            info("root", now - 1),
            Err(AuthError::AuthOldRevision),
            Ok(()),
        ),
        (
            info("u", now),
            Err(AuthError::PermissionDenied),
            Err(AuthError::PermissionDenied),
        ),
        (
            info("nobody", now),
            Err(AuthError::PermissionDenied),
            Err(AuthError::UserNotFound),
        ),
        // A certificate without a common name.
        (
            info("", now),
            Err(AuthError::PermissionDenied),
            Err(AuthError::UserEmpty),
        ),
    ] {
        assert_eq!(state.check_read(&info, &key), read, "{info:?}");
        assert_eq!(state.check_admin(&info), admin, "{info:?}");
    }
}

#[test]
fn everything_is_found_again() {
    let mut backend = Backend::in_memory();
    let mut writer = with_root();
    add_user(&mut writer, "gone");
    writer.role_add("r").unwrap();
    writer
        .role_grant_permission("r", Some(&permission(Type::Read, "a", "\0")))
        .unwrap();
    writer.enable().unwrap();
    let mut batch = Batch::new();
    writer.stage(&mut batch);
    backend.writer.commit(batch).unwrap();
    writer.user_delete("gone").unwrap();
    writer.user_grant_role("root", "r").unwrap();
    let mut batch = Batch::new();
    writer.stage(&mut batch);
    backend.writer.commit(batch).unwrap();

    let loaded = load(&backend.reader).unwrap();
    let (auth, _) = open_loaded(loaded, Tokens::simple(Arc::new(SystemClock)));
    let (found, written) = (auth.state(), writer.state());
    assert!(found.is_enabled());
    assert_eq!(found.revision(), written.revision());
    assert!(found.users().eq(written.users()));
    assert!(found.roles().eq(written.roles()));
    assert_eq!(found.users, written.users, "and what they may do");
}

#[test]
fn nobody_may_do_anything_while_other_users_and_their_keys_take_their_places() {
    let tokens = Tokens::simple(Arc::new(SystemClock));
    let (auth, mut writer) = open_loaded(Loaded::default(), tokens);
    let mut other = with_root();
    other.enable().unwrap();
    let revision = other.state().revision();
    let root = AuthInfo {
        user: "root".to_owned(),
        revision,
    };
    let keys = KeyRange::Single("a".into());
    let loaded = Loaded {
        state: other.state().clone(),
    };
    writer.install(loaded, || {
        let state = auth.state();
        let refused = Err(AuthError::AuthOldRevision);
        assert_eq!(state.check_read(&root, &keys), refused);
        assert_eq!(state.check_admin(&root), refused);
        let nobody = state.check_read(&AuthInfo::default(), &keys);
        assert_eq!(nobody, Err(AuthError::UserEmpty));
    });
    assert_eq!(auth.state().check_read(&root, &keys), Ok(()));
}

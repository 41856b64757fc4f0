//! Every kind of request against every shape of permission, and a model that counts keys one by one.

use std::collections::BTreeSet;

use api::authpb::permission::Type;
use api::authpb::{Permission, UserAddOptions};
use auth::{AuthError, AuthInfo, Loaded, Tokens, open_loaded};
use bytes::Bytes;
use proptest::prelude::*;
use types::{KeyRange, LeaseId, SystemClock};

use super::*;

/// Lease 1 has keys `b` and `d`, lease 2 none.
struct Leases;

impl LeaseKeys for Leases {
    fn keys_of(&self, id: LeaseId) -> Vec<Bytes> {
        match id {
            LeaseId(1) => vec!["b".into(), "d".into()],
            _ => vec![],
        }
    }

    fn all(&self) -> Vec<LeaseId> {
        vec![LeaseId(1), LeaseId(2)]
    }
}

/// What stands for all keys: letters, and what is behind each.
fn universe() -> Vec<Bytes> {
    let letters = "abcdefg".chars();
    letters
        .flat_map(|letter| [format!("{letter}"), format!("{letter}\0")])
        .map(Bytes::from)
        .collect()
}

fn state(granted: &[(Type, KeyRange)]) -> auth::State {
    let (_, mut writer) = open_loaded(Loaded::default(), Tokens::simple(Arc::new(SystemClock)));
    for user in ["root", "u"] {
        writer
            .user_add(user, "", UserAddOptions::default())
            .unwrap();
    }
    writer.user_grant_role("root", "root").unwrap();
    for (place, (kind, keys)) in granted.iter().enumerate() {
        let role = format!("r{place}");
        writer.role_add(&role).unwrap();
        let (key, range_end) = keys.to_wire();
        let permission = Permission {
            perm_type: (*kind).into(),
            key: key.into(),
            range_end: range_end.into(),
        };
        writer
            .role_grant_permission(&role, Some(&permission))
            .unwrap();
        writer.user_grant_role("u", &role).unwrap();
    }
    writer.enable().unwrap();
    writer.state().clone()
}

/// What the model needs: keys to be read, keys to be written, and whether a name does or root must ask.
#[derive(Default)]
struct Needs {
    read: BTreeSet<Bytes>,
    write: BTreeSet<Bytes>,
    root: bool,
}

impl Needs {
    fn of(command: &Command) -> Self {
        let mut needs = Self::default();
        match command {
            Command::Put(put) => needs.op(&Op::Put(put.clone())),
            Command::DeleteRange(delete) => needs.op(&Op::DeleteRange(delete.clone())),
            Command::Txn(txn) => needs.op(&Op::Txn(txn.clone())),
            Command::LeaseRevoke { id } => needs.write.extend(Leases.keys_of(*id)),
            Command::LeaseGrant { .. } => {}
            _ => needs.root = true,
        }
        needs
    }

    fn op(&mut self, op: &Op) {
        let keys = |range: &KeyRange| -> Vec<Bytes> {
            let keys = universe().into_iter();
            keys.filter(|key| range.contains(key)).collect()
        };
        match op {
            Op::Range(range) => self.read.extend(keys(&range.keys)),
            Op::Put(put) => {
                self.write.insert(put.key.clone());
                if put.prev_kv {
                    self.read.insert(put.key.clone());
                }
                if let PutLease::Attach(id) = put.lease {
                    self.write.extend(Leases.keys_of(id));
                }
            }
            Op::DeleteRange(delete) => {
                self.write.extend(keys(&delete.keys));
                if delete.prev_kv {
                    self.read.extend(keys(&delete.keys));
                }
            }
            Op::Txn(txn) => {
                for compare in &txn.compare {
                    self.read.extend(keys(&compare.keys));
                }
                for op in txn.success.iter().chain(&txn.failure) {
                    self.op(op);
                }
            }
        }
    }

    fn are_met(&self, granted: &[(Type, KeyRange)]) -> bool {
        let may = |kind: Type, key: &Bytes| {
            granted.iter().any(|(granted, keys)| {
                (*granted == kind || *granted == Type::Readwrite) && keys.contains(key)
            })
        };
        !self.root
            && self.read.iter().all(|key| may(Type::Read, key))
            && self.write.iter().all(|key| may(Type::Write, key))
    }
}

fn a_key() -> impl Strategy<Value = Bytes> {
    (b'a'..b'g').prop_map(|letter| Bytes::copy_from_slice(&[letter]))
}

fn a_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        a_key().prop_map(KeyRange::Single),
        a_key().prop_map(KeyRange::From),
        (b'a'..b'g', 1u8..5).prop_map(|(start, len)| KeyRange::Range {
            start: Bytes::copy_from_slice(&[start]),
            end: Bytes::copy_from_slice(&[(start + len).min(b'g')]),
        }),
    ]
}

fn a_permission() -> impl Strategy<Value = (Type, KeyRange)> {
    let kinds = [Type::Read, Type::Write, Type::Readwrite];
    (prop::sample::select(kinds.to_vec()), a_range())
}

fn an_op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        a_range().prop_map(|keys| Op::Range(range(keys))),
        (a_key(), any::<bool>(), 0i64..4).prop_map(|(key, prev_kv, lease)| {
            Op::Put(Put {
                key,
                value: PutValue::New(Bytes::new()),
                lease: match lease {
                    0 => PutLease::Detach,
                    3 => PutLease::Keep,
                    id => PutLease::Attach(LeaseId(id)),
                },
                prev_kv,
            })
        }),
        (a_range(), any::<bool>())
            .prop_map(|(keys, prev_kv)| Op::DeleteRange(DeleteRange { keys, prev_kv })),
    ];
    leaf.prop_recursive(3, 8, 2, |op| {
        let ops = || prop::collection::vec(op.clone(), 0..2);
        (prop::collection::vec(a_range(), 0..2), ops(), ops()).prop_map(
            |(compared, success, failure)| {
                let compare = |keys| Compare {
                    keys,
                    operator: CompareOperator::Equal,
                    target: CompareTarget::Version(0),
                };
                Op::Txn(Txn {
                    compare: compared.into_iter().map(compare).collect(),
                    success,
                    failure,
                })
            },
        )
    })
}

fn a_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => an_op().prop_map(|op| match op {
            Op::Put(put) => Command::Put(put),
            Op::DeleteRange(delete) => Command::DeleteRange(delete),
            Op::Txn(txn) => Command::Txn(txn),
            op @ Op::Range(_) => Command::Txn(Txn {
                success: vec![op],
                ..Txn::default()
            }),
        }),
        1 => (1i64..3).prop_map(|id| Command::LeaseRevoke { id: LeaseId(id) }),
        1 => Just(Command::LeaseGrant { id: LeaseId(9), ttl_s: 9 }),
        1 => Just(Command::Compact { revision: 1 }),
        1 => Just(Command::Auth(AuthCommand::Disable)),
    ]
}

fn client(user: &str, revision: u64) -> Asker {
    Asker::Client(AuthInfo {
        user: user.to_owned(),
        revision,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_command_is_allowed_when_all_that_it_touches_is(
        granted in prop::collection::vec(a_permission(), 0..4),
        command in a_command(),
    ) {
        let state = state(&granted);
        let now = state.revision();
        let access = Access::Command(&command);
        let asked = |asker: Asker| permit(access, &asker, &state, &Leases);
        // Without a name nothing, with root's everything.
        prop_assert_eq!(asked(Asker::default()).is_ok(), needs_nothing(&command));
        prop_assert_eq!(asked(client("root", now)), Ok(()));
        prop_assert_eq!(asked(Asker::Member), Ok(()));
        let allowed = Needs::of(&command).are_met(&granted);
        prop_assert_eq!(asked(client("u", now)).is_ok(), allowed, "{:?}", command);
    }

    #[test]
    fn keys_are_read_and_watched_by_who_may_read_them(
        granted in prop::collection::vec(a_permission(), 0..4),
        keys in a_range(),
    ) {
        let state = state(&granted);
        let allowed = permit(Access::Keys(&keys), &client("u", state.revision()), &state, &Leases);
        let mut needs = Needs::default();
        needs.op(&Op::Range(range(keys)));
        prop_assert_eq!(allowed.is_ok(), needs.are_met(&granted));
    }
}

/// A transaction of nothing at all: etcd gives its answer to everybody.
fn needs_nothing(command: &Command) -> bool {
    let Command::Txn(txn) = command else {
        return false;
    };
    let is_nothing = |op: &Op| match op {
        Op::Txn(txn) => needs_nothing(&Command::Txn(txn.clone())),
        _ => false,
    };
    txn.compare.is_empty() && txn.success.iter().chain(&txn.failure).all(is_nothing)
}

#[test]
fn what_is_read_of_leases_needs_their_keys() {
    let key = |key: &'static str| KeyRange::Single(key.into());
    for (granted, renew, keys, list) in [
        (vec![], false, false, false),
        (vec![(Type::Read, key("b"))], false, false, false),
        (
            vec![(Type::Read, key("b")), (Type::Read, key("d"))],
            false,
            true,
            true,
        ),
        (
            vec![(Type::Write, key("b")), (Type::Write, key("d"))],
            true,
            false,
            false,
        ),
        (
            vec![(Type::Readwrite, KeyRange::From("a".into()))],
            true,
            true,
            true,
        ),
    ] {
        let state = state(&granted);
        let asker = client("u", state.revision());
        let may = |access| permit(access, &asker, &state, &Leases).is_ok();
        assert_eq!(may(Access::LeaseRenew(LeaseId(1))), renew, "{granted:?}");
        assert_eq!(may(Access::LeaseKeys(LeaseId(1))), keys, "{granted:?}");
        assert_eq!(may(Access::LeaseList), list, "{granted:?}");
        assert!(may(Access::LeaseRenew(LeaseId(2))), "it has no keys");
        assert!(may(Access::LeaseTimeToLive(LeaseId(1))));
        assert!(may(Access::UserGet("u")) && !may(Access::UserGet("root")));
        assert_eq!(may(Access::RoleGet("r0")), !granted.is_empty());
        assert!(may(Access::Somebody) && !may(Access::Admin));
    }
    let state = state(&[]);
    for access in [
        Access::LeaseRenew(LeaseId(2)),
        Access::LeaseKeys(LeaseId(2)),
        Access::LeaseList,
        Access::Somebody,
        Access::Admin,
    ] {
        let refused = permit(access, &Asker::default(), &state, &Leases);
        assert_eq!(refused, Err(AuthError::UserEmpty), "{access:?}");
    }
}

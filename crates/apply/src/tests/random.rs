//! Random logs: applied twice they give the same, and after any crash the rest of the log leads to
//! the same state and the same answers.

use backend::Backend;
use backend::engine::{Engine, FaultyEngine, Loss};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn key() -> impl Strategy<Value = Bytes> {
    "[a-e]{1,2}".prop_map(Bytes::from)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => key().prop_map(KeyRange::Single),
        1 => key().prop_map(KeyRange::From),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::Range { start, end }),
    ]
}

fn lease_id() -> impl Strategy<Value = LeaseId> {
    (0..4_i64).prop_map(LeaseId)
}

fn a_put() -> impl Strategy<Value = Put> {
    let value = prop_oneof![
        6 => vec(any::<u8>(), 0..40).prop_map(|value| PutValue::New(value.into())),
        1 => Just(PutValue::Keep),
    ];
    let lease = prop_oneof![
        4 => Just(PutLease::Detach),
        2 => lease_id().prop_map(PutLease::Attach),
        1 => Just(PutLease::Keep),
    ];
    (key(), value, lease, any::<bool>()).prop_map(|(key, value, lease, prev_kv)| Put {
        key,
        value,
        lease,
        prev_kv,
    })
}

fn a_delete() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(keys, prev_kv)| DeleteRange { keys, prev_kv })
}

fn revision() -> impl Strategy<Value = Option<i64>> {
    option::weighted(0.3, -1..60_i64)
}

fn a_range() -> impl Strategy<Value = RangeOp> {
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let order = prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
    let filters = (revision(), revision(), revision(), revision());
    let flags = (any::<bool>(), any::<bool>());
    (
        key_range(),
        revision(),
        option::of(0..5_usize),
        (target, order),
        flags,
        filters,
    )
        .prop_map(
            |(keys, at, limit, (sort_target, sort_order), flags, filters)| RangeOp {
                keys,
                at,
                limit,
                sort_target,
                sort_order,
                keys_only: flags.0,
                count_only: flags.1,
                min_mod_revision: filters.0,
                max_mod_revision: filters.1,
                min_create_revision: filters.2,
                max_create_revision: filters.3,
            },
        )
}

fn a_compare() -> impl Strategy<Value = Compare> {
    let operator = prop::sample::select(vec![
        CompareOperator::Equal,
        CompareOperator::Greater,
        CompareOperator::Less,
        CompareOperator::NotEqual,
    ]);
    let target = (0..5, -1..20_i64, vec(any::<u8>(), 0..3)).prop_map(|(which, n, v)| match which {
        0 => CompareTarget::Version(n),
        1 => CompareTarget::Create(n),
        2 => CompareTarget::Mod(n),
        3 => CompareTarget::Lease(n),
        _ => CompareTarget::Value(v.into()),
    });
    (key_range(), operator, target).prop_map(|(keys, operator, target)| Compare {
        keys,
        operator,
        target,
    })
}

fn a_txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        a_range().prop_map(Op::Range),
        a_put().prop_map(Op::Put),
        a_put().prop_map(Op::Put),
        a_delete().prop_map(Op::DeleteRange),
    ];
    let op = leaf.prop_recursive(2, 12, 3, |op| {
        (vec(a_compare(), 0..2), vec(op.clone(), 0..3), vec(op, 0..3)).prop_map(
            |(compare, success, failure)| {
                Op::Txn(Txn {
                    compare,
                    success,
                    failure,
                })
            },
        )
    });
    (vec(a_compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..4)).prop_map(
        |(compare, success, failure)| Txn {
            compare,
            success,
            failure,
        },
    )
}

fn a_command() -> impl Strategy<Value = Command> {
    let kind = option::of(prop::sample::select(vec![
        AlarmKind::NoSpace,
        AlarmKind::Corrupt,
    ]));
    let clear = (0..3_u64, kind).prop_map(|(member, alarm)| Command::Alarm {
        action: AlarmAction::Deactivate,
        member: MemberId(member),
        alarm,
    });
    let no_space = Some(AlarmKind::NoSpace);
    let clear_own = Command::Alarm {
        action: AlarmAction::Deactivate,
        member: MEMBER,
        alarm: no_space,
    };
    prop_oneof![
        8 => a_put().prop_map(Command::Put),
        3 => a_delete().prop_map(Command::DeleteRange),
        8 => a_txn().prop_map(Command::Txn),
        1 => (0..60_i64).prop_map(|revision| Command::Compact { revision }),
        2 => (lease_id(), 1..9_i64).prop_map(|(id, ttl_s)| Command::LeaseGrant { id, ttl_s }),
        1 => lease_id().prop_map(|id| Command::LeaseRevoke { id }),
        1 => vec((lease_id(), 0..100_i64), 0..3)
            .prop_map(|leases| Command::LeaseCheckpoint { leases }),
        1 => clear,
        1 => Just(clear_own),
        1 => any::<String>().prop_map(|name| {
            Command::PublishMember(Member { id: MEMBER, name, ..Member::default() })
        }),
        1 => a_version().prop_map(|version| Command::ClusterVersionSet { version }),
        1 => option::of(a_version()).prop_map(|target| Command::DowngradeInfoSet { target }),
    ]
}

fn a_version() -> impl Strategy<Value = Version> {
    (0..9_u64, 0..99_u64).prop_map(|(major, minor)| Version { major, minor })
}

/// A command, and what happens after it: 0 nothing, 1 the end of a batch, 2 a tick, 3 staging.
pub(super) fn a_log(len: usize) -> impl Strategy<Value = Vec<(Command, u8)>> {
    vec((a_command(), 0..4_u8), 0..len)
}

pub(super) const QUOTA: Quota = Quota::Bytes(6000);

impl Bench {
    pub(super) fn run_log(&mut self, log: &[(Command, u8)]) -> Vec<String> {
        let mut outcomes = Vec::new();
        for (command, then) in log {
            outcomes.push(format!("{:?}", self.apply(command)));
            match then {
                1 => self.machine.finish_batch().unwrap(),
                2 => self.machine.tick().unwrap(),
                3 => drop(self.machine.stage_all().unwrap()),
                _ => {}
            }
        }
        outcomes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_command_reads_back_from_its_bytes(command in a_command()) {
        let request = Request::from(command);
        let bytes = request.encode();
        prop_assert_eq!(bytes.len(), request.encoded_len());
        prop_assert_eq!(Request::decode(&bytes).unwrap(), request);
    }

    #[test]
    fn other_bytes_are_an_error_or_a_command(bytes in vec(any::<u8>(), 0..60)) {
        if let Ok(request) = Request::decode(&bytes.into()) {
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }
    }

    #[test]
    fn batches_and_staging_do_not_matter(log in a_log(80)) {
        let mut reference = open_on(Backend::in_memory(), QUOTA);
        let one_by_one: Vec<_> = log.iter().map(|(command, _)| (command.clone(), 1)).collect();
        let expected = reference.run_log(&one_by_one);
        // Nor does a member's own quota.
        let mut other = open_on(Backend::in_memory(), Quota::Unlimited);
        prop_assert_eq!(other.run_log(&log), expected);
        prop_assert_eq!(other.fingerprint(), reference.fingerprint());
    }

    #[test]
    fn after_a_crash_the_log_leads_to_the_same_state(
        log in a_log(80),
        crash_at in any::<prop::sample::Index>(),
        seed: u64,
        loss in prop::sample::select(Loss::ALL.to_vec()),
    ) {
        let mut reference = open_on(Backend::in_memory(), QUOTA);
        let outcomes = reference.run_log(&log);
        let engine = Arc::new(FaultyEngine::new(seed));
        let disk: Arc<dyn Engine> = engine.clone();
        let mut b = open_on(Backend::with_engine(disk).unwrap(), QUOTA);
        b.run_log(&log[..crash_at.index(log.len() + 1)]);
        let disk: Arc<dyn Engine> = Arc::new(engine.crash(loss));
        let mut b = open_on(Backend::with_engine(disk).unwrap(), QUOTA);
        let replayed = usize::try_from(b.next).unwrap();
        prop_assert_eq!(&b.run_log(&log[replayed..])[..], &outcomes[replayed..]);
        prop_assert_eq!(b.fingerprint(), reference.fingerprint());
    }
}

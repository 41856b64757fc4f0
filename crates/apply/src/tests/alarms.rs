use super::*;

fn request(action: AlarmAction, member: u64, alarm: Option<AlarmKind>) -> Command {
    Command::Alarm {
        action,
        member: MemberId(member),
        alarm,
    }
}

fn ask(b: &mut Bench, action: AlarmAction, member: u64, alarm: Option<AlarmKind>) -> Vec<Alarm> {
    match b.run(&request(action, member, alarm)) {
        Ok(Reply::Alarm(AlarmReply { alarms })) => alarms,
        other => panic!("{other:?}"),
    }
}

use AlarmAction::{Activate, Deactivate, Get};
use AlarmKind::{Corrupt, NoSpace};

const fn alarm(member: u64, kind: AlarmKind) -> Alarm {
    Alarm {
        member: MemberId(member),
        kind,
    }
}

#[test]
fn alarms_are_raised_listed_and_cleared_as_etcd_does_it() {
    let mut b = bench();
    assert_eq!(ask(&mut b, Activate, 1, Some(NoSpace)), [alarm(1, NoSpace)]);
    assert_eq!(ask(&mut b, Activate, 1, Some(NoSpace)), [alarm(1, NoSpace)]);
    assert_eq!(ask(&mut b, Activate, 2, None), []);
    assert_eq!(ask(&mut b, Activate, 2, Some(Corrupt)), [alarm(2, Corrupt)]);
    assert_eq!(
        ask(&mut b, Get, 0, None),
        [alarm(1, NoSpace), alarm(2, Corrupt)]
    );
    assert_eq!(ask(&mut b, Get, 1, Some(Corrupt)), [alarm(2, Corrupt)]);
    assert_eq!(ask(&mut b, Deactivate, 0, Some(NoSpace)), []);
    assert_eq!(ask(&mut b, Deactivate, 1, None), []);
    assert_eq!(
        ask(&mut b, Deactivate, 1, Some(NoSpace)),
        [alarm(1, NoSpace)]
    );
    assert_eq!(b.views.alarms.list(), [alarm(2, Corrupt)]);
}

#[test]
fn nospace_refuses_what_adds_and_lets_the_rest_through() {
    let mut b = bench();
    b.put("a", "1");
    b.put("b", "1");
    b.grant(5);
    ask(&mut b, Activate, 1, Some(NoSpace));
    let put_op = Op::Put(put("c", "1"));
    let nested = Txn {
        failure: vec![put_op.clone()],
        ..Txn::default()
    };
    for refused in [
        Command::Put(put("a", "2")),
        Command::LeaseGrant {
            id: LeaseId(6),
            ttl_s: 5,
        },
        Command::Txn(Txn {
            success: vec![put_op.clone()],
            ..Txn::default()
        }),
        // Although this branch would not run.
        Command::Txn(Txn {
            failure: vec![put_op],
            ..Txn::default()
        }),
        Command::Txn(Txn {
            success: vec![Op::Txn(nested)],
            ..Txn::default()
        }),
    ] {
        assert_eq!(
            b.run(&refused).unwrap_err(),
            Rejection::NoSpace,
            "{refused:?}"
        );
    }
    let deletes = Txn {
        success: vec![Op::DeleteRange(delete(one("a")))],
        ..Txn::default()
    };
    for allowed in [
        Command::Txn(deletes),
        Command::DeleteRange(delete(one("b"))),
        Command::LeaseRevoke { id: LeaseId(5) },
        Command::Compact { revision: 3 },
    ] {
        b.run(&allowed).unwrap();
    }
    ask(&mut b, Deactivate, 1, Some(NoSpace));
    b.put("a", "3");
}

#[test]
fn corrupt_refuses_everything_but_alarms_and_publication() {
    let mut b = bench();
    b.put("a", "1");
    b.grant(5);
    ask(&mut b, Activate, 1, Some(NoSpace));
    ask(&mut b, Activate, 1, Some(Corrupt));
    for refused in [
        Command::Put(put("a", "2")),
        Command::DeleteRange(delete(one("a"))),
        Command::Txn(Txn::default()),
        Command::Compact { revision: 2 },
        Command::LeaseGrant {
            id: LeaseId(6),
            ttl_s: 5,
        },
        Command::LeaseRevoke { id: LeaseId(5) },
    ] {
        assert_eq!(
            b.run(&refused).unwrap_err(),
            Rejection::Corrupt,
            "{refused:?}"
        );
    }
    b.run(&Command::PublishMember(Member::default())).unwrap();
    // As in etcd: else no lease could be renewed that is checkpointed.
    let leases = vec![(LeaseId(5), 0)];
    b.run(&Command::LeaseCheckpoint { leases }).unwrap();
    b.run(&Command::DowngradeInfoSet { target: None }).unwrap();
    let version = Version { major: 3, minor: 6 };
    b.run(&Command::ClusterVersionSet { version }).unwrap();
    ask(&mut b, Deactivate, 1, Some(Corrupt));
    assert_eq!(
        b.run(&Command::Put(put("a", "2"))).unwrap_err(),
        Rejection::NoSpace
    );
}

#[test]
fn a_members_own_quota_refuses_nothing_that_is_in_the_log() {
    let mut b = open_on(backend::Backend::in_memory(), Quota::Bytes(40_000));
    let value = "v".repeat(1000);
    let full = Command::Put(put("a", &value));
    let mut written = 0;
    while b.views.room.is_for(&full) {
        b.run(&full).unwrap();
        written += 1;
    }
    assert!((3..10).contains(&written), "{written}");
    assert!(!b.views.room.take_exceeded());
    // Somebody with a larger quota has proposed this.
    b.run(&full).unwrap();
    assert_eq!(b.views.store.revision(), written + 2);
    assert!(b.views.room.take_exceeded());
    assert!(!b.views.room.take_exceeded(), "told once");
    assert!(b.views.alarms.list().is_empty());
    // Deletions need no room, but leave none either until they are compacted.
    b.run(&Command::DeleteRange(delete(KeyRange::all())))
        .unwrap();
    assert!(!b.views.room.is_for(&full));
    assert!(!b.views.room.take_exceeded());
}

#[test]
fn what_only_reads_fits_into_a_full_store() {
    let mut b = open_on(backend::Backend::in_memory(), Quota::Bytes(1));
    let reads = Txn {
        success: vec![Op::Range(range(one("a")))],
        ..Txn::default()
    };
    b.run(&Command::Txn(reads)).unwrap();
    b.run(&Command::DeleteRange(delete(one("a")))).unwrap();
    assert!(!b.views.room.take_exceeded());
}

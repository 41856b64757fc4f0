use super::*;

#[test]
fn revisions_count_from_two_and_only_when_something_changes() {
    let mut b = bench();
    assert_eq!(b.put("a", "1"), 2);
    assert_eq!(b.put("a", "2"), 3);
    let Ok(Reply::DeleteRange {
        revision,
        delete_range,
    }) = b.run(&Command::DeleteRange(delete(one("x"))))
    else {
        panic!()
    };
    assert_eq!((revision, delete_range.deleted), (3, 0));
    let both = DeleteRange {
        keys: KeyRange::all(),
        prev_kv: true,
    };
    b.put("b", "3");
    let Ok(Reply::DeleteRange {
        revision,
        delete_range,
    }) = b.run(&Command::DeleteRange(both))
    else {
        panic!()
    };
    assert_eq!((revision, delete_range.deleted), (5, 2));
    assert_eq!(keys(&delete_range.prev_kvs), ["a", "b"]);
}

#[test]
fn a_put_returns_what_it_replaces_only_if_asked() {
    let mut b = bench();
    b.put("a", "1");
    let asked = Put {
        prev_kv: true,
        ..put("a", "2")
    };
    let Ok(Reply::Put { put: reply, .. }) = b.run(&Command::Put(asked)) else {
        panic!()
    };
    assert_eq!(reply.prev_kv.unwrap().value(), b"1");
    let Ok(Reply::Put { put: reply, .. }) = b.run(&Command::Put(put("a", "3"))) else {
        panic!()
    };
    assert!(reply.prev_kv.is_none());
}

#[test]
fn ignore_value_and_ignore_lease_keep_what_is_there() {
    let mut b = bench();
    b.grant(5);
    let leased = Put {
        lease: PutLease::Attach(LeaseId(5)),
        ..put("a", "1")
    };
    b.run(&Command::Put(leased)).unwrap();
    b.run(&Command::Put(Put {
        lease: PutLease::Keep,
        ..put("a", "2")
    }))
    .unwrap();
    let kv = b.views.store.view().get(b"a").unwrap();
    assert_eq!((kv.value(), kv.lease()), (&b"2"[..], Some(LeaseId(5))));
    b.run(&Command::Put(Put {
        value: PutValue::Keep,
        ..put("a", "")
    }))
    .unwrap();
    let kv = b.views.store.view().get(b"a").unwrap();
    assert_eq!((kv.value(), kv.lease(), kv.version()), (&b"2"[..], None, 3));
    assert!(b.views.leases.get(LeaseId(5)).unwrap().keys.is_empty());
}

#[test]
fn a_put_is_refused_for_its_lease_before_its_key() {
    let mut b = bench();
    let missing = Put {
        value: PutValue::Keep,
        ..put("a", "")
    };
    assert_eq!(
        b.run(&Command::Put(missing.clone())).unwrap_err(),
        Rejection::KeyNotFound
    );
    let both = Put {
        lease: PutLease::Attach(LeaseId(9)),
        ..missing
    };
    assert_eq!(
        b.run(&Command::Put(both)).unwrap_err(),
        Rejection::LeaseNotFound
    );
    assert_eq!(b.views.store.revision(), 1);
}

#[test]
fn revoking_a_lease_deletes_its_keys_in_one_revision() {
    let mut b = bench();
    b.grant(5);
    b.grant(6);
    for key in ["c", "a", "b"] {
        let leased = Put {
            lease: PutLease::Attach(LeaseId(5)),
            ..put(key, "1")
        };
        b.run(&Command::Put(leased)).unwrap();
    }
    // A key moves with its last put.
    b.run(&Command::Put(Put {
        lease: PutLease::Attach(LeaseId(6)),
        ..put("b", "2")
    }))
    .unwrap();
    let revoke = Command::LeaseRevoke { id: LeaseId(5) };
    let Ok(Reply::Done { revision }) = b.run(&revoke) else {
        panic!()
    };
    assert_eq!(revision, 6);
    let left = execute_range(&b.views.store.view(), &range(KeyRange::all())).unwrap();
    assert_eq!(keys(&left.kvs), ["b"]);
    assert_eq!(b.run(&revoke).unwrap_err(), Rejection::LeaseNotFound);
    // One without keys moves nothing.
    b.grant(5);
    let Ok(Reply::Done { revision }) = b.run(&revoke) else {
        panic!()
    };
    assert_eq!(revision, 6);
}

#[test]
fn a_deleted_key_leaves_its_lease() {
    let mut b = bench();
    b.grant(5);
    b.run(&Command::Put(Put {
        lease: PutLease::Attach(LeaseId(5)),
        ..put("a", "1")
    }))
    .unwrap();
    b.run(&Command::DeleteRange(delete(one("a")))).unwrap();
    b.put("a", "2");
    let Ok(Reply::Done { revision }) = b.run(&Command::LeaseRevoke { id: LeaseId(5) }) else {
        panic!()
    };
    assert_eq!(revision, 4, "the new key is not the lease's");
}

#[test]
fn leases_are_granted_once() {
    let mut b = bench();
    b.grant(5);
    let again = Command::LeaseGrant {
        id: LeaseId(5),
        ttl_s: 1,
    };
    assert_eq!(b.run(&again).unwrap_err(), Rejection::LeaseExists);
    let zero = Command::LeaseGrant {
        id: LeaseId(0),
        ttl_s: 1,
    };
    assert_eq!(b.run(&zero).unwrap_err(), Rejection::LeaseNotFound);
}

#[test]
fn a_compaction_moves_forward_only() {
    let mut b = bench();
    for i in 0..5 {
        b.put("a", &i.to_string());
    }
    let compact = |revision| Command::Compact { revision };
    assert_eq!(b.run(&compact(7)).unwrap_err(), Rejection::FutureRevision);
    assert!(matches!(
        b.run(&compact(4)),
        Ok(Reply::Done { revision: 6 })
    ));
    assert_eq!(b.run(&compact(4)).unwrap_err(), Rejection::Compacted);
    let at = |at| {
        execute_range(
            &b.views.store.view(),
            &RangeOp {
                at: Some(at),
                ..range(one("a"))
            },
        )
    };
    assert!(matches!(at(3), Err(mvcc::RangeError::Compacted { .. })));
    assert_eq!(at(4).unwrap().kvs[0].value(), b"2");
    assert!(matches!(at(7), Err(mvcc::RangeError::FutureRevision)));
}

#[test]
fn nothing_shows_before_the_batch_is_finished() {
    let mut b = bench();
    b.apply(&Command::Put(put("a", "1"))).unwrap();
    let no_space = AlarmKind::NoSpace;
    let raise = AlarmAction::Activate;
    b.apply(&Command::Alarm {
        action: raise,
        member: MEMBER,
        alarm: Some(no_space),
    })
    .unwrap();
    assert!(b.views.store.view().get(b"a").is_none() && b.views.alarms.list().is_empty());
    b.machine.finish_batch().unwrap();
    assert!(b.views.store.view().get(b"a").is_some() && !b.views.alarms.list().is_empty());
}

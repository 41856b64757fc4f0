use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// A clock that a test turns by hand.
struct Hand(Mutex<Instant>);

impl Hand {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has to begin somewhere"
    )]
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Instant::now())))
    }
    fn turn(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for Hand {
    fn now(&self) -> Instant {
        *self.0.lock()
    }
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

struct Bench {
    clock: Arc<Hand>,
    backend: backend::Backend,
    leases: Leases,
    writer: Writer,
    renewer: Renewer,
}

fn bench() -> Bench {
    let (clock, backend) = (Hand::new(), backend::Backend::in_memory());
    let (leases, writer, renewer) = open(&backend.reader, clock.clone()).unwrap();
    Bench {
        clock,
        backend,
        leases,
        writer,
        renewer,
    }
}

const S: Duration = Duration::from_secs(1);
const A: LeaseId = LeaseId(7);

#[test]
fn a_lease_is_granted_once_and_revoked_once() {
    let mut b = bench();
    b.writer.grant(A, 10).unwrap();
    assert_eq!(b.writer.grant(A, 20), Err(GrantError::Exists));
    assert_eq!(b.leases.granted_ttl_s(A), Some(10));
    assert_eq!(b.writer.revoke(A), Ok(vec![]));
    assert_eq!(b.writer.revoke(A), Err(NotFound));
    assert!(b.leases.is_empty() && b.leases.get(A).is_none());
}

#[test]
fn keys_come_back_sorted_and_detached_ones_do_not() {
    let mut b = bench();
    b.writer.grant(A, 10).unwrap();
    for key in ["c", "a", "b", "a"] {
        b.writer.attach(A, key.into()).unwrap();
    }
    b.writer.detach(A, b"b");
    b.writer.detach(LeaseId(8), b"a");
    assert_eq!(b.writer.attach(LeaseId(8), "x".into()), Err(NotFound));
    assert_eq!(b.leases.get(A).unwrap().keys, ["a", "c"]);
    assert_eq!(b.writer.revoke(A).unwrap(), ["a", "c"]);
}

#[test]
fn leases_survive_a_restart_with_their_ttl_and_without_their_keys() {
    let mut b = bench();
    b.writer.grant(A, 10).unwrap();
    b.writer.grant(LeaseId(8), 20).unwrap();
    b.writer.grant(LeaseId(-9), 30).unwrap();
    let mut batch = backend::Batch::new();
    b.writer.stage(&mut batch);
    b.backend.writer.commit(batch).unwrap();
    b.writer.revoke(LeaseId(8)).unwrap();
    let mut batch = backend::Batch::new();
    b.writer.stage(&mut batch);
    assert!(!b.writer.has_unstaged());
    b.backend.writer.commit(batch).unwrap();

    let (leases, _, renewer) = open(&b.backend.reader, b.clock.clone()).unwrap();
    assert_eq!(leases.list(), [LeaseId(-9), A]);
    assert_eq!(
        leases.get(A),
        Some(Lease {
            id: A,
            granted_ttl_s: 10,
            keys: vec![]
        })
    );
    assert!(!renewer.is_primary());
}

#[test]
fn a_record_that_is_no_lease_is_named() {
    let mut b = bench();
    let mut batch = backend::Batch::new();
    batch.put(Bucket::Lease, &b"12345678"[..], &b"\xff"[..]);
    b.backend.writer.commit(batch).unwrap();
    assert!(matches!(
        open(&b.backend.reader, b.clock),
        Err(OpenError::Decode { .. })
    ));
}

#[test]
fn nothing_expires_on_a_member_that_does_not_lead() {
    let mut b = bench();
    b.writer.grant(A, 2).unwrap();
    b.clock.turn(100 * S);
    assert_eq!(b.renewer.expired(10), []);
    assert_eq!(b.renewer.renew(A), Err(RenewError::NotPrimary));
    assert_eq!(b.renewer.remaining_ttl_s(A), Err(NotPrimary));
}

#[test]
fn a_lease_expires_after_its_ttl_and_is_offered_again_until_it_is_revoked() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    b.writer.grant(A, 2).unwrap();
    b.clock.turn(2 * S - Duration::from_millis(1));
    assert_eq!(b.renewer.expired(10), []);
    assert_eq!(b.renewer.remaining_ttl_s(A), Ok(Some(0)));
    b.clock.turn(Duration::from_millis(1));
    assert_eq!(b.renewer.expired(10), [A]);
    assert_eq!(b.renewer.expired(10), []);
    assert_eq!(b.renewer.renew(A), Err(RenewError::NotFound));
    b.clock.turn(EXPIRED_AGAIN);
    assert_eq!(b.renewer.expired(10), [A]);
    b.writer.revoke(A).unwrap();
    b.clock.turn(EXPIRED_AGAIN);
    assert_eq!(b.renewer.expired(10), []);
    assert_eq!(b.renewer.remaining_ttl_s(A), Ok(None));
}

const EXPIRED_AGAIN: Duration = Duration::from_secs(3);

#[test]
fn a_renewed_lease_runs_from_the_start_again() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    b.writer.grant(A, 5).unwrap();
    b.clock.turn(4 * S);
    assert_eq!(b.renewer.renew(A), Ok(5));
    b.clock.turn(4 * S);
    assert_eq!(b.renewer.expired(10), []);
    b.clock.turn(S);
    assert_eq!(b.renewer.expired(10), [A]);
    assert_eq!(b.renewer.renew(LeaseId(8)), Err(RenewError::NotFound));
}

#[test]
fn a_new_leader_gives_every_lease_its_ttl_and_the_extension() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    b.writer.grant(A, 5).unwrap();
    b.clock.turn(4 * S);
    b.renewer.demote();
    b.clock.turn(100 * S);
    assert_eq!(b.renewer.expired(10), []);
    b.renewer.promote(S);
    assert_eq!(b.renewer.remaining_ttl_s(A), Ok(Some(6)));
    b.clock.turn(6 * S);
    assert_eq!(b.renewer.expired(10), [A]);
}

#[test]
fn leases_are_listed_by_expiry_on_the_leader() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    b.writer.grant(LeaseId(1), 30).unwrap();
    b.writer.grant(LeaseId(2), 10).unwrap();
    b.writer.grant(LeaseId(3), 20).unwrap();
    assert_eq!(b.leases.list(), [LeaseId(2), LeaseId(3), LeaseId(1)]);
}

#[test]
fn an_endless_ttl_does_not_overflow() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    b.writer.grant(A, i64::MAX).unwrap();
    b.writer.grant(LeaseId(8), i64::MIN).unwrap();
    assert!(b.renewer.remaining_ttl_s(A).unwrap().unwrap() > 1_000_000_000);
    assert_eq!(b.renewer.expired(10), [LeaseId(8)]);
}

#[test]
fn a_pile_of_leases_is_spread_after_a_change_of_leader() {
    let mut b = bench();
    for i in 1..=100_000 {
        b.writer.grant(LeaseId(i), 10).unwrap();
    }
    b.renewer.promote(Duration::ZERO);
    b.clock.turn(10 * S);
    let mut offered = 0;
    for _ in 0..14 {
        let expired = b.renewer.expired(usize::MAX);
        assert!(expired.len() <= 7500, "{} leases at once", expired.len());
        offered += expired.len();
        for id in expired {
            b.writer.revoke(id).unwrap();
        }
        b.clock.turn(S);
    }
    assert_eq!(offered, 100_000);
    assert!(b.leases.is_empty());
}

#[test]
fn expired_leases_come_in_batches() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    for i in 1..=10 {
        b.writer.grant(LeaseId(i), 10).unwrap();
    }
    b.clock.turn(10 * S);
    assert_eq!(b.renewer.expired(4).len(), 4);
    assert_eq!(b.renewer.expired(4).len(), 4);
    assert_eq!(b.renewer.expired(4).len(), 2);
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn what_a_long_lease_has_left_survives_a_change_of_leader() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    b.writer.grant(A, 3600).unwrap();
    b.writer.grant(LeaseId(8), 300).unwrap();
    b.clock.turn(5 * MINUTE - S);
    assert_eq!(b.renewer.checkpoints(10), []);
    b.clock.turn(S);
    assert_eq!(b.renewer.checkpoints(10), [(A, 3301)]);
    assert_eq!(b.renewer.checkpoints(10), []);
    b.writer.checkpoint(A, 3300);
    let mut batch = backend::Batch::new();
    b.writer.stage(&mut batch);
    b.backend.writer.commit(batch).unwrap();
    b.renewer.demote();
    b.renewer.promote(S);
    assert_eq!(b.renewer.remaining_ttl_s(A), Ok(Some(3301)));
    assert_eq!(b.renewer.remaining_ttl_s(LeaseId(8)), Ok(Some(301)));
    let (_, _, after_a_restart) = open(&b.backend.reader, b.clock.clone()).unwrap();
    after_a_restart.promote(S);
    assert_eq!(after_a_restart.remaining_ttl_s(A), Ok(Some(3301)));
    // It goes on being checkpointed, as long as there is something to lose.
    let mut checkpointed = Vec::new();
    for _ in 0..60 {
        b.clock.turn(MINUTE);
        let due = b.renewer.checkpoints(10).into_iter();
        checkpointed.extend(due.filter(|(id, _)| *id == A).map(|(_, left)| left));
    }
    assert_eq!(
        checkpointed,
        (1..=11).map(|n| 3302 - 300 * n).collect::<Vec<_>>()
    );
}

#[test]
fn a_lease_is_renewed_when_its_checkpoint_is_taken_back_also_one_that_is_on_its_way() {
    let mut b = bench();
    b.renewer.promote(Duration::ZERO);
    b.writer.grant(A, 3600).unwrap();
    b.clock.turn(4 * MINUTE);
    assert_eq!(b.renewer.renew(A), Ok(3600));
    b.clock.turn(4 * MINUTE);
    assert_eq!(b.renewer.checkpoints(10), []);
    b.clock.turn(MINUTE);
    assert_eq!(b.renewer.checkpoints(10), [(A, 3301)]);
    assert_eq!(b.renewer.renew(A), Err(RenewError::Checkpointed));
    b.writer.checkpoint(A, 3300);
    assert_eq!(b.renewer.renew(A), Err(RenewError::Checkpointed));
    b.writer.checkpoint(A, 0);
    assert_eq!(b.renewer.renew(A), Ok(3600));
    b.renewer.demote();
    b.renewer.promote(Duration::ZERO);
    assert_eq!(b.renewer.remaining_ttl_s(A), Ok(Some(3600)));
    b.writer.checkpoint(LeaseId(9), 5);
    b.writer.revoke(A).unwrap();
    b.clock.turn(100 * MINUTE);
    assert_eq!(b.renewer.checkpoints(10), []);
}

proptest! {
    /// What is stored and loaded again is what was there.
    #[test]
    fn stored_leases_equal_the_table(ops in prop::collection::vec((0..20_i64, 0..3_u8, 1..100_i64), 0..200)) {
        let mut b = bench();
        for (id, op, ttl) in ops {
            match op {
                0 => drop(b.writer.grant(LeaseId(id), ttl)),
                1 => drop(b.writer.revoke(LeaseId(id))),
                _ => {
                    let mut batch = backend::Batch::new();
                    b.writer.stage(&mut batch);
                    b.backend.writer.commit(batch).unwrap();
                }
            }
        }
        let mut batch = backend::Batch::new();
        b.writer.stage(&mut batch);
        b.backend.writer.commit(batch).unwrap();
        let (loaded, _, _) = open(&b.backend.reader, b.clock.clone()).unwrap();
        prop_assert_eq!(loaded.list(), b.leases.list());
        for id in loaded.list() {
            prop_assert_eq!(loaded.granted_ttl_s(id), b.leases.granted_ttl_s(id));
        }
    }
}

//! A whole member on disks that fail.

use std::collections::BTreeMap;
use std::time::Duration;

use apply::{Command, Rejection, Reply, Request};
use backend::engine::Loss;
use types::LeaseId;

use super::*;
use crate::testing::{Disks, Member, config, nobody, put_attached, put_command, state_config};

const PATIENCE: Duration = Duration::from_secs(10);

fn key(number: usize) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

/// Writes keys `from..to` from as many tasks; says which were acknowledged, and at which revision.
async fn write_keys(member: &Member, from: usize, to: usize) -> BTreeMap<usize, i64> {
    let writers: Vec<_> = (from..to)
        .map(|number| {
            let node = member.node.clone();
            tokio::spawn(async move {
                let command = put_command(&key(number), number.to_string().as_bytes());
                (number, node.propose(command).await)
            })
        })
        .collect();
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        if let (number, Ok(applied)) = writer.await.unwrap() {
            match applied.outcome {
                Ok(Reply::Put { revision, .. }) => acknowledged.insert(number, revision),
                other => panic!("a put came to {other:?}"),
            };
        }
    }
    acknowledged
}

async fn write_until_refused(node: Node) {
    for number in 1000.. {
        let command = put_command(&key(number), &[7; 900]);
        if node.propose(command).await.is_err() {
            return;
        }
    }
}

/// The first entry that is still in a log.
fn first_in_log(disks: &Disks) -> u64 {
    let reader = crate::testing::backend(&disks.log).reader;
    let mut groups = reader.scan(backend::Bucket::RaftLog, &[], None);
    backend::schema::raft::decode_log(&groups.next().unwrap().unwrap().0).unwrap()
}

fn assert_all_there(member: &Member, acknowledged: &BTreeMap<usize, i64>, context: &str) {
    for (number, revision) in acknowledged {
        let value = member.value(&key(*number));
        assert_eq!(
            value,
            Some(number.to_string().into_bytes()),
            "{context}: key {number}"
        );
        assert!(
            member.views.store.view().revision() >= *revision,
            "{context}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_gets_its_own_outcome_and_later_reads_see_it() {
    let member = Member::ready(&Disks::new(1), config()).await;
    let acknowledged = write_keys(&member, 0, 200).await;
    assert_eq!(acknowledged.len(), 200);
    let mut revisions: Vec<i64> = acknowledged.values().copied().collect();
    revisions.sort_unstable();
    assert_eq!(
        revisions,
        (2..202).collect::<Vec<i64>>(),
        "one revision each"
    );
    member.node.read_index().await.unwrap();
    assert_all_there(&member, &acknowledged, "after a read index");
    let refused = member
        .node
        .propose(Command::LeaseRevoke { id: LeaseId(7) })
        .await
        .unwrap();
    assert_eq!(refused.outcome.unwrap_err(), Rejection::LeaseNotFound);
    let status = member.node.status();
    assert_eq!(status.leader, Some(crate::testing::MEMBER));
    assert_eq!((status.term, refused.term), (1, 1));
    assert_eq!(status.applied_index, status.committed_index);
    assert!(!status.is_learner);
    member.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_index_sees_every_write_that_was_acknowledged_before_it() {
    let member = Member::ready(&Disks::new(2), config()).await;
    let writers: Vec<_> = (0..8)
        .map(|task| {
            let (node, views) = (member.node.clone(), member.views.clone());
            tokio::spawn(async move {
                for number in 0..50 {
                    let value = number.to_string().into_bytes();
                    node.propose(put_command(&key(task), &value)).await.unwrap();
                    node.read_index().await.unwrap();
                    let found = views.store.view().get(&key(task)).unwrap();
                    assert_eq!(found.value(), &value[..]);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    member.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_there_is_nothing_to_replay() {
    let disks = Disks::new(3);
    let member = Member::ready(&disks, config()).await;
    let acknowledged = write_keys(&member, 0, 300).await;
    let applied = member.node.status().applied_index;
    member.node.stop().await;
    assert_eq!(
        member
            .node
            .propose(put_command(b"k", b"v"))
            .await
            .unwrap_err(),
        ProposeError::Stopped
    );
    assert_eq!(
        member.node.read_index().await.unwrap_err(),
        ReadIndexError::Stopped
    );
    let after = disks.crash(Loss::All);
    let config_of_state = state_config(Arc::new(types::SystemClock));
    let (state, _views, _persister) =
        apply::open(after.state.open().unwrap(), &config_of_state).unwrap();
    assert_eq!(state.applied().0.unwrap().index + 1, applied);
    let member = Member::ready(&disks.crash(Loss::All), config()).await;
    assert_all_there(&member, &acknowledged, "after a restart");
    assert_eq!(member.node.status().term, 2, "a restart is an election");
    member.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_member_leads_soon_after_a_restart() {
    let disks = Disks::new(4);
    Member::ready(&disks, config()).await.node.stop().await;
    let mut patient = config();
    patient.election_timeout = Duration::from_secs(50);
    let member = Member::ready(&disks.crash(Loss::All), patient).await;
    member.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_share_flushes_and_entries() {
    let disks = Disks::new(5);
    let member = Member::ready(&disks, config()).await;
    let (flushes, entries) = (disks.log.flushes(), member.node.status().applied_index);
    // As a real disk does; one that takes no time leaves it to chance whether two meet.
    disks.log.slow_flush(Duration::from_millis(5));
    assert_eq!(write_keys(&member, 0, 2000).await.len(), 2000);
    let flushes = disks.log.flushes() - flushes;
    let entries = member.node.status().applied_index - entries;
    assert!(flushes < 1000, "{flushes} flushes for 2000 commands");
    assert!(entries < 1000, "{entries} entries for 2000 commands");
    member.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_any_loss_of_power() {
    for seed in 0..24 {
        let disks = Disks::new(seed);
        let mut small = config();
        small.snapshot_count = 20;
        let member = Member::ready(&disks, small.clone()).await;
        let mut acknowledged = BTreeMap::new();
        for round in 0..4 {
            acknowledged.extend(write_keys(&member, round * 100, round * 100 + 100).await);
            // What is on its way when the power goes may be there or not, and breaks nothing.
            let writing = tokio::spawn(write_until_refused(member.node.clone()));
            for loss in Loss::ALL {
                let after = Member::ready(&disks.crash(loss), small.clone()).await;
                let context = format!("seed {seed}, round {round}, {loss:?}");
                after.node.read_index().await.unwrap();
                assert_all_there(&after, &acknowledged, &context);
                after.node.stop().await;
            }
            writing.abort();
        }
        member.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_and_never_past_the_durable_state() {
    let disks = Disks::new(6);
    let mut small = config();
    small.snapshot_count = 10;
    let member = Member::ready(&disks, small).await;
    let mut purged = 0;
    for round in 0..60 {
        write_keys(&member, 0, 20).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let after = disks.crash(Loss::Nothing);
        let durable = disks.crash(Loss::All);
        let config_of_state = state_config(Arc::new(types::SystemClock));
        let (state, _views, _persister) =
            apply::open(durable.state.open().unwrap(), &config_of_state).unwrap();
        purged = first_in_log(&after);
        let applied = state.applied().0.map_or(0, |at| at.index + 1);
        assert!(
            purged <= applied,
            "round {round}: log from {purged}, state up to {applied}"
        );
    }
    assert!(purged > 0, "nothing was purged");
    member.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_often_killed_still_cuts_its_log() {
    let mut disks = Disks::new(7);
    let mut small = config();
    small.snapshot_count = 60;
    for _ in 0..12 {
        let member = Member::ready(&disks, small.clone()).await;
        for number in 0..20 {
            member
                .node
                .propose(put_command(&key(number), b"v"))
                .await
                .unwrap();
        }
        // The cutter looks ten times a second, and each life is longer than that.
        tokio::time::sleep(Duration::from_millis(250)).await;
        disks = disks.crash(Loss::Nothing);
    }
    assert!(first_in_log(&disks) > 0, "nothing was purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_broken_log_disk_nothing_is_acknowledged_that_is_not_durable() {
    for seed in 0..12 {
        let disks = Disks::new(seed);
        let member = Member::ready(&disks, config()).await;
        let mut acknowledged = write_keys(&member, 0, 50).await;
        assert_eq!(acknowledged.len(), 50);
        if seed % 2 == 0 {
            disks.log.fail_flush_after(2)
        } else {
            disks.log.fail_apply_after(2)
        };
        for round in 1..20 {
            acknowledged.extend(write_keys(&member, round * 100, round * 100 + 20).await);
        }
        let reason = tokio::time::timeout(PATIENCE, member.node.fatal())
            .await
            .unwrap();
        assert!(matches!(reason, Fatal::Log(_)), "{reason:?}");
        assert!(acknowledged.len() < 430, "the disk is broken");
        for loss in Loss::ALL {
            let after = Member::ready(&disks.crash(loss), config()).await;
            assert_all_there(&after, &acknowledged, &format!("seed {seed}, {loss:?}"));
            after.node.stop().await;
        }
        tokio::time::timeout(PATIENCE, member.node.stop())
            .await
            .expect("a broken member stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_last_flush_fails_stops_all_the_same() {
    let disks = Disks::new(20);
    let member = Member::ready(&disks, config()).await;
    write_keys(&member, 0, 10).await;
    disks.log.fail_flush_after(0);
    tokio::time::timeout(PATIENCE, member.node.stop())
        .await
        .expect("it does not wait for a log that is closed already");
}

/// Starts a member on two disks that may not belong together.
async fn start_on(log: &Disks, state: &Disks) -> Result<Node, StartError> {
    let clock = Arc::new(crate::testing::StandingClock::default());
    let (state, views, persister) =
        apply::open(state.state.open().unwrap(), &state_config(clock)).unwrap();
    let log = crate::testing::backend(&log.log);
    Node::start(config(), log, state, persister, views, nobody()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_lost_its_log_or_its_state_is_refused() {
    let disks = Disks::new(21);
    let mut small = config();
    small.snapshot_count = 10;
    let member = Member::ready(&disks, small).await;
    for round in 0..20 {
        write_keys(&member, round * 20, round * 20 + 20).await;
    }
    member.node.stop().await;
    let left = disks.crash(Loss::Nothing);
    let nothing = Disks::new(22);
    let refused = start_on(&nothing, &left).await.unwrap_err();
    assert!(
        matches!(refused, StartError::LogLost { last: None, .. }),
        "{refused}"
    );
    if first_in_log(&disks) > 0 {
        let refused = start_on(&left, &nothing).await.unwrap_err();
        assert!(
            matches!(refused, StartError::StateLost { applied: None, .. }),
            "{refused}"
        );
    }
    let both = start_on(&left, &left).await.unwrap();
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_state_disk_is_a_reason_to_stop() {
    let disks = Disks::new(8);
    let mut small = config();
    small.snapshot_count = 1;
    let member = Member::ready(&disks, small).await;
    disks.state.in_use().fail_flush_after(0);
    write_keys(&member, 0, 100).await;
    let reason = tokio::time::timeout(PATIENCE, member.node.fatal())
        .await
        .unwrap();
    assert!(
        matches!(reason, Fatal::Persist(_) | Fatal::Apply(_)),
        "{reason:?}"
    );
    tokio::time::timeout(PATIENCE, member.node.stop())
        .await
        .expect("a broken member stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_takes_its_keys_along() {
    let member = Member::ready(&Disks::new(9), config()).await;
    let id = LeaseId(77);
    member
        .node
        .propose(Command::LeaseGrant { id, ttl_s: 10 })
        .await
        .unwrap()
        .outcome
        .unwrap();
    member
        .node
        .propose(put_attached(b"leased", id))
        .await
        .unwrap()
        .outcome
        .unwrap();
    assert!(member.value(b"leased").is_some());
    member.clock.advance(Duration::from_secs(11));
    let gone = tokio::time::timeout(PATIENCE, async {
        while member.value(b"leased").is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("the leader revokes it");
    assert!(member.views.leases.get(id).is_none());
    member.node.stop().await;
    assert!(
        !member.views.renewer.is_primary(),
        "a member that has stopped does not lead"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_above_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let mut small = config();
    small.request_bytes_max = 1000;
    let member = Member::ready(&Disks::new(10), small).await;
    let sized = |len| put_command(b"k", &vec![0; len]);
    let limit = 1000 - request_header_bytes(crate::testing::MEMBER);
    let fits = (0..1000)
        .rev()
        .map(sized)
        .find(|put| Request::from(put.clone()).encode().len() == limit)
        .unwrap();
    member.node.propose(fits).await.unwrap().outcome.unwrap();
    let large = (0..1000)
        .map(sized)
        .find(|put| Request::from(put.clone()).encode().len() > limit)
        .unwrap();
    assert_eq!(
        member.node.propose(large).await.unwrap_err(),
        ProposeError::TooLarge
    );
    member.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_learn_that_the_member_stops() {
    let member = Member::ready(&Disks::new(11), config()).await;
    let waiting: Vec<_> = (0..500)
        .map(|number| {
            let node = member.node.clone();
            tokio::spawn(async move { node.propose(put_command(&key(number), b"v")).await })
        })
        .collect();
    member.node.stop().await;
    for waiting in waiting {
        let answer = tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("nobody waits")
            .unwrap();
        assert!(answer.is_ok() || answer.unwrap_err() == ProposeError::Stopped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_dropped_lets_go_of_everything() {
    let disks = Disks::new(12);
    let member = Member::ready(&disks, config()).await;
    let acknowledged = write_keys(&member, 0, 100).await;
    let tasks = member.node.running.tasks.clone();
    tasks.close();
    let log = Arc::downgrade(&member.node.running.log);
    drop(member);
    tokio::time::timeout(PATIENCE, tasks.wait())
        .await
        .expect("the tasks end");
    let gone = tokio::time::timeout(PATIENCE, async {
        while log.upgrade().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    gone.await.expect("the log is let go of");
    let after = Member::ready(&disks.crash(Loss::All), config()).await;
    assert_all_there(&after, &acknowledged, "after a drop");
    after.node.stop().await;
}

//! A new cluster by force.

use super::*;

fn forced(config: &mut Config) {
    config.force_new_cluster = true;
}

/// Kills everybody, and makes one the only one.
async fn force(group: &mut Group, survivor: usize) {
    let running: Vec<usize> = group.running().map(|(number, _)| number).collect();
    for number in running {
        group.kill(number, Loss::All);
    }
    group.begin_with(survivor, forced).await;
    let ready = group.member(survivor).node.wait_ready();
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
}

async fn is_alone(group: &Group, survivor: usize) {
    let member = group.member(survivor);
    eventually("one member", || async {
        (member.node.members().len() == 1).then_some(())
    })
    .await;
    assert_eq!(voters(&member.node), ids(&[survivor]));
    let me = &member.node.members()[0];
    assert_eq!((me.id, me.is_learner), (id(survivor), false));
    assert_eq!(me.peer_urls, [url(survivor)]);
    group.put("alone", "yes").await;
}

#[tokio::test]
async fn one_of_three_and_of_five_keeps_everything() {
    for members in [3, 5] {
        let mut group = Group::start(members, 60 + members as u64).await;
        let leader = group.leader().await;
        let survivor = (leader + 1) % members;
        // Nothing is acknowledged now that is not durable at the survivor.
        let others = (0..members).filter(|number| ![leader, survivor].contains(number));
        for number in others.take(members - members.div_ceil(2)) {
            group.kill(number, Loss::All);
        }
        for number in 0..20 {
            group.put(&format!("key{number}"), "v").await;
        }
        group.wait_for_value(survivor, "key19", "v").await;
        force(&mut group, survivor).await;
        is_alone(&group, survivor).await;
        for number in 0..20 {
            let key = format!("key{number}");
            group.wait_for_value(survivor, &key, "v").await;
        }
        // With the flag again and without it, and others can be added.
        force(&mut group, survivor).await;
        is_alone(&group, survivor).await;
        group.kill(survivor, Loss::All);
        group.begin(survivor).await;
        is_alone(&group, survivor).await;
        group.change_when_healthy(add(7, false)).await;
        group.join(7).await;
        group.wait_for_voters(&[survivor, 7]).await;
        group.wait_for_value(7, "key7", "v").await;
        let gone = (survivor + 1) % members;
        let again = MemberChange::Add {
            id: id(gone),
            peer_urls: vec![url(8)],
            is_learner: true,
        };
        let refused = eventually("a healthy cluster", || async {
            let refused = group.change(again.clone()).await.unwrap_err();
            (refused != MemberChangeError::Unhealthy).then_some(refused)
        });
        assert_eq!(refused.await, MemberChangeError::IdRemoved);
        group.stop().await;
    }
}

#[tokio::test]
async fn a_learner_becomes_the_cluster() {
    let mut group = Group::start(1, 66).await;
    group.put("a", "1").await;
    group.change(add(1, true)).await.unwrap();
    group.join(1).await;
    group.wait_for_value(1, "a", "1").await;
    eventually("the learner knows what it is", || async {
        group.member(1).node.status().is_learner.then_some(())
    })
    .await;
    // What it has applied need not be durable with it yet: it is with the voter.
    group.member(1).node.stop().await;
    force(&mut group, 1).await;
    is_alone(&group, 1).await;
    group.wait_for_value(1, "a", "1").await;
    assert!(!group.member(1).node.status().is_learner);
    group.stop().await;
}

#[tokio::test]
async fn what_was_not_committed_stays() {
    let mut group = Group::start(3, 67).await;
    // A leader that no quorum has answered yet would refuse the write.
    group.put("a", "1").await;
    let leader = group.leader().await;
    for number in (0..3).filter(|number| *number != leader) {
        group.kill(number, Loss::All);
    }
    let node = group.member(leader).node.clone();
    let written = tokio::time::timeout(
        Duration::from_secs(1),
        node.propose(put_command(b"open", b"1")),
    );
    assert!(written.await.is_err(), "there is no quorum");
    drop(node);
    force(&mut group, leader).await;
    is_alone(&group, leader).await;
    group.wait_for_value(leader, "open", "1").await;
    group.stop().await;
}

#[tokio::test]
async fn power_may_fail_at_any_moment_of_it() {
    let mut group = Group::start(3, 68).await;
    let survivor = group.leader().await;
    // Nothing is acknowledged now that is not durable at the survivor.
    group.kill((survivor + 1) % 3, Loss::All);
    group.put("a", "1").await;
    group.kill((survivor + 2) % 3, Loss::All);
    group.kill(survivor, Loss::All);
    for flushes in 0..4 {
        let disks = group.disks[survivor].clone();
        disks.log.fail_flush_after(flushes);
        let log = crate::testing::backend(&disks.log);
        let state = disks.state.open().unwrap();
        let config = Config {
            member: id(survivor),
            force_new_cluster: true,
            ..crate::testing::config()
        };
        drop(crate::testing::Member::try_among(log, state, config, crate::testing::nobody()).await);
        group.disks[survivor] = disks.crash(Loss::All);
    }
    group.begin_with(survivor, forced).await;
    is_alone(&group, survivor).await;
    group.wait_for_value(survivor, "a", "1").await;
    group.stop().await;
}

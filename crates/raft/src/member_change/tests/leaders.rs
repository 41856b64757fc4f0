//! Leaders that go, are moved, and are left alone.

use super::*;

#[tokio::test]
async fn the_leader_is_removed_under_load() {
    let group = Group::start_with(3, 50, lenient).await;
    let leader = group.leader().await;
    let load = Load::start(&group);
    group.change(remove(leader)).await.unwrap();
    stops_as_removed(&group.member(leader).node).await;
    let left = [(leader + 1) % 3, (leader + 2) % 3];
    let next = group.leader_among(&left).await;
    let keys = load.end().await;
    assert_eq!(voters(&group.member(next).node), ids(&left));
    for number in left {
        let last = format!("last{number}");
        let command = put_command(last.as_bytes(), b"1");
        let written = group.member(next).node.propose(command).await;
        written.unwrap().outcome.unwrap();
        group.wait_for_value(number, &last, "1").await;
        for key in &keys {
            let value = group.member(number).value(key.as_bytes());
            assert!(value.is_some(), "{key} is lost");
        }
    }
    group.stop().await;
}

#[tokio::test]
async fn leadership_is_moved_under_load() {
    let group = Group::start(3, 51).await;
    let mut leader = group.leader().await;
    let term = group.member(leader).node.status().term;
    let load = Load::start(&group);
    let rounds = 5;
    for round in 0..rounds {
        group.put("between", &round.to_string()).await;
        let next = (leader + 1) % 3;
        let moved = group.member(leader).node.move_leader(id(next)).await;
        moved.unwrap();
        leader = group.leader().await;
        assert_eq!(leader, next);
    }
    let keys = load.end().await;
    nothing_is_lost(&group, leader, &keys).await;
    // Nobody had to time out for it.
    assert_eq!(group.member(leader).node.status().term, term + rounds);
    group.stop().await;
}

#[tokio::test]
async fn only_the_leader_moves_and_only_to_a_voter_that_answers() {
    let mut group = Group::start(3, 52).await;
    let leader = group.leader().await;
    let (follower, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = &group.member(follower).node;
    assert_eq!(
        node.move_leader(id(leader)).await,
        Err(MoveLeaderError::NotLeader)
    );
    let node = group.member(leader).node.clone();
    assert_eq!(
        node.move_leader(id(9)).await,
        Err(MoveLeaderError::BadTransferee)
    );
    assert_eq!(node.move_leader(id(leader)).await, Ok(()));
    let term = node.status().term;
    group.kill(dead, Loss::All);
    // It goes on leading while it waits for the dead one, and afterwards.
    let moving = tokio::spawn({
        let node = node.clone();
        async move { node.move_leader(id(dead)).await }
    });
    group.put("a", "1").await;
    assert_eq!(moving.await.unwrap(), Err(MoveLeaderError::Timeout));
    group.put("b", "2").await;
    assert_eq!(node.status().term, term);
    group.stop().await;
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_first() {
    let mut group = Group::start(3, 53).await;
    let leader = group.leader().await;
    let term = group.member(leader).node.status().term;
    group.member(leader).node.hand_over_leadership().await;
    let next = group.leader().await;
    assert_ne!(next, leader);
    assert_eq!(group.member(next).node.status().term, term + 1);
    // Of two, to the one that is there.
    let gone = (next + 1) % 3;
    group.kill(gone, Loss::All);
    group.member(next).node.hand_over_leadership().await;
    let left = [next, (next + 2) % 3];
    assert_eq!(group.leader_among(&left).await, left[1]);
    group.stop().await;
}

#[tokio::test]
async fn a_lone_leader_does_not_wait_to_hand_over() {
    let group = Group::start(1, 54).await;
    group.leader().await;
    let handed = group.member(0).node.hand_over_leadership();
    tokio::time::timeout(Duration::from_millis(500), handed)
        .await
        .unwrap();
    group.put("a", "1").await;
    group.stop().await;
}

#[tokio::test]
async fn a_member_that_returns_from_a_partition_deposes_nobody() {
    let group = Group::start(3, 55).await;
    let leader = group.leader().await;
    let term = group.member(leader).node.status().term;
    let away = (leader + 1) % 3;
    group.isolate(away, Link::Cut);
    eventually("a member without a leader for some elections", || async {
        (group.member(away).node.status().leader.is_none()).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let command = put_command(b"b", b"2");
    let written = group.member(leader).node.propose(command).await;
    written.unwrap().outcome.unwrap();
    group.isolate(away, Link::Open);
    group.wait_for_value(away, "b", "2").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(group.leader().await, leader);
    assert_eq!(group.member(leader).node.status().term, term);
    group.stop().await;
}

#[tokio::test]
async fn a_leader_without_its_quorum_does_not_hold_up_the_others() {
    // The leader still reaches one of four, which the other three need for nothing, but who would
    // be kept from voting by its heartbeats.
    let group = Group::start(5, 56).await;
    let leader = group.leader().await;
    let others: Vec<usize> = (0..5).filter(|number| *number != leader).collect();
    for cut in &others[1..] {
        group.net.set(leader, *cut, Link::Cut);
        group.net.set(*cut, leader, Link::Cut);
    }
    // Three alone are a quorum of five; with one of them gone the fourth has to vote.
    group.isolate(others[3], Link::Cut);
    let three = &others[..3];
    let next = group.leader_among(three).await;
    let command = put_command(b"a", b"1");
    let written = group.member(next).node.propose(command).await;
    written.unwrap().outcome.unwrap();
    group.stop().await;
}

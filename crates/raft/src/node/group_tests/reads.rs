//! Linearizable reads of members, whoever leads.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_read_on_any_member_sees_every_write_that_was_acknowledged_on_any() {
    let group = Group::start(3, 120).await;
    group.leader().await;
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let writer = group.member(task % 3).node.clone();
            let reader = group.member((task / 3 + task + 1) % 3);
            let (node, views) = (reader.node.clone(), reader.views.clone());
            tokio::spawn(async move {
                let key = format!("key{task}");
                for number in 0..40 {
                    let value = number.to_string();
                    let put = put_command(key.as_bytes(), value.as_bytes());
                    writer.propose(put).await.unwrap();
                    node.read_index().await.unwrap();
                    let found = views.store.view().get(key.as_bytes()).unwrap();
                    assert_eq!(found.value(), value.as_bytes());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_confirms_no_read_and_renews_no_lease() {
    let group = Group::start(3, 121).await;
    let old = group.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != old).collect();
    let id = types::LeaseId(5);
    let grant = Command::LeaseGrant { id, ttl_s: 100 };
    let granted = group.member(old).node.propose(grant).await.unwrap();
    granted.outcome.unwrap();
    group.isolate(old, Link::Cut);
    let cut_off = group.member(old).node.clone();
    let reading = tokio::spawn({
        let node = cut_off.clone();
        async move { node.read_index().await }
    });
    let renewing = tokio::spawn(async move { cut_off.renew_lease(id).await });
    let new = group.leader_among(&others).await;
    let put = put_command(b"after", b"v");
    group.member(new).node.propose(put).await.unwrap();
    assert!(!reading.is_finished(), "nobody could confirm it");
    assert!(!renewing.is_finished(), "nobody could confirm it");
    assert!(group.member(old).value(b"after").is_none());
    group.isolate(old, Link::Open);
    // Once there is a way to the new leader both are answered, by it.
    if reading.await.unwrap().is_ok() {
        assert!(group.member(old).value(b"after").is_some());
    }
    let renewed = renewing.await.unwrap();
    assert!(matches!(renewed, Ok(Some(100)) | Err(_)), "{renewed:?}");
    group.stop().await;
}

/// What a member answered before a read began says nothing about who leads since, even if the leader has asked something
/// else meanwhile to which it would be an answer as well.
#[tokio::test(flavor = "multi_thread")]
async fn answers_from_before_a_read_confirm_nothing() {
    let (group, leader) = patient_group(122).await;
    let (soon, later) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = group.member(leader).node.clone();
    let applied = node.status().applied_index;
    group
        .net
        .set(soon, leader, Link::Slow(Duration::from_millis(600)));
    group
        .net
        .set(later, leader, Link::Slow(Duration::from_millis(900)));
    let written = tokio::spawn({
        let node = node.clone();
        async move { put(&node, "key").await }
    });
    // It goes out, and its answers are on their way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    group.net.set(leader, soon, Link::Cut);
    group.net.set(leader, later, Link::Cut);
    let read = tokio::time::timeout(Duration::from_secs(2), node.read_index()).await;
    assert!(!matches!(read, Ok(Ok(()))), "nobody could confirm it");
    // With the first of the answers it was committed; so there were both.
    assert!(node.status().applied_index > applied);
    written.await.unwrap();
    group.isolate(leader, Link::Open);
    group.stop().await;
}

//! Several members: elections and replication.

use apply::Reply;

use crate::testing::group::{Group, eventually};
use crate::testing::put_command;

#[tokio::test(flavor = "multi_thread")]
async fn three_members_elect_one_replicate_and_apply() {
    let group = Group::start(3, 100).await;
    let leader = group.leader().await;
    for number in 0..20 {
        let command = put_command(format!("key{number}").as_bytes(), b"value");
        let applied = group.member(leader).node.propose(command).await.unwrap();
        let Reply::Put { revision, .. } = applied.outcome.unwrap() else {
            panic!("a put is answered as one");
        };
        assert_eq!(revision, number + 2);
    }
    for (_, member) in group.running() {
        eventually("every member has it", || async {
            (member.value(b"key19")? == b"value").then_some(())
        })
        .await;
    }
    group.stop().await;
}

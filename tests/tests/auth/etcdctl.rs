//! The commands of etcdctl about users and roles, beside a real etcd.

use anyhow::Result;
use kvorum_tests::etcdctl::Pair;

/// Without authentication, with it, and without it again.
const SCRIPT: &str = r#"
        user list
        role list
        auth status
        auth status -w json
        auth enable
        user add root:secret
        user add root:secret
        user add alice:a1 -w json
        user add bob --no-password
        user add carol --new-user-password c1
        user add ""
        user add x --interactive=false < "fromstdin\n"
        user get root
        user get alice -w json
        user get nobody
        user list -w json
        role add r1
        role add r1
        role add "" 
        role grant-permission r1 read k
        role grant-permission r1 readwrite k/ --prefix
        role grant-permission r1 write m n
        role grant-permission r1 read z --from-key
        role grant-permission r1 sideways k
        role grant-permission r1 read n m
        role grant-permission missing read k
        role get r1
        role get r1 -w json
        role get missing
        role list
        role list -w json
        role revoke-permission r1 m n
        role revoke-permission r1 m n
        role revoke-permission r1 z --from-key
        role get r1
        user grant-role alice r1
        user grant-role alice r1
        user grant-role alice missing
        user grant-role nobody r1
        user get alice --detail
        user revoke-role alice missing
        user passwd alice --interactive=false < "a2\n"
        user passwd nobody --interactive=false < "a2\n"
        put k/1 v
        put other v
        auth enable
        auth enable
        get k
        --user=root:secret get other
        --user=root:wrong get other
        --user=alice:a2 get k/1
        --user=alice:a2 get other
        --user=alice:a2 put k/1 w --prev-kv
        --user=alice:a2 put k x
        --user=alice:a2 get k --prefix
        --user=alice:a2 get k/ --prefix
        --user=alice:a2 del k/1 --prev-kv
        --user=alice:a2 watch other
        --user=alice:a2 user get alice
        --user=alice:a2 user get root
        --user=alice:a2 role get r1
        --user=alice:a2 role list
        --user=alice:a2 member list -w json
        --user=alice:a2 alarm list
        --user=alice:a2 compaction 2
        --user=bob:any get k
        --user=nobody:any get k
        --user=root:secret auth status
        --user=root:secret auth status -w json
        --user=root:secret user delete root
        --user=root:secret user revoke-role root root
        --user=root:secret role delete root
        --user=root:secret role delete r1
        --user=alice:a2 get k/1
        --user=root:secret user delete alice
        --user=alice:a2 get k/1
        auth disable
        --user=root:secret auth disable
        auth status -w json
        get other
"#;

#[tokio::test]
async fn the_commands_of_etcdctl() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(SCRIPT).await?;
    pair.finish().await
}

//! Every etcdctl command that one member answers, against kvorum and a real etcd side by side.

use anyhow::Result;
use kvorum_tests::etcdctl::Pair;
use testkit::process::Process;
use testkit::{Server, Spec, binaries, eventually, process};

async fn same(script: &str) -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(script).await?;
    pair.finish().await
}

/// Keys of different values, versions and revisions, some deleted.
const DATA: &str = r#"
    put a "one"
    put ab "two"
    put abc "three"
    put b "zero"
    put ab "two again"
    put "key with spaces" "value\nof two lines"
    put zz ""
    put gone "x"
    del gone
    put a/1 "1" 
    put a/2 "2" 
    put a/3 "3" 
    put a/2 "2b" 
    put a/2 "0c" 
"#;

#[tokio::test]
async fn put_and_its_flags() -> Result<()> {
    same(
        r#"
        put a 1
        put a 2 --prev-kv
        put a 3 --prev-kv -w json
        put a 4 --prev-kv -w fields
        put a 5 --prev-kv -w protobuf
        put a 6 --prev-kv -w table
        put new --prev-kv first
        put --hex --prev-kv a 7
        put a < "from standard input"
        put a -- -begins-with-a-dash
        get a
        put a --ignore-value
        put a --ignore-value --prev-kv
        put missing --ignore-value
        put a x --ignore-value
        put missing x --ignore-lease
        put a x --lease=1234
        put a x --lease=nothex
        put "" x
        put
        put a b c
        $l = lease grant 1000
        put a leased --lease=$l
        get a -w json
        get a -w fields
        put a "still leased" --ignore-lease
        get a -w json
        put a --ignore-value --lease=$l
        put a x --ignore-lease --lease=$l
        put a "no more"
        get a -w json
    "#,
    )
    .await
}

#[tokio::test]
async fn get_and_its_flags() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    pair.script(
        r#"
        get a
        get nothing
        get gone
        get "key with spaces"
        get zz
        get a b
        get b a
        get a --prefix
        get a/ --prefix
        get "" --prefix
        get "" --from-key
        get ab --from-key
        get a --prefix --limit=2
        get a --prefix --limit=2 -w json
        get a --prefix --limit=2 -w fields
        get a --prefix --limit=100 -w json
        get a --prefix --limit=-1
        get a --prefix --keys-only
        get a --prefix --keys-only -w json
        get a --prefix --count-only
        get a --prefix --count-only -w json
        get a --prefix --count-only -w fields
        get a --prefix --print-value-only
        get a --prefix --print-value-only -w json
        get "" --prefix --hex
        get a --hex -w fields
        get a --prefix -w protobuf
        get nothing -w json
        get nothing -w fields
        get nothing -w protobuf
        get a -w table
        get a -w unknown
    "#,
    )
    .await?;
    pair.finish().await
}

#[tokio::test]
async fn get_sorted() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    for order in ["", "--order=ASCEND", "--order=DESCEND"] {
        for by in ["", "KEY", "CREATE", "MODIFY", "VERSION", "VALUE"] {
            let by = if by.is_empty() {
                String::new()
            } else {
                format!("--sort-by={by}")
            };
            pair.script(&format!("get --from-key \"\" {order} {by}"))
                .await?;
            pair.script(&format!("get --prefix a {order} {by} --limit=2 -w json"))
                .await?;
        }
    }
    pair.script("get a --prefix --order=SIDEWAYS\nget a --prefix --sort-by=COLOUR")
        .await?;
    pair.finish().await
}

#[tokio::test]
async fn get_at_revisions_and_consistencies() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    for revision in -1..=18 {
        pair.script(&format!("get --from-key \"\" --rev={revision} -w json"))
            .await?;
    }
    pair.script(
        r#"
        get gone --rev=9
        get gone --rev=10
        get a --consistency=l
        get a --consistency=s
        get a --consistency=s -w json
        get a --consistency=x
        compaction 8
        get a --rev=7
        get a --rev=8
        get gone --rev=9
    "#,
    )
    .await?;
    pair.finish().await
}

#[tokio::test]
async fn del_and_its_flags() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    pair.script(
        r#"
        del nothing
        del nothing --prev-kv -w json
        del b
        del a/ --prefix --prev-kv
        del a b --prev-kv -w json
        del b a
    "#,
    )
    .await?;
    pair.script(DATA).await?;
    pair.script(
        r#"
        del a --prev-kv -w fields
        del ab --prev-kv -w protobuf
        del abc --prev-kv --hex
        del ""
        del
        del a b c
        del a --prefix --from-key
        del key --from-key
        get "" --from-key -w json
        put x 1
        put x 2
        del "" --prefix --prev-kv
        get "" --prefix -w json
    "#,
    )
    .await?;
    pair.finish().await
}

#[tokio::test]
async fn txn_from_standard_input() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    for format in [
        "",
        "-w json",
        "-w fields",
        "-w protobuf",
        "-w table",
        "--hex",
    ] {
        for input in [
            // Compares of every kind; both branches.
            r#""value(\"a\") = \"one\"\n\nput a two\nget a\n\nget a\n\n""#,
            r#""value(\"a\") = \"one\"\n\nput a two\n\nget a\nput b else\n\n""#,
            r#""version(\"ab\") > \"1\"\nmod(\"ab\") != \"0\"\n\nget a --prefix\n\n\n""#,
            r#""create(\"never\") = \"0\"\n\nput never x --lease=0\n\ndel never\n\n""#,
            r#""lease(\"a\") < \"1\"\n\nget zz\ndel zz\n\n\n""#,
            r#""val(\"missing\") != \"x\"\n\n\nget --rev=2 a\n\n""#,
            r#""ver(\"a\") < \"9\"\nc(\"a\") > \"0\"\nm(\"a\") > \"0\"\n\ndel a/ --prefix --prev-kv\n\n\n""#,
            r#""\n\n\n""#,
        ] {
            pair.script(&format!("txn {format} < {input}")).await?;
        }
    }
    pair.script(
        r#"
        txn -i < "mod(\"a\") > \"0\"\n\nput a interactive\nget a\n\nget a\n\n"
        txn < "\nput dup 1\nput dup 2\n\n\n"
        txn < "\nput dup 1\ndel dup\n\n\n"
        txn < "\nget a --rev=9999\n\n\n"
        txn < "\nput a x --lease=77\n\n\n"
        txn < "\nput nope --ignore-value\n\n\n"
        txn < "nonsense\n\n\n\n"
        txn < "mod(\"a\") ~ \"0\"\n\n\n\n"
        txn < "mod(\"a\") = \"x\"\n\n\n\n"
        txn < "\nfrobnicate a\n\n\n"
        txn something
        get "" --prefix -w json
    "#,
    )
    .await?;
    let many = |n: u32| {
        (0..n)
            .map(|i| format!("put many{i} {i}\\n"))
            .collect::<String>()
    };
    pair.script(&format!("txn < \"\\n{}\\n\\n\"", many(128)))
        .await?;
    pair.script(&format!("txn < \"\\n{}\\n\\n\"", many(129)))
        .await?;
    pair.finish().await
}

#[tokio::test]
async fn watch_from_a_revision() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    pair.script(
        r#"
        put end END
        put a/end END
        put z/end END
        until END watch end --rev=1
        until END watch "" --prefix --rev=1
        until END watch "" zzz --rev=1
        until END watch a/ --prefix --rev=1 --prev-kv
        until END watch a/ --prefix --rev=1 --prev-kv -w fields
        until RU5E watch a/ --prefix --rev=1 --prev-kv -w json
        until RU5E watch a/ --prefix --rev=11 --prev-kv -w json --hex
        until END watch ab zzz --rev=4
        until END watch gone zz --rev=9 --prev-kv
        until 'VALUE="END"' watch a/ --prefix --rev=11 -- sh -c "env | grep ^ETCD_WATCH_ | sort"
        until END watch -i < "watch a/ --prefix --rev=1\n"
        until END watch -i < "watch end --rev=14\n"
        compaction 12 --physical
        watch a --rev=5
        watch a --rev=5 -w json
        watch a --rev=11 -w fields
        until END watch a/ --prefix --rev=12
        until END watch a/ --prefix --rev=13 --prev-kv
        watch
        watch a --rev=-1
        watch z a --rev=1
    "#,
    )
    .await?;
    pair.finish().await
}

#[tokio::test]
async fn watch_of_what_happens_now() -> Result<()> {
    for format in ["", "-w json", "-w fields"] {
        let mut pair = Pair::start().await?;
        pair.script("put k 0").await?;
        // The progress notification tells that the watch is there, before anything happens.
        let line = format!("watch -i {format} < \"watch k --prefix --prev-kv\\nprogress\\n\"");
        let mut watch = pair.spawn(&line)?;
        pair.printed(&mut watch, progress_of(format)).await?;
        pair.script(
            r#"
            put k 1
            put other 1
            put k 2
            del k
            del k
            put k 3
            txn < "\nput k 4\nput kk 4\ndel kkk\n\n\n"
            $l = lease grant 1000
            put k leased --lease=$l
            lease revoke $l
            put kend END
        "#,
        )
        .await?;
        pair.printed(
            &mut watch,
            if format == "-w json" {
                "a2VuZA=="
            } else {
                "kend"
            },
        )
        .await?;
        pair.end(watch)?;
        pair.finish().await?;
    }
    Ok(())
}

fn progress_of(format: &str) -> &'static str {
    match format {
        "" => "progress notify: 2",
        "-w json" => "\"revision\":2",
        _ => "\"Revision\" : 2",
    }
}

#[tokio::test]
async fn leases() -> Result<()> {
    same(
        r#"
        lease list
        lease list -w json
        lease list -w fields
        lease grant 9000000001
        lease grant x
        lease grant
        $a = lease grant 500
        $b = lease grant 1000
        lease list
        lease list -w json
        lease timetolive $a
        lease timetolive $a --keys
        lease timetolive $a -w json
        lease timetolive $a -w fields
        lease timetolive $a --keys -w json
        put with/lease 1 --lease=$a
        lease timetolive $a --keys
        lease timetolive $a --keys -w json
        lease timetolive $a --keys -w fields
        get with --prefix -w json
        get with --prefix -w fields
        lease keep-alive $a --once
        lease keep-alive $a --once -w json
        lease keep-alive $a --once -w fields
        until "keepalived" lease keep-alive $a
        lease revoke $a
        lease revoke $a
        get with --prefix -w json
        lease timetolive $a
        lease timetolive $a --keys
        lease timetolive $a -w json
        lease keep-alive $a
        lease keep-alive $a --once
        lease keep-alive 77 --once
        lease revoke 77
        lease revoke nothex
        lease revoke
        lease timetolive nothex
        lease timetolive
        lease keep-alive
        lease revoke $b -w json
        lease list
    "#,
    )
    .await
}

#[tokio::test]
async fn leases_expire() -> Result<()> {
    same(
        r#"
        $short = lease grant 1
        put short/1 a --lease=$short
        put short/2 a --lease=$short
        put long a
        until "DELETE\nshort/2" watch short --prefix --rev=1
        get "" --prefix -w json
        lease timetolive $short
        $zero = lease grant 0
        $negative = lease grant -- -5
    "#,
    )
    .await
}

#[tokio::test]
async fn compaction() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    pair.script(
        r#"
        compaction
        compaction x
        compaction 9999
        compaction 4
        compaction 4
        compaction 3
        compact 6
        compaction --physical 8
        compaction --physical 8
        compaction --physical 9999
        compaction 0
        compaction -- -1
        get a --rev=5 -w json
        get a --rev=8 -w json
        compaction 15 -w json
        endpoint hashkv
        get "" --prefix -w json
    "#,
    )
    .await?;
    pair.finish().await
}

#[tokio::test]
async fn endpoints_and_members() -> Result<()> {
    let mut pair = Pair::start().await?;
    let commands = r#"
        endpoint health
        endpoint health -w json
        endpoint health -w fields
        endpoint health -w table
        endpoint health --cluster
        endpoint status
        endpoint status -w json
        endpoint status -w fields
        endpoint status -w table
        endpoint status --cluster
        endpoint hashkv
        endpoint hashkv -w json
        endpoint hashkv -w fields
        endpoint hashkv -w table
        endpoint hashkv --cluster
        member list
        member list -w json
        member list -w fields
        member list -w table
        member list -w protobuf --hex
    "#;
    pair.script(commands).await?;
    pair.script(DATA).await?;
    pair.script(commands).await?;
    pair.script("compaction 9").await?;
    pair.script(commands).await?;
    pair.finish().await
}

#[tokio::test]
async fn hashes_at_revisions() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(DATA).await?;
    for compacted in [None, Some(3), Some(10), Some(12), Some(15)] {
        if let Some(revision) = compacted {
            pair.script(&format!("compaction --physical {revision}"))
                .await?;
        }
        // At the revision of a compaction both answer with the hash that it has left.
        for revision in -1..=16 {
            pair.script(&format!("endpoint hashkv -w json --rev={revision}"))
                .await?;
        }
    }
    pair.finish().await
}

#[tokio::test]
async fn alarms_and_versions() -> Result<()> {
    same(
        r#"
        alarm list
        alarm list -w json
        alarm disarm
        version
        version -w json
        check
    "#,
    )
    .await
}

#[tokio::test]
async fn what_an_operator_asks_for_and_does_not_get() -> Result<()> {
    same(
        r#"
        member add
        member add m2
        member add m2 --peer-urls=nonsense
        member add m2 --peer-urls=ftp://127.0.0.1:1
        member add m2 --peer-urls=http://127.0.0.1:1/path --learner
        member promote 1234
        member promote nothex
        member promote
        member update 1234 --peer-urls=http://127.0.0.1:3
        member update 1234 --peer-urls=nonsense
        member update 1234
        member remove 1234
        member remove nothex
        member remove
        move-leader 1234
        move-leader nothex
        move-leader
        endpoint hashkv --rev=99
        lease grant 60 extra
        defrag
        defrag --cluster
        alarm disarm -w json
        user list --user=root:secret
        get a --user=root
        get a --user=root --password=secret
        get a --command-timeout=20s --dial-timeout=20s --keepalive-time=3s --keepalive-timeout=9s
        get a --insecure-transport=false
        get a --debug=false --hex
        until 'progress notify' watch a --progress-notify -i < "watch a\nprogress\n"
        watch
    "#,
    )
    .await
}

/// All keys under a prefix with their values, as a server has them.
async fn held(server: &Server, prefix: &str) -> Result<Vec<(String, String)>> {
    let range = api::etcdserverpb::RangeRequest {
        key: prefix.into(),
        range_end: format!("{prefix}~").into(),
        ..Default::default()
    };
    let answer = server.client().await?.kv.range(range).await?.into_inner();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kvs = answer.kvs.iter();
    Ok(kvs
        .map(|kv| (text(&kv.key)[prefix.len()..].to_owned(), text(&kv.value)))
        .collect())
}

/// `make-mirror` from one to the other: what was there, and what happens afterwards.
async fn mirror(from: &Server, to: &Server) -> Result<()> {
    let client = from.client().await?;
    let put = |key: &str, value: &str| api::etcdserverpb::PutRequest {
        key: format!("from/{key}").into(),
        value: value.into(),
        ..Default::default()
    };
    // More than a page of etcdctl's.
    for number in 0..40 {
        client
            .kv
            .clone()
            .put(put(&format!("{number}"), "old"))
            .await?;
    }
    let args = [
        format!("--endpoints={}", from.client_url()),
        "make-mirror".to_owned(),
        "--prefix=from/".to_owned(),
        "--dest-prefix=to/".to_owned(),
        format!("127.0.0.1:{}", to.client_port()),
    ];
    let log = tempfile::NamedTempFile::new()?;
    let mirror = Process::start(&binaries::etcdctl()?, &args, log.path())?;
    let alike = || async {
        let (source, copy) = (held(from, "from/").await?, held(to, "to/").await?);
        anyhow::ensure!(source == copy, "{source:?} is not {copy:?}");
        Ok(())
    };
    eventually("what was there is copied", alike).await?;
    client.kv.clone().put(put("7", "new")).await?;
    client.kv.clone().put(put("more", "new")).await?;
    let delete = api::etcdserverpb::DeleteRangeRequest {
        key: b"from/1".to_vec(),
        range_end: b"from/2".to_vec(),
        ..Default::default()
    };
    client.kv.clone().delete_range(delete).await?;
    eventually("what happens is copied", alike).await?;
    drop(mirror);
    Ok(())
}

#[tokio::test]
async fn mirrors_to_and_from_an_etcd() -> Result<()> {
    let (kvorum, etcd) = tokio::try_join!(Spec::kvorum().start(), Spec::etcd().start())?;
    mirror(&kvorum, &etcd).await?;
    mirror(&etcd, &kvorum).await?;
    kvorum.stop().await?;
    etcd.stop().await
}

/// It puts, asks the metrics for the memory that this took, and deletes, compacts and defragments. (What
/// `check perf` prints depends on the machine; it takes a minute.)
#[tokio::test]
async fn the_check_of_the_scale_of_data_passes() -> Result<()> {
    let server = Spec::kvorum().start().await?;
    let output = process::command(&binaries::etcdctl()?)
        .arg(format!("--endpoints={}", server.client_url()))
        .args(["check", "datascale", "--load=s"])
        .args(["--auto-compact", "--auto-defrag"])
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(
        output.status.success() && printed.contains("PASS: Approximate system memory used"),
        "{output:?}"
    );
    let left = held(&server, "/").await?;
    anyhow::ensure!(left.is_empty(), "{left:?}");
    server.stop().await
}

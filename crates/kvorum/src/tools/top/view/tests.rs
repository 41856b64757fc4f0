use std::time::Instant;

use api::etcdserverpb::{Member, ResponseHeader};
use serde_json::json;
use types::{Clock, SystemClock};

use super::*;
use crate::tools::asked::Seen;

fn answer(id: u64, puts: u64) -> Answer {
    let status = StatusResponse {
        header: Some(ResponseHeader {
            member_id: id,
            cluster_id: 0xc,
            revision: 7,
            ..Default::default()
        }),
        version: "3.6.14".to_owned(),
        leader: 1,
        raft_term: 2,
        raft_index: 100,
        raft_applied_index: 100 - id,
        db_size: 2_000_000,
        db_size_in_use: 1_000_000,
        ..Default::default()
    };
    let metrics = format!(
        "etcd_mvcc_put_total {puts}\netcd_mvcc_range_total {}\netcd_debugging_mvcc_watcher_total 4\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"0.002\"}} {puts}\n",
        2 * puts,
    );
    Answer {
        endpoint: format!("m{id}:2379"),
        status: Ok(status),
        read: Ok(()),
        took: Duration::from_micros(1500),
        clock_ahead_s: None,
        metrics: Some(Scrape::parse(&metrics)),
    }
}

/// Three members, of which the last does not answer.
fn sample(at: Instant, puts: u64) -> Sample {
    let member = |id| Member {
        id,
        name: format!("m{id}"),
        client_ur_ls: vec![format!("http://m{id}:2379")],
        ..Default::default()
    };
    let mut down = answer(3, 0);
    down.status = Err("connection\u{1b}[2Jrefused".to_owned());
    down.endpoint = "http://m3:2379".to_owned();
    let page = json!({
        "leases": 3,
        "problems": [{ "level": "warning", "text": "2 of 3 voters can be reached." }],
        "prefixes": { "hidden": null, "top": [
            { "prefix": "/registry/pods/", "readsPerSecond": 1.0, "writesPerSecond": 20.0, "meanMs": 2.0, "slowestMs": 31.5 },
            { "prefix": "", "readsPerSecond": 0.5, "writesPerSecond": 0.0, "meanMs": 1.0, "slowestMs": 1.0 },
        ]},
    });
    Sample {
        at,
        seen: Seen {
            members: [1, 2, 3].map(member).into(),
            answers: vec![answer(1, puts), answer(2, puts), down],
        },
        pages: vec![Some(page.clone()), Some(page), None],
    }
}

/// A cluster that lost a member and is written to.
pub(in crate::tools::top) fn view() -> View {
    let now = SystemClock.now();
    let before = sample(now, 100);
    View::between(Some(&before), &sample(now + Duration::from_secs(2), 140))
}

#[test]
fn a_table_says_how_members_are() {
    let expected = "\
cluster c   leader m1   term 2   2 of 3 voters, 0 may be lost   revision 7
warning: 2 of 3 voters can be reached.

MEMBER  ROLE      HEALTH                         VERSION  DB      IN USE  LAG  READS/S  WRITES/S  READ P99  WRITE P99  FSYNC P99  WATCHERS  LEASES
m1      leader    ok 1.5ms                       3.6.14   2.0 MB  1.0 MB  1    40       20        -         -          2.0ms      4         3
m2      follower  ok 1.5ms                       3.6.14   2.0 MB  1.0 MB  2    40       20        -         -          2.0ms      4         3
m3      -         DOWN connection?[2Jrefused     -        -       -       -    -        -         -         -          -          -         -

PREFIX           READS/S  WRITES/S  MEAN   SLOWEST
/registry/pods/  2.0      40        2.0ms  31.5ms
(no slash)       1.0      0         1.0ms  1.0ms
";
    let squeezed = |text: &str| {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect::<Vec<_>>()
    };
    let table = view().table();
    assert_eq!(squeezed(&table), squeezed(expected), "{table}");
    assert_eq!(view().members_answering(), 2);
    assert!(!table.contains('\u{1b}'));
}

#[test]
fn without_an_earlier_look_there_are_no_rates() {
    let sample = sample(SystemClock.now(), 100);
    let view = View::between(None, &sample);
    assert_eq!(view.members[0].cells[7], "-");
    assert_eq!(view.members[0].cells[11], "-");
    let nobody = Sample {
        at: sample.at,
        seen: Seen::default(),
        pages: Vec::new(),
    };
    assert_eq!(View::between(None, &nobody).title, "no member answers");
}

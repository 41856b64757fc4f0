//! `kvorum check cluster`: what members that run say of themselves, and what follows from it.

use std::time::{Duration, SystemTime};

use api::etcdserverpb::{Member, StatusResponse};
use types::{Clock, SystemClock};

use super::certificates;
use super::report::{Level, Report, of_voters};
use crate::tools::asked::{Answer, Asking, Seen};
use crate::tools::connection::Connection;
use crate::tools::scrape::{Scrape, value_of};
use crate::tools::{Failure, print};

/// Clocks may differ by so much before it is worth a word.
const CLOCK_AHEAD_MAX_S: f64 = 2.0;
/// A member that is so many entries behind answers old data.
const BEHIND_MAX: u64 = 5000;
/// Above this percentage of the quota it is time to do something.
const QUOTA_PERCENT_MAX: i64 = 80;
/// Below this size nobody cares about space that could be given back.
const DEFRAGMENT_BYTES_MIN: i64 = 256 << 20;
/// The default of --heartbeat-interval; a member does not say what it has.
const HEARTBEAT_S: f64 = 0.1;

pub(super) fn check(connection: &Connection) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error))?;
    let seen = runtime.block_on(Asking::new(connection).all())?;
    Ok(judge(&seen, SystemClock.wall()))
}

fn judge(seen: &Seen, now: SystemTime) -> Report {
    let mut report = Report::default();
    for answer in &seen.answers {
        endpoint(answer, &mut report);
    }
    members(seen, &mut report);
    leader(seen, &mut report);
    versions(seen, &mut report);
    for answer in &seen.answers {
        let Ok(status) = &answer.status else { continue };
        let name = name(seen, answer);
        for alarm in &status.errors {
            report.error("alarms", format!("{name} says: {alarm}"));
        }
        size(&name, status, &mut report);
        behind(&name, status, &mut report);
        clock(&name, answer, &mut report);
        if let Some(metrics) = &answer.metrics {
            disk(&name, metrics, &mut report);
            dates(&name, metrics, now, &mut report);
        }
    }
    report
}

/// What people call the member that answered.
fn name(seen: &Seen, answer: &Answer) -> String {
    let member = seen
        .members
        .iter()
        .find(|it| Some(it.id) == answer.member());
    match member {
        Some(member) if !member.name.is_empty() => member.name.clone(),
        _ => answer.endpoint.clone(),
    }
}

fn endpoint(answer: &Answer, report: &mut Report) {
    let endpoint = &answer.endpoint;
    match (&answer.status, &answer.read) {
        (Err(why), _) => report.error("health", format!("{endpoint} cannot be asked: {why}")),
        (Ok(status), Err(why)) if !status.is_learner => {
            report.error("health", format!("{endpoint} answers no reads: {why}"));
        }
        (Ok(_), Err(why)) => report.ok("health", format!("{endpoint} is a learner: {why}")),
        (Ok(_), Ok(())) => {
            let ms = answer.took.as_secs_f64() * 1000.0;
            report.ok(
                "health",
                format!("{endpoint} is healthy: a read took {ms:.2} ms"),
            );
        }
    }
}

fn members(seen: &Seen, report: &mut Report) {
    if seen.members.is_empty() {
        report.error(
            "members",
            "nobody could be asked who the members are".to_owned(),
        );
        return;
    }
    let (mut voters, mut reachable) = (0, 0);
    for member in &seen.members {
        let answers = seen.answer_of(member.id).is_some();
        if !member.is_learner {
            voters += 1;
            reachable += usize::from(answers);
        }
        if !answers {
            report.add("members", silent(member));
        }
    }
    report.add("members", of_voters(voters));
    report.add("quorum", quorum(voters, reachable));
}

fn silent(member: &Member) -> (Level, String) {
    let id = member.id;
    if member.name.is_empty() {
        return (
            Level::Warning,
            format!("member {id:x} was added and has never started"),
        );
    }
    let urls = member.client_ur_ls.join(", ");
    (
        Level::Error,
        format!("member {} ({id:x}) does not answer on {urls}", member.name),
    )
}

fn quorum(voters: usize, reachable: usize) -> (Level, String) {
    let needed = voters / 2 + 1;
    let text = format!("{reachable} of {voters} voters answer, {needed} are needed");
    match reachable.checked_sub(needed) {
        None => (Level::Error, format!("{text}: nothing can be written")),
        Some(0) if reachable < voters => (
            Level::Error,
            format!("{text}: losing one more stops all writes"),
        ),
        Some(0) => (Level::Ok, format!("{text}: none may be lost")),
        Some(margin) => (Level::Ok, format!("{text}: {margin} may be lost")),
    }
}

fn leader(seen: &Seen, report: &mut Report) {
    let statuses = || seen.answers.iter().filter_map(|it| it.status.as_ref().ok());
    let mut leaders: Vec<u64> = statuses().map(|status| status.leader).collect();
    if leaders.is_empty() {
        return;
    }
    leaders.sort_unstable();
    leaders.dedup();
    let clusters = statuses().filter_map(|status| status.header.as_ref());
    let mut clusters: Vec<u64> = clusters.map(|header| header.cluster_id).collect();
    clusters.sort_unstable();
    clusters.dedup();
    if clusters.len() > 1 {
        report.error(
            "cluster",
            "the endpoints are of different clusters".to_owned(),
        );
        return;
    }
    match leaders.as_slice() {
        [0] => report.error("leader", "no member knows of a leader".to_owned()),
        [leader] => {
            let member = seen.members.iter().find(|member| member.id == *leader);
            let name = member
                .map(|member| member.name.as_str())
                .unwrap_or_default();
            report.ok(
                "leader",
                format!("all agree that {name} ({leader:x}) leads"),
            );
        }
        _ => report.warning(
            "leader",
            "members name different leaders, or none: an election is going on".to_owned(),
        ),
    }
}

fn versions(seen: &Seen, report: &mut Report) {
    let statuses = seen.answers.iter().filter_map(|it| it.status.as_ref().ok());
    let mut versions: Vec<&str> = statuses.map(|status| status.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [] => {}
        [version] => report.ok("versions", format!("all speak etcd {version}")),
        several => report.warning(
            "versions",
            format!(
                "members speak etcd {}: finish the upgrade",
                several.join(" and ")
            ),
        ),
    }
}

fn size(name: &str, status: &StatusResponse, report: &mut Report) {
    let shown = |bytes: i64| print::size(u64::try_from(bytes).unwrap_or_default());
    let (size, in_use, quota) = (status.db_size, status.db_size_in_use, status.db_size_quota);
    if quota > 0 && size / (quota / 100).max(1) >= QUOTA_PERCENT_MAX {
        report.warning(
            "size",
            format!(
                "{name} has {} of its quota of {}: compact and defragment, or raise it",
                shown(size),
                shown(quota)
            ),
        );
    } else if size > DEFRAGMENT_BYTES_MIN && in_use < size / 2 {
        report.warning(
            "size",
            format!(
                "{name} has {} and uses {}: defragment it",
                shown(size),
                shown(in_use)
            ),
        );
    } else {
        report.ok(
            "size",
            format!("{name} has {}, {} in use", shown(size), shown(in_use)),
        );
    }
}

fn behind(name: &str, status: &StatusResponse, report: &mut Report) {
    let behind = status.raft_index.saturating_sub(status.raft_applied_index);
    if behind > BEHIND_MAX {
        report.warning("lag", format!("{name} has {behind} entries to apply"));
    }
}

fn clock(name: &str, answer: &Answer, report: &mut Report) {
    let Some(ahead) = answer.clock_ahead_s else {
        return;
    };
    if ahead.abs() <= CLOCK_AHEAD_MAX_S {
        report.ok("clock", format!("{name}'s clock agrees with ours"));
        return;
    }
    let way = if ahead > 0.0 { "ahead of" } else { "behind" };
    report.warning(
        "clock",
        format!(
            "{name}'s clock is {:.0} s {way} ours: certificates and tokens need clocks that agree",
            ahead.abs()
        ),
    );
}

fn disk(name: &str, metrics: &Scrape, report: &mut Report) {
    let histogram = "etcd_disk_wal_fsync_duration_seconds";
    let Some(p99) = metrics.quantile(&Scrape::default(), histogram, "", 0.99) else {
        return;
    };
    let text = format!(
        "99 of 100 syncs of {name}'s log took up to {:.1} ms since its start",
        p99 * 1000.0
    );
    match p99 >= HEARTBEAT_S {
        true => report.warning("disk", format!("{text}: longer than a heartbeat")),
        false => report.ok("disk", text),
    }
}

fn dates(name: &str, metrics: &Scrape, now: SystemTime, report: &mut Report) {
    for (labels, not_after) in metrics.all("kvorum_tls_certificate_not_after_seconds", "") {
        let file = value_of(labels, "file").unwrap_or_default();
        let Ok(not_after) = Duration::try_from_secs_f64(*not_after) else {
            continue;
        };
        let what = format!("{name}'s {file}");
        report.add(
            "certificates",
            certificates::expiry(&what, SystemTime::UNIX_EPOCH + not_after, now),
        );
    }
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::ResponseHeader;

    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id,
            name: format!("m{id}"),
            client_ur_ls: vec![format!("http://m{id}:2379")],
            ..Default::default()
        }
    }

    fn answer(id: u64, leader: u64) -> Answer {
        let header = ResponseHeader {
            member_id: id,
            ..Default::default()
        };
        let status = StatusResponse {
            header: Some(header),
            version: "3.6.14".to_owned(),
            leader,
            db_size: 1 << 20,
            db_size_in_use: 1 << 20,
            ..Default::default()
        };
        Answer {
            endpoint: format!("m{id}:2379"),
            status: Ok(status),
            read: Ok(()),
            took: Duration::from_millis(1),
            clock_ahead_s: Some(0.2),
            metrics: None,
        }
    }

    fn seen(members: u64, answering: u64) -> Seen {
        Seen {
            members: (1..=members).map(member).collect(),
            answers: (1..=answering).map(|id| answer(id, 1)).collect(),
        }
    }

    fn said(seen: &Seen) -> (Level, String) {
        let report = judge(seen, SystemTime::UNIX_EPOCH);
        (report.worst(), report.text())
    }

    #[test]
    fn a_whole_cluster_is_fine() {
        let (level, text) = said(&seen(3, 3));
        assert_eq!(level, Level::Ok, "{text}");
        assert!(
            text.contains("3 of 3 voters answer, 2 are needed: 1 may be lost"),
            "{text}"
        );
        assert!(text.contains("all agree that m1 (1) leads"), "{text}");
    }

    #[test]
    fn members_that_are_missing_are_named() {
        let (level, text) = said(&seen(3, 2));
        assert_eq!(level, Level::Error);
        assert!(
            text.contains("member m3 (3) does not answer on http://m3:2379"),
            "{text}"
        );
        assert!(text.contains("losing one more stops all writes"), "{text}");
        assert!(said(&seen(3, 1)).1.contains("nothing can be written"));
        assert!(
            said(&seen(4, 4))
                .1
                .contains("an even number of members buys nothing")
        );
        assert!(said(&Seen::default()).1.contains("nobody could be asked"));
    }

    #[test]
    fn what_members_say_of_themselves_is_judged() {
        let mut seen = seen(3, 3);
        seen.answers[1].clock_ahead_s = Some(-30.0);
        seen.answers[2].metrics = Some(Scrape::parse(
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.128\"} 1\n\
             etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.256\"} 100\n\
             kvorum_tls_certificate_not_after_seconds{file=\"/c.crt\",usage=\"cert\"} 864000\n",
        ));
        let Ok(status) = &mut seen.answers[0].status else {
            panic!("it answered");
        };
        status.db_size = 95;
        status.db_size_quota = 100;
        status.version = "3.5.1".to_owned();
        status.raft_index = 10_000;
        let (level, text) = said(&seen);
        assert_eq!(level, Level::Warning, "{text}");
        for part in [
            "m2's clock is 30 s behind ours",
            "longer than a heartbeat",
            "m3's /c.crt is valid until Sun, 11 Jan 1970 00:00:00 GMT, 10 more days",
            "m1 has 95 B of its quota of 100 B",
            "3.5.1 and 3.6.14",
            "m1 has 10000 entries to apply",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let Ok(status) = &mut seen.answers[0].status else {
            panic!("it answered");
        };
        status.errors.push("memberID:1 alarm:NOSPACE".to_owned());
        status.leader = 0;
        let (level, text) = said(&seen);
        assert_eq!(level, Level::Error);
        assert!(text.contains("m1 says: memberID:1 alarm:NOSPACE"), "{text}");
        assert!(text.contains("an election is going on"), "{text}");
    }
}

//! What `kvorum top` shows, as texts: the members' figures between two looks at them.

use std::fmt::Write as _;
use std::time::Duration;

use api::etcdserverpb::StatusResponse;
use serde_json::Value;

use super::Sample;
use crate::tools::asked::Answer;
use crate::tools::print;
use crate::tools::scrape::Scrape;

/// Prefixes that are shown.
const PREFIXES_MAX: usize = 10;
/// Nothing is known.
const NONE: &str = "-";

pub(super) const MEMBER_HEADS: [&str; 14] = [
    "MEMBER",
    "ROLE",
    "HEALTH",
    "VERSION",
    "DB",
    "IN USE",
    "LAG",
    "READS/S",
    "WRITES/S",
    "READ P99",
    "WRITE P99",
    "FSYNC P99",
    "WATCHERS",
    "LEASES",
];
/// So many of them are words, and begin below each other; the others are numbers, and end there.
pub(super) const MEMBER_TEXTS: usize = 4;
pub(super) const PREFIX_HEADS: [&str; 5] = ["PREFIX", "READS/S", "WRITES/S", "MEAN", "SLOWEST"];
pub(super) const PREFIX_TEXTS: usize = 1;

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) title: String,
    /// What somebody should know, the worst first.
    pub(super) problems: Vec<String>,
    pub(super) members: Vec<Row>,
    pub(super) prefixes: Vec<[String; 5]>,
    /// Why there are no prefixes.
    pub(super) prefixes_note: String,
    pub(super) reads_per_s: f64,
    pub(super) writes_per_s: f64,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) answers: bool,
    pub(super) cells: [String; 14],
}

impl View {
    /// What has happened between two looks; rates need both.
    pub(super) fn between(before: Option<&Sample>, now: &Sample) -> Self {
        let mut view = Self {
            title: title(now),
            problems: problems(now),
            ..Self::default()
        };
        let time = before.map(|before| now.at.saturating_duration_since(before.at));
        for (answer, page) in now.seen.answers.iter().zip(&now.pages) {
            let earlier = before.and_then(|before| {
                let member = answer.member()?;
                before.seen.answer_of(member)?.0.metrics.as_ref()
            });
            let figures = Figures::of(answer, page.as_ref(), earlier.zip(time));
            view.reads_per_s += figures.reads_per_s.unwrap_or_default();
            // Every member applies every write.
            view.writes_per_s = view
                .writes_per_s
                .max(figures.writes_per_s.unwrap_or_default());
            view.members.push(row(now, answer, &figures));
        }
        for member in &now.seen.members {
            let is_known = now.seen.answer_of(member.id).is_some();
            let is_shown = member.client_ur_ls.iter().any(|url| {
                now.seen.answers.iter().any(|it| {
                    it.endpoint.ends_with(
                        url.trim_start_matches("http://")
                            .trim_start_matches("https://"),
                    )
                })
            });
            if !is_known && !is_shown {
                view.members
                    .push(silent(&member.name, "no url that answers"));
            }
        }
        view.members
            .sort_by(|one, other| one.cells[0].cmp(&other.cells[0]));
        (view.prefixes, view.prefixes_note) = prefixes(now);
        view
    }

    pub(super) fn members_answering(&self) -> usize {
        self.members.iter().filter(|row| row.answers).count()
    }

    /// All of it as plain text.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{}\n", self.title);
        for problem in &self.problems {
            // Writing into a string does not fail.
            writeln!(text, "{problem}").ok();
        }
        let members: Vec<&[String]> = self.members.iter().map(|row| &row.cells[..]).collect();
        text += "\n";
        text += &columns(&MEMBER_HEADS, &members, MEMBER_TEXTS);
        if self.prefixes.is_empty() {
            writeln!(text, "\n{}", self.prefixes_note).ok();
        } else {
            let prefixes: Vec<&[String]> = self.prefixes.iter().map(|row| &row[..]).collect();
            text += "\n";
            text += &columns(&PREFIX_HEADS, &prefixes, PREFIX_TEXTS);
        }
        text
    }
}

/// What is computed of a member.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    reads_per_s: Option<f64>,
    writes_per_s: Option<f64>,
    read_p99_s: Option<f64>,
    write_p99_s: Option<f64>,
    fsync_p99_s: Option<f64>,
    watchers: Option<f64>,
    leases: Option<u64>,
}

impl Figures {
    fn of(answer: &Answer, page: Option<&Value>, earlier: Option<(&Scrape, Duration)>) -> Self {
        let leases = page.and_then(|page| page["leases"].as_u64());
        let Some(now) = &answer.metrics else {
            return Self {
                leases,
                ..Self::default()
            };
        };
        let rate = |name| earlier.and_then(|(before, time)| now.rate(before, time, name, ""));
        let p99 = |name, label| now.quantile(earlier?.0, name, label, 0.99);
        let requests = "etcd_server_request_duration_seconds";
        let (puts, deletes) = (rate("etcd_mvcc_put_total"), rate("etcd_mvcc_delete_total"));
        let write = |kind| p99(requests, kind);
        Self {
            reads_per_s: rate("etcd_mvcc_range_total"),
            writes_per_s: puts.map(|puts| puts + deletes.unwrap_or_default()),
            read_p99_s: p99(requests, "type=\"Range\""),
            // Transactions are how Kubernetes writes.
            write_p99_s: ["type=\"Put\"", "type=\"Txn\""]
                .into_iter()
                .filter_map(write)
                .reduce(f64::max),
            fsync_p99_s: p99("etcd_disk_wal_fsync_duration_seconds", ""),
            watchers: now.sum("etcd_debugging_mvcc_watcher_total", ""),
            leases,
        }
    }
}

fn row(now: &Sample, answer: &Answer, figures: &Figures) -> Row {
    let member = now
        .seen
        .members
        .iter()
        .find(|it| Some(it.id) == answer.member());
    let status = match &answer.status {
        Ok(status) => status,
        Err(why) => {
            let by_url = now.seen.members.iter().find(|it| {
                it.client_ur_ls.iter().any(|url| {
                    url.ends_with(&answer.endpoint) || answer.endpoint.ends_with(url.as_str())
                })
            });
            let name = by_url.map_or(answer.endpoint.as_str(), |member| member.name.as_str());
            return silent(name, why);
        }
    };
    let name = member
        .map(|member| member.name.as_str())
        .unwrap_or_default();
    let size = |bytes: i64| print::size(u64::try_from(bytes).unwrap_or_default());
    let health = match &answer.read {
        Ok(()) => format!("ok {}", time(Some(answer.took.as_secs_f64()))),
        Err(_) if status.is_learner => "ok".to_owned(),
        Err(why) => clean(why),
    };
    let number = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), count);
    Row {
        answers: true,
        cells: [
            clean(if name.is_empty() {
                &answer.endpoint
            } else {
                name
            }),
            role(status, answer.member()).to_owned(),
            health,
            clean(&status.version),
            size(status.db_size),
            size(status.db_size_in_use),
            lag(now, status).to_string(),
            number(figures.reads_per_s),
            number(figures.writes_per_s),
            time(figures.read_p99_s),
            time(figures.write_p99_s),
            time(figures.fsync_p99_s),
            figures
                .watchers
                .map_or_else(|| NONE.to_owned(), |watchers| format!("{watchers:.0}")),
            figures
                .leases
                .map_or_else(|| NONE.to_owned(), |leases| leases.to_string()),
        ],
    }
}

fn silent(name: &str, why: &str) -> Row {
    let mut cells: [String; 14] = std::array::from_fn(|_| NONE.to_owned());
    cells[0] = clean(name);
    cells[2] = format!("DOWN {}", clean(why));
    Row {
        answers: false,
        cells,
    }
}

fn role(status: &StatusResponse, member: Option<u64>) -> &'static str {
    match status.is_learner {
        true => "learner",
        false if Some(status.leader) == member => "leader",
        false => "follower",
    }
}

/// How many entries a member has to apply of what the furthest one has.
fn lag(now: &Sample, status: &StatusResponse) -> u64 {
    let statuses = now
        .seen
        .answers
        .iter()
        .filter_map(|it| it.status.as_ref().ok());
    let furthest = statuses.map(|status| status.raft_index).max();
    furthest
        .unwrap_or_default()
        .saturating_sub(status.raft_applied_index)
}

fn title(now: &Sample) -> String {
    let status = now
        .seen
        .answers
        .iter()
        .find_map(|it| it.status.as_ref().ok());
    let Some((status, header)) = status.and_then(|status| Some((status, status.header.as_ref()?)))
    else {
        return "no member answers".to_owned();
    };
    let voters = || now.seen.members.iter().filter(|member| !member.is_learner);
    let reachable = voters().filter(|member| now.seen.answer_of(member.id).is_some());
    let (voters, reachable) = (voters().count(), reachable.count());
    let leader = now
        .seen
        .members
        .iter()
        .find(|member| member.id == status.leader);
    let leader = leader.map_or("none", |member| member.name.as_str());
    let revisions = now
        .seen
        .answers
        .iter()
        .filter_map(|it| it.status.as_ref().ok()?.header.as_ref());
    let revision = revisions.map(|header| header.revision).max();
    format!(
        "cluster {:x}   leader {}   term {}   {}   revision {}",
        header.cluster_id,
        clean(leader),
        status.raft_term,
        match reachable.checked_sub(voters / 2 + 1) {
            None => format!("NO QUORUM: {reachable} of {voters} voters"),
            Some(margin) => format!("{reachable} of {voters} voters, {margin} may be lost"),
        },
        revision.unwrap_or_default(),
    )
}

/// What members say of themselves, each once.
fn problems(now: &Sample) -> Vec<String> {
    let mut problems = Vec::new();
    let pages = now.pages.iter().flatten();
    let said = pages.flat_map(|page| page["problems"].as_array().into_iter().flatten());
    for level in ["error", "warning", "info"] {
        for problem in said.clone().filter(|problem| problem["level"] == level) {
            let text = format!(
                "{level}: {}",
                clean(problem["text"].as_str().unwrap_or_default())
            );
            if !problems.contains(&text) {
                problems.push(text);
            }
        }
    }
    problems
}

/// The hottest prefixes of all members together.
fn prefixes(now: &Sample) -> (Vec<[String; 5]>, String) {
    let pages = now.pages.iter().flatten();
    let all = pages
        .clone()
        .flat_map(|page| page["prefixes"]["top"].as_array().into_iter().flatten());
    let mut sums = std::collections::BTreeMap::<String, [f64; 5]>::new();
    for it in all {
        let figure = |name: &str| it[name].as_f64().unwrap_or_default();
        let sum = sums
            .entry(clean(it["prefix"].as_str().unwrap_or_default()))
            .or_default();
        let (reads, writes) = (figure("readsPerSecond"), figure("writesPerSecond"));
        sum[0] += reads;
        sum[1] += writes;
        sum[2] += figure("meanMs") * (reads + writes);
        sum[3] = sum[3].max(figure("slowestMs"));
    }
    let mut sums: Vec<(String, [f64; 5])> = sums.into_iter().collect();
    sums.sort_by(|(_, one), (_, other)| (other[0] + other[1]).total_cmp(&(one[0] + one[1])));
    let shown = sums.into_iter().take(PREFIXES_MAX).map(|(prefix, sum)| {
        let [reads, writes, weighed, slowest, _] = sum;
        let name = if prefix.is_empty() {
            "(no slash)".to_owned()
        } else {
            prefix
        };
        let mean = weighed / (reads + writes).max(f64::MIN_POSITIVE);
        [
            name,
            count(reads),
            count(writes),
            time(Some(mean / 1000.0)),
            time(Some(slowest / 1000.0)),
        ]
    });
    let hidden = pages
        .clone()
        .find_map(|page| page["prefixes"]["hidden"].as_str());
    let note = match hidden {
        Some(why) => format!("prefixes are not shown: {}", clean(why)),
        None if pages.count() == 0 => {
            "prefixes are not shown on the ports that were asked".to_owned()
        }
        None => "no key was asked for in the last minutes".to_owned(),
    };
    (shown.collect(), note)
}

/// A number for people.
fn count(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Seconds for people.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => NONE.to_owned(),
        Some(seconds @ ..0.1) => format!("{:.1}ms", seconds * 1000.0),
        Some(seconds @ ..1.0) => format!("{:.0}ms", seconds * 1000.0),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

/// Without what would move the cursor.
fn clean(text: &str) -> String {
    let chars = text.chars();
    chars
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Columns as wide as what is in them; all but the first `texts` are numbers.
fn columns(heads: &[&str], rows: &[&[String]], texts: usize) -> String {
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default().max(head.len())
        })
        .collect();
    let mut text = String::new();
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    for row in std::iter::once(&heads[..]).chain(rows.iter().copied()) {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| match at < texts {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<String>>().join("  ");
        text += line.trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
pub(super) mod tests;

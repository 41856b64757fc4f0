//! What somebody should know or do about a member and its cluster, in sentences.

use apply::{Alarm, AlarmKind};
use serde_json::{Value, json};

/// Above this share of the quota it is time to do something.
const QUOTA_WARNING: f64 = 0.8;

/// What is judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) has_leader: bool,
    pub(super) voters: usize,
    pub(super) reachable_voters: usize,
    pub(super) unreachable_learners: usize,
    pub(super) alarms: Vec<Alarm>,
    pub(super) db_bytes: u64,
    pub(super) quota_bytes: Option<u64>,
    pub(super) fsync_p99_s: Option<f64>,
    pub(super) heartbeat_s: f64,
}

impl Standing {
    /// Voters that have to agree.
    pub(super) const fn quorum(&self) -> usize {
        self.voters / 2 + 1
    }

    /// Voters that may be lost before nothing can be written; below 0 nothing can be.
    pub(super) fn margin(&self) -> i64 {
        let count = |it: usize| i64::try_from(it).expect("there are a few members");
        count(self.reachable_voters) - count(self.quorum())
    }
}

/// The worst first.
pub(super) fn problems(standing: &Standing) -> Vec<Value> {
    let mut problems = Vec::new();
    let mut say =
        |level: &str, text: String| problems.push(json!({ "level": level, "text": text }));
    let Standing {
        voters,
        reachable_voters: reachable,
        ..
    } = *standing;
    let (margin, quorum) = (standing.margin(), standing.quorum());
    if margin < 0 {
        let text = format!(
            "No quorum: {reachable} of {voters} voters can be reached, {quorum} are needed. Nothing can be written."
        );
        say("error", text);
    } else if !standing.has_leader {
        say(
            "error",
            "No leader: requests wait until there is one.".to_owned(),
        );
    }
    for alarm in &standing.alarms {
        let text = match alarm.kind {
            AlarmKind::NoSpace => format!(
                "NOSPACE at member {}: its quota is used up, and writes are refused.",
                alarm.member
            ),
            AlarmKind::Corrupt => format!(
                "CORRUPT at member {}: members disagree about the data.",
                alarm.member
            ),
        };
        say("error", text);
    }
    let lost = voters.saturating_sub(reachable);
    if lost > 0 && margin == 0 {
        say(
            "warning",
            format!(
                "{reachable} of {voters} voters can be reached: losing one more stops all writes."
            ),
        );
    } else if lost > 0 && margin > 0 {
        say(
            "warning",
            format!("{reachable} of {voters} voters can be reached."),
        );
    }
    if standing.unreachable_learners > 0 {
        say(
            "warning",
            format!(
                "{} learners cannot be reached.",
                standing.unreachable_learners
            ),
        );
    }
    if let Some(share) = quota_share(standing)
        && share >= QUOTA_WARNING
    {
        say(
            "warning",
            format!(
                "The database is at {:.0} % of its quota: compact and defragment, or raise the quota.",
                share * 100.0
            ),
        );
    }
    if let Some(fsync_s) = standing.fsync_p99_s
        && fsync_s > standing.heartbeat_s
    {
        say(
            "warning",
            format!(
                "The disk is slow: one in a hundred writes of the log takes longer than {:.0} ms, and a heartbeat is due every {:.0} ms.",
                fsync_s * 1000.0,
                standing.heartbeat_s * 1000.0
            ),
        );
    }
    match voters {
        1 => say(
            "info",
            "One voter: if it is lost, the cluster is.".to_owned(),
        ),
        _ if voters.is_multiple_of(2) => {
            let text = format!(
                "{voters} voters, an even number: no more of them may be lost than of {}.",
                voters - 1
            );
            say("info", text);
        }
        _ => {}
    }
    problems
}

fn quota_share(standing: &Standing) -> Option<f64> {
    let quota = standing.quota_bytes.filter(|bytes| *bytes > 0)?;
    // Of sizes: no digit that matters is lost.
    let mib = |bytes: u64| f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX));
    Some(mib(standing.db_bytes) / mib(quota).max(1.0))
}

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
    let said = |level: &'static str| move |text: String| json!({ "level": level, "text": text });
    errors(standing)
        .into_iter()
        .map(said("error"))
        .chain(warnings(standing).into_iter().map(said("warning")))
        .chain(notes(standing.voters).into_iter().map(said("info")))
        .collect()
}

fn errors(standing: &Standing) -> Vec<String> {
    let Standing {
        voters,
        reachable_voters: reachable,
        ..
    } = *standing;
    let mut errors = Vec::new();
    if standing.margin() < 0 {
        let quorum = standing.quorum();
        errors.push(format!(
            "No quorum: {reachable} of {voters} voters can be reached, {quorum} are needed. Nothing can be written."
        ));
    } else if !standing.has_leader {
        errors.push("No leader: requests wait until there is one.".to_owned());
    }
    errors.extend(standing.alarms.iter().map(|alarm| match alarm.kind {
        AlarmKind::NoSpace => format!(
            "NOSPACE at member {}: its quota is used up, and writes are refused.",
            alarm.member
        ),
        AlarmKind::Corrupt => format!(
            "CORRUPT at member {}: members disagree about the data.",
            alarm.member
        ),
    }));
    errors
}

fn warnings(standing: &Standing) -> Vec<String> {
    let Standing {
        voters,
        reachable_voters: reachable,
        unreachable_learners: learners,
        ..
    } = *standing;
    let mut warnings = Vec::new();
    let is_lost = reachable < voters;
    match standing.margin() {
        0 if is_lost => warnings.push(format!(
            "{reachable} of {voters} voters can be reached: losing one more stops all writes."
        )),
        1.. if is_lost => warnings.push(format!("{reachable} of {voters} voters can be reached.")),
        _ => {}
    }
    if learners > 0 {
        warnings.push(format!("{learners} learners cannot be reached."));
    }
    if let Some(share) = quota_share(standing)
        && share >= QUOTA_WARNING
    {
        warnings.push(format!(
            "The database is at {:.0} % of its quota: compact and defragment, or raise the quota.",
            share * 100.0
        ));
    }
    if let Some(fsync_s) = standing.fsync_p99_s
        && fsync_s > standing.heartbeat_s
    {
        warnings.push(format!(
            "The disk is slow: one in a hundred writes of the log takes longer than {:.0} ms, and a heartbeat is due every {:.0} ms.",
            fsync_s * 1000.0,
            standing.heartbeat_s * 1000.0
        ));
    }
    warnings
}

fn notes(voters: usize) -> Option<String> {
    match voters {
        1 => Some("One voter: if it is lost, the cluster is.".to_owned()),
        _ if voters.is_multiple_of(2) => Some(format!(
            "{voters} voters, an even number: no more of them may be lost than of {}.",
            voters.saturating_sub(1)
        )),
        _ => None,
    }
}

fn quota_share(standing: &Standing) -> Option<f64> {
    let quota = standing.quota_bytes.filter(|bytes| *bytes > 0)?;
    // Of sizes: no digit that matters is lost.
    let mib = |bytes: u64| f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX));
    Some(mib(standing.db_bytes) / mib(quota).max(1.0))
}

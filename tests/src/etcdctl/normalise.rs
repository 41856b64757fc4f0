//! What may differ between two servers that do the same: ids, ports, raft's terms and indexes,
//! sizes on the disk, the server's version, and times.

use std::fmt::Write as _;

use api::etcdserverpb as pb;
use prost::Message;

use super::Outcome;

/// Columns of etcdctl's tables that may differ.
const VOLATILE_COLUMNS: [&str; 6] = [
    "VERSION",
    "DB SIZE",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "TOOK",
];

/// Texts before a value that may differ, and where the value ends.
const VOLATILE_VALUES: [(&str, &str); 19] = [
    ("\"ts\":\"", "\""),
    ("\"target\":\"", "\""),
    ("LocalAddr: '", "'"),
    ("\"took\":\"", "\""),
    ("took = ", "\n,"),
    ("\"Took\" : ", "\n"),
    ("\"raft_term\":", ",}"),
    ("\"raftTerm\":", ",}"),
    ("\"raftIndex\":", ",}"),
    ("\"raftAppliedIndex\":", ",}"),
    ("\"dbSize\":", ",}"),
    ("\"dbSizeInUse\":", ",}"),
    ("\"version\":\"", "\""),
    ("\"RaftTerm\" : ", "\n"),
    ("\"RaftIndex\" : ", "\n"),
    ("\"RaftAppliedIndex\" : ", "\n"),
    ("\"DBSize\" : ", "\n"),
    ("\"DBSizeInUse\" : ", "\n"),
    ("\"Version\" : \"", "\""),
];

/// Time left of a lease, only in `lease timetolive`.
const VOLATILE_TTLS: [(&str, &str); 3] = [
    ("remaining(", ")"),
    ("\"ttl\":", ",}"),
    ("\"TTL\" : ", "\n"),
];

/// Keys of the locks and elections that scripts use, whose last part is a lease that was not kept.
const VOLATILE_KEYS: [(&str, &str); 2] = [("the-lock/", "\n \""), ("the-race/", "\n \"")];

/// What one side calls things that the other calls otherwise.
#[derive(Debug, Default)]
pub(super) struct Names {
    replacements: Vec<(String, String)>,
}

impl Names {
    pub(super) fn add(&mut self, text: String, replacement: &str) {
        self.replacements.push((text, replacement.to_owned()));
    }

    /// An id, in all the ways in which etcdctl prints one.
    pub(super) fn add_id(&mut self, id: u64, replacement: &str) {
        for text in [format!("{id:016x}"), format!("{id:x}"), id.to_string()] {
            self.add(text, replacement);
        }
    }

    pub(super) fn normalise(&self, args: &[String], outcome: &Outcome) -> String {
        let stdout = match decode(args, &outcome.stdout) {
            Some(decoded) => decoded,
            None => String::from_utf8_lossy(&outcome.stdout).into_owned(),
        };
        let exit = match outcome.exit {
            Some(code) => format!("exit {code}"),
            None => "killed".to_owned(),
        };
        // Where etcdctl itself panics (a lease compare does that), its stack has addresses in it.
        let stderr = outcome
            .stderr
            .split("\ngoroutine ")
            .next()
            .unwrap_or_default();
        let (stdout, stderr) = (self.text(args, &stdout), self.text(args, stderr));
        format!(
            "{stdout}{}[stderr] {stderr}[{exit}]\n",
            if stdout.ends_with('\n') { "" } else { "\n" }
        )
    }

    fn text(&self, args: &[String], text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.replacements {
            text = text.replace(from, to);
        }
        for (before, ends) in VOLATILE_VALUES {
            text = blank_after(&text, before, ends);
        }
        if args.iter().any(|arg| arg == "timetolive") {
            for (before, ends) in VOLATILE_TTLS {
                text = blank_after(&text, before, ends);
            }
        }
        if args.iter().any(|arg| arg == "lock" || arg == "elect") {
            for (before, ends) in VOLATILE_KEYS {
                text = blank_after(&text, before, ends);
            }
        }
        let text = tables(&text);
        if args.starts_with(&["endpoint".into(), "status".into()]) {
            status(&text)
        } else {
            text
        }
    }
}

/// Replaces what follows `before`, up to one of the characters in `ends`.
fn blank_after(text: &str, before: &str, ends: &str) -> String {
    let mut pieces = text.split(before);
    let mut blanked = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let value_len = piece.find(|c| ends.contains(c)).unwrap_or(piece.len());
        blanked.push_str(before);
        blanked.push('_');
        blanked.push_str(&piece[value_len..]);
    }
    blanked
}

/// A table's columns are as wide as what is in them, and some of that may differ.
fn tables(text: &str) -> String {
    let mut out = String::new();
    let mut header: Vec<&str> = Vec::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with(['│', '|']) {
            let cells: Vec<&str> = line.trim().split(['│', '|']).map(str::trim).collect();
            out.push_str(&row(&header, &cells));
            if header.is_empty() {
                header = cells;
            }
        } else if line.starts_with(['┌', '├', '└', '+']) {
            out.push_str("---\n");
        } else {
            header.clear();
            out.push_str(line);
        }
    }
    out
}

fn row(header: &[&str], cells: &[&str]) -> String {
    let volatile = |i: usize| {
        header
            .get(i)
            .is_some_and(|name| VOLATILE_COLUMNS.contains(name))
    };
    let shown = cells
        .iter()
        .enumerate()
        .map(|(i, cell)| if volatile(i) { "_" } else { cell });
    shown.collect::<Vec<_>>().join(" | ") + "\n"
}

/// `endpoint, id, version, size, leader, learner, term, index, applied, errors`
fn status(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let fields: Vec<&str> = line.split(", ").collect();
        if fields.len() == 10 {
            let shown = fields.iter().enumerate();
            let shown = shown.map(|(i, field)| {
                if matches!(i, 2 | 3 | 6 | 7 | 8) {
                    "_"
                } else {
                    field
                }
            });
            out.push_str(&shown.collect::<Vec<_>>().join(", "));
        } else {
            out.push_str(line);
        }
    }
    out
}

/// The output of `-w protobuf`, readable and without ids.
fn decode(args: &[String], stdout: &[u8]) -> Option<String> {
    let binary = args
        .iter()
        .any(|arg| arg == "protobuf" || arg == "--write-out=protobuf");
    if !binary || stdout.is_empty() {
        return None;
    }
    fn show<M: Message + Default + std::fmt::Debug>(
        bytes: &[u8],
        header: fn(&mut M) -> &mut Option<pb::ResponseHeader>,
    ) -> Option<String> {
        let mut message = M::decode(bytes).ok()?;
        if let Some(header) = header(&mut message) {
            (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
        }
        let mut text = String::new();
        writeln!(text, "{message:#?}").ok()?;
        Some(text)
    }
    match args.first().map(String::as_str) {
        Some("get") => show::<pb::RangeResponse>(stdout, |m| &mut m.header),
        Some("put") => show::<pb::PutResponse>(stdout, |m| &mut m.header),
        Some("del") => show::<pb::DeleteRangeResponse>(stdout, |m| &mut m.header),
        Some("txn") => show::<pb::TxnResponse>(stdout, |m| &mut m.header),
        Some("watch") => show::<pb::WatchResponse>(stdout, |m| &mut m.header),
        Some("member") => show::<pb::MemberListResponse>(stdout, |m| &mut m.header),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_differ_is_blanked_and_the_rest_stays() {
        assert_eq!(
            blank_after("a\"ts\":\"1\"b\"ts\":\"22\"", "\"ts\":\"", "\""),
            "a\"ts\":\"_\"b\"ts\":\"_\""
        );
        let table = "┌──┐\n│ ID │ TOOK │\n├──┤\n│ a │ 3ms │\n└──┘\n";
        assert_eq!(
            tables(table),
            "---\n | ID | TOOK | \n---\n | a | _ | \n---\n"
        );
    }
}

//! `kvorum migrate`.

use std::path::Path;

use super::arguments::{Arguments, Known};
use super::snapshot::report;
use super::{Failure, complain, print, say};
use crate::migrate::{Source, Summary};

const MIGRATE: Known = Known {
    values: &["from", "from-wal-dir", "data-dir", "write-out"],
    switches: &["dry-run"],
};

pub(super) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments, MIGRATE)?;
    let missing = |flag: &str| Failure::bad_arguments(format!("migrate requires --{flag}"));
    if let Some(word) = arguments.words.first() {
        return Err(Failure::bad_arguments(format!(
            "{word:?} is no flag of migrate"
        )));
    }
    let from = arguments.value("from").ok_or_else(|| missing("from"))?;
    let is_dry = arguments.is_on("dry-run")?;
    let to = arguments.value("data-dir");
    if to.is_none() && !is_dry {
        return Err(missing("data-dir"));
    }
    let wal = arguments.value("from-wal-dir").map(Path::new);
    let source = Source::open(Path::new(from), wal).map_err(|error| Failure::of(&error))?;
    let summary = source.summary().map_err(|error| Failure::of(&error))?;
    match arguments.value_or("write-out", "simple") {
        "json" => say(&print::json(&summary)),
        "simple" => say(&text(&summary)),
        _ => return Err(print::bad_form("unsupported output format")),
    }
    let Some(to) = to.filter(|_| !is_dry) else {
        complain("this was a dry run: nothing was written\n");
        return Ok(());
    };
    let migrated = source
        .migrate(Path::new(to), report)
        .map_err(|error| Failure::of(&error))?;
    complain(&format!(
        "migrated {from} into {to}: member {} of cluster {}, {} versions and {} entries, revision {}\n",
        migrated.member, migrated.cluster, migrated.versions, migrated.entries, migrated.revision,
    ));
    Ok(())
}

fn text(summary: &Summary) -> String {
    let mut text = format!(
        "member {} of cluster {}; members: {}\n\
         database: revision {}, {} keys, {}, {} leases, up to entry {}\n\
         log: {} entries on top, {} uncommitted\n",
        summary.member_id,
        summary.cluster_id,
        summary.members.join(", "),
        summary.revision,
        summary.keys,
        print::size(summary.bytes),
        summary.leases,
        summary.consistent_index,
        summary.entries,
        summary.uncommitted,
    );
    for note in &summary.notes {
        text.push_str("note: ");
        text.push_str(note);
        text.push('\n');
    }
    text
}

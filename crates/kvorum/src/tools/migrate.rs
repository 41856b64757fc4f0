//! `kvorum migrate`.

use std::path::{Path, PathBuf};

use clap::ValueHint;

use super::snapshot::report;
use super::{Failure, Output, complain, print, say};
use crate::migrate::{Source, Summary};

/// Takes over the data directory of an etcd that has stopped, which stays as it is
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// The data directory of the etcd
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) from: Option<PathBuf>,
    /// Where its log is, if it is not in there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) from_wal_dir: Option<PathBuf>,
    /// The data directory that is made
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) data_dir: Option<PathBuf>,
    /// A directory of its own for the log that is made
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) wal_dir: Option<PathBuf>,
    /// Say what would be taken over, and make nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let missing = |flag: &str| Failure::bad_arguments(format!("migrate requires --{flag}"));
    let from = arguments.from.as_ref().ok_or_else(|| missing("from"))?;
    let to = arguments.data_dir.as_ref();
    if to.is_none() && !arguments.dry_run {
        return Err(missing("data-dir"));
    }
    let wal = arguments.from_wal_dir.as_deref();
    let source = Source::open(from, wal).map_err(|error| Failure::of(&error))?;
    let summary = source.summary().map_err(|error| Failure::of(&error))?;
    match arguments.output.write_out.as_str() {
        "json" => say(&print::json(&summary)),
        "simple" => say(&text(&summary)),
        _ => return Err(print::bad_form("unsupported output format")),
    }
    let Some(to) = to.filter(|_| !arguments.dry_run) else {
        complain("this was a dry run: nothing was written\n");
        return Ok(());
    };
    take_over(&source, from, to, arguments.wal_dir.as_deref())
}

fn take_over(
    source: &Source,
    from: &Path,
    to: &Path,
    wal_dir: Option<&Path>,
) -> Result<(), Failure> {
    let migrated = source
        .migrate(to, wal_dir, report)
        .map_err(|error| Failure::of(&error))?;
    complain(&format!(
        "migrated {} into {}: member {} of cluster {}, {} versions and {} entries, revision {}\n",
        from.display(),
        to.display(),
        migrated.member,
        migrated.cluster,
        migrated.versions,
        migrated.entries,
        migrated.revision,
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

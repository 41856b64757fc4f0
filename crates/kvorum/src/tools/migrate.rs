//! `kvorum migrate`.

use std::path::{Path, PathBuf};

use clap::ValueHint;

use super::snapshot::{NewMember, report};
use super::{Failure, Output, complain, print, say};
use crate::migrate::sqlite::{KineSource, KineSummary};
use crate::migrate::{Source, Summary};

/// Takes over the data of an etcd or a k3s that has stopped; they stay as they are
///
/// With --from the new member has the ids of the etcd, and goes on where it stopped. With --from-sqlite it
/// is one of a new cluster, and holds the keys that exist in k3s's database with their revisions; what
/// cannot be kept is said before anything is done.
#[derive(Clone, Debug, clap::Args)]
#[command(
    override_usage = "kvorum migrate --from DIR --data-dir DIR [options]\n       \
                      kvorum migrate --from-sqlite FILE --data-dir DIR [options]"
)]
pub(super) struct Arguments {
    /// The data directory of the etcd
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) from: Option<PathBuf>,
    /// Where its log is, if it is not in there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) from_wal_dir: Option<PathBuf>,
    /// The database of k3s (server/db/state.db) or of kine; one that was not closed is copied to the
    /// directory for temporary files
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) from_sqlite: Option<PathBuf>,
    /// The data directory that is made
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) data_dir: Option<String>,
    /// A directory of its own for the log that is made
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true, value_hint = ValueHint::DirPath)]
    pub(super) wal_dir: String,
    /// Say what would be taken over, and make nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) output: Output,
    // Last: its heading is that of all that follows.
    #[command(flatten, next_help_heading = "Only with --from-sqlite")]
    pub(super) member: NewMember,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let refused = |text: &str| Err(Failure::bad_arguments(text));
    if arguments.data_dir.is_none() && !arguments.dry_run {
        return refused("migrate requires --data-dir");
    }
    let to = arguments.data_dir.as_deref().filter(|_| !arguments.dry_run);
    match (&arguments.from, &arguments.from_sqlite) {
        (Some(from), None) => from_etcd(arguments, from, to),
        (None, Some(from)) if arguments.from_wal_dir.is_none() => from_sqlite(arguments, from, to),
        (None, Some(_)) => refused("--from-wal-dir is for --from"),
        (None, None) => refused("migrate requires --from or --from-sqlite"),
        (Some(_), Some(_)) => refused("--from and --from-sqlite exclude each other"),
    }
}

fn from_etcd(arguments: &Arguments, from: &Path, to: Option<&str>) -> Result<(), Failure> {
    let wal = arguments.from_wal_dir.as_deref();
    let source = Source::open(from, wal).map_err(|error| Failure::of(&error))?;
    let summary = source.summary().map_err(|error| Failure::of(&error))?;
    tell(arguments, &summary, text)?;
    match to {
        None => Ok(()),
        Some(to) => {
            let wal_dir = Some(arguments.wal_dir.as_str()).filter(|dir| !dir.is_empty());
            take_over(&source, from, Path::new(to), wal_dir.map(Path::new))
        }
    }
}

fn from_sqlite(arguments: &Arguments, from: &Path, to: Option<&str>) -> Result<(), Failure> {
    let source = KineSource::open(from).map_err(|error| Failure::of(&error))?;
    tell(arguments, source.summary(), kine_text)?;
    let Some(to) = to else {
        return Ok(());
    };
    let config = arguments.member.config(to, &arguments.wal_dir)?;
    let migrated = source
        .migrate(&config, report)
        .map_err(|error| Failure::of(&error))?;
    complain(&format!(
        "migrated {} into {to}: member {} of cluster {}, {} keys, revision {}\n",
        from.display(),
        migrated.member,
        migrated.cluster,
        migrated.keys,
        migrated.revision,
    ));
    Ok(())
}

/// Says what is there, before anything is done.
fn tell<S: serde::Serialize>(
    arguments: &Arguments,
    summary: &S,
    text: fn(&S) -> String,
) -> Result<(), Failure> {
    match arguments.output.write_out.as_str() {
        "json" => say(&print::json(summary)),
        "simple" => say(&text(summary)),
        _ => return Err(print::bad_form("unsupported output format")),
    }
    if arguments.dry_run {
        complain("this was a dry run: nothing was written\n");
    }
    Ok(())
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
    push_notes(&mut text, &summary.notes);
    text
}

fn kine_text(summary: &KineSummary) -> String {
    let mut text = format!(
        "database of kine: revision {}, {} keys, {}, {} of them expire, {} rows of history\n",
        summary.revision,
        summary.keys,
        print::size(summary.bytes),
        summary.expiring_keys,
        summary.history,
    );
    push_notes(&mut text, &summary.notes);
    text
}

fn push_notes(text: &mut String, notes: &[String]) {
    for note in notes {
        text.push_str("note: ");
        text.push_str(note);
        text.push('\n');
    }
}

//! `kvorum snapshot status` and `kvorum snapshot restore`.

use std::path::{Path, PathBuf};

use backup::Target;
use clap::ValueHint;
use etcdfile::{EtcdFile, HashCheck, RevisionBump};
use types::Url;

use super::{Failure, Output, command_line, complain, print, say};
use crate::Options;
use crate::bucket::bucket_config;
use crate::config::S3Settings;
use crate::restore::{Restore, RestoreError, fetch, restore as make};

/// How far the revision goes ahead: more than any cluster writes between a snapshot and its restoration.
const BUMP: i64 = 1_000_000_000;
/// After so many versions a command says how far it is.
const REPORT_VERSIONS: u64 = 1_000_000;

/// Gets backend snapshot status of a given file
///
/// Checks the file as a whole, and says its hash, revision, total keys, total size and storage version.
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "kvorum snapshot status <filename> [-w simple|fields|json|table]")]
pub(super) struct StatusArguments {
    /// The snapshot
    #[arg(value_name = "filename", value_hint = ValueHint::FilePath)]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) output: Output,
}

/// The member that is made, and its cluster
#[derive(Clone, Debug, clap::Args)]
pub(super) struct NewMember {
    /// Human-readable name for this member
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(super) name: String,
    /// Initial cluster configuration for restore bootstrap
    #[arg(
        long,
        value_name = "LIST",
        default_value = "default=http://localhost:2380"
    )]
    pub(super) initial_cluster: String,
    /// Initial cluster token for the etcd cluster during restore bootstrap
    #[arg(long, value_name = "TOKEN", default_value = "etcd-cluster")]
    pub(super) initial_cluster_token: String,
    /// List of this member's peer URLs to advertise to the rest of the cluster
    #[arg(long, value_name = "LIST", default_value = "http://localhost:2380")]
    pub(super) initial_advertise_peer_urls: String,
}

/// Restores an etcd member snapshot to an etcd directory
///
/// Makes the data directory of a member of a new cluster out of a snapshot, ours or an etcd's. The revision
/// goes ahead, and what was before counts as compacted, so that watchers and caches notice that history was
/// turned back; --no-bump is etcd's default.
///
/// The source is a file, compressed with gzip or zstd or not, or s3://bucket/folder/file; or a directory or
/// s3://bucket/folder of backups, of which the newest that leads there is taken.
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "kvorum snapshot restore <filename> --data-dir {output dir} [options]")]
pub(super) struct RestoreArguments {
    /// The snapshot
    #[arg(value_name = "filename", value_hint = ValueHint::FilePath)]
    pub(super) words: Vec<String>,
    /// Path to the output data directory
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true, value_hint = ValueHint::DirPath)]
    pub(super) data_dir: String,
    /// A directory of its own for the log
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true, value_hint = ValueHint::DirPath)]
    pub(super) wal_dir: String,
    #[command(flatten)]
    pub(super) member: NewMember,
    /// Ignore snapshot integrity hash value (required if copied from data directory)
    #[arg(long)]
    pub(super) skip_hash_check: bool,
    /// How much to increase the latest revision after restore [default: 1000000000]
    #[arg(long, value_name = "N", value_parser = command_line::unsigned)]
    pub(super) bump_revision: Option<u64>,
    /// Mark the latest revision after restore as the point of scheduled compaction (required if
    /// --bump-revision > 0, disallowed otherwise)
    #[arg(long)]
    pub(super) mark_compacted: bool,
    /// The revision stays that of the snapshot, as etcdutl leaves it
    #[arg(long)]
    pub(super) no_bump: bool,
    /// Accepted: memory is not mapped
    #[arg(long, value_name = "BYTES", value_parser = command_line::unsigned)]
    pub(super) initial_memory_map_size: Option<u64>,
    /// Accepted as etcdutl does; the output has one form
    #[arg(short = 'w', long, value_name = "FORM", hide = true)]
    pub(super) write_out: Option<String>,
    #[command(flatten)]
    pub(super) source: SourceArguments,
}

/// What of the source is to be restored, and how it is had.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SourceArguments {
    /// As of a revision, with the archive beside the backups (--backup-archive-interval)
    #[arg(long, value_name = "N")]
    pub(super) to_revision: Option<String>,
    /// As of a time: 2026-11-21T10:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(super) to_time: Option<String>,
    /// Where the bucket is: https://host:port, or http://; Amazon without it
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(super) s3_endpoint: Option<String>,
    /// Region of the bucket
    #[arg(long, value_name = "NAME")]
    pub(super) s3_region: Option<String>,
    /// Authorities, in PEM, that the endpoint is trusted by beside the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) s3_endpoint_ca: Option<PathBuf>,
    /// Credentials as in ~/.aws/credentials; AWS_ACCESS_KEY_ID and the like without it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) s3_credentials_file: Option<PathBuf>,
}

pub(super) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let [path] = arguments.words.as_slice() else {
        let text = "snapshot status requires exactly one argument";
        return Err(Failure::bad_arguments(text));
    };
    let failed = |source| {
        Failure::of(&RestoreError::File {
            path: PathBuf::from(path),
            source,
        })
    };
    print::is_form(&arguments.output.write_out)?;
    let file = EtcdFile::open(Path::new(path), HashCheck::IfThere).map_err(failed)?;
    let status = file.status().map_err(failed)?;
    say(&print::status(&status, &arguments.output.write_out)?);
    Ok(())
}

pub(super) fn restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let [path] = arguments.words.as_slice() else {
        let text = "snapshot restore requires exactly one argument";
        return Err(Failure::bad_arguments(text));
    };
    let hash = match arguments.skip_hash_check {
        true => HashCheck::Skipped,
        false => HashCheck::Required,
    };
    let bump = bump(arguments)?;
    let member = &arguments.member;
    let config = member.config(&arguments.data_dir, &arguments.wal_dir)?;
    let target = target(&arguments.source)?;
    let bucket = bucket_config(&s3(&arguments.source)).map_err(|error| Failure::of(&error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error))?;
    let fetched = fetch(path, target, &bucket, &config.data_dir, runtime.handle())
        .map_err(|error| Failure::of(&error))?;
    let request = Restore {
        snapshot: fetched.snapshot.clone(),
        way: fetched.way.clone(),
        hash,
        bump,
        config,
    };
    let restored = make(&request, report).map_err(|error| Failure::of(&error))?;
    complain(&format!(
        "restored snapshot {path} into {}: member {} of cluster {}, {} versions, revision {}\n",
        request.config.data_dir.display(),
        restored.member,
        restored.cluster,
        restored.versions,
        restored.revision,
    ));
    if restored.revision != restored.snapshot_revision {
        complain(&format!(
            "the snapshot's revision was {}; everything before {} counts as compacted, so that watchers \
             begin anew (--no-bump leaves the revision as it was)\n",
            restored.snapshot_revision, restored.revision,
        ));
    }
    Ok(())
}

/// As of when.
fn target(arguments: &SourceArguments) -> Result<Target, Failure> {
    let invalid = |name, text: &str| {
        Failure::bad_arguments(format!("invalid argument {text:?} for \"--{name}\" flag"))
    };
    match (&arguments.to_revision, &arguments.to_time) {
        (None, None) => Ok(Target::Latest),
        (Some(text), None) => {
            let revision = text.parse().ok().filter(|revision| *revision > 0);
            let revision = revision.ok_or_else(|| invalid("to-revision", text))?;
            Ok(Target::Revision(revision))
        }
        (None, Some(text)) => {
            let time = backup::read_time(text).ok_or_else(|| invalid("to-time", text))?;
            Ok(Target::Time(time))
        }
        (Some(_), Some(_)) => {
            let text = "--to-revision and --to-time exclude each other";
            Err(Failure::bad_arguments(text))
        }
    }
}

/// How a bucket is spoken to.
fn s3(arguments: &SourceArguments) -> S3Settings {
    S3Settings {
        endpoint: arguments.s3_endpoint.clone(),
        region: arguments.s3_region.clone(),
        authorities_file: arguments.s3_endpoint_ca.clone(),
        credentials_file: arguments.s3_credentials_file.clone(),
    }
}

/// Says how far it is.
pub(super) fn report(versions: u64) {
    if versions.is_multiple_of(REPORT_VERSIONS) {
        complain(&format!("{versions} versions so far\n"));
    }
}

fn bump(arguments: &RestoreArguments) -> Result<Option<RevisionBump>, Failure> {
    let given = arguments.bump_revision;
    let (is_marked, is_without) = (arguments.mark_compacted, arguments.no_bump);
    if (given.unwrap_or(0) > 0) != is_marked {
        let text = "--mark-compacted required if --revision-bump > 0";
        return Err(Failure::bad_arguments(text));
    }
    if is_without && is_marked {
        let text = "--no-bump and --bump-revision exclude each other";
        return Err(Failure::bad_arguments(text));
    }
    let amount = match given {
        _ if is_without => return Ok(None),
        None => BUMP,
        Some(0) => return Ok(None),
        Some(amount) => i64::try_from(amount).unwrap_or(i64::MAX),
    };
    Ok(Some(RevisionBump(amount)))
}

impl NewMember {
    /// The member, as its flags would make it.
    pub(super) fn config(&self, data_dir: &str, wal_dir: &str) -> Result<crate::Config, Failure> {
        let urls = Url::parse_list(&self.initial_advertise_peer_urls);
        let urls = urls.map_err(|error| Failure::of(&error))?;
        let options = Options {
            name: self.name.clone(),
            data_dir: data_dir.to_owned(),
            wal_dir: wal_dir.to_owned(),
            initial_cluster: Some(self.initial_cluster.clone()),
            initial_cluster_token: self.initial_cluster_token.clone(),
            initial_advertise_peer_urls: Some(urls),
            ..Options::default()
        };
        options.validate().map_err(|error| Failure::of(&error))
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn asked(line: &[&str]) -> Result<Option<i64>, u8> {
        let line = [&["kvorum", "snapshot", "restore"], line].concat();
        let matches = super::super::command().try_get_matches_from(line).unwrap();
        let (_snapshot, matches) = matches.subcommand().unwrap();
        let (_restore, matches) = matches.subcommand().unwrap();
        let arguments = RestoreArguments::from_arg_matches(matches).unwrap();
        let bump = bump(&arguments).map_err(|failure| failure.status)?;
        Ok(bump.map(|RevisionBump(amount)| amount))
    }

    #[test]
    fn the_revision_goes_ahead_unless_it_is_told_not_to() {
        assert_eq!(asked(&[]), Ok(Some(BUMP)));
        assert_eq!(asked(&["--no-bump"]), Ok(None));
        assert_eq!(asked(&["--bump-revision=0"]), Ok(None));
        assert_eq!(
            asked(&["--bump-revision=7", "--mark-compacted"]),
            Ok(Some(7))
        );
        assert_eq!(asked(&["--bump-revision=7"]), Err(128));
        assert_eq!(asked(&["--mark-compacted"]), Err(128));
        assert_eq!(
            asked(&["--bump-revision=7", "--mark-compacted", "--no-bump"]),
            Err(128)
        );
    }
}

//! `kvorum snapshot status` and `kvorum snapshot restore`.

use std::path::{Path, PathBuf};

use etcdfile::{EtcdFile, HashCheck, RevisionBump};
use types::Url;

use super::arguments::{Arguments, Known};
use super::{Failure, complain, print, say};
use crate::Options;
use crate::restore::{Restore, RestoreError, restore as make};

/// How far the revision goes ahead: more than any cluster writes between a snapshot and its restoration.
const BUMP: i64 = 1_000_000_000;
/// After so many versions a command says how far it is.
const REPORT_VERSIONS: u64 = 1_000_000;

const STATUS: Known = Known {
    values: &["write-out"],
    switches: &[],
};

const RESTORE: Known = Known {
    values: &[
        "data-dir",
        "wal-dir",
        "name",
        "initial-cluster",
        "initial-cluster-token",
        "initial-advertise-peer-urls",
        "initial-memory-map-size",
        "bump-revision",
        "write-out",
    ],
    switches: &["skip-hash-check", "mark-compacted", "no-bump"],
};

pub(super) fn status(arguments: &[&str]) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments, STATUS)?;
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
    let form = arguments.value_or("write-out", "simple");
    let file = EtcdFile::open(Path::new(path), HashCheck::IfThere).map_err(failed)?;
    let status = file.status().map_err(failed)?;
    say(&print::status(&status, form)?);
    Ok(())
}

pub(super) fn restore(arguments: &[&str]) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments, RESTORE)?;
    let [path] = arguments.words.as_slice() else {
        let text = "snapshot restore requires exactly one argument";
        return Err(Failure::bad_arguments(text));
    };
    if let Some(wal_dir) = arguments.value("wal-dir")
        && Path::new(wal_dir).exists()
    {
        return Err(Failure {
            status: super::EXIT_ERROR,
            text: format!("wal-dir {wal_dir:?} exists"),
        });
    }
    let hash = match arguments.is_on("skip-hash-check")? {
        true => HashCheck::Skipped,
        false => HashCheck::Required,
    };
    let request = Restore {
        snapshot: PathBuf::from(path),
        hash,
        bump: bump(&arguments)?,
        config: config(&arguments)?,
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

/// Says how far it is.
pub(super) fn report(versions: u64) {
    if versions.is_multiple_of(REPORT_VERSIONS) {
        complain(&format!("{versions} versions so far\n"));
    }
}

fn bump(arguments: &Arguments) -> Result<Option<RevisionBump>, Failure> {
    let is_marked = arguments.is_on("mark-compacted")?;
    let given = match arguments.value("bump-revision") {
        None => None,
        Some(text) => Some(text.parse::<u64>().map_err(|error| {
            let text = format!("invalid argument {text:?} for \"--bump-revision\" flag: {error}");
            Failure::bad_arguments(text)
        })?),
    };
    let is_without = arguments.is_on("no-bump")?;
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

/// The member, as its flags would make it.
fn config(arguments: &Arguments) -> Result<crate::Config, Failure> {
    let name = arguments.value_or("name", "default");
    let urls = arguments.value_or("initial-advertise-peer-urls", "http://localhost:2380");
    let urls = urls
        .split(',')
        .map(Url::parse)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::of(&error))?;
    let cluster = arguments.value_or("initial-cluster", "default=http://localhost:2380");
    let token = arguments.value_or("initial-cluster-token", "etcd-cluster");
    let options = Options {
        name: name.to_owned(),
        data_dir: arguments.value_or("data-dir", "").to_owned(),
        initial_cluster: Some(cluster.to_owned()),
        initial_cluster_token: token.to_owned(),
        initial_advertise_peer_urls: Some(urls),
        ..Options::default()
    };
    options.validate().map_err(|error| Failure::of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &[&str]) -> Result<Option<i64>, u8> {
        let arguments = Arguments::parse(line, RESTORE).unwrap();
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

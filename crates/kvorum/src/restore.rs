//! A new member's data directory out of a snapshot, ours or an etcd's (`kvorum snapshot restore`).
//!
//! What comes of it is what `etcdutl snapshot restore` would make: a member of a new cluster, with new
//! ids, that holds all keys, leases, alarms, users and roles. Every member of the cluster is made from the
//! same snapshot; they begin in agreement.
//!
//! The directory is made beside its place and moved there when it is whole and durable, so that what was
//! broken off leaves nothing that a member could be started on.

mod fetch;
mod place;
mod replay;

use std::path::{Path, PathBuf};

use apply::{Import, ImportError, LogPosition, Member, Registers};
use backend::{Backend, DataDir};
pub use backup::Target;
use etcdfile::EtcdFile;
pub use etcdfile::{FileError, HashCheck, RevisionBump};
use raft::installed::ImpossibleMembership;
use types::{ClusterId, MemberId, Url};

use crate::config::Config;
use crate::error::{BootstrapError, StartError};
use crate::etcd::{Identity, check_restored, store_identity};
pub use fetch::{FetchError, Fetched, Way, fetch};
pub(crate) use place::Place;
pub use place::PlaceError;
use replay::Replay;

/// The engine's cache while a store is filled.
const CACHE_BYTES: u64 = 256 << 20;

/// etcd's: restored members begin in term 1, which none of them has led.
const TERM: u64 = 1;

/// What to restore, and as what.
///
/// ```
/// use kvorum::restore::{HashCheck, Restore, Restored, RevisionBump, restore};
/// # use kvorum::{Config, Kvorum};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
/// # let member = Kvorum::start(config).await?;
/// # member.wait_ready().await?;
/// member.client().put("greeting", "hello").await?;
/// let snapshot = dir.path().join("snapshot.db");
/// member.client().save_snapshot(&snapshot).await?;
///
/// let data_dir = dir.path().join("restored");
/// let config = Config::builder().data_dir(&data_dir).any_ports();
/// let request = Restore {
///     snapshot,
///     way: None,
///     hash: HashCheck::Required,
///     bump: Some(RevisionBump(1000)),
///     config: config.clone().build()?,
/// };
/// let made: Restored = tokio::task::spawn_blocking(move || restore(&request, |_versions| ())).await??;
/// assert_eq!((made.snapshot_revision, made.revision), (2, 1002));
/// let restored = Kvorum::start(config.build()?).await?;
/// restored.wait_ready().await?;
/// assert!(restored.client().get("greeting").await?.is_some());
/// restored.stop().await;
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Restore {
    /// The snapshot.
    pub snapshot: PathBuf,
    /// What comes on top of it, to go to a revision or a time.
    pub way: Option<Way>,
    /// Whether the checksum at its end has to be there.
    pub hash: HashCheck,
    /// How far the revision goes ahead, so that watchers see that history was turned back.
    pub bump: Option<RevisionBump>,
    /// Name, data directory and initial cluster of the member.
    pub config: Config,
}

/// What was restored. [`Restore`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Versions of keys.
    pub versions: u64,
    /// The revision that the snapshot ended with.
    pub snapshot_revision: i64,
    /// The revision that the member begins with.
    pub revision: i64,
}

/// A member could not be made. Nothing of it is left.
///
/// ```
/// use kvorum::Config;
/// use kvorum::restore::{FileError, HashCheck, Restore, RestoreError, restore};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (data_dir, snapshot) = (dir.path().join("data"), dir.path().join("db"));
/// # std::fs::write(&snapshot, [0; 4096])?;
///
/// // A file of a data directory has no checksum at its end, which a snapshot has.
/// let config = Config::builder().data_dir(&data_dir).build()?;
/// let request = Restore { snapshot, way: None, hash: HashCheck::Required, bump: None, config };
/// let refused = restore(&request, |_versions| ()).expect_err("nobody knows if it is whole");
/// assert!(matches!(&refused, RestoreError::File { source: FileError::NoHash, .. }));
/// assert_eq!(refused.to_string(), format!("cannot use {}", request.snapshot.display()));
/// assert!(!data_dir.exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no place for it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its cluster cannot be.
    #[error(transparent)]
    Cluster(#[from] BootstrapError),
    /// The file cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: FileError,
    },
    /// It does not go on where the files before it end.
    #[error(
        "{} does not go on with the history that was read before: revision {revision} is another one",
        path.display()
    )]
    OtherHistory {
        /// The segment of the archive.
        path: PathBuf,
        /// Where it begins.
        revision: i64,
    },
    /// The revision would be too large.
    #[error("the revision {revision} cannot be raised by {bump}")]
    Bump {
        /// The snapshot's.
        revision: i64,
        /// By how much.
        bump: i64,
    },
    /// The members cannot be those of a cluster.
    #[error(transparent)]
    Members(#[from] ImpossibleMembership),
    /// Its state cannot be made.
    #[error(transparent)]
    State(#[from] ImportError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] StartError),
}

/// Makes the member. Blocks; `seen` is told how many versions have been read.
///
/// # Errors
/// When the snapshot is not whole, the flags do not fit, or the directory is not empty.
pub fn restore(request: &Restore, mut seen: impl FnMut(u64)) -> Result<Restored, RestoreError> {
    let in_file = |source| RestoreError::File {
        path: request.snapshot.clone(),
        source,
    };
    let mut versions = 0;
    let (mut snapshot_revision, mut revision) = (0, 0);
    let identity = found(&request.config, |import| {
        let work = |file: &EtcdFile| -> Result<Registers, RestoreError> {
            let contents = file.contents().map_err(in_file)?;
            let replay = request.way.as_ref().map(Replay::open).transpose()?;
            let (mut registers, last) = match &replay {
                None => {
                    let imported = file.import(import, &mut seen).map_err(in_file)?;
                    versions = imported.versions;
                    (contents.registers, imported.revision)
                }
                Some(replay) => {
                    let base = (file, request.snapshot.as_path());
                    let (registers, read) = replay.import(base, contents, import, &mut seen)?;
                    versions = read;
                    (registers, replay.revision())
                }
            };
            snapshot_revision = current(&registers, last);
            revision = begin_at(&mut registers, snapshot_revision, request.bump)?;
            Ok(registers)
        };
        EtcdFile::open_beside(&request.snapshot, request.hash, work).map_err(in_file)?
    })?;
    Ok(Restored {
        member: identity.member,
        cluster: identity.cluster,
        versions,
        snapshot_revision,
        revision,
    })
}

/// Makes a member of a new cluster with the state that `fill` hands on. Nothing is left of it when
/// something fails.
pub(crate) fn found<E>(
    config: &Config,
    fill: impl FnOnce(&mut Import) -> Result<Registers, E>,
) -> Result<Identity, E>
where
    E: From<PlaceError>
        + From<BootstrapError>
        + From<ImpossibleMembership>
        + From<ImportError>
        + From<StartError>,
{
    let identity = check_restored(config)?;
    let place = Place::begin(&config.data_dir, config.wal_dir.as_deref())?;
    let members = members(config);
    let entries = members.len().max(1) as u64;
    let at = LogPosition {
        term: TERM,
        leader: 0,
        index: entries - 1,
    };
    let membership = raft::installed::membership(at, &members)?;
    let directory = place.lock()?;
    let mut import = Import::begin(open("state", &directory.state_path())?)?;
    let registers = Registers {
        members,
        removed: Vec::new(),
        ..fill(&mut import)?
    };
    drop(import.finish(&registers, at, membership)?);
    begin_log(&directory, identity, TERM)?;
    drop(directory);
    place.finish()?;
    Ok(identity)
}

/// The revision of a state of which compaction may have removed the last versions.
fn current(registers: &Registers, last: i64) -> i64 {
    [
        registers.scheduled_compaction,
        registers.finished_compaction,
    ]
    .into_iter()
    .flatten()
    .fold(last.max(1), i64::max)
}

/// Sets the revision with which the member begins.
fn begin_at(
    registers: &mut Registers,
    revision: i64,
    bump: Option<RevisionBump>,
) -> Result<i64, RestoreError> {
    let revision = match bump {
        None => revision,
        Some(RevisionBump(bump)) => {
            let raised = revision
                .checked_add(bump)
                .filter(|raised| *raised > revision);
            let raised = raised.ok_or(RestoreError::Bump { revision, bump })?;
            registers.scheduled_compaction = Some(raised);
            raised
        }
    };
    registers.revision = Some(revision);
    Ok(revision)
}

/// The members of the new cluster.
fn members(config: &Config) -> Vec<Member> {
    let cluster = &config.initial_cluster;
    let member = |initial: &crate::config::InitialMember| Member {
        id: cluster.member_id(initial),
        name: initial.name.clone(),
        peer_urls: initial.peer_urls.iter().map(Url::to_string).collect(),
        client_urls: Vec::new(),
        is_learner: false,
    };
    cluster.members.iter().map(member).collect()
}

pub(crate) fn open(name: &'static str, path: &Path) -> Result<Backend, StartError> {
    let config = backend::Config {
        path: path.to_owned(),
        cache_bytes: CACHE_BYTES,
    };
    Backend::open(&config).map_err(|source| StartError::Backend {
        name,
        source: Box::new(source),
    })
}

/// An empty log that goes on after the state.
pub(crate) fn begin_log(
    directory: &DataDir,
    identity: Identity,
    term: u64,
) -> Result<(), StartError> {
    let mut log = open("log", &directory.log_path())?;
    raft::installed::begin_log(&mut log, identity.member, term)
        .map_err(|source| StartError::WriteIdentity(Box::new(source)))?;
    store_identity(&mut log, identity)
}

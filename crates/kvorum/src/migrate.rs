//! A member of ours out of the data directory of an etcd that has stopped (`kvorum migrate --from`).
//!
//! ```text
//!  member/snap/db      everything up to its consistent index ──> a state of ours
//!  member/wal/*.wal    the entries behind it ────────────────> applied to that state
//!                      the ids of member and cluster ────────> the identity of the new member
//! ```
//!
//! The member goes on where the etcd stopped: the same ids, revisions, leases, users and roles, and its term
//! and index in the log. The source is only read, under a lock that a running etcd does not let go of.
//!
//! A lone member's log counts as a whole, as it would for that etcd. Of a member of a larger cluster the
//! entries that it knows to be committed count; migrate every member, and the one that has most leads.

pub mod sqlite;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apply::{Import, LogPosition, Member, Registers, StateMachine};
use backend::{Backend, DataDir};
use bytes::Bytes;
use etcdfile::wal::{self, ConfChange, ConfChangeKind, Payload, Wal, WalError};
use etcdfile::{Contents, EtcdFile, FileError, HashCheck, schema};
use serde::Serialize;
use types::{ClusterId, MemberId, SystemClock};

use crate::error::StartError;
use crate::etcd::Identity;
use crate::restore::{Place, PlaceError, begin_log, open};

/// Entries applied between two publications.
const BATCH_ENTRIES: u64 = 256;
/// Bytes of events kept while entries are applied: nobody watches.
const EVENT_LOG_BYTES_MAX: usize = 1 << 20;

/// The data directory of an etcd, locked and read but for its keys.
///
/// ```no_run
/// use kvorum::migrate::{Migrated, Source, Summary};
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
///
/// let source = Source::open("/var/lib/etcd".as_ref(), None)?;
/// let Summary { member_id, keys, notes, .. } = source.summary()?;
/// println!("{keys} keys of member {member_id}");
/// for note in notes {
///     println!("note: {note}");
/// }
/// let done: Migrated = source.migrate("/var/lib/kvorum".as_ref(), None, |versions| println!("{versions}"))?;
/// println!("member {} goes on at revision {}", done.member, done.revision);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: EtcdFile,
    contents: Contents,
    wal: Wal,
    /// Keeps the etcd from being started meanwhile.
    _lock: File,
}

/// What is in the data directory of an etcd. [`Source`] has an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The member's id, in hex.
    pub member_id: String,
    /// Its cluster's.
    pub cluster_id: String,
    /// The names of the members, as far as they are known.
    pub members: Vec<String>,
    /// The revision of its database.
    pub revision: i64,
    /// Keys that exist in it.
    pub keys: usize,
    /// Bytes of it.
    pub bytes: u64,
    /// Leases in it.
    pub leases: usize,
    /// The last entry of the log that is in it.
    pub consistent_index: u64,
    /// Entries of the log that come on top.
    pub entries: usize,
    /// Entries that do not, because nobody knows that they are committed.
    pub uncommitted: usize,
    /// What is to be known of it before it is taken over.
    pub notes: Vec<String>,
}

/// What was taken over. [`Source`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its revision.
    pub revision: i64,
    /// Versions that were in the database.
    pub versions: u64,
    /// Entries of the log that came on top.
    pub entries: u64,
}

/// A data directory could not be taken over. It is as it was, and nothing was made.
///
/// ```
/// use kvorum::migrate::{MigrateError, Source};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let from = dir.path();
///
/// let refused = Source::open(from, None).expect_err("no etcd has run there");
/// assert!(matches!(&refused, MigrateError::NotEtcd { path, .. } if path == from));
/// let text = format!("{} is no data directory of an etcd: it has no member/snap/db", from.display());
/// assert_eq!(refused.to_string(), text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There is none.
    #[error("{} is no data directory of an etcd: it has no member/snap/db", path.display())]
    NotEtcd {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An etcd is running on it.
    #[error("{} is in use: stop the etcd that runs on it first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error("cannot use the database of {}", path.display())]
    File {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: FileError,
    },
    /// The log cannot be used.
    #[error("cannot use the log")]
    Wal(#[from] WalError),
    /// An entry of the log cannot be carried out.
    #[error("cannot carry out entry {index} of the log")]
    Entry {
        /// Its index.
        index: u64,
        /// Why not.
        #[source]
        source: server::LoggedError,
    },
    /// A change of the members in the log is none.
    #[error("entry {index} of the log changes the members in a way that cannot be read")]
    ConfChange {
        /// Its index.
        index: u64,
    },
    /// The member has been removed from its cluster.
    #[error("member {member} is not one of its cluster any more")]
    Removed {
        /// The member.
        member: MemberId,
    },
    /// There is no place for the new member.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its members cannot be those of a cluster.
    #[error(transparent)]
    Members(#[from] raft::installed::ImpossibleMembership),
    /// The state could not go on.
    #[error("cannot apply the log")]
    Apply(#[from] apply::Fatal),
    /// The state could not be opened.
    #[error("cannot open the state that was made")]
    Open(#[from] apply::OpenError),
    /// The state could not be written.
    #[error("cannot write the state")]
    State(#[from] backend::WriteError),
    /// The member could not be written.
    #[error(transparent)]
    Write(#[from] StartError),
    /// There is no runtime to wait for the disk with.
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
}

impl Source {
    /// Locks and reads a data directory; `wal` is where its log is, if it is elsewhere. Blocks.
    ///
    /// # Errors
    /// When it is none, an etcd is running on it, or something of it is damaged.
    pub fn open(path: &Path, wal: Option<&Path>) -> Result<Self, MigrateError> {
        let database = path.join("member").join("snap").join("db");
        let lock = File::open(&database).map_err(|source| MigrateError::NotEtcd {
            path: path.to_owned(),
            source,
        })?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(MigrateError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                let path = database;
                return Err(MigrateError::Lock { path, source });
            }
        }
        let in_file = |source| MigrateError::File {
            path: path.to_owned(),
            source,
        };
        let file = EtcdFile::open(&database, HashCheck::IfThere).map_err(in_file)?;
        let contents = file.contents().map_err(in_file)?;
        let log = wal.map_or_else(|| path.join("member").join("wal"), Path::to_owned);
        let mut wal = wal::read(&log, contents.consistent_index)?;
        if voters(&contents, &wal) > 1 {
            let commit = wal.commit;
            let is_uncommitted = |entry: &wal::Entry| entry.index > commit;
            let kept = wal.entries.iter().position(is_uncommitted);
            wal.uncommitted = wal
                .entries
                .split_off(kept.unwrap_or(wal.entries.len()))
                .len();
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            contents,
            wal,
            _lock: lock,
        })
    }

    /// What is in it. Reads all of it.
    ///
    /// # Errors
    /// When its history is damaged.
    pub fn summary(&self) -> Result<Summary, MigrateError> {
        let status = self.file.status().map_err(self.in_file())?;
        let registers = &self.contents.registers;
        let mut notes = Vec::new();
        if registers.members.len() > 1 {
            notes.push(
                "it is one of several members, and what only others have confirmed is not in it: start it \
                 alone with --force-new-cluster, and add the others with empty data directories"
                    .to_owned(),
            );
        }
        if self.wal.is_torn {
            notes.push("the end of its log was torn, and is left out as etcd would".to_owned());
        }
        if self
            .contents
            .downgrade
            .as_ref()
            .is_some_and(|it| it.enabled)
        {
            notes.push(
                "its cluster is going back to an earlier version: that is not gone on with"
                    .to_owned(),
            );
        }
        let name = |member: &Member| match member.name.as_str() {
            "" => member.id.to_string(),
            name => name.to_owned(),
        };
        Ok(Summary {
            member_id: self.wal.member.to_string(),
            cluster_id: self.wal.cluster.to_string(),
            members: registers.members.iter().map(name).collect(),
            revision: status.revision,
            keys: status.total_key,
            bytes: status.total_size,
            leases: registers.leases.len(),
            consistent_index: self.contents.consistent_index,
            entries: self.wal.entries.len(),
            uncommitted: self.wal.uncommitted,
            notes,
        })
    }

    /// Makes a member in `to` that goes on where this one stopped, with its log in `wal_dir` if that is
    /// named. Blocks; `seen` is told how many versions have been read.
    ///
    /// # Errors
    /// When `to` is not empty, or something of the source cannot be carried out.
    pub fn migrate(
        &self,
        to: &Path,
        wal_dir: Option<&Path>,
        seen: impl FnMut(u64),
    ) -> Result<Migrated, MigrateError> {
        let place = Place::begin(to, wal_dir)?;
        let directory = place.lock()?;
        let (versions, mut members, base) = self.import(&directory, seen)?;
        let state = open("state", &directory.state_path())?;
        let state_path = directory.state_path();
        let end = self.replay(state, &mut members, base)?;
        let mut state = open("state", &state_path)?;
        if !members.present.iter().any(|it| it.id == self.wal.member) {
            let member = self.wal.member;
            return Err(MigrateError::Removed { member });
        }
        let membership = raft::installed::membership(end.at, &members.present)?;
        apply::stamp(&mut state, end.at, membership)?;
        drop(state);
        let identity = Identity {
            member: self.wal.member,
            cluster: self.wal.cluster,
        };
        begin_log(&directory, identity, self.wal.term.max(end.at.term))?;
        drop(directory);
        place.finish()?;
        Ok(Migrated {
            member: identity.member,
            cluster: identity.cluster,
            revision: end.revision,
            versions,
            entries: self.wal.entries.len() as u64,
        })
    }

    /// The database as a state of ours, as of its last entry.
    fn import(
        &self,
        directory: &DataDir,
        seen: impl FnMut(u64),
    ) -> Result<(u64, Members, LogPosition), MigrateError> {
        let in_file = self.in_file();
        let contents = &self.contents;
        let terms = [self.wal.base_term.unwrap_or_default(), contents.term];
        let known = terms.into_iter().find(|term| *term > 0);
        let at = LogPosition {
            term: known.unwrap_or(self.wal.term),
            leader: 0,
            index: contents.consistent_index.saturating_sub(1),
        };
        let members = Members {
            present: contents.registers.members.clone(),
        };
        // A database that was never written has none: they are all in the log.
        let membership = match members.present.is_empty() {
            true => Bytes::new(),
            false => raft::installed::membership(at, &members.present)?,
        };
        let state = open("state", &directory.state_path())?;
        let mut import = Import::begin(state).map_err(|error| in_file(error.into()))?;
        let imported = self.file.import(&mut import, seen).map_err(&in_file)?;
        let registers = Registers {
            revision: Some(imported.revision.max(1)),
            ..contents.registers.clone()
        };
        let state = import.finish(&registers, at, membership);
        drop(state.map_err(|error| in_file(error.into()))?);
        Ok((imported.versions, members, at))
    }

    /// Applies the entries behind the database.
    fn replay(
        &self,
        state: Backend,
        members: &mut Members,
        base: LogPosition,
    ) -> Result<End, MigrateError> {
        let clock: Arc<dyn types::Clock> = Arc::new(SystemClock);
        let config = apply::Config {
            quota: apply::Quota::Unlimited,
            clock: Arc::clone(&clock),
            tokens: auth::Tokens::simple(clock),
            mvcc: mvcc::Config {
                event_log_bytes_max: EVENT_LOG_BYTES_MAX,
            },
            scrub: apply::ScrubSteps::UNLIMITED,
            workers: apply::Workers::Threads,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(MigrateError::Runtime)?;
        let (mut machine, views, persister) = apply::open(state, &config)?;
        let mut at = base;
        for entry in &self.wal.entries {
            at = LogPosition {
                term: entry.term,
                leader: 0,
                index: entry.index - 1,
            };
            apply_entry(&mut machine, members, at, entry)?;
            if entry.index % BATCH_ENTRIES == 0 {
                machine.finish_batch()?;
                while machine.is_behind() {
                    runtime.block_on(persister.room());
                    machine.finish_batch()?;
                }
            }
        }
        let membership = raft::installed::membership(at, &members.present)?;
        machine.set_membership(at, members.present.clone(), membership);
        machine.finish_batch()?;
        machine.stage_all()?;
        runtime.block_on(persister.durable())?;
        let revision = views.store.revision();
        Ok(End { at, revision })
    }

    fn in_file(&self) -> impl Fn(FileError) -> MigrateError {
        let path = self.path.clone();
        move |source| MigrateError::File {
            path: path.clone(),
            source,
        }
    }
}

/// How many members have a vote; if the database does not know, those that the log names.
fn voters(contents: &Contents, wal: &Wal) -> usize {
    let members = contents.registers.members.iter();
    let known = members.filter(|member| !member.is_learner).count();
    let entries = wal.entries.iter();
    let changes = entries.filter_map(|entry| match &entry.payload {
        Payload::Members(changes) => Some(changes),
        _ => None,
    });
    let is_vote = |change: &&ConfChange| change.kind == i32::from(ConfChangeKind::AddNode);
    let named = changes.flatten().filter(is_vote).count();
    match known {
        0 => named,
        known => known,
    }
}

/// Where the log ends.
struct End {
    at: LogPosition,
    revision: i64,
}

fn apply_entry(
    machine: &mut StateMachine,
    members: &mut Members,
    at: LogPosition,
    entry: &wal::Entry,
) -> Result<(), MigrateError> {
    let index = entry.index;
    let request = match &entry.payload {
        Payload::Nothing => None,
        Payload::Members(changes) => {
            for change in changes {
                let changed = members.apply(change);
                changed.ok_or(MigrateError::ConfChange { index })?;
            }
            let membership = raft::installed::membership(at, &members.present)?;
            machine.set_membership(at, members.present.clone(), membership);
            return Ok(());
        }
        Payload::Request(request) => server::logged_request((**request).clone())
            .map_err(|source| MigrateError::Entry { index, source })?,
    };
    match request {
        // That a command is refused is an answer, here as it was there.
        Some(request) => drop(machine.apply(at, &request)?),
        None => machine.skip(at),
    }
    Ok(())
}

/// The members, as the log changes them.
struct Members {
    present: Vec<Member>,
}

impl Members {
    /// `None` if it cannot be read.
    fn apply(&mut self, change: &ConfChange) -> Option<()> {
        let id = MemberId(change.node_id);
        let kind = ConfChangeKind::try_from(change.kind).ok()?;
        if kind == ConfChangeKind::RemoveNode {
            self.present.retain(|member| member.id != id);
            return Some(());
        }
        let told = schema::decode_member(&change.context).ok()?;
        let known = self.present.iter_mut().find(|member| member.id == id);
        match (kind, known) {
            (ConfChangeKind::UpdateNode, Some(known)) => known.peer_urls = told.peer_urls,
            (ConfChangeKind::AddNode, Some(known)) => known.is_learner = false,
            (_, Some(_)) | (ConfChangeKind::UpdateNode, None) => {}
            (kind, None) => self.present.push(Member {
                id,
                is_learner: kind == ConfChangeKind::AddLearnerNode,
                ..told
            }),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ConfChangeKind, node_id: u64, context: &str) -> ConfChange {
        ConfChange {
            kind: kind.into(),
            node_id,
            context: context.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn members_come_change_get_votes_and_go() {
        let mut members = Members {
            present: Vec::new(),
        };
        let json = |id: u64, url: &str| format!(r#"{{"id":{id},"peerURLs":["{url}"]}}"#);
        for change in [
            change(ConfChangeKind::AddNode, 1, &json(1, "http://a:1")),
            change(ConfChangeKind::AddLearnerNode, 2, &json(2, "http://b:1")),
            change(ConfChangeKind::AddLearnerNode, 3, &json(3, "http://c:1")),
            change(ConfChangeKind::UpdateNode, 1, &json(1, "http://a:2")),
            change(ConfChangeKind::AddNode, 2, &json(2, "http://b:1")),
            change(ConfChangeKind::RemoveNode, 3, ""),
        ] {
            members.apply(&change).unwrap();
        }
        let found = members.present.iter();
        let found: Vec<_> = found
            .map(|it| (it.id.0, it.is_learner, it.peer_urls[0].as_str()))
            .collect();
        assert_eq!(found, [(1, false, "http://a:2"), (2, false, "http://b:1")]);
        assert!(
            members
                .apply(&change(ConfChangeKind::AddNode, 4, "{"))
                .is_none()
        );
    }
}
